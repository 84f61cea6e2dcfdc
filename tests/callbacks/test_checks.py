"""What is refused when callbacks are handed in, and what is fine."""

from __future__ import annotations

import functools
import unittest.mock
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import small_model
from oncue.callbacks import Callback, CallbackList, LambdaCallback
from oncue.callbacks.checks import own_method
from oncue.core.builtin import is_builtin

X = np.ones((4, 2), "float32")
Y = np.ones((4, 1), "float32")


def make(**methods: Any) -> Any:
    """Return an object of a fresh subclass of Callback with these methods."""
    return type("Mine", (Callback,), methods)()


class Unready(Callback):
    pass


REFUSED: dict[str, tuple[Any, list[str]]] = {
    "too few arguments": (
        make(on_epoch_end=lambda self, epoch: None),
        ["Mine.on_epoch_end", "epoch, logs", "logs=None"],
    ),
    "too many arguments": (make(on_train_begin=lambda self, logs, model: None), ["Mine.on_train_begin", "logs"]),
    "no arguments": (make(on_train_batch_end=lambda self: None), ["Mine.on_train_batch_end", "batch, logs"]),
    "close with an argument": (make(close=lambda self, logs: None), ["Mine.close"]),
    "keyword-only arguments": (make(on_epoch_end=lambda self, *, epoch, logs: None), ["Mine.on_epoch_end"]),
    "an old hook with too few": (make(on_batch_end=lambda self, batch: None), ["Mine.on_batch_end", "batch, logs"]),
    "a misspelt batch hook": (make(on_bach_end=lambda self, b, logs=None: None), ["on_bach_end", "on_batch_end"]),
    "a misspelt epoch hook": (make(on_epoch_ended=lambda self, e, logs=None: None), ["on_epoch_ended", "on_epoch_end"]),
    "a hook in the plural": (make(on_epochs_end=lambda self, e, logs=None: None), ["on_epochs_end", "on_epoch_end"]),
    "another case": (make(on_Epoch_End=lambda self, e, logs=None: None), ["on_Epoch_End", "on_epoch_end"]),
    "camel case": (make(onEpochEnd=lambda self, e, logs=None: None), ["onEpochEnd", "on_epoch_end"]),
    "a plural": (make(on_train_begins=lambda self, logs=None: None), ["on_train_begins", "on_train_begin"]),
    "a hook that is no method": (make(on_epoch_end=3), ["Mine.on_epoch_end", "method", "3"]),
    "a class": (Unready, ["class Unready", "Unready()"]),
    "a stock class": (oncue.callbacks.History, ["class History", "History()"]),
    "a function": (lambda epoch, logs: None, ["function", "LambdaCallback"]),
    "a string": ("EarlyStopping", ["EarlyStopping", "str"]),
    "a number": (3, ["3", "int"]),
    "a model": (small_model(), ["no callback"]),
    "an object without hooks": (object(), ["object", "no callback"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(case: str) -> None:
    wrong, words = REFUSED[case]
    made = small_model()
    before = [weight.copy() for weight in made.get_weights()]
    with pytest.raises(TypeError) as caught:
        made.fit(X, Y, verbose=0, callbacks=[Callback(), wrong])
    message = str(caught.value)
    assert "callbacks[1]" in message
    for word in words:
        assert word in message, message
    for old, new in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_refused_by_evaluate_and_predict_too(method: str) -> None:
    arguments = (X, Y) if method == "evaluate" else (X,)
    with pytest.raises(TypeError, match=r"callbacks\[0\].*on_epoch_ended"):
        getattr(small_model(), method)(
            *arguments, verbose=0, callbacks=[make(on_epoch_ended=lambda self, e, logs: None)]
        )


def test_the_place_in_nested_lists() -> None:
    with pytest.raises(TypeError, match=r"callbacks\[1\]\[0\]\[1\]"):
        CallbackList([Callback(), [(Callback(), 7)]])


def test_a_standalone_callback() -> None:
    with pytest.raises(TypeError, match=r"`callbacks` is the class Unready"):
        small_model().fit(X, Y, verbose=0, callbacks=Unready)


def test_the_same_object_twice() -> None:
    one = Unready()
    with pytest.raises(ValueError, match=r"callbacks\[1\]\[0\].*same Unready.*callbacks\[0\]"):
        small_model().fit(X, Y, verbose=0, callbacks=[one, [one]])
    CallbackList([Unready(), Unready()])


def test_append_checks_too() -> None:
    one = Unready()
    callbacks = CallbackList([one])
    with pytest.raises(TypeError, match="no callback"):
        callbacks.append(3)
    with pytest.raises(ValueError, match="same Unready"):
        callbacks.append(one)


def test_lambda_callback_refuses_a_misspelt_hook() -> None:
    with pytest.raises(TypeError, match="on_epoch_ended.*on_epoch_end"):
        LambdaCallback(on_epoch_ended=lambda epoch, logs: None)
    with pytest.raises(TypeError, match="`on_epoch_end` must be a function; got 3"):
        LambdaCallback(on_epoch_end=3)


def test_lambda_callback_refuses_a_function_with_too_few_arguments() -> None:
    with pytest.raises(TypeError, match="on_epoch_end.*epoch, logs"):
        small_model().fit(X, Y, verbose=0, callbacks=[LambdaCallback(on_epoch_end=lambda epoch: None)])


heard: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    heard.clear()


class Duck:
    """No subclass of anything."""

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        heard.append(epoch)


class DuckWithSetters(Duck):
    def set_model(self, model: Any) -> None:
        heard.append(type(model).__name__)

    def set_params(self, params: Any) -> None:
        heard.append(params["epochs"])


def _static() -> Any:
    class Static(Callback):
        @staticmethod
        def on_epoch_end(epoch: int, logs: Any = None) -> None:
            heard.append(epoch)

    return Static()


def _class_method() -> Any:
    class OfTheClass(Callback):
        @classmethod
        def on_epoch_end(cls, epoch: int, logs: Any = None) -> None:
            heard.append(epoch)

    return OfTheClass()


def _of_the_instance() -> Any:
    callback = Callback()
    callback.on_epoch_end = lambda epoch, logs=None: heard.append(epoch)  # type: ignore[method-assign]  # users do
    return callback


def _partial() -> Any:
    callback = Callback()
    target = functools.partial(lambda extra, epoch, logs=None: heard.append(epoch), "extra")
    callback.on_epoch_end = target  # type: ignore[method-assign]  # users do
    return callback


def _decorated() -> Any:
    def logged(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def around(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return around

    class Decorated(Callback):
        @logged
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            heard.append(epoch)

    return Decorated()


FINE: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "a duck": (Duck, [0]),
    "a duck with setters": (DuckWithSetters, ["Sequential", 1, 0]),
    "extra optional arguments": (lambda: make(on_epoch_end=lambda self, e, logs=None, more=1: heard.append(e)), [0]),
    "stars": (lambda: make(on_epoch_end=lambda self, *a: heard.append(a[0])), [0]),
    "stars and keywords": (lambda: make(on_epoch_end=lambda self, *a, **k: heard.append(a[0])), [0]),
    "other names of arguments": (lambda: make(on_epoch_end=lambda self, n, values: heard.append(n)), [0]),
    "a static method": (_static, [0]),
    "a class method": (_class_method, [0]),
    "an attribute of the instance": (_of_the_instance, [0]),
    "a partial": (_partial, [0]),
    "a decorated method": (_decorated, [0]),
    "helpers with other names": (lambda: make(on_gpu=True, one_epoch=lambda self: 0), []),
    "hooks of other libraries": (lambda: make(on_train_epoch_start=lambda self: 0), []),
}


@pytest.mark.parametrize("case", FINE)
def test_fine(case: str) -> None:
    kind, expected = FINE[case]
    small_model().fit(X, Y, verbose=0, callbacks=[kind()])
    assert heard == expected


@pytest.mark.parametrize("options", [{}, {"spec": Callback}])
def test_mock_objects_receive_every_hook(options: dict[str, Any]) -> None:
    mock = unittest.mock.MagicMock(**options)
    small_model().fit(X, Y, batch_size=2, verbose=0, callbacks=[mock])
    assert mock.on_epoch_end.call_count == 1
    assert mock.on_train_batch_end.call_count == 2
    assert mock.close.call_count == 1


def test_a_class_of_oncue_s_says_so_for_itself_alone() -> None:
    public = (getattr(oncue.callbacks, name) for name in oncue.callbacks.__all__)
    kinds = [kind for kind in public if issubclass(kind, Callback) and kind is not CallbackList]
    assert len(kinds) > 15 and all(is_builtin(kind) for kind in kinds)


class _Inherits(oncue.callbacks.EarlyStopping):
    """Whose hooks are oncue's own."""


class _Overrides(oncue.callbacks.EarlyStopping):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)


class _Mixed:
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        pass


class _MixedIn(_Mixed, oncue.callbacks.EarlyStopping):  # type: ignore[misc]  # the one hook hides the other
    pass


def _assigned() -> Any:
    callback = oncue.callbacks.EarlyStopping()
    callback.on_epoch_end = lambda epoch, logs=None: None  # type: ignore[method-assign]  # as users do
    return callback


@pytest.mark.parametrize(
    ("callback", "foreign"),
    [
        (oncue.callbacks.EarlyStopping(), False),
        (_Inherits(), False),
        (_Overrides(), True),
        (_MixedIn(), True),
        (_assigned(), True),
        (LambdaCallback(on_epoch_end=lambda epoch, logs: None), True),
        (unittest.mock.MagicMock(), True),
    ],
    ids=["ours", "inherits", "overrides", "a mixin", "assigned", "a function", "a mock"],
)
def test_whose_code_a_hook_runs(callback: Any, foreign: bool) -> None:
    callbacks = CallbackList([callback])
    assert callbacks.calls_others("on_epoch_end") is foreign
    # `close` is only oncue's in what is oncue's.
    assert callbacks.calls_others("close") is isinstance(callback, unittest.mock.MagicMock)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
def test_a_hook_that_is_replaced_on_the_class_is_the_user_s(hook: str) -> None:
    kind, kept = oncue.callbacks.TerminateOnNaN, []
    before = own_method(kind(), hook)

    def keep(self: Any, index: int, logs: Any = None) -> None:
        kept.append(logs)

    with unittest.mock.patch.object(kind, hook, keep):
        found = own_method(kind(), hook)
        assert found is not None and not found[1]
        small_model().fit(X, Y, batch_size=2, epochs=3, verbose=0, callbacks=[kind()])
    losses = [logs["loss"] for logs in kept]
    assert len(set(losses)) == len(losses) > 2
    after = own_method(kind(), hook)
    assert (before and before[1]) == (after and after[1])


@pytest.mark.parametrize(
    ("name", "hooks", "text"),
    [
        (
            "EarlyStopping",
            ("on_fit_start", "on_train_epoch_end", "on_sanity_check_start"),
            r"of Lightning, EarlyStopping.*oncue",
        ),
        (
            "EarlyStoppingCallback",
            ("on_init_end", "on_step_end", "on_substep_end"),
            r"of transformers.*callbacks\.EarlyStopping",
        ),
        ("Mine", ("on_init_end", "on_step_end", "on_substep_end"), "as a subclass of `oncue.callbacks.Callback`"),
    ],
)
def test_callbacks_of_other_libraries_are_told_apart(name: str, hooks: tuple[str, ...], text: str) -> None:
    methods = dict.fromkeys((*hooks, "on_train_end"), lambda self, *arguments: None)
    with pytest.raises(TypeError, match=text):
        CallbackList([type(name, (), methods)()])
