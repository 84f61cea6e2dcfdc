"""The functions of the `backend` of Keras 1 and 2, by torch: on tensors, arrays, and the symbolic tensors of a model.

Their names are those that Keras gave them, some of which are Python's own; inside this module those are `builtins`.
"""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oncue.legacy.backend_names import BACKEND
from oncue.legacy.lookup import STEPS

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""From a name to the function that symbolic tensors take as a step of their model."""


def symbolic(*values: Any) -> tuple[Any, ...]:
    """Return what is among values, in lists too, that is no tensor but takes part in functions of torch."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += symbolic(*value)
        elif not isinstance(value, Tensor) and hasattr(type(value), "__torch_function__"):
            found.append(value)
    return tuple(found)


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of tensors take symbolic ones, by torch's own protocol for what is like a tensor."""
    name = function.__name__

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        stands = symbolic(*args, *kwargs.values())
        if stands:
            return type(stands[0]).__torch_function__(called, (type(stands[0]),), args, kwargs)
        return function(*args, **kwargs)

    FUNCTIONS[name] = called
    STEPS.add(called)
    return called


def _floatx() -> torch.dtype:
    from oncue import backend

    return backend.torch_dtype(None)


def tensor(x: Any, dtype: Any = None) -> Tensor:
    """Return a value as a tensor; Python's numbers have the default float type."""
    from oncue import backend

    kind = None if dtype is None else backend.torch_dtype(dtype)
    value = x if isinstance(x, Tensor) else getattr(x, "value", x)
    if isinstance(value, Tensor):
        return value if kind is None else value.to(kind)
    if kind is None and not isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        kind = _floatx() if array.dtype.kind == "f" else None
    return torch.as_tensor(value if isinstance(value, (np.ndarray, np.generic)) else np.asarray(value), dtype=kind)


def _together(*values: Any) -> list[Tensor]:
    """Return values as tensors on one device: arrays come to where a tensor is."""
    tensors = [tensor(value) for value in values]
    place = next((one.device for one in tensors if one.device.type != "cpu"), None)
    return tensors if place is None else [one.to(place) for one in tensors]


def _place() -> torch.device:
    """Return where new tensors are made: where models are trained."""
    from oncue import backend

    return backend.device()


def _measured(x: Any) -> Tensor:
    """Return a tensor of floats: the mean of a comparison is the share of what is true."""
    found = tensor(x)
    return found if found.is_floating_point() or found.is_complex() else found.to(_floatx())


def _axes(x: Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(int(one) for one in axis) if isinstance(axis, (list, tuple)) else (int(axis),)


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    """Return two operands as torch takes them: numbers stay numbers, arrays become tensors of the other's device."""
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        return tensor(x), tensor(y)
    one = x if isinstance(x, (int, float)) else tensor(x)
    other = y if isinstance(y, (int, float)) else tensor(y)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        one, other = _together(one, other)
    return one, other


# One value for each element ------------------------------------------------------------------------------------------


@_step
def abs(x: Any) -> Tensor:
    """Return the absolute values."""
    return tensor(x).abs()


@_step
def clip(x: Any, min_value: Any, max_value: Any) -> Tensor:
    """Return the values, those outside of two limits at the limits."""
    limits = [None if limit is None else tensor(limit).to(tensor(x).device) for limit in (min_value, max_value)]
    return torch.clamp(tensor(x), *[limit if limit is None else limit.to(tensor(x).dtype) for limit in limits])


@_step
def cos(x: Any) -> Tensor:
    """Return the cosines."""
    return torch.cos(_measured(x))


@_step
def sin(x: Any) -> Tensor:
    """Return the sines."""
    return torch.sin(_measured(x))


@_step
def exp(x: Any) -> Tensor:
    """Return e to the power of the values."""
    return torch.exp(_measured(x))


@_step
def log(x: Any) -> Tensor:
    """Return the natural logarithms."""
    return torch.log(_measured(x))


@_step
def sqrt(x: Any) -> Tensor:
    """Return the square roots; 0 of negative values, as in Keras."""
    return torch.sqrt(torch.clamp(_measured(x), min=0.0))


@_step
def square(x: Any) -> Tensor:
    """Return the squares."""
    return torch.square(tensor(x))


@_step
def pow(x: Any, a: Any) -> Tensor:
    """Return the values to the power of `a`."""
    return torch.pow(*_pair(x, a))


@_step
def round(x: Any) -> Tensor:
    """Return the nearest whole numbers, halves to the even one."""
    return torch.round(tensor(x))


@_step
def sign(x: Any) -> Tensor:
    """Return 1, 0 or -1."""
    return torch.sign(tensor(x))


@_step
def tanh(x: Any) -> Tensor:
    """Return the hyperbolic tangents."""
    return torch.tanh(_measured(x))


@_step
def sigmoid(x: Any) -> Tensor:
    """Return the logistic function of the values."""
    return torch.sigmoid(_measured(x))


@_step
def hard_sigmoid(x: Any) -> Tensor:
    """Return `clip(0.2 * x + 0.5, 0, 1)`, what Keras 1 and 2 called so."""
    return torch.clamp(0.2 * _measured(x) + 0.5, 0.0, 1.0)


@_step
def relu(x: Any, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Tensor:
    """Return the values above a threshold, others times `alpha`."""
    given = _measured(x)
    found = torch.where(given >= threshold, given, alpha * (given - threshold))
    return found if max_value is None else torch.clamp(found, max=max_value)


@_step
def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """Return the exponential linear unit of the values."""
    return F.elu(_measured(x), alpha)


@_step
def softplus(x: Any) -> Tensor:
    """Return `log(1 + exp(x))`."""
    return F.softplus(_measured(x))


@_step
def softsign(x: Any) -> Tensor:
    """Return `x / (1 + abs(x))`."""
    return F.softsign(_measured(x))


@_step
def softmax(x: Any, axis: int = -1) -> Tensor:
    """Return values of which those along an axis sum to 1."""
    return torch.softmax(_measured(x), axis)


@_step
def cast(x: Any, dtype: Any) -> Tensor:
    """Return the values in another type."""
    return tensor(x, dtype)


@_step
def stop_gradient(variables: Any) -> Any:
    """Return values that no gradient goes through."""
    if isinstance(variables, (list, tuple)):
        return [tensor(one).detach() for one in variables]
    return tensor(variables).detach()


@_step
def identity(x: Any, name: str | None = None) -> Tensor:
    """Return the values."""
    return tensor(x)


# Between two ---------------------------------------------------------------------------------------------------------


@_step
def add(x: Any, y: Any) -> Tensor:
    """Return sums."""
    return torch.add(*_pair(x, y))


@_step
def subtract(x: Any, y: Any) -> Tensor:
    """Return differences."""
    return torch.sub(*_pair(x, y))


@_step
def multiply(x: Any, y: Any) -> Tensor:
    """Return products."""
    return torch.mul(*_pair(x, y))


@_step
def divide(x: Any, y: Any) -> Tensor:
    """Return quotients."""
    return torch.div(*_pair(x, y))


@_step
def equal(x: Any, y: Any) -> Tensor:
    """Return where two are equal."""
    one, other = _pair(x, y)
    return torch.as_tensor(one == other)


@_step
def not_equal(x: Any, y: Any) -> Tensor:
    """Return where two are not equal."""
    one, other = _pair(x, y)
    return torch.as_tensor(one != other)


@_step
def greater(x: Any, y: Any) -> Tensor:
    """Return where the first is greater."""
    one, other = _pair(x, y)
    return torch.as_tensor(one > other)


@_step
def greater_equal(x: Any, y: Any) -> Tensor:
    """Return where the first is not less."""
    one, other = _pair(x, y)
    return torch.as_tensor(one >= other)


@_step
def less(x: Any, y: Any) -> Tensor:
    """Return where the first is less."""
    one, other = _pair(x, y)
    return torch.as_tensor(one < other)


@_step
def less_equal(x: Any, y: Any) -> Tensor:
    """Return where the first is not greater."""
    one, other = _pair(x, y)
    return torch.as_tensor(one <= other)


@_step
def maximum(x: Any, y: Any) -> Tensor:
    """Return the greater of two, element by element."""
    one, other = _pair(x, y)
    return torch.maximum(*_both(one, other))


@_step
def minimum(x: Any, y: Any) -> Tensor:
    """Return the smaller of two, element by element."""
    one, other = _pair(x, y)
    return torch.minimum(*_both(one, other))


def _both(one: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Return two tensors, a number as a tensor of the other's type."""
    if not isinstance(one, Tensor):
        one = torch.as_tensor(one, dtype=other.dtype, device=other.device)
    if not isinstance(other, Tensor):
        other = torch.as_tensor(other, dtype=one.dtype, device=one.device)
    return one, other


@_step
def switch(condition: Any, then_expression: Any, else_expression: Any) -> Tensor:
    """Return the elements of one where a condition holds, else of the other."""
    then, other = (part() if callable(part) else part for part in (then_expression, else_expression))
    where = tensor(condition).to(torch.bool)
    then, other = _both(*_pair(then, other))
    while where.ndim < builtins.max(then.ndim, other.ndim) and where.ndim:
        where = where.unsqueeze(-1)
    return torch.where(where, then, other)


@_step
def where(condition: Any, x: Any = None, y: Any = None) -> Tensor:
    """Return the elements of one where a condition holds, else of the other; without them, where it holds."""
    holds = tensor(condition).to(torch.bool)
    return torch.argwhere(holds) if x is None else torch.where(holds, *_both(*_pair(x, y)))


@_step
def dot(x: Any, y: Any) -> Tensor:
    """Return the product of matrices: over the last axis of one and the last but one of the other."""
    one, other = _together(x, y)
    if one.ndim <= 2 and other.ndim <= 2:
        return torch.matmul(one, other)
    product: Tensor = torch.tensordot(one, other, dims=([-1], [builtins.max(other.ndim - 2, 0)]))
    return product


@_step
def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Return the product of matrices, one for each of further axes."""
    one, other = _together(a, b)
    return (one.mT if transpose_a else one) @ (other.mT if transpose_b else other)


@_step
def batch_dot(x: Any, y: Any, axes: Any = None) -> Tensor:
    """Return a product of matrices for each sample."""
    one, other = _together(x, y)
    if axes is None:
        axes = (one.ndim - 1, builtins.max(other.ndim - 2, 1))
    first, second = (axes, axes) if isinstance(axes, int) else axes
    first, second = first % one.ndim, second % other.ndim
    names = iter("bcdefghijklm")
    left = ["a", *(("z" if axis == first else next(names)) for axis in range(1, one.ndim))]
    right = ["a", *(("z" if axis == second else next(names)) for axis in range(1, other.ndim))]
    kept = [name for name in (*left, *right[1:]) if name != "z"]
    found = torch.einsum(f"{''.join(left)},{''.join(right)}->{''.join(kept)}", one, other)
    return found.unsqueeze(-1) if found.ndim == 1 else found


@_step
def bias_add(x: Any, bias: Any, data_format: str | None = None) -> Tensor:
    """Return the values with a bias added to each channel."""
    given, added = _together(x, bias)
    if data_format == "channels_first" and added.ndim == 1:
        added = added.reshape(-1, *(1,) * (given.ndim - 2))
    return given + added


# Over axes -----------------------------------------------------------------------------------------------------------


@_step
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return means."""
    given = _measured(x)
    return torch.mean(given, _axes(given, axis), keepdim=keepdims)


@_step
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return sums."""
    given = tensor(x)
    return torch.sum(given, _axes(given, axis), keepdim=keepdims)


@_step
def prod(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return products."""
    given = tensor(x)
    for one in sorted((one % given.ndim for one in _axes(given, axis)), reverse=True):
        given = torch.prod(given, one, keepdim=keepdims)
    return given


@_step
def max(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return the greatest values."""
    given = tensor(x)
    return torch.amax(given, _axes(given, axis), keepdim=keepdims)


@_step
def min(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return the smallest values."""
    given = tensor(x)
    return torch.amin(given, _axes(given, axis), keepdim=keepdims)


@_step
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return variances, of the values themselves."""
    given = _measured(x)
    return torch.var(given, _axes(given, axis), correction=0, keepdim=keepdims)


@_step
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return standard deviations, of the values themselves."""
    given = _measured(x)
    return torch.std(given, _axes(given, axis), correction=0, keepdim=keepdims)


@_step
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Return the logarithms of the sums of the exponentials."""
    given = _measured(x)
    return torch.logsumexp(given, _axes(given, axis), keepdim=keepdims)


@_step
def any(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return whether one of the values is true."""
    given = tensor(x).to(torch.bool)
    return torch.any(given) if axis is None else torch.any(given, axis, keepdim=keepdims)


@_step
def all(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return whether all of the values are true."""
    given = tensor(x).to(torch.bool)
    return torch.all(given) if axis is None else torch.all(given, axis, keepdim=keepdims)


@_step
def argmax(x: Any, axis: int = -1) -> Tensor:
    """Return where the greatest values are."""
    given = tensor(x)
    return torch.argmax(given.to(torch.uint8) if given.dtype is torch.bool else given, axis)


@_step
def argmin(x: Any, axis: int = -1) -> Tensor:
    """Return where the smallest values are."""
    given = tensor(x)
    return torch.argmin(given.to(torch.uint8) if given.dtype is torch.bool else given, axis)


@_step
def cumsum(x: Any, axis: int = 0) -> Tensor:
    """Return running sums."""
    return torch.cumsum(tensor(x), axis)


@_step
def cumprod(x: Any, axis: int = 0) -> Tensor:
    """Return running products."""
    return torch.cumprod(tensor(x), axis)


@_step
def l2_normalize(x: Any, axis: int | None = None) -> Tensor:
    """Return the values divided by their norm."""
    given = _measured(x)
    return given / torch.clamp(torch.linalg.vector_norm(given, dim=axis, keepdim=True), min=1e-6)


@_step
def in_top_k(predictions: Any, targets: Any, k: int) -> Tensor:
    """Return whether the target is among the k greatest predictions."""
    given, wanted = _together(predictions, targets)
    best = torch.topk(given, k, -1).indices
    return torch.any(torch.eq(best, wanted.unsqueeze(-1)), -1)


# Shapes --------------------------------------------------------------------------------------------------------------


@_step
def reshape(x: Any, shape: Any) -> Tensor:
    """Return the values in another shape."""
    return tensor(x).reshape(*[int(size) for size in shape])


@_step
def flatten(x: Any) -> Tensor:
    """Return the values in one axis."""
    return tensor(x).reshape(-1)


@_step
def batch_flatten(x: Any) -> Tensor:
    """Return the values of each sample in one axis."""
    return tensor(x).flatten(1)


@_step
def expand_dims(x: Any, axis: int = -1) -> Tensor:
    """Return the values with another axis, of size 1."""
    return tensor(x).unsqueeze(axis)


@_step
def squeeze(x: Any, axis: int | None = None) -> Tensor:
    """Return the values without an axis of size 1."""
    return tensor(x).squeeze() if axis is None else tensor(x).squeeze(axis)


@_step
def transpose(x: Any, perm: Sequence[int] | None = None) -> Tensor:
    """Return the values with their axes in another order, reversed by default."""
    given = tensor(x)
    return given.permute(*(range(given.ndim - 1, -1, -1) if perm is None else perm))


@_step
def permute_dimensions(x: Any, pattern: Sequence[int]) -> Tensor:
    """Return the values with their axes in another order."""
    return tensor(x).permute(*pattern)


@_step
def concatenate(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """Return tensors joined along an axis."""
    return torch.cat(_together(*tensors), axis)


@_step
def stack(x: Sequence[Any], axis: int = 0) -> Tensor:
    """Return tensors joined along an axis of their own."""
    return torch.stack(_together(*x), axis)


@_step
def repeat(x: Any, n: int) -> Tensor:
    """Return a matrix for each row: the row `n` times."""
    return tensor(x).unsqueeze(1).expand(-1, n, -1)


@_step
def repeat_elements(x: Any, rep: int, axis: int) -> Tensor:
    """Return each element along an axis several times."""
    return torch.repeat_interleave(tensor(x), rep, axis)


@_step
def tile(x: Any, n: Any) -> Tensor:
    """Return the values several times along each axis."""
    return torch.tile(tensor(x), (n,) if isinstance(n, int) else tuple(int(one) for one in n))


@_step
def reverse(x: Any, axes: Any) -> Tensor:
    """Return the values in the opposite order along axes."""
    return torch.flip(tensor(x), (axes,) if isinstance(axes, int) else tuple(axes))


@_step
def gather(reference: Any, indices: Any) -> Tensor:
    """Return the rows of some indices."""
    table, rows = _together(reference, indices)
    return table[rows.long()]


@_step
def one_hot(indices: Any, num_classes: int) -> Tensor:
    """Return a row for each index, 1 there and 0 elsewhere."""
    return F.one_hot(tensor(indices).long(), num_classes).to(_floatx())


@_step
def temporal_padding(x: Any, padding: tuple[int, int] = (1, 1)) -> Tensor:
    """Return sequences with zeros before and after."""
    return F.pad(tensor(x), (0, 0, *padding))


@_step
def spatial_2d_padding(x: Any, padding: Any = ((1, 1), (1, 1)), data_format: str | None = None) -> Tensor:
    """Return pictures with zeros around them."""
    (top, bottom), (left, right) = padding
    last = () if data_format == "channels_first" else (0, 0)
    return F.pad(tensor(x), (*last, left, right, top, bottom))


# Losses --------------------------------------------------------------------------------------------------------------


@_step
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """Return the crossentropy of each element."""
    one, other = _together(target, output)
    one = one.to(other.dtype)
    if from_logits:
        return F.binary_cross_entropy_with_logits(other, one, reduction="none")
    other = torch.clamp(other, 1e-7, 1 - 1e-7)
    return -(one * torch.log(other) + (1 - one) * torch.log(1 - other))


@_step
def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Tensor:
    """Return the crossentropy of each row of probabilities."""
    wanted, given = _together(target, output)
    logs = _log_probabilities(given, from_logits, axis)
    return -torch.sum(wanted.to(logs.dtype) * logs, axis)


@_step
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Tensor:
    """Return the crossentropy of each row, for labels that are numbers."""
    wanted, given = _together(target, output)
    logs = _log_probabilities(given, from_logits, axis)
    labels = wanted.long()
    labels = labels.squeeze(axis) if labels.ndim == logs.ndim and labels.shape[axis] == 1 else labels
    return -torch.gather(logs, axis, labels.unsqueeze(axis)).squeeze(axis)


def _log_probabilities(output: Any, from_logits: bool, axis: int) -> Tensor:
    given = _measured(output)
    if from_logits:
        return torch.log_softmax(given, axis)
    given = given / torch.sum(given, axis, keepdim=True)
    return torch.log(torch.clamp(given, 1e-7, 1.0 - 1e-7))


@_step
def dropout(x: Any, level: float, noise_shape: Any = None, seed: int | None = None) -> Tensor:
    """Return the values with some of them 0 and the others larger."""
    given = _measured(x)
    kept = torch.empty(noise_shape or given.shape, device=given.device, dtype=given.dtype)
    return given * kept.bernoulli_(1.0 - level, generator=_generator(seed, given)) / (1.0 - level)


# Told apart by what they look at ------------------------------------------------------------------------------------


def int_shape(x: Any) -> tuple[int | None, ...] | None:
    """Return the shape as a tuple, None where a size is not known."""
    return tuple(x.shape) if symbolic(x) else tuple(tensor(x).shape)


def shape(x: Any) -> tuple[int | None, ...] | Tensor:
    """Return the shape: a tensor's sizes; of a symbolic one None where a size is not known."""
    return tuple(x.shape) if symbolic(x) else tuple(tensor(x).shape)


def ndim(x: Any) -> int:
    """Return the number of axes."""
    return len(x.shape) if hasattr(x, "shape") else tensor(x).ndim


def dtype(x: Any) -> str:
    """Return the name of the type."""
    return str(x.dtype if hasattr(x, "dtype") else tensor(x).dtype).removeprefix("torch.")


def count_params(x: Any) -> int:
    """Return the number of elements."""
    return math.prod(x.shape)


def is_tensor(x: Any) -> bool:
    """Return whether something is a tensor, symbolic or not."""
    return isinstance(x, Tensor) or bool(symbolic(x))


def eval(x: Any) -> Any:
    """Return the values as an array."""
    if symbolic(x):
        raise ValueError(f"{x!r} has no values: make a model of it, `Model(inputs, x)`, and call `predict`.")
    return tensor(x).detach().cpu().numpy()


def batch_get_value(ops: Sequence[Any]) -> list[Any]:
    """Return the values of weights."""
    from oncue import backend

    return [backend.get_value(one) for one in ops]


def batch_set_value(tuples: Sequence[tuple[Any, Any]]) -> None:
    """Set weights, given in pairs with their values."""
    from oncue import backend

    for variable, value in tuples:
        backend.set_value(variable, value)


def cast_to_floatx(x: Any) -> Any:
    """Return an array, or a tensor, in the default float type."""
    if isinstance(x, Tensor) or symbolic(x):
        return cast(x, _floatx())
    from oncue import backend

    return np.asarray(x, dtype=backend.floatx())


# New ones ------------------------------------------------------------------------------------------------------------


def _generator(seed: int | None, like: Tensor | None = None) -> torch.Generator | None:
    if seed is None:
        return None
    return torch.Generator(_place() if like is None else like.device).manual_seed(int(seed))


def _kind(dtype: Any) -> torch.dtype:
    from oncue import backend

    return backend.torch_dtype(dtype)


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Tensor:
    """Return a tensor of values; one value fills a shape."""
    made = tensor(value, dtype)
    made = made if isinstance(value, Tensor) else made.to(_place())
    return made if shape is None else made.expand(tuple(shape)).clone()


def variable(value: Any, dtype: Any = None, name: str | None = None, constraint: Any = None) -> Tensor:
    """Return a tensor of values that can be set."""
    if isinstance(value, Tensor):
        return tensor(value, dtype).clone()
    return tensor(value, _floatx() if dtype is None else dtype).to(_place(), copy=True)


def zeros(shape: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Return zeros."""
    return torch.zeros(_sizes(shape), dtype=_kind(dtype), device=_place())


def ones(shape: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Return ones."""
    return torch.ones(_sizes(shape), dtype=_kind(dtype), device=_place())


def _sizes(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)


@_step
def zeros_like(x: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Return zeros in the shape of another tensor."""
    return torch.zeros_like(tensor(x), dtype=None if dtype is None else _kind(dtype))


@_step
def ones_like(x: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Return ones in the shape of another tensor."""
    return torch.ones_like(tensor(x), dtype=None if dtype is None else _kind(dtype))


def eye(size: int, dtype: Any = None, name: str | None = None) -> Tensor:
    """Return a matrix with ones on its diagonal."""
    return torch.eye(size, dtype=_kind(dtype), device=_place())


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = "int32") -> Tensor:
    """Return the numbers of a range."""
    first, last = (0, start) if stop is None else (start, stop)
    return torch.arange(first, last, step, dtype=_kind(dtype), device=_place())


def random_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: int | None = None
) -> Tensor:
    """Return random numbers of a normal distribution."""
    return torch.empty(_sizes(shape), dtype=_kind(dtype), device=_place()).normal_(
        mean, stddev, generator=_generator(seed)
    )


def random_uniform(
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: int | None = None
) -> Tensor:
    """Return random numbers between two limits."""
    return torch.empty(_sizes(shape), dtype=_kind(dtype), device=_place()).uniform_(
        minval, maxval, generator=_generator(seed)
    )


def random_normal_variable(
    shape: Any, mean: float, scale: float, dtype: Any = None, name: str | None = None, seed: int | None = None
) -> Tensor:
    """Return random numbers of a normal distribution, that can be set."""
    return random_normal(shape, mean, scale, dtype, seed)


def random_uniform_variable(
    shape: Any, low: float, high: float, dtype: Any = None, name: str | None = None, seed: int | None = None
) -> Tensor:
    """Return random numbers between two limits, that can be set."""
    return random_uniform(shape, low, high, dtype, seed)


def random_binomial(shape: Any, p: float = 0.0, dtype: Any = None, seed: int | None = None) -> Tensor:
    """Return ones with a probability, else zeros."""
    return torch.empty(_sizes(shape), dtype=_kind(dtype), device=_place()).bernoulli_(p, generator=_generator(seed))


random_bernoulli = random_binomial


def truncated_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: int | None = None
) -> Tensor:
    """Return random numbers of a normal distribution, within two standard deviations."""
    made = torch.empty(_sizes(shape), dtype=_kind(dtype), device=_place())
    limits = mean - 2 * stddev, mean + 2 * stddev
    return torch.nn.init.trunc_normal_(made, mean, stddev, *limits, generator=_generator(seed))


# Those that do something --------------------------------------------------------------------------------------------


def update(x: Any, new_x: Any) -> Any:
    """Set a weight, and return it."""
    from oncue import backend

    backend.set_value(x, new_x)
    return x


def update_add(x: Any, increment: Any) -> Any:
    """Add to a weight, and return it."""
    with torch.no_grad():
        return update(x, torch.add(*_together(x, increment)))


def update_sub(x: Any, decrement: Any) -> Any:
    """Subtract from a weight, and return it."""
    with torch.no_grad():
        return update(x, torch.sub(*_together(x, decrement)))


def image_dim_ordering() -> str:
    """Return "tf" or "th": what Keras 1 called channels_last and channels_first."""
    from oncue import backend

    return "tf" if backend.image_data_format() == "channels_last" else "th"


def set_image_dim_ordering(dim_ordering: str) -> None:
    """Set the order of axes of pictures: "tf" for channels_last, "th" for channels_first."""
    from oncue import backend

    orders = {"tf": "channels_last", "th": "channels_first"}
    if dim_ordering not in orders:
        raise ValueError(f'`dim_ordering` must be "tf" (channels last) or "th" (channels first); got {dim_ordering!r}.')
    backend.set_image_data_format(orders[dim_ordering])


def learning_phase() -> int:
    """Return 0: a function is told whether it trains by its argument `training`."""
    return 0


def set_learning_phase(value: int) -> None:
    """Take 0, which is what is so outside of `fit`.

    Raises:
        ValueError: For 1, which Keras 2 trained with.
    """
    if int(value) != 0:
        raise ValueError(
            "`set_learning_phase(1)` of Keras 2 switched all models to training. Call `model(x, training=True)` instead."
        )


def in_train_phase(x: Any, alt: Any, training: Any = None) -> Any:
    """Return one of two by whether a layer trains; a value or a function.

    Raises:
        ValueError: Without `training`, which a layer's `call` gets.
    """
    if training is None:
        raise ValueError(
            "`in_train_phase` needs to be told: `def call(self, x, training=None)` and "
            "`in_train_phase(one, other, training=bool(training))`, or simply `one if training else other`."
        )
    chosen = x if training else alt
    return chosen() if callable(chosen) else chosen


def in_test_phase(x: Any, alt: Any, training: Any = None) -> Any:
    """Return one of two by whether a layer does not train; see `in_train_phase`."""
    return in_train_phase(alt, x, training)


def manual_variable_initialization(value: bool) -> None:
    """Do nothing: weights are made with their values."""


def name_scope(name: str) -> Any:
    """Return a block that does nothing."""
    import contextlib

    return contextlib.nullcontext()


def reset_uids() -> None:
    """Forget automatic names."""
    from oncue import backend

    backend.clear_session()


def function(inputs: Sequence[Any], outputs: Sequence[Any], updates: Any = None, **kwargs: Any) -> Callable[..., Any]:
    """Return a function from arrays to arrays, between two places of a model.

    Args:
        inputs: Symbolic tensors, and `learning_phase()` at the end if it is to be told.
        outputs: Symbolic tensors.
        updates: None.
        **kwargs: No further arguments.

    Raises:
        ValueError: For updates, which nothing does today.
    """
    from oncue.models import Model

    if updates or kwargs:
        raise ValueError("`K.function` with `updates` is not here: override `train_step` of a model to change weights.")
    several = isinstance(outputs, (list, tuple))
    places = [one for one in (inputs if isinstance(inputs, (list, tuple)) else [inputs]) if symbolic(one)]
    model = Model(places, list(outputs) if several else [outputs])

    def run(given: Any) -> Any:
        values = list(given) if isinstance(given, (list, tuple)) else [given]
        training = bool(values[len(places)]) if len(values) > len(places) else False
        with torch.no_grad():
            found = model(values[: len(places)] if len(places) > 1 else values[0], training=training)
        found = found if isinstance(found, (list, tuple)) else [found]
        arrays = [one.detach().cpu().numpy() for one in found]
        return arrays if several else arrays[0]

    return run


_MISSING = [name for name in BACKEND if name not in globals()]
assert not _MISSING, _MISSING
