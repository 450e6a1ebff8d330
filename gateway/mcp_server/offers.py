"""Which servers a caller may know of, and what of them they may use: one answer for lists, calls, reads and completion alike."""

from collections.abc import Iterator

from policies.authority import Authority, Caller
from policies.grant import Act, calling, getting, invoking, reading
from policies.permissions import ceiling_of
from registry.card import Family, Registration, Status
from registry.store import Registry, UnknownName


class Offers:
    """Of servers that are active. What is not active is not there."""

    def __init__(self, registry: Registry, authority: Authority) -> None:
        self._registry = registry
        self._authority = authority

    def entry(self, caller: Caller, name: str) -> Registration:
        """An agent or a server. Raises UnknownName."""
        found = self._registry.find(caller.principal.tenant, name)
        if found.status is not Status.ACTIVE:
            raise UnknownName(name)
        return found

    def server(self, caller: Caller, name: str) -> Registration:
        """Raises UnknownName."""
        found = self.entry(caller, name)
        if found.family is not Family.SERVER:
            raise UnknownName(name)
        return found

    def known(self, caller: Caller, name: str) -> Registration:
        """A server that the caller may know of. Raises UnknownName."""
        found = self.server(caller, name)
        if not any(self._authority.sees(caller, act) for act in (calling(name, "*"), getting(name, "*"), reading(name))):
            raise UnknownName(name)
        return found

    def everything(self, caller: Caller) -> Iterator[Registration]:
        """Agents and servers that are active, in the order of their names."""
        entries = self._registry.list(caller.principal.tenant)
        return (entry for entry in entries if entry.status is Status.ACTIVE)

    def servers(self, caller: Caller) -> Iterator[Registration]:
        return (entry for entry in self.everything(caller) if entry.family is Family.SERVER)

    def may(self, caller: Caller, server: Registration, act: Act) -> bool:
        """Whether the act could be allowed with some arguments, within the server's ceiling. Leaves no trace."""
        return ceiling_of(server.ceiling).covers(act.permission) and self._authority.may(caller, act)

    def may_invoke(self, caller: Caller, agent: str, skill: str = "") -> bool:
        return self._authority.may(caller, invoking(agent, skill))

    def sees(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know of the resource at all."""
        return self._authority.sees(caller, act)
