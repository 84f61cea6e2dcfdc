"""What callbacks of Keras 1 and 2 were told of a run: `self.params["samples"]`, `self.validation_data`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from oncue.legacy.warning import warn_once
from oncue.legacy.words import KERAS_1, KERAS_2, Old, since

PARAMS: dict[str, Old] = {
    **since(
        KERAS_1,
        {
            "batch_size": None,
            "do_validation": None,
            "metrics": "logs",
            "nb_epoch": "epochs",
            "nb_sample": "steps",
        },
    ),
    **since(KERAS_2, {"samples": "steps"}),
}
"""From a key of `self.params` to what has it, or says it, today."""


class RunParams(dict[str, Any]):
    """A run's parameters. Those of Keras 1 and 2 are found by their keys, without being among them.

    Args:
        given: Today's parameters: `verbose`, `epochs`, `steps`.

    Example:
        >>> import warnings
        >>> params = RunParams({"epochs": 3})
        >>> params.old["samples"] = lambda: 60
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     params["nb_epoch"], params["samples"], "samples" in params
        (3, 60, False)
    """

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self.old: dict[str, Callable[[], Any]] = {}
        if "epochs" in given:
            self.old["nb_epoch"] = lambda: self["epochs"]

    def __missing__(self, key: str) -> Any:
        find = self.old.get(key)
        value = None if find is None else find()
        if value is None:
            raise KeyError(key)
        word = PARAMS[key].new
        warn_once(f"params[{key!r}]", "the names in `logs`" if word == "logs" else word and f"params[{word!r}]")
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, an old one too, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def tell(self, fed: Any, names: list[str], validation: bool) -> None:
        """Take what the old keys stand for.

        Args:
            fed: The training data as batches: their size, their number, and the number of samples if that is known.
            names: What each epoch logs of training.
            validation: Whether there is validation data.
        """
        logged = [*names, *(f"val_{name}" for name in names if validation)]
        values = {
            "batch_size": fed.batch_size,
            "do_validation": validation,
            "metrics": logged,
            "nb_sample": fed.num_samples,
            "samples": fed.num_samples,
        }
        for key, value in values.items():
            self.old[key] = partial(_given, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _given(value: Any) -> Any:
    return value


class HeldOut:
    """The attribute `validation_data` of callbacks: the arrays that a run validates on, as a list; None without them."""

    def __get__(self, callback: Any, owner: type) -> Any:
        """Return the inputs, the targets and the weights of the run that a callback belongs to."""
        run = None if callback is None else callback._run
        held = None if run is None else run.held_out
        if held is None:
            return None
        warn_once("callback.validation_data", "validation data that your callback's `__init__` gets")
        x, y, weight = held
        inputs, targets = (list(part) if isinstance(part, (list, tuple)) else [part] for part in (x, y))
        if weight is None:
            weight = [1.0] * len(inputs[0])
        return [*inputs, *targets, weight]
