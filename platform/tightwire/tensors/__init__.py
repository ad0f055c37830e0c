"""Codecs on tensors of PyTorch, on whatever device they are: the same frames, and the same values from frames."""
