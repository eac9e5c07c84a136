"""One training: rows as tokens, the loop, its processes and checkpoints."""
