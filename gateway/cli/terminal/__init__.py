"""What commands use of a terminal: a line of progress, and questions that the person answers."""
