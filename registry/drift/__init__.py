"""Changes of cards and tools after approval: comparison, pins, renewal, suspicious texts."""
