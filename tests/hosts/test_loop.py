"""`hosts.loop`: oncue's callbacks in a training loop of the user's own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

import oncue
from helpers import Ends, cpu_only
from oncue import hosts
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    Preempted,
    Preemption,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
    TimeLimit,
)

pytestmark = cpu_only("the loop is torch's own, and resuming is compared to the bit")

X = torch.linspace(-1, 1, 60).reshape(20, 3)
Y = X.sum(dim=1, keepdim=True)


def net(dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Dropout(dropout), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
    )


def shuffled(seed: int | None = 5) -> DataLoader[Any]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, generator=generator)


class Stop(Exception):
    """The power cut of the tests."""


def train(
    callbacks: Any = (),
    *,
    epochs: int = 3,
    loader: Callable[[], Any] = shuffled,
    schedule: Callable[..., Any] | None = None,
    cut: tuple[int, int] | None = None,
    early: bool = False,
    rate: float = 0.05,
    target: Callable[[int], torch.Tensor] = lambda epoch: Y,
    **options: Any,
) -> tuple[torch.nn.Module, Any, list[tuple[int, int]]]:
    """Train in a loop as a user writes it; `cut` ends it in the middle of a batch, `early` steps before `run.step`."""
    module = net(0.3)
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    scheduler = None if schedule is None else schedule(optimizer)
    batches, seen = loader(), []
    with hosts.loop(module, optimizer, callbacks, epochs=epochs, scheduler=scheduler, **options) as run:
        for epoch in run.epochs():
            module.train()
            for place, (x, y) in enumerate(run.batches(batches)):
                loss = torch.nn.functional.mse_loss(module(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if early and scheduler is not None:
                    scheduler.step()
                run.step(loss=loss)
                seen.append((epoch, place))
                if cut == (epoch, place):
                    raise Stop
                if not early and scheduler is not None:
                    scheduler.step()
            module.eval()
            with torch.no_grad():
                run.end_epoch(val_loss=torch.nn.functional.mse_loss(module(X), target(epoch)))
    return module, run, seen


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# The same as in fit -----------------------------------------------------------------------------------------------------


def callbacks_in(folder: Path) -> list[Any]:
    folder.mkdir()
    return [
        CSVLogger(folder / "log.csv"),
        EarlyStopping("loss", patience=3, min_delta=0.01, restore_best_weights=True),
        ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.05),
        ModelCheckpoint(folder / "{epoch}.safetensors", monitor="loss", save_weights_only=True, save_best_only=True),
        TensorBoard(folder / "logs"),
        TerminateOnNaN(),
        TimeLimit("1 hour"),
        Preemption(),
    ]


def plain() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))


def test_the_same_callbacks_decide_the_same_as_in_fit(tmp_path: Path) -> None:
    model = oncue.Model(plain())
    model.compile(oncue.optimizers.TorchOptimizer(lambda p: torch.optim.SGD(p, lr=0.1)), loss="mse")
    data = [(X[at : at + 8], Y[at : at + 8]) for at in range(0, 20, 8)]
    fitted = model.fit(data, epochs=30, verbose=0, callbacks=callbacks_in(tmp_path / "fit"))
    module = plain()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with hosts.loop(module, optimizer, callbacks_in(tmp_path / "loop"), epochs=30) as run:
        for _ in run.epochs():
            module.train()
            for x, y in run.batches(data):
                loss = torch.nn.functional.mse_loss(module(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
    assert 2 < len(fitted.epoch) < 30
    assert run.history.epoch == fitted.epoch
    assert run.history.history["learning_rate"] == fitted.history["learning_rate"]
    np.testing.assert_allclose(run.history.history["loss"], fitted.history["loss"], rtol=1e-6)
    assert same(module, model.module)
    decided = [[entry.kind for entry in one.journal if entry.kind != "note"] for one in (run.history, fitted)]
    assert decided[0] == decided[1]
    files = [sorted(path.name for path in (tmp_path / one).glob("*.*")) for one in ("fit", "loop")]
    assert files[0] == files[1]
    rows = [(tmp_path / one / "log.csv").read_text().splitlines() for one in ("fit", "loop")]
    assert rows[0][0] == rows[1][0]
    assert len(rows[0]) == len(rows[1])
    assert "EarlyStopping" in run.history.explain()


def test_hooks_come_when_they_do_in_fit() -> None:
    heard: list[Any] = []

    class Tell(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            heard.append("begin")

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            heard.append(epoch)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            heard.append(f"{batch} of {logs['size']}")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            heard.append(sorted(logs))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            heard.append(sorted(logs))

        def on_train_end(self, logs: Any = None) -> None:
            heard.append("end")

        def close(self) -> None:
            heard.append("close")

    _, run, _ = train([Tell()], epochs=1)
    batch = [["loss"]]
    assert heard == [
        "begin",
        0,
        "0 of 8",
        *batch,
        "1 of 8",
        *batch,
        "2 of 4",
        *batch,
        ["loss", "val_loss"],
        "end",
        "close",
    ]
    assert run.history.params["steps"] == 3


def test_a_batch_counts_by_its_samples() -> None:
    with hosts.loop(net(), None, epochs=1) as run:
        for _ in run.epochs():
            for batch in run.batches([torch.ones(3, 1), torch.ones(1, 1)]):
                run.step(loss=float(len(batch)), each=torch.arange(float(len(batch))), own=torch.tensor(2.0))
    assert run.history.history == {"loss": [2.5], "each": [0.75], "own": [2.0]}


def test_validation_by_a_function() -> None:
    heard: list[Any] = []
    tell = LambdaCallback(
        on_test_begin=lambda logs: heard.append("begin"), on_test_end=lambda logs: heard.append(dict(logs))
    )
    _, run, _ = train([tell], epochs=1, validation=lambda: {"mae": torch.tensor(0.5)})
    assert run.history.history["val_mae"] == [0.5]
    assert heard == ["begin", {"mae": 0.5}]


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_in_a_batch() -> None:
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    counts = []
    with Reads() as reads, hosts.loop(net(), optimizer, [EarlyStopping("loss", patience=9)], epochs=2) as run:
        for _ in run.epochs():
            counts.append(reads.count)
            for (x,) in run.batches([(X,)] * 5):
                run.step(loss=x.sum(), accuracy=x.mean())
                counts.append(reads.count)
    # Both values of an epoch, at its end.
    assert counts == [0] * 6 + [2] * 6


# The learning rate ------------------------------------------------------------------------------------------------------


def linear(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20)


def joined(optimizer: Any) -> Any:
    kinds = torch.optim.lr_scheduler
    parts = [kinds.LambdaLR(optimizer, lambda step: 1.0), kinds.LambdaLR(optimizer, lambda step: 0.5**step)]
    return kinds.SequentialLR(optimizer, parts, milestones=[4])


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "lambda": linear,
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
    "exponential": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    "cyclic": lambda optimizer: torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.01, 0.1, step_size_up=4, cycle_momentum=False
    ),
    "joined": joined,
    "restarts": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 7),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rate_that_a_callback_lowers_stays_lowered(name: str) -> None:
    rates: list[list[float]] = []
    for factor in (1.0, 0.5):
        optimizer = torch.optim.SGD(net().parameters(), lr=0.05)
        scheduler = SCHEDULES[name](optimizer)
        host = hosts.loop(net(), optimizer, [], epochs=1, scheduler=scheduler)
        rates.append([])
        with host as run:
            for place in range(12):
                if place == 3:
                    run.model.optimizer.learning_rate *= factor
                rates[-1].append(run.model.optimizer.learning_rate)
                optimizer.step()
                scheduler.step()
    plain, lowered = rates
    assert lowered[:3] == plain[:3]
    np.testing.assert_allclose(lowered[3:], np.array(plain[3:]) / 2, rtol=1e-9)


def test_the_rate_of_the_epoch_is_the_one_that_it_trained_with() -> None:
    _, run, _ = train([ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=1e9)], epochs=3, schedule=linear)
    # The rate of the third update of each epoch, and a tenth of it after each epoch but the first.
    expected = [0.05 * (1 - step / 20) * 0.1 ** max(epoch - 0, 0) for epoch, step in enumerate((2, 5, 8))]
    expected[1], expected[2] = 0.05 * (1 - 5 / 20), 0.05 * (1 - 8 / 20) * 0.1
    np.testing.assert_allclose(run.history.history["learning_rate"], expected)


def test_two_groups_keep_their_ratio() -> None:
    module = net()
    parts = list(module.parameters())
    optimizer = torch.optim.SGD([{"params": parts[:2], "lr": 0.4}, {"params": parts[2:], "lr": 0.1}])
    with hosts.loop(module, optimizer, epochs=1) as run:
        run.model.optimizer.learning_rate = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.05]


def test_several_optimizers() -> None:
    one, two = (torch.optim.SGD(net().parameters(), lr=rate) for rate in (0.1, 0.4))
    with hosts.loop(net(), [one, two], [LearningRateScheduler(lambda epoch, rate: rate / 2)], epochs=2) as run:
        for _ in run.epochs():
            for _ in run.batches([X]):
                run.step(loss=0.0)
    found = {name: values for name, values in run.history.history.items() if name != "loss"}
    assert found == {"learning_rate_optimizer_0": [0.05, 0.025], "learning_rate_optimizer_1": [0.2, 0.1]}


def test_a_scheduler_that_decides_itself_is_refused_beside_a_callback_that_sets_the_rate() -> None:
    with pytest.raises(ValueError, match="ReduceLROnPlateau sets the learning rate, and so does the loop's own"):
        train([ReduceLROnPlateau("loss")], schedule=torch.optim.lr_scheduler.ReduceLROnPlateau)


def test_a_rate_of_zero_under_a_scheduler_is_refused() -> None:
    def warmup(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)

    with pytest.raises(ValueError, match="LambdaLR has it at 0 now"):
        train([LearningRateScheduler(lambda epoch: 0.1)], schedule=warmup)


# Going on after an interruption -----------------------------------------------------------------------------------------


def stream() -> Iterator[Any]:
    for place in range(100):
        yield X[place % 12 : place % 12 + 8], Y[place % 12 : place % 12 + 8]


class ThreeAtATime:
    """An iterable of three batches that can be read again."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])])


@pytest.mark.parametrize("loader", [shuffled, lambda: shuffled(None), ThreeAtATime, lambda: list(ThreeAtATime())])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("period", [1, "epoch"])
def test_it_continues_to_the_bit(tmp_path: Path, loader: Any, early: bool, period: Any) -> None:
    def callbacks(folder: str) -> list[Any]:
        return [
            EarlyStopping("val_loss", patience=8, restore_best_weights=True),
            ReduceLROnPlateau("val_loss", factor=0.5, patience=0, min_delta=0.5),
            CSVLogger(tmp_path / f"{folder}.csv"),
            *([BackupAndRestore(tmp_path / "backup", save_freq=period)] if folder == "cut" else []),
        ]

    options: dict[str, Any] = {"loader": loader, "early": early, "schedule": linear, "epochs": 4}
    torch.manual_seed(0)
    whole, run, _ = train(callbacks("whole"), **options)
    for cut in [(0, 1), (1, 2), (2, 0), (3, 1)]:
        with pytest.raises(Stop):
            train(callbacks("cut"), cut=cut, **options)
    module, again, seen = train(callbacks("cut"), **options)
    assert same(whole, module)
    assert again.history.history == run.history.history
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert len(seen) == (2 if period == 1 else 3)
    assert not list((tmp_path / "backup").glob("state*"))


def test_a_generator_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train_on_stream(cut: int | None, folder: Path | None) -> tuple[torch.nn.Module, Any]:
        module = net()
        optimizer = torch.optim.Adam(module.parameters())
        source, backup = stream(), [] if folder is None else [BackupAndRestore(folder, save_freq=1)]
        count = 0
        with hosts.loop(module, optimizer, backup, epochs=1) as run:
            for _ in run.epochs():
                for x, y in run.batches(source):
                    loss = torch.nn.functional.mse_loss(module(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    run.step(loss=loss)
                    count += 1
                    if count == cut:
                        raise Stop
        return module, run

    whole, run = train_on_stream(None, None)
    with pytest.raises(Stop):
        train_on_stream(40, tmp_path)
    module, again = train_on_stream(None, tmp_path)
    assert same(whole, module)
    assert again.history.history == run.history.history
    assert "39 batches are skipped" in capsys.readouterr().out


def test_what_is_kept_continues_too(tmp_path: Path) -> None:
    def run(cut: bool) -> list[float]:
        average = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(1, 1))
        draw = np.random.default_rng(0)

        class Counter:
            count = 0.0

            def state_dict(self) -> dict[str, Any]:
                return {"count": self.count}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                self.count = state["count"]

        counter, values = Counter(), []
        folder = tmp_path / ("cut" if cut else "whole")
        with hosts.loop(
            net(), None, [BackupAndRestore(folder, save_freq=1)], epochs=1, keep=[counter, draw, average]
        ) as loop:
            for _ in loop.epochs():
                for _ in loop.batches([X] * 4):
                    counter.count += draw.random()
                    values.append(counter.count)
                    loop.step(loss=0.0)
                    if cut and len(values) == 3 and not (tmp_path / "once").exists():
                        (tmp_path / "once").touch()
                        raise Stop
        return values

    whole = run(False)
    with pytest.raises(Stop):
        run(True)
    assert run(True) == whole[2:]


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train([BackupAndRestore(tmp_path, save_freq=1)], cut=(0, 1))
    other = DataLoader(TensorDataset(X + 1, Y), batch_size=8, shuffle=True)
    with pytest.raises(ValueError, match="data .* are not what they were"):
        train([BackupAndRestore(tmp_path, save_freq=1)], loader=lambda: other)


def test_data_that_the_loop_arranges_by_epoch(tmp_path: Path) -> None:
    def run(folder: str, cut: tuple[int, int] | None = None) -> torch.nn.Module:
        module, x = net(), X.clone()
        optimizer = torch.optim.Adam(module.parameters())
        loader = DataLoader(TensorDataset(x, Y), batch_size=8)
        with hosts.loop(module, optimizer, [BackupAndRestore(tmp_path / folder)], epochs=4) as loop:
            for epoch in loop.epochs():
                x[:] = X + epoch
                for place, (inputs, targets) in enumerate(loop.batches(loader)):
                    loss = torch.nn.functional.mse_loss(module(inputs), targets)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    loop.step(loss=loss)
                    if cut == (epoch, place):
                        raise Stop
        return module

    whole = run("whole")
    for cut in ((1, 1), (2, 0)):
        with pytest.raises(Stop):
            run("cut", cut)
    assert same(run("cut"), whole)


def test_another_module_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train([BackupAndRestore(tmp_path, save_freq=1)], cut=(0, 1))
    with (
        pytest.raises(ValueError, match="`weights` has changed"),
        hosts.loop(torch.nn.Linear(1, 1), None, [BackupAndRestore(tmp_path)], epochs=1),
    ):
        pass


def test_a_run_that_was_ended_by_a_signal_continues(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def kill(batch: int, logs: Any) -> None:
        if batch == 1 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            os.kill(os.getpid(), signal.SIGTERM)

    def callbacks() -> list[Any]:
        return [
            LambdaCallback(on_train_batch_end=kill),
            Preemption(action="raise"),
            BackupAndRestore(tmp_path / "backup"),
        ]

    whole, run, _ = train()
    with pytest.raises(Preempted, match="was saved"):
        train(callbacks())
    assert signal.getsignal(signal.SIGTERM) is before
    module, again, seen = train(callbacks())
    assert seen[0] == (0, 0)
    assert len(seen) == 7
    assert same(whole, module)
    assert again.history.history == run.history.history


def test_a_rollback() -> None:
    nan, seen = [True], []

    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with hosts.loop(module, optimizer, [TerminateOnNaN(action="rollback")], epochs=3) as run:
        for epoch in run.epochs():
            for x, _ in run.batches([(X, Y)] * 2):
                seen.append((epoch, run.model.optimizer.learning_rate))
                broken = epoch == 1 and nan and nan.pop()
                run.step(loss=x.mean() / (0.0 if broken else 1.0) - (float("inf") if broken else 0.0))
    assert seen == [(0, 0.1), (0, 0.1), (1, 0.1), (1, 0.05), (1, 0.05), (2, 0.05), (2, 0.05)]
    assert run.history.epoch == [0, 1, 2]


@pytest.mark.parametrize("saved", [(1, None), (1, 1), (2, 0)])
def test_the_state_of_callbacks_in_a_checkpoint_of_the_user(saved: tuple[int, int | None], tmp_path: Path) -> None:
    """It saves the module, the optimizer and the run, after the batches of an epoch or among them."""

    def train(
        file: Path, at: tuple[int, int | None] | None = None
    ) -> tuple[torch.nn.Module, Any, list[tuple[int, int]]]:
        module, seen = net(), []
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        batches = [(X[place : place + 8], Y[place : place + 8]) for place in (0, 8, 16)]
        callbacks = [
            EarlyStopping("val_loss", patience=4, min_delta=0.05, restore_best_weights=True),
            ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=0.05),
        ]
        with hosts.loop(module, optimizer, callbacks, epochs=20) as run:
            parts = {"module": module, "optimizer": optimizer, "run": run}
            first = 0
            if file.exists():
                kept = torch.load(file)
                first = kept.pop("batches")
                for name, part in parts.items():
                    part.load_state_dict(kept[name])
            for epoch in run.epochs():
                module.train()
                for place, (x, y) in enumerate(run.batches(batches[first:]), first):
                    loss = torch.nn.functional.mse_loss(module(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    run.step(loss=loss)
                    seen.append((epoch, place))
                    if (epoch, place) == at:
                        torch.save(
                            {**{name: one.state_dict() for name, one in parts.items()}, "batches": place + 1}, file
                        )
                        raise Stop
                first = 0
                module.eval()
                with torch.no_grad():
                    run.end_epoch(val_loss=torch.nn.functional.mse_loss(module(X), Y))
                if (epoch, None) == at:
                    torch.save({**{name: one.state_dict() for name, one in parts.items()}, "batches": 0}, file)
                    raise Stop
        return module, run, seen

    whole, expected, _ = train(tmp_path / "never")
    assert 4 < len(expected.history.epoch) < 20
    with pytest.raises(Stop):
        train(tmp_path / "state", saved)
    module, again, seen = train(tmp_path / "state")
    assert seen[0] == ((2, 0) if saved[1] is None else (saved[0], saved[1] + 1))
    assert again.history.history == expected.history.history
    assert same(module, whole)


def test_a_state_is_loaded_before_the_epochs() -> None:
    with hosts.loop(net(), None, epochs=1) as run:
        for _ in run.epochs():
            with pytest.raises(ValueError, match="`load_state_dict` belongs before"):
                run.load_state_dict(run.state_dict())


# The ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_body(error: type[BaseException]) -> None:
    ends = Ends()
    with pytest.raises(error), hosts.loop(net(), None, [ends], epochs=1) as run:
        for _ in run.epochs():
            for _ in run.batches([X]):
                raise error
    assert ends.heard == [error.__name__, "close"]
    assert run.history.epoch == []


def test_an_error_of_a_callback() -> None:
    def fail(epoch: int, logs: Any) -> None:
        raise Stop

    ends = Ends()
    with pytest.raises(Stop):
        train([ends, LambdaCallback(on_epoch_end=fail)])
    assert ends.heard == ["Stop", "close"]


def test_leaving_the_loops_by_break() -> None:
    ends = Ends()
    with hosts.loop(net(), None, [ends], epochs=5) as run:
        for epoch in run.epochs():
            for place, _ in enumerate(run.batches([X] * 3)):
                run.step(loss=float(place))
                if place == 1:
                    break
            run.end_epoch(val_loss=1.0)
            if epoch == 1:
                break
    assert ends.heard == ["end", "close"]
    assert run.history.history == {"loss": [0.5, 0.5], "val_loss": [1.0, 1.0]}


def test_a_stop_in_the_middle_of_an_epoch() -> None:
    seen = []
    with hosts.loop(net(), None, [TerminateOnNaN()], epochs=5) as run:
        for _ in run.epochs():
            for place, _ in enumerate(run.batches([X] * 3)):
                seen.append(place)
                run.step(loss=float("nan") if place == 1 else 0.0)
    assert seen == [0, 1]
    assert len(run.history.epoch) == 1


def test_a_time_limit_pauses(tmp_path: Path) -> None:
    clock = iter(range(100))

    def limited() -> list[Any]:
        return [TimeLimit(4, clock=lambda: float(next(clock))), BackupAndRestore(tmp_path)]

    _, _, seen = train(limited(), epochs=3)
    assert 0 < len(seen) < 9
    _, run, rest = train([TimeLimit("1 hour"), BackupAndRestore(tmp_path)], epochs=3)
    assert len(seen) + len(rest) == 9
    assert run.history.epoch == [0, 1, 2]


# What is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (lambda: ModelCheckpoint("a.keras"), "a file of the whole model, which a loop of your own lacks.*safetensors"),
        (lambda: ModelCheckpoint("a.weights.h5", save_weights_only=True), "as Keras lays them out.*safetensors"),
        (SwapEMAWeights, "a moving average of the weights.*AveragedModel"),
    ],
)
def test_what_a_loop_lacks_is_refused_before_it_begins(callback: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text), hosts.loop(net(), None, [callback()], epochs=1):
        pass


def test_names_are_checked_when_they_are_told() -> None:
    with (
        pytest.raises(ValueError, match=r"Did you mean `val_loss`\?"),
        hosts.loop(net(), None, [EarlyStopping("val_los")], epochs=1, logs=["loss", "val_loss"]),
    ):
        pass


def test_misuse_is_told() -> None:
    with hosts.loop(net(), None, epochs=1) as run:
        with pytest.raises(ValueError, match="`step` belongs inside"):
            run.step(loss=1.0)
        with pytest.raises(ValueError, match="`end_epoch` belongs inside"):
            run.end_epoch(loss=1.0)
        with pytest.raises(ValueError, match="`batches` belongs inside"):
            next(run.batches([X]))
        for _ in run.epochs():
            for _ in run.batches([X]):
                with pytest.raises(ValueError, match="one loop over batches at a time"):
                    next(run.batches([X]))
                with pytest.raises(TypeError, match="`loss` must be a number or a tensor; got a str, 'low'"):
                    run.step(loss="low")
    with (
        pytest.raises(TypeError, match="must be an `Accelerator` of Accelerate"),
        hosts.loop(net(), epochs=1, accelerator=1),
    ):
        pass


def test_files_are_those_of_the_module(tmp_path: Path) -> None:
    module, _, _ = train([ModelCheckpoint(tmp_path / "m.safetensors", save_weights_only=True, asynchronous=True)])
    from safetensors.torch import load_file

    found = load_file(tmp_path / "m.safetensors")
    assert list(found) == list(module.state_dict())
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())


def test_everything_of_a_state_is_plain(tmp_path: Path) -> None:
    """A module with a state beside tensors keeps it."""

    class Counting(torch.nn.Linear):
        count = 0

        def get_extra_state(self) -> Any:
            return {"count": self.count}

        def set_extra_state(self, state: Any) -> None:
            self.count = state["count"]

    counts = []
    for cut in (True, False):
        module = Counting(1, 1)
        try:
            with hosts.loop(module, None, [BackupAndRestore(tmp_path, save_freq=1)], epochs=1) as run:
                for _ in run.epochs():
                    for place, _ in enumerate(run.batches([X] * 3)):
                        module.count += 1
                        counts.append(module.count)
                        run.step(loss=0.0)
                        if cut and place == 1:
                            raise Stop
        except Stop:
            pass
    assert counts == [1, 2, 2, 3]


# Needs ------------------------------------------------------------------------------------------------------------------


def test_a_list_without_a_model_says_so_before_the_first_epoch() -> None:
    with pytest.raises(
        ValueError, match=r"EarlyStopping needs a loop that can be stopped, and this list has no model.*hosts"
    ):
        CallbackList([EarlyStopping("loss")]).on_train_begin()


def test_a_bare_module_lacks_weights() -> None:
    callbacks = CallbackList([EarlyStopping("loss", restore_best_weights=True)], model=torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="a Linear has no `get_weights` and `set_weights`.*hosts.loop"):
        callbacks.on_train_begin()
    with pytest.raises(ValueError, match="ReduceLROnPlateau needs a learning rate.*no `optimizer`"):
        CallbackList([ReduceLROnPlateau()], model=torch.nn.Linear(1, 1)).on_train_begin()
    # This needs none of them.
    CallbackList([EarlyStopping("loss")], model=torch.nn.Linear(1, 1)).on_train_begin()


class Group:
    """The second of two processes; the first has 1 where this one has 0."""

    is_available = is_initialized = staticmethod(lambda: True)
    get_world_size, get_rank = staticmethod(lambda: 2), staticmethod(lambda: 1)

    ReduceOp = torch.distributed.ReduceOp

    @staticmethod
    def all_reduce(values: torch.Tensor, kind: Any = ReduceOp.SUM) -> None:
        values += 1


def test_weights_that_are_spread_over_processes_are_in_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        module = torch.nn.Linear(4, 2)
        spread = distribute_tensor(module.weight.detach(), init_device_mesh("cpu", (1,)), [Shard(0)])
        module.weight = torch.nn.Parameter(spread)
        monkeypatch.setattr("oncue.hosts.processes.distributed", Group)
        for callback in (
            ModelCheckpoint(tmp_path / "m.safetensors", save_weights_only=True),
            BackupAndRestore(tmp_path / "backup"),
        ):
            with (
                pytest.raises(
                    ValueError, match="a module whose weights are spread over processes lacks. Use the checkpoints"
                ),
                hosts.loop(module, None, [callback], epochs=1),
            ):
                pass
    finally:
        torch.distributed.destroy_process_group()


def test_several_processes_have_one_log_write_one_file_and_stop_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.hosts.processes.distributed", Group)
    kept: list[Any] = []
    callbacks = [
        CSVLogger("never.csv"),
        LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(json.dumps(dict(logs)))),
    ]
    with hosts.loop(net(), None, callbacks, epochs=5) as run:
        for _ in run.epochs():
            for _ in run.batches([X]):
                run.step(loss=0.0)
    assert kept == ['{"loss": 0.5}']
    assert not os.path.exists("never.csv")
