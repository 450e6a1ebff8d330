"""The built-in server for calculations: runs a model's Python code in an isolated worker process."""
