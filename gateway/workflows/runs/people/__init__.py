"""Questions of runs to people: the checkpoints, their relaxations, and the sign-in that a run waits for."""
