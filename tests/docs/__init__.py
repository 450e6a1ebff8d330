"""`python -m tests.docs`: the documentation as a site in build/docs, which needs no other host and no server to be read."""
