"""Datasets, partitions, models and local training."""
