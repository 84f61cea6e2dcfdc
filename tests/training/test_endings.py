"""The three ends of a run: finished, failed, and closed whatever happened."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import small_model
from oncue.callbacks import Callback, CallbackList, History
from oncue.core.hooks import ENDS, HOOKS

X = np.linspace(-1, 1, 16, dtype="float32").reshape(8, 2)
Y = X.sum(axis=1, keepdims=True)

FIT_HOOKS = [name for name in HOOKS if name not in ENDS and "predict" not in name]
TEST_HOOKS = [name for name in HOOKS if "test" in name]
PREDICT_HOOKS = [name for name in HOOKS if "predict" in name]


class Watcher(Callback):
    """Records which hooks are called, and raises in the one it is given."""

    def __init__(self, name: str, heard: list[tuple[str, str]], raises: dict[str, BaseException] | None = None) -> None:
        super().__init__()
        self.name = name
        self.heard = heard
        self.raises = raises or {}


def _listen(hook: str) -> Callable[..., None]:
    arguments = HOOKS[hook]

    def heard(self: Watcher, *_: Any) -> None:
        self.heard.append((self.name, hook))
        if hook in self.raises:
            raise self.raises[hook]

    if len(arguments) == 2:
        return lambda self, index, logs=None: heard(self)
    return (lambda self: heard(self)) if not arguments else (lambda self, argument=None: heard(self))


for _name in HOOKS:
    setattr(Watcher, _name, _listen(_name))


def run(kind: str, callbacks: Any, made: Any = None) -> Any:
    made = small_model() if made is None else made
    if kind == "fit":
        # Of the two batches of an epoch, validation follows the first amid the epoch.
        options = {"validation_data": (X, Y), "validation_freq": "1 step"}
        made.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks, **options)
    elif kind == "evaluate":
        made.evaluate(X, Y, batch_size=4, verbose=0, callbacks=callbacks)
    else:
        made.predict(X, batch_size=4, verbose=0, callbacks=callbacks)
    return made


CASES = (
    [("fit", hook) for hook in FIT_HOOKS]
    + [("evaluate", hook) for hook in TEST_HOOKS]
    + [("predict", hook) for hook in PREDICT_HOOKS]
)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(("kind", "hook"), CASES)
def test_an_error_in_any_hook_of_any_callback(kind: str, hook: str, position: int, error: BaseException) -> None:
    heard: list[tuple[str, str]] = []
    error = type(error)(*error.args)
    watchers = [Watcher(name, heard, {hook: error} if index == position else None) for index, name in enumerate("abc")]
    with pytest.raises(type(error)) as caught:
        run(kind, watchers)
    assert caught.value is error
    assert any(f"Watcher.{hook}" in note for note in error.__notes__)
    assert [pair for pair in heard if pair[1] == "on_exception"] == [(name, "on_exception") for name in "abc"]
    assert [pair for pair in heard if pair[1] == "close"] == [(name, "close") for name in "cba"]
    last = heard.index(("a", "on_exception"))
    assert heard[last - 1] == ("abc"[position], hook)
    assert {name for _, name in heard[last:]} == {"on_exception", "close"}


@pytest.mark.parametrize("kind", ["fit", "evaluate", "predict"])
def test_a_finished_run_closes_once_and_has_no_exception(kind: str) -> None:
    heard: list[tuple[str, str]] = []
    run(kind, [Watcher("a", heard), Watcher("b", heard)])
    assert heard[-2:] == [("b", "close"), ("a", "close")]
    assert sum(hook == "close" for _, hook in heard) == 2
    assert all(hook != "on_exception" for _, hook in heard)


def test_a_stopped_run_ends_as_a_finished_one() -> None:
    heard: list[tuple[str, str]] = []
    watcher = Watcher("a", heard)
    stop = oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(made, "stop_training", True))
    made = small_model()
    run("fit", [stop, watcher], made)
    assert [hook for _, hook in heard][-3:] == ["on_epoch_end", "on_train_end", "close"]
    assert sum(hook == "on_epoch_end" for _, hook in heard) == 1


@pytest.mark.parametrize("where", ["data", "step"])
def test_an_error_outside_of_callbacks(where: str) -> None:
    heard: list[tuple[str, str]] = []

    def batches() -> Any:
        yield X, Y
        raise OSError("disk gone")

    made = small_model()
    if where == "step":

        class Broken(type(made)):  # type: ignore[misc]  # a class found at run time
            def train_step(self, data: Any) -> Any:
                raise OSError("disk gone")

        made.__class__ = Broken
    with pytest.raises(OSError, match="disk gone"):
        made.fit(
            X if where == "step" else batches(),
            Y if where == "step" else None,
            verbose=0,
            callbacks=Watcher("a", heard),
        )
    assert [hook for _, hook in heard][-2:] == ["on_exception", "close"]


def test_failures_while_ending_become_notes_on_the_first_error() -> None:
    heard: list[tuple[str, str]] = []
    first = ValueError("first")
    watchers = [
        Watcher("a", heard, {"close": OSError("a can't close")}),
        Watcher("b", heard, {"on_epoch_end": first, "on_exception": KeyError("b")}),
        Watcher("c", heard, {"on_exception": RuntimeError("c too"), "close": OSError("c can't close")}),
    ]
    with pytest.raises(ValueError, match="first") as caught:
        run("fit", watchers)
    assert caught.value is first
    text = "".join(traceback.format_exception(caught.value))
    for words in ("Watcher.on_epoch_end", "epoch 0", "KeyError: 'b'", "c too", "a can't close", "c can't close"):
        assert words in text
    assert sum(hook == "close" for _, hook in heard) == 3
    assert sum(hook == "on_exception" for _, hook in heard) == 3


def test_an_error_only_in_close_is_raised_after_all_were_closed() -> None:
    heard: list[tuple[str, str]] = []
    watchers = [Watcher("a", heard), Watcher("b", heard, {"close": OSError("full")}), Watcher("c", heard)]
    with pytest.raises(OSError, match="full") as caught:
        run("fit", watchers)
    assert any("Watcher.close" in note for note in caught.value.__notes__)
    assert heard[-3:] == [("c", "close"), ("b", "close"), ("a", "close")]


@pytest.mark.parametrize("hook", ["on_exception", "close"])
def test_a_second_interrupt_ends_a_hook_at_once_and_leaves_nothing_open(hook: str) -> None:
    heard: list[tuple[str, str]] = []
    first = KeyboardInterrupt("first")
    watchers = [
        Watcher("a", heard, {"close": KeyboardInterrupt("third")}),
        Watcher("b", heard, {hook: KeyboardInterrupt("second")}),
        Watcher("c", heard, {"on_epoch_end": first}),
    ]
    with pytest.raises(KeyboardInterrupt) as caught:
        run("fit", watchers)
    assert caught.value is first and f"interrupted again in Watcher.{hook}" in caught.value.__notes__
    assert heard[-3:] == [("c", "close"), ("b", "close"), ("a", "close")]
    told = [name for name, called in heard if called == "on_exception"]
    assert told == (["a", "b"] if hook == "on_exception" else ["a", "b", "c"])


def test_the_error_that_on_exception_gets_is_the_one_that_is_raised() -> None:
    got: list[BaseException] = []

    class Keep(Callback):
        def on_exception(self, exception: BaseException) -> None:
            got.append(exception)

    with pytest.raises(ZeroDivisionError) as caught:
        run("fit", [Keep(), Watcher("a", [], {"on_epoch_begin": ZeroDivisionError("x")})])
    assert got == [caught.value]


def test_the_history_so_far_is_kept_after_an_interrupt() -> None:
    class Interrupt(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    made = small_model()
    with pytest.raises(KeyboardInterrupt):
        made.fit(X, Y, epochs=5, verbose=0, callbacks=[Interrupt()])
    assert isinstance(made.history, History)
    assert made.history.epoch == [0, 1]
    assert len(made.history.history["loss"]) == 2


def test_a_model_can_be_trained_again_after_an_error() -> None:
    made = small_model()
    with pytest.raises(RuntimeError):
        run("fit", Watcher("a", [], {"on_train_batch_end": RuntimeError("boom")}), made)
    assert not made.training
    assert len(made.fit(X, Y, epochs=2, verbose=0).epoch) == 2


def test_logs_that_were_kept_before_an_error_keep_their_values() -> None:
    kept: list[Any] = []
    seen: list[float] = []

    class Keep(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kept.append(logs)

    class Fail(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    made = small_model()
    weights = made.get_weights()
    with pytest.raises(KeyboardInterrupt):
        made.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[Keep(), Fail()])
    made.set_weights(weights)
    look = oncue.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    made.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[look])
    assert kept[0]["loss"] == seen[0]


def test_the_ends_in_a_loop_of_ones_own() -> None:
    heard: list[tuple[str, str]] = []
    callbacks = CallbackList([Watcher("a", heard), Watcher("b", heard)])
    with pytest.raises(LookupError), callbacks.run() as same:
        assert same is callbacks
        callbacks.on_train_begin()
        raise LookupError("mine")
    assert heard == [
        ("a", "on_train_begin"),
        ("b", "on_train_begin"),
        ("a", "on_exception"),
        ("b", "on_exception"),
        ("b", "close"),
        ("a", "close"),
    ]


def test_close_called_directly_raises_the_first_failure() -> None:
    heard: list[tuple[str, str]] = []
    watchers = [Watcher("a", heard, {"close": OSError("a")}), Watcher("b", heard, {"close": OSError("b")})]
    with pytest.raises(OSError, match="b") as caught:
        CallbackList(watchers).close()
    assert heard == [("b", "close"), ("a", "close")]
    assert any("OSError: a" in note for note in caught.value.__notes__)
