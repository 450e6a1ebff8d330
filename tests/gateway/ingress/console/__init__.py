"""The console, asked as browsers ask it."""
