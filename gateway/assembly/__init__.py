"""The parts of one process of the gateway, made here and nowhere else: what all share, then each door's."""
