"""Hostile clients: who is one, and what they do to labels, to updates and to frames."""
