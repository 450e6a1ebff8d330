"""What calls cost: priced by the tokens that agents report, or by the price per call that an operator set."""
