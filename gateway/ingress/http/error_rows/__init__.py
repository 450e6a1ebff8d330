"""The rows of the table of errors (`errors.py` beside) that belong to shared state and to workflows."""
