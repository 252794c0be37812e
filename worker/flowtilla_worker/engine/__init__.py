"""Drives one attempt of one run, from its claim to its end."""
