"""Bit packing, entropy coders, the frame and the byte ledger."""
