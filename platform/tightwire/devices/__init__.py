"""Hardware profiles, links, energy, and the simulated clock."""
