"""The built-in server for calculations: Python code of a model, run in an isolated worker process."""
