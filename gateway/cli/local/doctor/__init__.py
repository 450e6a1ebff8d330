"""`interlock doctor`: looks for what usually is wrong with a gateway and its surroundings, and packs what others need to help."""
