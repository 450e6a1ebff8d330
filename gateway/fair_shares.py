"""Fair shares of what all tenants use together: no person and no tenant can hold so much that nothing is left for the next one."""

from typing import Final

PERSON_MULTIPLE: Final = 1  # a person may hold as many as are free
TENANT_MULTIPLE: Final = 3  # a tenant may hold three times as many as are free


class ShareCount:
    """How many one person, or one tenant, holds."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Capacity:
    """A number of equal things, such as connections, that people of all tenants take and give back.

    A tenant may hold at most three times as many as are free, a person at most as many as are free, or as their tenant may still take.
    A single person who takes all that they can gets half of it, a single tenant three quarters, and each further one less. Whoever
    holds none finds one free, unless there are about as many holders as things.
    """

    def __init__(self, size: int, person_multiple: int = PERSON_MULTIPLE, tenant_multiple: int = TENANT_MULTIPLE) -> None:
        """`person` and `tenant` are the multiples of what is free that one of them may hold."""
        self.size = size
        self.whole = ShareCount()
        self.person_multiple = person_multiple
        self.tenant_multiple = tenant_multiple
        self._portions: dict[str, Portion] = {}
        self._tenants: dict[str, ShareCount] = {}

    def portion_of(self, owner: str) -> "Portion":
        """What one person holds of it. `owner` is tenant|issuer|subject."""
        found = self._portions.get(owner)
        if found is None:
            tenant = self._tenants.setdefault(owner.partition("|")[0], ShareCount())
            found = self._portions[owner] = Portion(self, tenant)
        return found

    def sweep(self) -> None:
        """Forgets people and tenants who hold nothing. Only for when nobody keeps a Portion of theirs."""
        self._portions = {owner: portion for owner, portion in self._portions.items() if portion.person.count}
        self._tenants = {tenant: held for tenant, held in self._tenants.items() if held.count}


class Portion:
    """What one person holds of a Capacity, and what their tenant does."""

    __slots__ = ("_capacity", "person", "tenant", "whole")

    def __init__(self, capacity: Capacity, tenant: ShareCount) -> None:
        self._capacity = capacity
        self.whole = capacity.whole
        self.person = ShareCount()
        self.tenant = tenant

    def exhausted_share(self, share_multiple: int = 1) -> ShareCount | None:
        """The share that one more would go beyond, or the whole capacity; None where one more is within both.

        `times`: how many times the usual share may be used.
        """
        capacity = self._capacity
        free = (capacity.size - self.whole.count) * share_multiple
        if free <= 0:
            return self.whole
        left = free * capacity.tenant_multiple - self.tenant.count
        if left <= 0:
            return self.tenant
        return self.person if self.person.count >= min(free, left) * capacity.person_multiple else None

    def take(self) -> None:
        self.whole.count += 1
        self.person.count += 1
        self.tenant.count += 1

    def free(self) -> None:
        self.whole.count -= 1
        self.person.count -= 1
        self.tenant.count -= 1
