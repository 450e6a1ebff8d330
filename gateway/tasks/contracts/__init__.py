"""JSON Schemas that agents promise for results and that prompts demand of answers."""
