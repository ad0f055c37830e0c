"""One client's turn, the server's turn, aggregation, rounds and checkpoints."""
