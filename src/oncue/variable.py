"""Variable: one weight of a model, as Keras shows it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oncue import initializers, naming
from oncue.backend import device, torch_dtype as torch_dtype
from oncue.shards import put, whole
from oncue.torch_private import own_tensors, tensor_tables


def _unary(apply: Callable[[Any], Any]) -> Callable[[Variable], Any]:
    return lambda self: apply(self.tensor())


def _binary(apply: Callable[[Any, Any], Any]) -> Callable[[Variable, Any], Any]:
    return lambda self, other: apply(self.tensor(), self._other(other))


def _reflected(apply: Callable[[Any, Any], Any]) -> Callable[[Variable, Any], Any]:
    return lambda self, other: apply(self._other(other), self.tensor())


def _in_place(apply: Callable[[Any, Any], Any]) -> Callable[[Variable, Any], Variable]:
    def changed(self: Variable, other: Any) -> Variable:
        # Otherwise `layer.kernel *= 2` would put a plain tensor in the place of the weight.
        self.assign(apply(self.tensor().detach(), self._other(other)))
        return self

    return changed


class Variable:
    """A number, or an array of them, that training or your own code changes: one weight of a model.

    Make one yourself for what isn't a layer's kernel: a temperature, the weight of a term of the loss that a callback
    anneals. As an attribute of a layer or a model it belongs to its weights: it is trained if `trainable`, saved, loaded,
    backed up, and copied. It can be used in arithmetic, and by torch's functions, in place of its value.

    The weights of layers are shown as Variables too: views of torch's parameters and buffers under Keras's names, order of
    axes and methods. The tensor stays where torch wants it (`layer.parameters()` has it, and `layer.stored("kernel")`), so
    optimizers and compiled steps see plain torch. The kernels of convolutions and recurrent cells are kept in torch's order
    of axes; at the layer's attribute, as everywhere, they are shown in Keras's.

    Args:
        initializer: The first value (a number, array, tensor or nested list); or a name, an initializer, or a function of
            (shape, dtype).
        shape: The shape, for an initializer.
        dtype: The type, such as "float32"; by default that of an array, `floatx()` for floats, int32 for ints.
        trainable: Whether the optimizer updates it.
        autocast: For compatibility with Keras: mixed policies cast in the operations.
        aggregation: For compatibility with Keras.
        synchronization: For compatibility with Keras.
        name: Its name; "variable" with a number by default.

    Raises:
        ValueError: For an initializer without a `shape`, or a value that isn't of that shape.

    Example:
        >>> beta = Variable(0.0, trainable=False, name="beta")
        >>> _ = beta.assign_add(0.5)
        >>> beta.numpy(), float(2 * beta), beta
        (array(0.5, dtype=float32), 1.0, <Variable path=beta, shape=(), dtype=float32>)
    """

    # NumPy leaves arithmetic with one to it.
    __array_priority__ = 100

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str | None = "none",
        synchronization: str | None = "auto",
        name: str | None = None,
    ) -> None:
        name = naming.auto_name("variable") if name is None else name
        if not isinstance(name, str) or "/" in name:
            raise ValueError(f"`name` of a Variable must be a string without '/'; got {name!r}.")
        value = _first_value(initializer, shape, dtype).to(device())
        # A module of its own has it until it becomes the attribute of a layer.
        self._show(torch.nn.Module(), "value", None, name, name)
        self.made_alone = self._is_free = True
        _register(self._module, "value", _as_trained(value, bool(trainable)))

    @classmethod
    def of(
        cls,
        module: torch.nn.Module,
        attribute: str,
        *,
        axes: tuple[int, ...] | None = None,
        name: str | None = None,
        path: str | None = None,
    ) -> Variable:
        """Return a view of a module's parameter or buffer.

        Args:
            module: The module that owns the tensor.
            attribute: The name of the parameter or buffer in that module.
            axes: The permutation that turns the stored tensor into Keras's order of axes, or None when both are the same.
            name: The name to show; the attribute's name by default.
            path: `layer/weight`, the name in the whole model; the name by default.

        Example:
            >>> linear = torch.nn.Linear(2, 1)
            >>> bias = Variable.of(linear, "bias")
            >>> _ = bias.assign([0.5])
            >>> bias.shape, bias.numpy()
            ((1,), array([0.5], dtype=float32))
        """
        view = cls.__new__(cls)
        name = attribute if name is None else name
        view._show(module, attribute, axes, name, name if path is None else path)
        return view

    def _show(
        self, module: torch.nn.Module, attribute: str, axes: tuple[int, ...] | None, name: str, path: str
    ) -> None:
        self._module = module
        self._attribute = attribute
        self._axes = axes
        self.name = name
        self.path = path
        self.made_alone = self._is_free = False
        """Whether it was made by itself, and not to show a layer's weight."""
        self.constraint: Callable[[torch.Tensor], torch.Tensor] | None = None
        """What the optimizer projects the weight by after each update, a function of it in Keras's order of axes."""
        self.regularizer: Callable[[torch.Tensor], torch.Tensor] | None = None
        """The penalty on the weight, a function of it in Keras's order of axes."""

    @property
    def projection(self) -> Projection | None:
        """The constraint as a function of the stored tensor."""
        return None if self.constraint is None else Projection(self.constraint, self._axes)

    @property
    def is_free(self) -> bool:
        """Whether it was made by itself and belongs to no layer yet."""
        return self._is_free

    @property
    def owner(self) -> torch.nn.Module:
        """The module that has it."""
        return self._module

    @property
    def attribute(self) -> str:
        """The name of the parameter or buffer in its module."""
        return self._attribute

    def belong(self, module: torch.nn.Module, attribute: str) -> None:
        """Become a weight of a module, under a name at which nothing is.

        Args:
            module: The module.
            attribute: The name of the parameter, or of the buffer if it isn't trained.
        """
        tensor = self.stored
        if self._is_free:
            self._module, self._attribute, self._is_free = module, attribute, False
        _register(module, attribute, tensor)

    @property
    def stored(self) -> torch.Tensor:
        """The stored tensor (a `torch.nn.Parameter` where the weight is trained), in torch's order of axes."""
        # Not the module's attribute: a layer shows this there.
        for table in tensor_tables(self._module):
            found: torch.Tensor | None = table.get(self._attribute)
            if found is not None:
                return found
        # One that is computed from others, as `torch.nn.utils.parametrize` does.
        return getattr(self._module, self._attribute)  # type: ignore[no-any-return]

    def tensor(self) -> torch.Tensor:
        """Return the tensor in Keras's order of axes: the stored one, or a view of it."""
        return self.stored if self._axes is None else self.stored.permute(self._axes)

    @property
    def value(self) -> torch.Tensor:
        """The tensor in Keras's order of axes, with the gradient of the last backward pass as its `.grad`.

        It is the stored one where that is in the same order, else a view of it: changes in place change the weight.
        """
        shown = self.tensor()
        if self._axes is not None and self.stored.grad is not None:
            shown.grad = self.grad
        return shown

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in Keras's order of axes."""
        shape = tuple(self.stored.shape)
        return shape if self._axes is None else tuple(shape[axis] for axis in self._axes)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.stored.ndim

    @property
    def dtype(self) -> str:
        """The dtype, as Keras names it: "float32", "int64"."""
        return str(self.stored.dtype).removeprefix("torch.")

    @property
    def trainable(self) -> bool:
        """Whether the optimizer updates this weight."""
        return self.stored.requires_grad

    @trainable.setter
    def trainable(self, value: bool) -> None:
        tensor = self.stored
        if value and self.made_alone and not isinstance(tensor, torch.nn.Parameter):
            shown = self._module.__dict__.pop(self._attribute, None)
            _register(self._module, self._attribute, _as_trained(tensor, True))
            if shown is not None:
                self._module.__dict__[self._attribute] = shown
        else:
            tensor.requires_grad_(bool(value))

    def to_keras(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor laid out as this weight is stored (a gradient, an optimizer's slot) in Keras's order."""
        return tensor if self._axes is None else tensor.permute(self._axes)

    @property
    def axes(self) -> tuple[int, ...] | None:
        """The order of the stored axes that is Keras's; None where they are in that order."""
        return self._axes

    def from_keras(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor in Keras's order of axes laid out as this weight is stored."""
        if self._axes is None:
            return tensor
        inverse = sorted(range(len(self._axes)), key=self._axes.__getitem__)
        return tensor.permute(inverse)

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the value as a NumPy array, in Keras's order of axes."""
        tensor = self.to_keras(whole(self.stored.detach()))
        return np.array(tensor.to(numpy_kind(tensor.dtype, self.path)).cpu().numpy(), order="C")

    def assign(self, value: Any) -> torch.Tensor:
        """Set the value in place.

        Args:
            value: An array, tensor or nested list of this weight's shape (in Keras's order of axes).

        Returns:
            The new value.

        Raises:
            ValueError: When the shape is another, or it has no numbers that this weight can hold.
        """
        with torch.no_grad():
            put(self.stored, self.converted(value))
        return self.tensor()

    def converted(self, value: Any) -> torch.Tensor:
        """Return a value laid out as this weight is stored; what it returns can be copied into the weight.

        Args:
            value: As for `assign`.

        Raises:
            ValueError: As `assign`.
        """
        if isinstance(value, Variable):
            value = value.tensor()
        if not isinstance(value, torch.Tensor):
            array = np.asarray(value)
            try:
                value = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
            except TypeError:
                raise ValueError(
                    f"`value` for the weight '{self.path}' must be an array of numbers; got one of {array.dtype}."
                ) from None
        if tuple(value.shape) != self.shape:
            raise ValueError(
                f"`value` for the weight '{self.path}' must have the shape {self.shape}; got {tuple(value.shape)}."
            )
        if value.is_complex() and not self.stored.is_complex():
            raise ValueError(
                f"`value` for the weight '{self.path}' is complex; the weight is of the type {self.dtype}."
            )
        return self.from_keras(value.detach())

    def assign_add(self, value: Any) -> torch.Tensor:
        """Add to the value in place, and return the new one."""
        return self.assign(self.tensor().detach() + self._other(value))

    def assign_sub(self, value: Any) -> torch.Tensor:
        """Subtract from the value in place, and return the new one."""
        return self.assign(self.tensor().detach() - self._other(value))

    def _other(self, value: Any) -> Any:
        """Return the other side of an operation: a tensor on this device, or a number."""
        if isinstance(value, Variable):
            return value.tensor()
        return torch.as_tensor(value, device=self.stored.device) if isinstance(value, (np.ndarray, list)) else value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # Otherwise `np.mean(weight)` would call the tensor's `mean` with NumPy's arguments.
        return func(*_as_arrays(args), **_as_arrays(kwargs))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.tensor()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        with torch.no_grad():
            self.tensor()[index] = self._other(value)

    def __getattr__(self, name: str) -> Any:
        # What torch code asks of a weight: `device`, `detach()`, `mul_(2)` write and read through a view.
        if name.startswith("_") or not hasattr(torch.Tensor, name):
            raise AttributeError(f"'Variable' object has no attribute {name!r}")
        return getattr(self.tensor(), name)

    @property
    def requires_grad(self) -> bool:
        """The same as `trainable`, as torch calls it."""
        return self.trainable

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.trainable = value

    def requires_grad_(self, requires_grad: bool = True) -> Variable:
        """Set `trainable`, and return this weight."""
        self.trainable = requires_grad
        return self

    @property
    def grad(self) -> torch.Tensor | None:
        """The gradient in Keras's order of axes; None before a backward pass."""
        gradient = self.stored.grad
        return None if gradient is None else self.to_keras(gradient)

    @grad.setter
    def grad(self, value: torch.Tensor | None) -> None:
        self.stored.grad = None if value is None else self.from_keras(value)

    @property
    def data(self) -> torch.Tensor:
        """The values in Keras's order of axes, which can be changed in place without a gradient."""
        return self.to_keras(self.stored.data)

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        self.stored.data = self.from_keras(value)

    def __int__(self) -> int:
        return int(self.tensor().detach())

    def __float__(self) -> float:
        return float(self.tensor().detach())

    def __bool__(self) -> bool:
        return bool(self.tensor().detach())

    # It is a key, and a member of lists, as a tensor is: as itself.
    def __hash__(self) -> int:
        return id(self)

    __neg__ = _unary(operator.neg)
    __pos__ = _unary(operator.pos)
    __abs__ = _unary(abs)
    __invert__ = _unary(operator.invert)
    __eq__ = _binary(operator.eq)
    __ne__ = _binary(operator.ne)
    __lt__ = _binary(operator.lt)
    __le__ = _binary(operator.le)
    __gt__ = _binary(operator.gt)
    __ge__ = _binary(operator.ge)
    __add__ = _binary(operator.add)
    __radd__ = _reflected(operator.add)
    __sub__ = _binary(operator.sub)
    __rsub__ = _reflected(operator.sub)
    __mul__ = _binary(operator.mul)
    __rmul__ = _reflected(operator.mul)
    __truediv__ = _binary(operator.truediv)
    __rtruediv__ = _reflected(operator.truediv)
    __floordiv__ = _binary(operator.floordiv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __mod__ = _binary(operator.mod)
    __rmod__ = _reflected(operator.mod)
    __pow__ = _binary(operator.pow)
    __rpow__ = _reflected(operator.pow)
    __matmul__ = _binary(operator.matmul)
    __rmatmul__ = _reflected(operator.matmul)
    __and__ = _binary(operator.and_)
    __rand__ = _reflected(operator.and_)
    __or__ = _binary(operator.or_)
    __ror__ = _reflected(operator.or_)
    __xor__ = _binary(operator.xor)
    __rxor__ = _reflected(operator.xor)

    __iadd__ = _in_place(operator.add)
    __isub__ = _in_place(operator.sub)
    __imul__ = _in_place(operator.mul)
    __itruediv__ = _in_place(operator.truediv)

    def __round__(self, digits: int | None = None) -> torch.Tensor:
        return torch.round(self.tensor(), decimals=digits or 0)

    def __format__(self, form: str) -> str:
        return format(self.tensor().item() if form else repr(self), form)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # torch.norm(variable) and the like work on the tensor, as Keras's variables do on its torch backend.
        def unwrap(item: Any) -> Any:
            if isinstance(item, Variable):
                return item.tensor()
            if isinstance(item, (list, tuple)):
                return type(item)(unwrap(part) for part in item)
            return item

        return func(*unwrap(args), **{key: unwrap(item) for key, item in (kwargs or {}).items()})


class Projection:
    """A constraint of a weight, as a function of the tensor that is stored.

    Args:
        constraint: A function of the weight in Keras's order of axes.
        axes: The permutation that turns the stored tensor into that order, or None when both are the same.

    Attributes:
        constraint: The constraint.

    Example:
        >>> Projection(lambda w: w / w.sum(0), (1, 0))(torch.tensor([[1.0, 3.0]]))
        tensor([[0.2500, 0.7500]])
    """

    def __init__(self, constraint: Callable[[torch.Tensor], torch.Tensor], axes: tuple[int, ...] | None) -> None:
        self.constraint = constraint
        self._axes = axes
        self._back = None if axes is None else sorted(range(len(axes)), key=axes.__getitem__)

    def __call__(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the allowed tensor, laid out as the stored one."""
        if self._axes is None or self._back is None:
            return self.constraint(stored)
        return self.constraint(stored.permute(self._axes)).permute(self._back)


def _as_arrays(given: Any) -> Any:
    """Return arguments of a function of NumPy with arrays in the place of Variables."""
    if isinstance(given, Variable):
        return given.numpy()
    if isinstance(given, dict):
        return {key: _as_arrays(part) for key, part in given.items()}
    return type(given)(map(_as_arrays, given)) if type(given) in (list, tuple) else given


def _as_trained(tensor: torch.Tensor, trainable: bool) -> torch.Tensor:
    # Only floats have gradients.
    return torch.nn.Parameter(tensor, tensor.is_floating_point() or tensor.is_complex()) if trainable else tensor


def _register(module: torch.nn.Module, attribute: str, tensor: torch.Tensor) -> None:
    if attribute in own_tensors(module):
        delattr(module, attribute)
    if isinstance(tensor, torch.nn.Parameter):
        module.register_parameter(attribute, tensor)
    else:
        module.register_buffer(attribute, tensor)


def _first_value(initializer: Any, shape: Any, dtype: Any) -> torch.Tensor:
    kind = None if dtype is None else torch_dtype(dtype)
    if isinstance(initializer, str):
        initializer = initializers.get(initializer)
    if isinstance(initializer, Variable):
        initializer = initializer.tensor()
    if callable(initializer) and not isinstance(initializer, torch.Tensor):
        if shape is None:
            raise ValueError(
                f"A Variable with an initializer needs a `shape`, such as `Variable({initializer!r}, shape=(2,))`."
            )
        sizes = (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
        kind = torch_dtype(None) if kind is None else kind
        return torch.as_tensor(initializer(sizes, dtype=kind), dtype=kind).detach().clone()
    if isinstance(initializer, torch.Tensor):
        value = initializer.detach().clone()
    else:
        array = np.asarray(initializer)
        if array.dtype.kind not in "biufc":
            raise ValueError(
                "The first value of a Variable must be a number, an array of numbers, or the name of an initializer with a "
                f"`shape`; got {initializer!r}."
            )
        value = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
        typed = isinstance(initializer, (np.ndarray, np.generic)) and not isinstance(initializer, float)
        if kind is None and not typed and array.dtype.kind in "if":
            # Python's own numbers are of no type; float64 numbers of NumPy are Python's.
            kind = torch_dtype(None) if value.is_floating_point() else torch.int32
    if shape is not None and tuple(np.atleast_1d(shape)) != tuple(value.shape):
        raise ValueError(f"The first value of a Variable with `shape={shape}` has the shape {tuple(value.shape)}.")
    return value if kind is None else value.to(kind)


def numpy_kind(kind: torch.dtype, name: str) -> torch.dtype:
    """Return the type of numbers that holds those of a type exactly, and that NumPy and HDF5 have.

    Args:
        kind: The type of a weight.
        name: The weight, for the message.

    Raises:
        ValueError: For a type whose numbers no such type holds, as the packed ones of quantized weights.

    Example:
        >>> numpy_kind(torch.bfloat16, "kernel")
        torch.float32
    """
    if kind in _EXACT:
        return kind
    if kind not in _WIDER:
        raise ValueError(
            f"The weight '{name}' is of the type {kind}, which neither NumPy nor a file of weights has. Keep it in another "
            "type: the bits as uint8, or the values as int8 or float32; or, if it isn't to be kept, register it with "
            "`register_buffer(..., persistent=False)`."
        )
    return _WIDER[kind]


_EXACT = {
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128,
}  # fmt: skip
_WIDER = {
    torch.complex32: torch.complex64,
    **dict.fromkeys(
        (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        torch.float32,
    ),
    torch.float8_e8m0fnu: torch.float32,
}
