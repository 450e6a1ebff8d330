"""Service principals: whom runs act for that no person starts. An operator names each in the settings, with its roles and ceiling."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from policies.delegation.permissions import NO_PERMISSIONS, Permissions
from policies.delegation.rulings import Act

SERVICE_ISSUER: Final = "urn:interlock:service"  # issues no tokens: only the gateway itself makes callers of it


class ServicePrincipal(Struct, frozen=True):
    """One service of a tenant. Its runs may do what its roles allow and its ceiling covers."""

    tenant: str
    roles: tuple[str, ...]
    ceiling: Permissions


class ServicePrincipals:
    """The services of the settings, by name."""

    def __init__(self, known: Mapping[str, ServicePrincipal]) -> None:
        self._known = known

    def has(self, tenant: str, name: str) -> bool:
        """Whether the tenant has a service of this name."""
        return name in self._known and self._known[name].tenant == tenant

    def ceiling_of(self, name: str) -> Permissions:
        """The ceiling of a service; nothing where it was removed."""
        found = self._known.get(name)
        return NO_PERMISSIONS if found is None else found.ceiling


def act_of_running_as(name: str) -> Act:
    """The act of having a workflow run as a service."""
    resource = f"run-as/{name}"
    return Act("runWorkflow", "Workflow", resource, f"workflow:{resource}", resource)
