"""The programs of compose.yaml beside the gateway: what registers the example agents with it."""
