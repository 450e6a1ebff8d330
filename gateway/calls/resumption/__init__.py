"""Tasks that go on without their caller: after approval, after consent, after the end of the process that ran them."""
