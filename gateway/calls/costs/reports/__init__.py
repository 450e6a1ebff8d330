"""Reports of costs: sums by person, agent, tool, workflow and day, those of days that are over stored, and as a spreadsheet."""
