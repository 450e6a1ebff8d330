"""Consent of people: approvals of single calls, and accounts connected by OAuth."""
