"""Push notifications: configurations, the outbox, and delivery."""
