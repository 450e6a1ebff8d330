"""Pictures of the console, made by the server: waterfalls, the ways of a decision, bars, graphs."""
