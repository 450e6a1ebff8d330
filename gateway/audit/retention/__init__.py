"""What is deleted with time: ended tasks with all that belongs to them, and records that nothing needs; legal holds keep what they name."""
