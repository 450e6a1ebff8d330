"""Effects of calls on subjects: as declared, the facts that rulings on them depend on, what was done, and what was refused."""
