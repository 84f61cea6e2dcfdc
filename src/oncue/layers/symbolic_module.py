"""SymbolicModule: what a layer does with the symbolic tensors of a functional model."""

from __future__ import annotations

from typing import Any

import torch

from oncue import backend
from oncue.layers.keras_tensor import KerasTensor, symbols
from oncue.layers.weighted_module import WeightedModule
from oncue.nested import first_leaf, flatten, map_leaves
from oncue.variable import torch_dtype

Shape = tuple[int | None, ...]


class SymbolicModule(WeightedModule):
    """A module that can be called on what `Input` gives, and knows the shapes of its outputs.

    Example:
        >>> from oncue.layers import Dense, Input
        >>> Dense(2)(Input((3,))).shape
        (None, 2)
    """

    def ensure_built(self, input_shape: Any) -> None:
        """Build once."""
        raise NotImplementedError

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Take symbolic inputs and return symbolic outputs that remember this call."""
        if not self.built:
            inputs = args[0] if args else first_leaf(kwargs)
            self.ensure_built(map_leaves(lambda leaf: tuple(leaf.shape), inputs))
        if kwargs.get("training", self) is None:
            del kwargs["training"]
        shape, dtype = self.compute_output_spec(
            args, {key: value for key, value in kwargs.items() if key != "training"}
        )
        # `layer(x, training=False)` holds for every later run of the model, so the history keeps it.
        outputs = symbols(shape, dtype, (self, args, kwargs))
        self.__dict__["_symbolic"] = (args[0] if len(args) == 1 else list(args), outputs)
        return outputs

    def __getstate__(self) -> dict[str, Any]:
        # A copy of one layer must not drag along the whole graph of symbolic tensors before it.
        return {key: value for key, value in self.__dict__.items() if key != "_symbolic"}

    @property
    def input(self) -> Any:
        """The symbolic input of the last symbolic call.

        Raises:
            AttributeError: When there was none.
        """
        return self._symbolic_end("input")

    @input.setter
    def input(self, value: Any) -> None:
        self.__dict__["input"] = value

    @property
    def output(self) -> Any:
        """The symbolic output of the last symbolic call, from which a model of a part of the layers is made.

        Raises:
            AttributeError: When there was none.
        """
        return self._symbolic_end("output")

    @output.setter
    def output(self, value: Any) -> None:
        self.__dict__["output"] = value

    def _symbolic_end(self, name: str) -> Any:
        # Torch code often calls a part of a model `self.output`, which then comes first.
        for held in (self.__dict__, self._modules, self._parameters, self._buffers):
            if name in held:
                return held[name]
        ends = self.__dict__.get("_symbolic")
        if ends is None:
            raise AttributeError(
                f"'{self.name}' has no symbolic {name}: it was not called on what `Input(shape)` gives, nor put behind "
                "one in a Sequential model."
            )
        return ends[0 if name == "input" else 1]

    def compute_output_spec(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        """Return the shape and the type of the output for symbolic inputs."""
        if args and type(self).compute_output_shape is not SymbolicModule.compute_output_shape:
            shapes = map_leaves(lambda leaf: tuple(leaf.shape), args[0])
            return self.compute_output_shape(shapes), self.compute_dtype
        return self._probe_shapes(args, kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output for an input of a given shape (the batch axis first, None where unknown)."""
        if isinstance(input_shape, (list, dict)):
            named = dict(input_shape) if isinstance(input_shape, dict) else dict(enumerate(input_shape))
            tensors = {key: KerasTensor(tuple(shape), self.dtype) for key, shape in named.items()}
            return self._probe_shapes((tensors if isinstance(input_shape, dict) else list(tensors.values()),), {})[0]
        return self._probe_shapes((KerasTensor(tuple(input_shape), self.dtype),), {})[0]

    def _probe_shapes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        """Find the output's shape by running the layer on zeros of two sizes where a size is not known."""
        device = self._placed() or backend.device()

        def run(unknown: int) -> Any:
            def zeros(leaf: Any) -> Any:
                if not isinstance(leaf, KerasTensor):
                    return leaf
                size = [unknown if part is None else part for part in leaf.shape]
                return torch.zeros(size, dtype=torch_dtype(leaf.dtype), device=device)

            with torch.no_grad():
                probed = map_leaves(zeros, args)
                return self(*probed, **{key: map_leaves(zeros, value) for key, value in kwargs.items()}, training=False)

        one, two = run(2), run(3)

        def joined(a: torch.Tensor, b: torch.Tensor) -> Shape:
            return tuple(m if m == n else None for m, n in zip(a.shape, b.shape, strict=True))

        dtype = str(flatten(one)[0].dtype).removeprefix("torch.")
        shapes = iter([joined(a, b) for a, b in zip(flatten(one), flatten(two), strict=True)])

        def placed(part: Any) -> Any:
            if isinstance(part, dict):
                made = {key: placed(part[key]) for key in sorted(part)}
                return {key: made[key] for key in part}
            return [placed(item) for item in part] if isinstance(part, (list, tuple)) else next(shapes)

        return placed(one), dtype
