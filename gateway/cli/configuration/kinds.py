"""The kinds of documents: the members that each may have, what a missing member means, and where the gateway serves them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.configuration.problems import BadMember

_COMMON: Final[Mapping[str, Any]] = {"ceiling": ["*"], "upstream": {}, "clearance": 3, "effects": {}}


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """One kind of documents. `members`: of a spec, with what a missing one means; None where it then stays as it is.

    `fixed` members can't be changed over /api. `one_of`: of these members, one is needed.
    """

    name: str
    path: str
    order: int  # in which they are applied: what they refer to comes first
    members: Mapping[str, Any]
    fixed: frozenset[str] = frozenset()
    one_of: tuple[str, ...] = ()
    is_described_by_upstream: bool = False
    approve: str = ""  # the command that approves one which waits
    files: frozenset[str] = field(default=frozenset())  # members that may be `file:PATH`

    def path_of(self, name: str) -> str:
        return f"{self.path}/{quote(name, safe='')}"

    def check_members(self, spec: Mapping[str, Any]) -> None:
        """Raises BadMember for a member that the kind has not, or for a spec without any of `one_of`."""
        for name in spec:
            if name not in self.members:
                raise BadMember(f"/spec/{_escape(name)}", f"is no member of the spec of {self.name}: {', '.join(sorted(self.members))}")
        given = [name for name in self.one_of if spec.get(name) not in (None, "")]
        if self.one_of and not given:
            raise BadMember("/spec", f"needs {' or '.join(self.one_of)}")

    def complete(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a spec with what its missing members mean, and without those that then stay as they are."""
        full = {**self.members, **spec}
        return {name: value for name, value in full.items() if value is not None or name in spec}


AGENT: Final = DocumentKind(
    "Agent",
    "/api/agents",
    0,
    {
        **_COMMON,
        "kind": "a2a",
        "url": "",
        "card": None,
        "jwks": None,
        "delegation": None,
        "trusted_keys": [],
        "rank": 0,
        "contracts": {},
        "context": "none",
        "endpoints": [],
        "price": "",
        "memory": "none",
    },
    fixed=frozenset({"kind", "card"}),
    one_of=("url", "card"),
    is_described_by_upstream=True,
    approve="interlock agent approve",
    files=frozenset({"card", "jwks", "contracts"}),
)
SERVER: Final = DocumentKind(
    "Server",
    "/api/servers",
    0,
    {**_COMMON, "url": "", "openapi": "", "sensitivity": 0, "sensitivities": {}, "model_free": [], "prices": {}},
    fixed=frozenset({"openapi"}),
    one_of=("url", "openapi"),
    is_described_by_upstream=True,
    approve="interlock server approve",
)
VIRTUAL_SERVER: Final = DocumentKind(
    "VirtualServer",
    "/api/virtual-servers",
    1,
    {"description": "", "tools": [], "prompts": [], "resources": [], "aliases": {}, "mode": "all", "overrides": {}},
)
WORKFLOW: Final = DocumentKind(
    "Workflow", "/api/workflows", 2, {"document": None, "file": None, "paused": None}, one_of=("document", "file")
)
KINDS: Final = {each.name: each for each in (AGENT, SERVER, VIRTUAL_SERVER, WORKFLOW)}


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
