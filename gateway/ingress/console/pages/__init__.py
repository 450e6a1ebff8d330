"""One module for each subject of the console: what its pages read, and what their forms do."""
