"""/api/workflows, /api/runs and /api/checkpoints. The engine is imported with the first request that needs it."""
