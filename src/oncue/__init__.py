"""oncue: the callback and training system of Keras, on PyTorch. `import oncue as keras` runs Keras code.

Names are looked up when first used, so that importing oncue, or only its callbacks, doesn't import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oncue import keras_names
from oncue.core import version
from oncue.core.quick_imports import quick_imports
from oncue.legacy import aliases

if TYPE_CHECKING:
    from oncue import (
        activations as activations,
        applications as applications,
        backend as backend,
        callbacks as callbacks,
        config as config,
        constraints as constraints,
        datasets as datasets,
        distillation as distillation,
        distribution as distribution,
        dtype_policies as dtype_policies,
        export as export,
        hosts as hosts,
        initializers as initializers,
        layers as layers,
        losses as losses,
        metrics as metrics,
        mixed_precision as mixed_precision,
        models as models,
        ops as ops,
        optimizers as optimizers,
        quantizers as quantizers,
        random as random,
        regularizers as regularizers,
        saving as saving,
        tree as tree,
        utils as utils,
        visualization as visualization,
        with_keras as with_keras,
        wrappers as wrappers,
    )
    from oncue.callbacks import Preempted as Preempted
    from oncue.dtype_policies import DTypePolicy as DTypePolicy
    from oncue.initializers import Initializer as Initializer
    from oncue.layers import Input as Input, Layer as Layer
    from oncue.layers.keras_tensor import KerasTensor as KerasTensor
    from oncue.losses import Loss as Loss
    from oncue.metrics import Metric as Metric
    from oncue.models import Model as Model, Sequential as Sequential
    from oncue.models.fit import fit as fit
    from oncue.optimizers import Optimizer as Optimizer
    from oncue.plots import plot_csv as plot_csv
    from oncue.regularizers import Regularizer as Regularizer
    from oncue.variable import Variable as Variable

__version__ = f"{version.KERAS}+oncue.{version.__version__}"
"""Keras's version first, because scripts compare it; then oncue's own, which `oncue --version` tells alone."""

_MODULES = (
    "activations",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "datasets",
    "distribution",
    "dtype_policies",
    "hosts",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "optimizers",
    "preprocessing",
    "random",
    "regularizers",
    "saving",
    "utils",
    "with_keras",
)
_NAMES = {
    "DTypePolicy": "dtype_policies",
    "Initializer": "initializers",
    "Input": "layers",
    "InputSpec": "layers",
    "KerasTensor": "layers.keras_tensor",
    "Layer": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Model": "models",
    "Optimizer": "optimizers",
    "Preempted": "callbacks",
    "Regularizer": "regularizers",
    "Sequential": "models",
    "fit": "models.fit",
    "plot_csv": "plots",
    "Variable": "variable",
}

__all__ = ["__version__", *_MODULES, *_NAMES]

# Older names come first.
keras_names.install()
aliases.install()


def __getattr__(name: str) -> Any:
    # `tf = oncue` makes `tf.keras` what its author meant.
    if name in _MODULES or name == "keras":
        with quick_imports():
            return importlib.import_module(f"oncue.{name}")
    if name in _NAMES:
        with quick_imports():
            value = getattr(importlib.import_module(f"oncue.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    return keras_names.elsewhere("oncue", name)


def __dir__() -> list[str]:
    return sorted({*__all__, *keras_names.names_of_keras("oncue")})
