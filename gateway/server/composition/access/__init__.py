"""Builds what decides who is let in and what they may do: token verification, rulings, and the sign-in of people."""
