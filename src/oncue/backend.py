"""Keras's `backend`: the float type, epsilon, the device, and `get_value` / `set_value` of every Keras generation.

Nothing here imports torch until a tensor or a device is asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from oncue import naming
from oncue.core.process import process
from oncue.keras_names import elsewhere, keras_if_loaded, tell_keras

if TYPE_CHECKING:
    import torch

_FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
_settings: dict[str, Any] = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "device": None,
    "dtype_policy": None,
    "image_data_format": "channels_last",
    "max_data_on_device": None,
}


def backend() -> str:
    """Return the name of the tensor library, always "torch"."""
    return "torch"


def floatx() -> str:
    """Return the default float type's name.

    Returns:
        "float32" unless changed by `set_floatx`.

    Example:
        >>> floatx()
        'float32'
    """
    return str(_settings["floatx"])


def set_floatx(value: str) -> None:
    """Set the default float type of weights and inputs.

    Args:
        value: "float16", "bfloat16", "float32" or "float64".

    Raises:
        ValueError: For any other name.

    Example:
        >>> set_floatx("float32")
    """
    if value not in _FLOAT_TYPES:
        raise ValueError(f"`floatx` must be one of {', '.join(_FLOAT_TYPES)}; got {value!r}.")
    _settings["floatx"] = value
    tell_keras("set_floatx", value)


def epsilon() -> float:
    """Return the small number that is added to avoid division by zero. Default: 1e-7."""
    return float(_settings["epsilon"])


def set_epsilon(value: float) -> None:
    """Set the small number that `epsilon` returns."""
    _settings["epsilon"] = float(value)
    tell_keras("set_epsilon", epsilon())


def image_data_format() -> str:
    """Return the order of axes of pictures for layers that aren't told one, "channels_last" unless changed.

    Example:
        >>> image_data_format()
        'channels_last'
    """
    return str(_settings["image_data_format"])


def set_image_data_format(data_format: str) -> None:
    """Set the order of axes of pictures for layers that are made from now on, and aren't told one.

    Args:
        data_format: "channels_last" or "channels_first".

    Raises:
        ValueError: For any other name.

    Example:
        >>> set_image_data_format("channels_last")
    """
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f'`data_format` must be "channels_last" or "channels_first"; got {data_format!r}.')
    _settings["image_data_format"] = data_format
    tell_keras("set_image_data_format", data_format)


def max_epochs() -> int | None:
    """Return the most epochs that `fit` trains for, by `set_max_epochs` or the variable `KERAS_MAX_EPOCHS`; None for any."""
    return _limit("max_epochs", "KERAS_MAX_EPOCHS")


def set_max_epochs(max_epochs: int | None) -> None:
    """Limit the epochs of each `fit`, to try a script out quickly.

    Args:
        max_epochs: The most epochs; None for no limit.

    Raises:
        ValueError: For anything but a whole number above 0.

    Example:
        >>> set_max_epochs(None)
    """
    _set_limit("max_epochs", max_epochs)


def max_steps_per_epoch() -> int | None:
    """Return the most batches of a pass, by `set_max_steps_per_epoch` or `KERAS_MAX_STEPS_PER_EPOCH`; None for any."""
    return _limit("max_steps_per_epoch", "KERAS_MAX_STEPS_PER_EPOCH")


def set_max_steps_per_epoch(max_steps_per_epoch: int | None) -> None:
    """Limit the batches of each pass of `fit`, `evaluate` and `predict`, to try a script out quickly.

    Args:
        max_steps_per_epoch: The most batches; None for no limit.

    Raises:
        ValueError: For anything but a whole number above 0.

    Example:
        >>> set_max_steps_per_epoch(None)
    """
    _set_limit("max_steps_per_epoch", max_steps_per_epoch)


def max_data_on_device() -> int | None:
    """Return the most bytes of data that are copied to a device as a whole, by `set_max_data_on_device`; None for any."""
    return _settings["max_data_on_device"]  # type: ignore[no-any-return]  # what the function below put there


def set_max_data_on_device(max_data_on_device: int | None) -> None:
    """Limit what arrays may take of a device's memory.

    Arrays that fit in half of what is free there are copied to the device once, before the first step; others go there batch by
    batch, ahead of the step.

    Args:
        max_data_on_device: The most bytes of the arrays of one call of `fit`, `evaluate` or `predict`; 0 to copy batches only,
            None for no limit but the free memory.

    Raises:
        ValueError: For anything but a whole number of 0 or more.

    Example:
        >>> set_max_data_on_device(2 * 10**9)
        >>> set_max_data_on_device(None)
    """
    value = max_data_on_device
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(
            f"`max_data_on_device` must be a number of bytes, 0 or more, or None for no limit; got {value!r}."
        )
    _settings["max_data_on_device"] = value


def _limit(name: str, variable: str) -> int | None:
    if name in _settings:
        return _settings[name]  # type: ignore[no-any-return]  # what `_set_limit` put there
    given = os.environ.get(variable)
    return int(given) if given else None


def _set_limit(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"`{name}` must be a whole number above 0, or None for no limit; got {value!r}.")
    _settings[name] = value
    tell_keras(f"set_{name}", value)


def device() -> torch.device:
    """Return the device that new models train on.

    That is the device set by `set_device`, or by the environment variable `ONCUE_DEVICE`, or else the one that Keras
    would use: CUDA if available, then Apple's MPS, then the CPU.

    Returns:
        A torch device.

    Example:
        >>> set_device("cpu")
        >>> device()
        device(type='cpu')
        >>> set_device(None)
    """
    import torch

    chosen = _settings["device"] or os.environ.get("ONCUE_DEVICE")
    if chosen is not None:
        return numbered(torch.device(chosen))
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_of_weights() -> torch.device:
    """Return the device where layers make weights: `device()`, or the host's memory for weights that are to be sharded.

    Of these only shards come to the device, layer by layer, when the first run begins.

    Example:
        >>> device_of_weights() == device()
        True
    """
    import torch

    return torch.device("cpu") if process.shards_weights else device()


def numbered(device: torch.device) -> torch.device:
    """Return a device with its number, as tensors have it: "cuda" is the current one.

    Example:
        >>> import torch
        >>> numbered(torch.device("cpu"))
        device(type='cpu')
    """
    import torch

    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    return torch.device("cuda", torch.cuda.current_device())


def work_so_far(device: torch.device) -> Any:
    """Return an event of CUDA behind all that a device has to do so far, whichever device is the current one.

    Args:
        device: A device of CUDA, with its number.
    """
    import torch

    return torch.cuda.current_stream(device).record_event()


def set_device(name: str | torch.device | None) -> None:
    """Choose the device of models compiled from now on.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", a torch device, or None to choose automatically.

    Raises:
        RuntimeError: If torch knows no such device.

    Example:
        >>> set_device("cpu")
        >>> set_device(None)
    """
    if name is not None:
        import torch

        torch.device(name)
    _settings["device"] = name


def clear_session(free_memory: bool = True) -> None:
    """Forget automatic names and the policy of `set_dtype_policy`, as Keras does between experiments.

    Args:
        free_memory: Whether to run Python's garbage collector too. Default: True.

    Example:
        >>> clear_session()
    """
    naming.reset()
    _settings["dtype_policy"] = None
    tell_keras("set_dtype_policy", floatx())
    keras = keras_if_loaded()
    if keras is not None:
        keras.utils.clear_session(free_memory=False)
    if free_memory:
        import gc

        gc.collect()


def get_value(x: Any) -> Any:
    """Return the value of a weight, a learning rate or a tensor, as Keras 1 and 2 spell it.

    Args:
        x: Anything with `.numpy()`, a torch tensor, or a plain number (returned unchanged).

    Returns:
        A NumPy array or number.

    Example:
        >>> get_value(3.0)
        3.0
    """
    detach = getattr(x, "detach", None)
    if detach is not None:
        return detach().cpu().numpy()
    read = getattr(x, "numpy", None)
    return x if read is None else read()


def set_value(x: Any, value: Any) -> None:
    """Set a weight, a learning rate or a tensor in place, as Keras 1 and 2 spell it.

    Args:
        x: Anything with `.assign(value)`, or a torch tensor.
        value: The new value: a number or an array of the same shape.

    Raises:
        TypeError: If `x` can't be set, such as a plain number.

    Example:
        >>> import torch
        >>> weight = torch.zeros(2)
        >>> set_value(weight, [1.0, 2.0])
        >>> weight
        tensor([1., 2.])
    """
    assign = getattr(x, "assign", None)
    if assign is not None:
        assign(value)
        return
    import torch

    if isinstance(x, torch.Tensor):
        with torch.no_grad():
            x.copy_(torch.as_tensor(value))
        return
    raise TypeError(
        f"`set_value` needs something that can be set: a weight, `optimizer.learning_rate` or a tensor; got {x!r} of "
        f"type {type(x).__name__}. To set the learning rate use `model.optimizer.learning_rate = value`."
    )


def torch_dtype(name: str | torch.dtype | None) -> torch.dtype:
    """Return torch's type for a name such as "float32"; `floatx()` for None.

    Raises:
        ValueError: For a name that isn't a torch type.

    Example:
        >>> torch_dtype("int32")
        torch.int32
    """
    import torch

    if isinstance(name, torch.dtype):
        return name
    found = getattr(torch, floatx() if name is None else str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"`dtype` must be the name of a dtype such as 'float32'; got {name!r}.")
    return found


def as_tensor(value: Any) -> torch.Tensor:
    """Return what stands for numbers as a tensor.

    Args:
        value: A tensor or a `Variable`, which are returned as they are; an array, which keeps its type; a number or nested
            lists of them, where floats become `floatx()` and whole numbers int32.

    Returns:
        A tensor; one of an array or of numbers is on `device()`.

    Raises:
        TypeError: If there are no numbers in it.

    Example:
        >>> as_tensor([1.0, 2.0]).dtype, as_tensor([1]).dtype
        (torch.float32, torch.int32)
    """
    import numpy as np
    import torch

    # What torch's own functions take: symbolic tensors say themselves what can't be done with them.
    if isinstance(value, torch.Tensor) or hasattr(type(value), "__torch_function__"):
        return value  # type: ignore[no-any-return]  # torch takes it in a tensor's place
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"Numbers are needed: a tensor, an array or nested lists of one shape; got {value!r}.")
    tensor = torch.as_tensor(np.array(array, array.dtype.newbyteorder("=")))
    if not isinstance(value, (np.ndarray, np.generic)) or isinstance(value, float):
        # Python's own numbers are of no type; float64 numbers of NumPy are Python's.
        tensor = tensor.to(torch_dtype(None)) if array.dtype.kind == "f" else tensor
        tensor = tensor.to(torch.int32) if array.dtype.kind == "i" else tensor
    return tensor.to(device())


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.backend", name)
