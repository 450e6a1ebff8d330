"""The principal: a person of one tenant, authenticated by one issuer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified user. `roles` are the current ones, not those of the token's date of issue."""

    tenant: str
    issuer: str
    subject: str
    roles: tuple[str, ...] = ()

    @property
    def owner_key(self) -> str:
        """The owner key of everything that this person owns: the same subject of another issuer is another person."""
        return f"{self.tenant}|{self.issuer}|{self.subject}"
