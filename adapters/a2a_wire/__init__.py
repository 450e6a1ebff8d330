"""The A2A JSON wire, spoken strictly and read tolerantly, by our doors and our adapter alike."""
