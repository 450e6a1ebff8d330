"""Files on disk: the data folder, the SQLite file and its lock, and proof that no audit records were lost."""
