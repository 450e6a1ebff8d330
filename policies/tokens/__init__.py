"""Tokens: those of identity providers and those of the gateway, their claims, proofs and replay protection."""
