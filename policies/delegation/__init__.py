"""Delegations: principals, permissions, chains of agents, rulings, grants and approvals."""
