"""Authority: identities, delegations, rulings, and their audit."""
