"""Callbacks of other libraries, which have other hooks: whose they are, and which of oncue's does the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Library:
    """A library with callbacks of its own.

    Args:
        name: Its name.
        trainer: What its callbacks are for.
        marks: Methods that all its callbacks have, and no others.
        ours: From the names of its callbacks to what does the same here.
    """

    name: str
    trainer: str
    marks: tuple[str, ...]
    ours: dict[str, str]


_TIMES = "`history.costs` and `print(history.explain())` have the times"
_BAR = "`fit(verbose=1)` shows the progress"
LIBRARIES = (
    Library(
        "Lightning",
        "`lightning.Trainer`",
        ("on_fit_start", "on_train_epoch_end", "on_sanity_check_start"),
        {
            "Lightning": "give the callbacks that it carries to `fit` as they are",
            "EarlyStopping": "use `oncue.callbacks.EarlyStopping`",
            "ModelCheckpoint": "use `oncue.callbacks.ModelCheckpoint`",
            "LearningRateMonitor": "`oncue.callbacks.TensorBoard` writes the learning rate",
            "Timer": "use `oncue.callbacks.TimeLimit`",
            "TQDMProgressBar": _BAR,
            "RichProgressBar": _BAR,
            "EMAWeightAveraging": "use an optimizer with `use_ema=True`, and `oncue.callbacks.SwapEMAWeights`",
            "WeightAveraging": "use an optimizer with `use_ema=True`, and `oncue.callbacks.SwapEMAWeights`",
            "StochasticWeightAveraging": "use an optimizer with `use_ema=True`, and `oncue.callbacks.SwapEMAWeights`",
            "GradientAccumulationScheduler": "use an optimizer with `gradient_accumulation_steps`",
            "LambdaCallback": "use `oncue.callbacks.LambdaCallback`",
            "DeviceStatsMonitor": _TIMES,
        },
    ),
    Library(
        "transformers",
        "`transformers.Trainer`",
        ("on_init_end", "on_step_end", "on_substep_end"),
        {
            "Transformers": "give the callbacks that it carries to `fit` as they are",
            "EarlyStoppingCallback": "use `oncue.callbacks.EarlyStopping`",
            "ProgressCallback": _BAR,
            "PrinterCallback": _BAR,
            "NotebookProgressCallback": _BAR,
            "TensorBoardCallback": "use `oncue.callbacks.TensorBoard`",
        },
    ),
)


def library_of(callback: Any) -> Library | None:
    """Return the library that a callback of other hooks belongs to; None for any other object.

    Example:
        >>> class TheirCallback:
        ...     on_init_end = on_step_end = on_substep_end = lambda self, *arguments: None
        >>> library_of(TheirCallback()).name
        'transformers'
    """
    kind = type(callback)
    for library in LIBRARIES:
        if all(callable(getattr(kind, name, None)) for name in library.marks):
            return library
    return None


def refusal(place: str, callback: Any, library: Library) -> str:
    """Return the text that refuses a callback of another library.

    Args:
        place: Where it stood.
        callback: The callback.
        library: Whose it is.
    """
    found = next((library.ours[one.__name__] for one in type(callback).__mro__ if one.__name__ in library.ours), None)
    advice = "write the same as a subclass of `oncue.callbacks.Callback`" if found is None else found
    return (
        f"`{place}` is a callback of {library.name}, {type(callback).__name__}, for {library.trainer}, whose hooks are called "
        f"at other moments and with other arguments. Instead, {advice}."
    )
