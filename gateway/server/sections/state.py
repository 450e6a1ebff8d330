"""Settings of the board: its quotas, and what holds for prefixes of keys."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.server.sections.switch import Switch

YEAR = 365 * 86_400  # seconds
PREFIX = r"^([A-Za-z0-9_][A-Za-z0-9._@-]*|\*)(/([A-Za-z0-9_][A-Za-z0-9._@-]*|\*)){0,15}$"


class _SectionSettings(BaseModel):
    """Settings that refuse unknown names and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_server(name: str) -> str:
    """Returns the name. Raises ValueError for the board itself."""
    if name == "state":
        raise ValueError("the server `state` is the board itself; name the server that holds the values")
    return name


class BackingSettings(_SectionSettings):
    """The tools of a registered server that hold the values of a prefix."""

    server: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$"), AfterValidator(_check_server)]
    read: str = ""  # the tool that reads a value
    write: str = ""  # the tool that sets a value
    arguments: dict[str, Annotated[int, Field(ge=0, le=15)]] = {}  # argument of both tools -> number of the key's segment, from 0
    value: str = "value"  # the argument of the write tool that takes the value
    result: str = ""  # the member of the read tool's result that is the value; empty: the whole result


class PrefixSettings(_SectionSettings):
    """What holds for the keys of one prefix."""

    prefix: Annotated[str, Field(pattern=PREFIX, max_length=512)]  # such as customer/*/status
    owner: str = ""  # the role whose people decide on values that are held back
    value_schema: dict[str, Any] | None = None  # JSON Schema 2020-12 of the values
    ttl: int | None = Field(None, ge=1, le=10 * YEAR)  # seconds that a value lives at most
    on_misfit: Literal["refuse", "hold", "ask"] = "refuse"  # what happens to a value that misses the schema
    ask_seconds: int = Field(7 * 86_400, ge=60, le=30 * 86_400)  # for which people may answer where they are asked
    sensitivity: int = Field(0, ge=0, le=3)  # of each value, at least
    backed_by: BackingSettings | None = None


def _check_prefixes(prefixes: list[PrefixSettings]) -> list[PrefixSettings]:
    """Returns the settings. Raises ValueError for a prefix that is there twice."""
    names = [each.prefix for each in prefixes]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"the prefix {twice} is there twice")
    return prefixes


class StateSettings(_SectionSettings):
    """The board of shared state. The quotas are those of each tenant."""

    server: Switch = "auto"  # the built-in MCP server `state`; auto: where a role or a prefix mentions the board
    keys_max: int = Field(100_000, ge=1, le=100_000_000)  # values
    bytes_max: int = Field(256 << 20, ge=1024, le=1 << 40)  # of all values
    changes_per_key: int = Field(100, ge=1, le=100_000)  # that the history keeps
    history_days: int = Field(90, ge=1, le=3650)  # after which history is deleted
    prefixes: Annotated[list[PrefixSettings], AfterValidator(_check_prefixes)] = []

    @property
    def backed_prefixes(self) -> dict[str, str]:
        """The server that holds the values of a prefix, by the prefix."""
        return {each.prefix: each.backed_by.server for each in self.prefixes if each.backed_by is not None}
