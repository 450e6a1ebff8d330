"""Sign-in for people: clients, consent, login at their identity providers, sessions, and their tokens."""
