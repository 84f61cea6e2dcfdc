"""Small data sets for trying out models."""

from oncue.datasets import digits, fashion_mnist, mnist

__all__ = ["digits", "fashion_mnist", "mnist"]
