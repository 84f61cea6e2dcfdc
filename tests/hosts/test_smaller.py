"""`hosts.Ignite`, `hosts.Skorch` and `hosts.Poutyne`: what the matrix doesn't show."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts_matrix import BATCH, RATE, X, Y, loader, network

from helpers import Ends, cpu_only
from oncue import hosts
from oncue.callbacks import BackupAndRestore, LambdaCallback, ModelCheckpoint, ReduceLROnPlateau

pytestmark = [
    cpu_only("other libraries' loops, on the CPU"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def stopping(seen: list[int]) -> Any:
    def stop(batch: int, logs: Any) -> None:
        seen.append(batch)
        if batch == 1:
            listener.model.stop_training = True

    listener = LambdaCallback(on_train_batch_end=stop)
    return listener


def halving() -> Any:
    return ReduceLROnPlateau("loss", patience=0, factor=0.5, min_delta=10)


def lowered(updates: tuple[int, ...], gamma: float) -> Any:
    """The rates of four epochs under an exponential scheduler, halved after the second and the third."""
    return pytest.approx([RATE * gamma**at * share for at, share in zip(updates, (1, 1, 0.5, 0.25), strict=True)])


def check_refusals(adapter: Any, means: str) -> None:
    with pytest.raises(ValueError, match="ModelCheckpoint needs a file of the whole model"):
        adapter(ModelCheckpoint("a.keras"))
    with pytest.raises(ValueError, match=means):
        adapter(BackupAndRestore("backup"))


LIBRARIES = {name: name.lower() for name in ("Ignite", "Lightning", "Poutyne", "Skorch", "Transformers")}


@pytest.mark.parametrize("name", [name for name, library in LIBRARIES.items() if find_spec(library) is None])
def test_without_the_library_it_says_what_to_install(name: str) -> None:
    library = LIBRARIES[name]
    with pytest.raises(
        ImportError, match=rf"hosts\.{name}` needs the package {library}: `pip install 'oncue\[{library}\]'`"
    ):
        getattr(hosts, name)


if find_spec("ignite") is not None:
    from ignite.engine import Engine, Events

    def run_ignite(*callbacks: Any, gamma: float | None = None, epochs: int = 4, step: Any = None) -> Any:
        module = network()
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
        scheduler = None if gamma is None else torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)

        def train(engine: Any, batch: Any) -> Any:
            loss = torch.nn.functional.mse_loss(module(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            return {"loss": loss, "twice": 2 * loss}

        trainer = Engine(step or train)
        adapter = hosts.Ignite(*callbacks)
        adapter.attach(trainer, module, optimizer, scheduler=scheduler)
        trainer.run(loader(), max_epochs=epochs)
        return adapter

    def test_ignite_stops_in_the_middle_of_an_epoch() -> None:
        seen: list[int] = []
        adapter = run_ignite(stopping(seen))
        assert seen == [0, 1]
        assert adapter.history.epoch == [0]
        assert adapter.history.history["twice"] == pytest.approx([2 * adapter.history.history["loss"][0]])

    def test_ignite_keeps_a_lowered_rate() -> None:
        adapter = run_ignite(halving(), gamma=0.9)
        assert adapter.history.history["learning_rate"] == lowered((2, 5, 8, 11), 0.9)

    def test_ignite_raises_what_was_raised() -> None:
        ends = Ends()

        def fail(engine: Any, batch: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_ignite(ends, step=fail)
        assert ends.heard == ["KeyboardInterrupt", "close"]

    def test_ignite_tells_of_an_output_that_is_no_number() -> None:
        with pytest.raises(TypeError, match="`loss` must be a number or a tensor; got a tuple"):
            run_ignite(step=lambda engine, batch: batch and ("x", "y"))

    def test_what_ignite_lacks() -> None:
        check_refusals(hosts.Ignite, "to_save=")

    assert Events.STARTED


if find_spec("skorch") is not None:
    from skorch import NeuralNetRegressor
    from skorch.callbacks import LRScheduler

    def net(*callbacks: Any, epochs: int = 4) -> Any:
        return NeuralNetRegressor(
            network(),
            max_epochs=epochs,
            lr=RATE,
            batch_size=BATCH,
            train_split=None,
            callbacks=list(callbacks),
            verbose=0,
        )

    def test_skorch_stops_with_the_epoch() -> None:
        seen: list[int] = []
        adapter = hosts.Skorch(stopping(seen))
        net(adapter).fit(X, Y)
        assert seen == [0, 1, 2]
        assert adapter.history.epoch == [0]
        assert list(adapter.history.history) == ["loss"]

    @pytest.mark.parametrize("first", [True, False])
    def test_skorch_keeps_a_lowered_rate(first: bool) -> None:
        adapter, scheduler = hosts.Skorch(halving()), LRScheduler("ExponentialLR", gamma=0.9)
        net(*([adapter, scheduler] if first else [scheduler, adapter])).fit(X, Y)
        # It steps with the epoch.
        assert adapter.history.history["learning_rate"] == lowered((0, 1, 2, 3), 0.9)

    def test_skorch_searches_and_trains_again() -> None:
        from sklearn.model_selection import GridSearchCV

        ends = Ends()
        adapter = hosts.Skorch(ends)
        search = GridSearchCV(net(adapter, epochs=1), {"lr": [0.1, 0.01]}, cv=2, refit=False, error_score="raise")
        search.fit(X, Y)
        # Each fit has a copy.
        assert ends.heard == []
        made = net(adapter, epochs=2)
        for _ in range(2):
            made.fit(X, Y)
        assert ends.heard == ["end", "close"] * 2
        made.partial_fit(X, Y)
        assert adapter.history.epoch == [2, 3]

    def test_what_skorch_lacks() -> None:
        check_refusals(hosts.Skorch, "LoadInitState")


if find_spec("poutyne") is not None:
    import poutyne

    def run_poutyne(*callbacks: Any, epochs: int = 4) -> Any:
        module = network()
        model = poutyne.Model(module, torch.optim.SGD(module.parameters(), lr=RATE), "mse")
        return model.fit_generator(loader(), epochs=epochs, callbacks=list(callbacks), verbose=False)

    def test_poutyne_stops_with_the_epoch() -> None:
        seen: list[int] = []
        adapter = hosts.Poutyne(stopping(seen))
        run_poutyne(adapter)
        assert seen == [0, 1, 2]
        assert adapter.history.epoch == [0]
        assert list(adapter.history.history) == ["loss"]

    @pytest.mark.parametrize("first", [True, False])
    def test_poutyne_keeps_a_lowered_rate(first: bool) -> None:
        scheduler = poutyne.ExponentialLR(gamma=0.9)
        adapter = hosts.Poutyne(halving(), scheduler=scheduler)
        run_poutyne(*([adapter, scheduler] if first else [scheduler, adapter]))
        assert adapter.history.history["learning_rate"] == lowered((0, 1, 2, 3), 0.9)

    def test_poutyne_tells_of_a_scheduler_that_it_was_not_told_of() -> None:
        with pytest.warns(UserWarning, match="has had a scheduler, which this loop was not told of"):
            run_poutyne(poutyne.ExponentialLR(gamma=0.9), hosts.Poutyne(halving()), epochs=1)

    def test_poutyne_is_closed_after_an_error(tmp_path: Path) -> None:
        class Fail(poutyne.Callback):  # type: ignore[misc]
            def on_epoch_end(self, epoch_number: int, logs: Any) -> None:
                raise RuntimeError

        ends = Ends()
        adapter = hosts.Poutyne(ends)
        with pytest.raises(RuntimeError), adapter:
            run_poutyne(adapter, Fail())
        assert ends.heard == ["RuntimeError", "close"]

    def test_what_poutyne_lacks() -> None:
        check_refusals(hosts.Poutyne, "poutyne.Experiment")
