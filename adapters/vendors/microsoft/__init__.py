"""Microsoft's agents: Microsoft 365 and Copilot Studio (Activity protocol), Direct Line, Foundry."""
