"""An agent of this framework with the tools of the gateway."""
