"""The gateway: its servers, the calls that it makes for callers, and what it stores."""
