"""Events of the gateway's own, and the ways of all events to triggers and webhooks, written in the commit of what they tell."""
