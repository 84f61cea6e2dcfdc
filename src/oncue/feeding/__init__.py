"""The data that `fit`, `evaluate` and `predict` take, as batches with a position and a state.

To add a data source, subclass `Batches` of `batch.py` in a file here, and give it a row in the table of `batches.py`.
"""
