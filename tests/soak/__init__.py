"""Long runs: a gateway at half capacity with hundreds of held streams, and processes that are replaced one after the other under load."""
