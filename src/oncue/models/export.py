"""`Model.export`: what a model computes, as a program that runs without oncue."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch

from oncue.core import console
from oncue.core.files import replacing
from oncue.core.suggest import unknown
from oncue.nested import flatten
from oncue.training.probe import mode
from oncue.variable import torch_dtype

_ENDINGS = {"torch": ".pt2", "onnx": ".onnx"}
_ELSEWHERE = {
    "tf_saved_model": "A SavedModel is a program of TensorFlow's",
    "litert": "LiteRT is TensorFlow's",
    "openvino": "OpenVINO converts files of ONNX",
}
_UNKNOWN_SIZE = 3
"""What stands for a size that varies: torch takes 0 and 1 for sizes that never change."""


def export(
    model: Any,
    filepath: str | os.PathLike[str],
    format: str = "tf_saved_model",
    verbose: bool | None = None,
    input_signature: Any = None,
    **kwargs: Any,
) -> None:
    """Write what a model computes in inference; arguments and errors as those of `Model.export`."""
    _check(filepath, format)
    inputs = flatten(input_signature) if input_signature is not None else model._known_inputs()
    if not inputs or not all(hasattr(one, "shape") and hasattr(one, "dtype") for one in inputs):
        raise ValueError(
            f"`export` must know the inputs of '{model.name}'; got input_signature={input_signature!r}. Name the shape and the "
            f"type of each: `model.export({os.fspath(filepath)!r}, format={format!r}, "
            "input_signature=[keras.KerasTensor((None, 28, 28, 1))])`."
        )
    samples = tuple([_sample(one, model.device) for one in inputs])
    varying = [
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(one.shape) if size is None} for one in inputs
    ]
    # The program takes its inputs as one parameter, `*inputs`.
    options: dict[str, Any] = {"strict": False, "dynamic_shapes": (tuple(varying),)}
    options |= kwargs if format == "torch" else {}
    with mode(model, False), torch.no_grad():
        program = _Program(model)
        program(*samples)
        try:
            exported = torch.export.export(program, samples, **options)
        except Exception as error:
            raise ValueError(
                f"'{model.name}' can't be written as a program, for {type(error).__name__}: {error}\nWhere the program is one "
                "for certain sizes only, name them: `input_signature=[keras.KerasTensor((8, 28, 28, 1))]`."
            ) from error
    with replacing(filepath) as temporary:
        if format == "torch":
            with temporary.open("wb") as file:
                torch.export.save(exported, file)
        else:
            torch.onnx.export(exported, (), str(temporary), verbose=False, external_data=False, **kwargs)
    if verbose or verbose is None:
        console.print_message(f"Saved the program of '{model.name}' at {os.fspath(filepath)!r}.")


def _check(filepath: Any, format: str) -> None:
    """Refuse what can't be written, before anything is computed."""
    if format in _ELSEWHERE:
        raise ValueError(
            f"`format={format!r}` can't be written on torch. {_ELSEWHERE[format]}: use "
            '`model.export("model.onnx", format="onnx")`, which it can be made from; or `model.export("model.pt2", '
            'format="torch")`, which `torch.export.load` reads.'
        )
    if format not in _ENDINGS:
        raise unknown("format", format, [*_ENDINGS, *_ELSEWHERE])
    if not os.fspath(filepath).endswith(_ENDINGS[format]):
        raise ValueError(
            f"`filepath` must end with '{_ENDINGS[format]}' for format={format!r}; got {os.fspath(filepath)!r}."
        )
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None] if format == "onnx" else []
    if missing:
        raise ImportError(f'`format="onnx"` needs {" and ".join(missing)}. Install it: pip install {" ".join(missing)}')


def _sample(one: Any, device: torch.device) -> torch.Tensor:
    sizes = [_UNKNOWN_SIZE if size is None else int(size) for size in one.shape]
    kind = one.dtype if isinstance(one.dtype, torch.dtype) else torch_dtype(one.dtype)
    return torch.zeros(sizes, dtype=kind, device=device)


class _Program(torch.nn.Module):
    """Runs a model on its inputs one by one.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the outputs."""
        return self.model._forward(inputs[0] if len(inputs) == 1 else list(inputs))
