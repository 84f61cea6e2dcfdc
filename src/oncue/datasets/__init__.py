"""Small data sets to try a model on."""

from oncue.datasets import digits, fashion_mnist, mnist

__all__ = ["digits", "fashion_mnist", "mnist"]
