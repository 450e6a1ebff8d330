"""The identity providers: logins there, and sessions whose roles they renew."""
