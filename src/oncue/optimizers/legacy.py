"""Keras 2's `optimizers.legacy`: the same classes under their old address."""

from oncue.optimizers.adadelta import Adadelta
from oncue.optimizers.adagrad import Adagrad
from oncue.optimizers.adam import Adam
from oncue.optimizers.adamax import Adamax
from oncue.optimizers.nadam import Nadam
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.rmsprop import RMSprop
from oncue.optimizers.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "Adamax", "Nadam", "Optimizer", "RMSprop"]
