"""Who may: identities, delegations, rulings and the trail of them."""
