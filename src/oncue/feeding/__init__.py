"""Whatever may be fed to `fit`, `evaluate` and `predict`, as batches with a position and a state."""
