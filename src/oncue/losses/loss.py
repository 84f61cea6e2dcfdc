"""Loss: the base of every loss object, and the loss made of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from oncue.backend import floatx
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.losses.fused import MeanLoss
from oncue.losses.reduction import MEANS, Divisor, check_reduction, reduce_apart, reduce_weighted
from oncue.losses.shapes import as_tensor, floats, match_ranks
from oncue.losses.structure import is_nested, several
from oncue.naming import auto_name, to_snake_case
from oncue.nested import map_leaves
from oncue.variable import torch_dtype

LossFunction = Callable[..., Tensor]


@builtin
class Loss:
    """A loss: `loss(y_true, y_pred, sample_weight=None)` gives a scalar.

    Subclasses override `call(y_true, y_pred)` and return one value for each sample; weights, masks and the reduction
    are applied around it.

    Args:
        name: The name; made from the class's name when None.
        reduction: "sum_over_batch_size" (the default) and "mean" divide the sum by the number of values,
            "mean_with_sample_weight" by the sum of the weights; "sum" only sums; "none" or None keep one value a
            sample.
        dtype: The float type to compute in; `oncue.backend.floatx()` when None.

    Example:
        >>> class Squared(Loss):
        ...     def call(self, y_true, y_pred):
        ...         return ((y_true - y_pred) ** 2).mean(-1)
        >>> Squared()([[0.0], [1.0]], [[2.0], [1.0]])
        tensor(2.)
    """

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: str | None = None
    ) -> None:
        self.name = auto_name(to_snake_case(type(self).__name__)) if name is None else name
        self.reduction = check_reduction(reduction)
        self._dtype = torch_dtype(getattr(dtype, "compute_dtype", dtype) or floatx())

    @property
    def dtype(self) -> str:
        """The name of the float type that the loss is computed in."""
        return str(self._dtype).removeprefix("torch.")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            y_true: The target, shape (batch, ...).
            y_pred: The prediction, shape (batch, ...). A `_keras_mask` on it leaves entries out.
            sample_weight: None, or weights that broadcast against the losses of the samples, such as shape (batch,).

        Returns:
            A scalar tensor, or one value for each sample when `reduction` is "none".

        Raises:
            TypeError: When a target or a prediction doesn't hold numbers.
        """
        values, mask = self._values(y_true, y_pred)
        return reduce_weighted(values, sample_weight, mask, self.reduction)

    def apart(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Tensor, Divisor]:
        """Return the loss of a batch apart from what it is to be divided by, where that depends on masks or weights.

        Args:
            y_true: As for `__call__`.
            y_pred: As for `__call__`.
            sample_weight: As for `__call__`.

        Returns:
            The sum and its divisor; or the loss and what it was divided by: the number of rows where a subclass has a
            `__call__` of its own.
        """
        if type(self).__call__ is not Loss.__call__:
            return self(y_true, y_pred, sample_weight), "rows"
        values, mask = self._values(y_true, y_pred)
        return reduce_apart(values, sample_weight, mask, self.reduction)

    def _values(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Any]:
        """Return the losses of the samples, and the mask of those that count."""
        mask = getattr(y_pred, "_keras_mask", None)
        if is_nested(y_pred) or is_nested(y_true):
            y_true, y_pred = self._cast_nested(y_true, y_pred)
        else:
            y_pred = floats(y_pred, "y_pred", self._dtype)
            y_true = floats(y_true, "y_true", self._dtype, y_pred.device)
        return self._masked(self.call(y_true, y_pred), mask)

    @property
    def takes(self) -> str:
        """What predictions must be: "logits", "probabilities", or "" for any numbers."""
        return ""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the losses of the samples; subclasses override this."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `call(self, y_true, y_pred)` that returns one loss for each sample."
        )

    def _cast_nested(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        # A nested list of plain numbers is one array; a list that holds arrays or tensors is several outputs.
        return (
            map_leaves(lambda leaf: floats(leaf, "y_true", self._dtype), _whole(y_true)),
            map_leaves(lambda leaf: floats(leaf, "y_pred", self._dtype), _whole(y_pred)),
        )

    def _masked(self, values: Any, mask: Any) -> tuple[Tensor, Any]:
        values = floats(values, "loss", self._dtype)
        own = getattr(values, "_keras_mask", None)
        if own is not None:
            mask = own if mask is None else mask & own
        return values, mask

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal loss."""
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """Make a loss from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _whole(value: Any) -> Any:
    return value if is_nested(value) and several(value) else as_tensor(value, "y_true")


@builtin
class LossFunctionWrapper(Loss):
    """The loss of a function `fn(y_true, y_pred, **kwargs)`.

    Args:
        fn: Returns one loss for each sample (or a scalar).
        reduction: As for `Loss`.
        name: The name; made from the class's name when None.
        dtype: As for `Loss`.
        **kwargs: Passed on to `fn`.

    Example:
        >>> loss = LossFunctionWrapper(lambda y_true, y_pred: (y_true - y_pred).abs().mean(-1), name="error")
        >>> loss([[1.0]], [[3.0]])
        tensor(2.)
    """

    # The options of a subclass that are shown by get_config under the same name as its attributes.
    _options: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        fn: LossFunction,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
        **kwargs: Any,
    ) -> None:
        from oncue.losses.lookup import FUNCTIONS, FUSED

        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn
        self._fn_kwargs = kwargs
        # Our own functions cast the target themselves, so that class labels stay integers until then.
        self.casts_target = any(fn is known for known in FUNCTIONS.values())
        """Whether the function is one of oncue's."""
        self._fused: MeanLoss | None = FUSED.get(fn) if self.casts_target else None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Return the loss of a batch; see `Loss.__call__`."""
        mask = getattr(y_pred, "_keras_mask", None)
        if not (isinstance(y_pred, Tensor) and isinstance(y_true, Tensor)):
            if not self.casts_target:
                return super().__call__(y_true, y_pred, sample_weight)
            y_pred = as_tensor(y_pred, "y_pred")
            y_true = as_tensor(y_true, "y_true", device=y_pred.device)
        if y_pred.dtype != self._dtype:
            y_pred = y_pred.to(self._dtype)
        if y_true.device != y_pred.device:
            y_true = y_true.to(y_pred.device)
        if not self.casts_target and y_true.dtype != self._dtype:
            y_true = y_true.to(self._dtype)
        if self._fused is not None and sample_weight is None and mask is None and self.reduction in MEANS:
            value = self._fused(y_true, y_pred, **self._fn_kwargs)
            if value is not None:
                return value
        values, mask = self._masked(self.call(y_true, y_pred), mask)
        return reduce_weighted(values, sample_weight, mask, self.reduction)

    @property
    def takes(self) -> str:
        """What predictions must be; see `Loss.takes`."""
        from oncue.losses.lookup import FUNCTIONS

        if not any(self.fn is known for name, known in FUNCTIONS.items() if name.endswith("crossentropy")):
            return ""
        return "logits" if self._fn_kwargs.get("from_logits") else "probabilities"

    def apart(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Tensor, Divisor]:
        """Return the loss apart from its divisor; see `Loss.apart`."""
        if type(self).__call__ is not LossFunctionWrapper.__call__:
            return self(y_true, y_pred, sample_weight), "rows"
        if not (isinstance(y_pred, Tensor) and isinstance(y_true, Tensor)) and not self.casts_target:
            values, mask = super()._values(y_true, y_pred)
        else:
            y_pred, mask = as_tensor(y_pred, "y_pred"), getattr(y_pred, "_keras_mask", None)
            y_pred = y_pred.to(self._dtype)
            y_true = as_tensor(y_true, "y_true", device=y_pred.device)
            y_true = y_true if self.casts_target else y_true.to(self._dtype)
            if self._fused is not None and sample_weight is None and mask is None and self.reduction in MEANS:
                value = self._fused(y_true, y_pred, **self._fn_kwargs)
                if value is not None:
                    return value, "rows"
            values, mask = self._masked(self.call(y_true, y_pred), mask)
        return reduce_apart(values, sample_weight, mask, self.reduction)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the losses of the samples."""
        if isinstance(y_true, Tensor) and isinstance(y_pred, Tensor) and y_true.ndim != y_pred.ndim:
            y_true, y_pred = match_ranks(y_true, y_pred)
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal loss."""
        config = super().get_config()
        if type(self) is LossFunctionWrapper:
            from oncue.losses.lookup import serialize

            return {**config, "fn": serialize(self.fn), **self._fn_kwargs}
        return {**config, **{option: plain(getattr(self, option)) for option in self._options}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """Make a loss from what `get_config` returned."""
        if isinstance(config.get("fn"), (dict, str)):
            from oncue.losses.lookup import deserialize

            config = {**config, "fn": deserialize(config["fn"])}
        return cls(**config)
