"""Ray actors that host the simulation; the only package of the project that imports ray."""
