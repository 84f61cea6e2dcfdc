"""Optimizers: Keras's names and defaults over torch's arithmetic."""

from typing import Any

from oncue.keras_names import beside, elsewhere
from oncue.legacy import call_as
from oncue.optimizers import schedules
from oncue.optimizers.adadelta import Adadelta
from oncue.optimizers.adagrad import Adagrad
from oncue.optimizers.adam import Adam
from oncue.optimizers.adamax import Adamax
from oncue.optimizers.adamw import AdamW
from oncue.optimizers.identifiers import deserialize, get, serialize
from oncue.optimizers.loss_scale_optimizer import LossScaleOptimizer
from oncue.optimizers.nadam import Nadam
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.rmsprop import RMSprop
from oncue.optimizers.sgd import SGD
from oncue.optimizers.torch_optimizer import TorchOptimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LossScaleOptimizer",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "TorchOptimizer",
    "deserialize",
    "get",
    "legacy",
    "schedules",
    "serialize",
]
__all__ += beside("oncue.optimizers", __all__)

for _name in ("adadelta", "adagrad", "adam", "adamax", "nadam", "rmsprop", "sgd"):
    call_as(f"oncue.optimizers.{_name}")


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.optimizers", name)


def __dir__() -> list[str]:
    return sorted([*globals(), "legacy"])
