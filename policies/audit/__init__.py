"""The audit log: hash chains, signed heads, proofs and retention."""
