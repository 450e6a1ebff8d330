"""The tools, prompts and resources that one caller can see, under the names that the caller uses."""
