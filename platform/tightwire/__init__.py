"""Simulates federated learning over slow, uneven links, and bills every byte that is really sent."""
