"""Who is asking: a person of one tenant, vouched for by one issuer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified user. `roles` are those in force now, not those of the day the token was minted."""

    tenant: str
    issuer: str
    subject: str
    roles: tuple[str, ...] = ()

    @property
    def owner_key(self) -> str:
        """The key of everything this person owns: the same subject of another issuer is somebody else."""
        return f"{self.tenant}|{self.issuer}|{self.subject}"
