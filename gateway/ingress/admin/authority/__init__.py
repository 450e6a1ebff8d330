"""Routes about decisions, grants, policies, kill switches and the audit, and the AuthZEN endpoint."""
