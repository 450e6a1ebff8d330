"""Fair shares of a capacity that all tenants use: no user and no tenant can take all of it."""

from typing import Final

PERSON_MULTIPLE: Final = 1  # a user may hold as many units as are free
TENANT_MULTIPLE: Final = 3  # a tenant may hold three times as many units as are free


class ShareCount:
    """Counts the units that one user, one tenant or all of them hold."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Capacity:
    """A number of equal units, such as connections, that users of all tenants take and give back.

    A tenant may hold at most three times as many units as are free. A user may hold at most as many as are free, or as the tenant may
    still take. A single user can hold half of the capacity, a single tenant three quarters, and each further one less. A new user finds
    a free unit unless there are about as many holders as units.
    """

    def __init__(self, size: int, person_multiple: int = PERSON_MULTIPLE, tenant_multiple: int = TENANT_MULTIPLE) -> None:
        """`person_multiple` and `tenant_multiple` say how many times the free units a user or a tenant may hold."""
        self.size = size
        self.whole = ShareCount()
        self.person_multiple = person_multiple
        self.tenant_multiple = tenant_multiple
        self._portions: dict[str, Portion] = {}
        self._tenants: dict[str, ShareCount] = {}

    def portion_of(self, owner: str) -> "Portion":
        """Returns what one user holds. `owner` is tenant|issuer|subject."""
        found = self._portions.get(owner)
        if found is None:
            tenant = self._tenants.setdefault(owner.partition("|")[0], ShareCount())
            found = self._portions[owner] = Portion(self, tenant)
        return found

    def sweep(self) -> None:
        """Deletes the counts of users and tenants that hold nothing. Call it only while no other object refers to their Portions."""
        self._portions = {owner: portion for owner, portion in self._portions.items() if portion.person.count}
        self._tenants = {tenant: held for tenant, held in self._tenants.items() if held.count}


class Portion:
    """Counts what one user holds of a Capacity, and what the user's tenant holds."""

    __slots__ = ("_capacity", "person", "tenant", "whole")

    def __init__(self, capacity: Capacity, tenant: ShareCount) -> None:
        self._capacity = capacity
        self.whole = capacity.whole
        self.person = ShareCount()
        self.tenant = tenant

    def exhausted_share(self, share_multiple: int = 1) -> ShareCount | None:
        """Returns the share that one more unit would exceed, or the whole capacity if it is full, or None if the unit may be taken.

        `share_multiple` is how many times the usual share may be used.
        """
        capacity = self._capacity
        free = (capacity.size - self.whole.count) * share_multiple
        if free <= 0:
            return self.whole
        left = free * capacity.tenant_multiple - self.tenant.count
        if left <= 0:
            return self.tenant
        return self.person if self.person.count >= (free if free < left else left) * capacity.person_multiple else None

    def take(self) -> None:
        """Takes one unit."""
        self.whole.count += 1
        self.person.count += 1
        self.tenant.count += 1

    def free(self) -> None:
        """Gives one unit back."""
        self.whole.count -= 1
        self.person.count -= 1
        self.tenant.count -= 1
