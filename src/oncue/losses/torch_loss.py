"""TorchLoss: a loss of torch.nn, called in Keras's order of arguments."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from oncue.core.builtin import builtin
from oncue.losses.loss import Loss
from oncue.losses.reduction import Divisor, reduce_weighted
from oncue.losses.shapes import as_tensor, match_ranks

_CLASS_LABELS = (nn.CrossEntropyLoss, nn.NLLLoss)
_SAME_SHAPE = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
)
_MORE_INPUTS = (
    nn.CosineEmbeddingLoss,
    nn.MarginRankingLoss,
    nn.TripletMarginLoss,
    nn.TripletMarginWithDistanceLoss,
    nn.CTCLoss,
    nn.GaussianNLLLoss,
)


@builtin
class TorchLoss(Loss):
    """A torch loss module as a Keras loss: `module(y_pred, y_true)` is called, with targets in the type it wants.

    `CrossEntropyLoss` and `NLLLoss` get class labels as int64 without a last axis of 1; losses that compare element by
    element get targets of the prediction's type and rank; all other modules get the target as it is.

    Args:
        module: The loss, such as `torch.nn.CrossEntropyLoss()`. Any module called with (prediction, target) will do.
        name: The name; made from the module's class when None.

    Raises:
        TypeError: When `module` is no module, or one that needs more than a prediction and a target.

    Example:
        >>> loss = TorchLoss(nn.CrossEntropyLoss())
        >>> loss([[1], [0]], [[0.0, 0.0], [0.0, 0.0]])
        tensor(0.6931)
    """

    def __init__(self, module: nn.Module, name: str | None = None) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"`module` must be a loss of torch.nn, such as torch.nn.CrossEntropyLoss(); got {module!r} of type "
                f"{type(module).__name__}."
            )
        if isinstance(module, _MORE_INPUTS):
            raise TypeError(
                f"torch.nn.{type(module).__name__} needs more than a prediction and a target. Write a function "
                "`loss(y_true, y_pred)` that takes its inputs from `y_pred` and calls it."
            )
        reduction = getattr(module, "reduction", "mean")
        super().__init__(name=name, reduction="sum" if reduction == "sum" else "sum_over_batch_size")
        if name is None:
            from oncue.naming import to_snake_case

            self.name = to_snake_case(type(module).__name__)
        self.module = module
        tensors = [*module.parameters(), *module.buffers()]
        self._device = tensors[0].device if tensors else None
        self._each: Any = None
        if hasattr(module, "reduction"):
            # It shares the module's tensors.
            self._each = copy.copy(module)
            self._each.reduction = "none"
        # A module with a `forward` of its own may take a mean in any case.
        self._sum: Any = None
        if type(module) in _CLASS_LABELS:
            self._sum = copy.copy(module)
            self._sum.reduction = "sum"

    @property
    def takes(self) -> str:
        """What predictions must be; see `Loss.takes`."""
        return "logits" if isinstance(self.module, (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)) else ""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            y_true: Class labels or targets, shape (batch, ...).
            y_pred: Predictions, shape (batch, ...); torch's class losses want the classes on axis 1.
            sample_weight: None, or one weight for each sample.

        Returns:
            A scalar tensor.
        """
        y_pred = as_tensor(y_pred, "y_pred")
        y_true = self._target(as_tensor(y_true, "y_true", device=y_pred.device), y_pred)
        if self._device is not None and self._device != y_pred.device:
            self._move(y_pred.device)
        if sample_weight is None:
            value: Tensor = self.module(y_pred, y_true)
            return value if value.ndim == 0 else value.mean()
        return self._weighted(y_true, y_pred, sample_weight)

    def apart(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Tensor, Divisor]:
        """Return the loss apart from its divisor; see `Loss.apart`."""
        if self.reduction == "sum" or not isinstance(self.module, _CLASS_LABELS):
            return self(y_true, y_pred, sample_weight), "nothing" if self.reduction == "sum" else "rows"
        y_pred = as_tensor(y_pred, "y_pred")
        labels = self._target(as_tensor(y_true, "y_true", device=y_pred.device), y_pred)
        if labels.is_floating_point():
            return self(labels, y_pred, sample_weight), "rows"
        # A sum of 16 bits may be too large for them.
        if self._sum is not None and sample_weight is None and y_pred.dtype in (torch.float32, torch.float64):
            if self._device is not None and self._device != y_pred.device:
                self._move(y_pred.device)
            return self._sum(y_pred, labels), self._counted(labels, y_pred.dtype)
        value = self(labels, y_pred, sample_weight)
        counted = self._counted(labels, torch.promote_types(value.dtype, torch.float32))
        # Where no label counts, torch's mean is 0 / 0.
        return torch.where(counted == 0, 0.0, value) * counted, counted

    def _move(self, device: torch.device) -> None:
        # Class weights are buffers of the module.
        self.module.to(device)
        self._device = device

    def _target(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if isinstance(self.module, _CLASS_LABELS):
            if y_true.shape == y_pred.shape and y_true.is_floating_point():
                return y_true.to(y_pred.dtype)
            if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
                y_true = y_true.squeeze(-1)
            return y_true.long()
        if isinstance(self.module, _SAME_SHAPE):
            y_true = y_true.to(y_pred.dtype)
            if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
                return y_true.unsqueeze(-1)
            return match_ranks(y_true, y_pred)[0]
        if y_true.dtype == torch.float64 and y_pred.is_floating_point():
            return y_true.to(y_pred.dtype)
        return y_true

    def _weighted(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any) -> Tensor:
        if self._each is None:
            raise TypeError(
                f"`sample_weight` can't be used with {type(self.module).__name__}: it has no `reduction` that could be set "
                "to 'none' to get one loss for each sample."
            )
        values: Tensor = self._each(y_pred, y_true)
        weights = as_tensor(sample_weight, "sample_weight", device=values.device).to(values.dtype)
        while 0 < weights.ndim < values.ndim:
            weights = weights.unsqueeze(-1)
        if self.reduction == "sum":
            return (values * weights).sum()
        if isinstance(self.module, _CLASS_LABELS) and not y_true.is_floating_point():
            return (values * weights).sum() / self._counted(y_true, values.dtype)
        if getattr(self.module, "reduction", None) == "batchmean":
            return (values * weights).sum() / values.shape[0]
        return reduce_weighted(values * weights, None, None, self.reduction)

    def _counted(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        # torch's mean divides by the class weights of the labels that count; weights of 1 must give that mean.
        weight, ignored = self.module.weight, self.module.ignore_index
        counts = labels.ne(ignored) if isinstance(ignored, int) else torch.ones_like(labels)
        if not isinstance(weight, Tensor):
            return counts.sum(dtype=dtype)
        return (weight[labels.clamp(min=0)] * counts).sum(dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the name; a torch module itself has no config."""
        return {"name": self.name}

    def __repr__(self) -> str:
        return f"TorchLoss({self.module!r})"
