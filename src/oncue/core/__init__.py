"""What all other parts share: hooks, logs, the model contract. Imports nothing else of oncue, and never torch."""
