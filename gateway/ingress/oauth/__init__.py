"""The OAuth server: metadata, published keys, token exchange and revocation. It has no login of its own."""
