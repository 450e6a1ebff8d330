"""The door for OAuth: who we are, which keys are ours, and the exchange of one token for a narrower one. Nobody logs in here."""
