"""Whose something is, is told by tenant, issuer and subject together."""

from policies.delegation.principal import Principal


# attack TEN-03
def test_one_name_in_two_tenants_or_of_two_issuers_has_three_owners() -> None:
    people = (
        Principal("acme", "https://idp", "alice"),
        Principal("evil", "https://idp", "alice"),
        Principal("acme", "https://other", "alice"),
    )
    assert len({person.owner_key for person in people}) == 3
    assert Principal("acme", "https://idp", "alice", ("admin",)).owner_key == people[0].owner_key  # whatever the roles of today are
