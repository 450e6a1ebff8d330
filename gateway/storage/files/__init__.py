"""Files on disk: the data folder, the SQLite file and its lock, proof that no audit records were lost, and what prevents a start."""
