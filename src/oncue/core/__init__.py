"""The words everybody speaks: hooks, logs, the model contract. Imports nothing else of oncue, and never torch."""
