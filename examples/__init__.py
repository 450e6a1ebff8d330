"""Three small programs of different dialects that meet through the gateway, and the demo that plays their story."""
