"""Registration of agents and servers: their cards and tools are fetched, checked and stored."""
