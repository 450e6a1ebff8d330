"""Commands about what agents share: the board, claims, subjects and memory; and about what is deleted of it all with time."""
