"""A picture of each callback, drawn from a run in which it does what it is for.

Each function in `PICTURES` trains, in a folder of its own, and returns a `Picture`. The same machine and versions give the
same pictures: seeds are fixed, and where the clock decides, the run has a clock that its steps wind on. Only that of `Profile`
has what was measured.
"""

from __future__ import annotations

import csv
import http.server
import io
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oncue
from oncue import callbacks, layers
from oncue.callbacks import BackupAndRestore, Callback, LambdaCallback
from oncue.core import commands
from oncue.core.hooks import HOOKS

matplotlib.rcParams["svg.hashsalt"] = "oncue"


@dataclass(frozen=True)
class Colours:
    """The colours of one of the site's two schemes."""

    ink: str
    quiet: str
    main: str
    second: str
    good: str
    bad: str


LIGHT = Colours("#30343b", "#8a8f98", "#3949ab", "#d9650a", "#1b8a4b", "#c62828")
DARK = Colours("#d9dbe1", "#8f95a1", "#9fa8ff", "#ffb066", "#6fcf97", "#ff8a80")

Draw = Callable[[Figure, Colours], None]


@dataclass
class Picture:
    """What a run has shown.

    Args:
        code: The callback, as a script makes it.
        caption: What is to be seen.
        draw: Draws it.
        alt: The same in words, for who doesn't see it; the caption by default.
        journal: What the callbacks have written into the journal of the run.
        logs: The names that the run's logs had.
        files: What the run has left in its folder.
        height: Of the picture, in inches; it is 7.2 wide.
    """

    code: str
    caption: str
    draw: Draw
    alt: str = ""
    journal: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    height: float = 3.0


PICTURES: dict[str, Callable[[], Picture]] = {}
"""What makes the picture of each callback, by its name."""


def picture(name: str) -> Callable[[Callable[[], Picture]], Callable[[], Picture]]:
    """Register what makes a callback's picture. It is called in an empty folder."""

    def register(make: Callable[[], Picture]) -> Callable[[], Picture]:
        def in_a_folder() -> Picture:
            before = Path.cwd()
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                try:
                    made = make()
                    made.files = made.files or _files()
                finally:
                    os.chdir(before)
            return made

        PICTURES[name] = in_a_folder
        return make

    return register


def save(made: Picture, path: Path, dark: bool) -> None:
    """Draw a picture into an SVG file, in the colours of one scheme, on nothing."""
    colours = DARK if dark else LIGHT
    style = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), colours.ink),
        **{"axes.spines.top": False, "axes.spines.right": False, "font.size": 9.5, "legend.frameon": False},
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.2, made.height), layout="constrained")
        made.draw(figure, colours)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


# Runs --------------------------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """A run that is over.

    Args:
        callback: The callback of the picture.
        history: The History.
        model: The model.
    """

    callback: Any
    history: Any
    model: Any

    def of(self, name: str) -> list[float]:
        """Return the values of a name, one for each epoch."""
        return list(self.history.history[name])

    @property
    def epochs(self) -> list[int]:
        """The epochs, counted from 1."""
        return [epoch + 1 for epoch in self.history.epoch]

    def told(self, code: str, caption: str, draw: Draw, **further: Any) -> Picture:
        """Return the picture of this run."""
        journal = further.pop("journal", [str(entry) for entry in self.history.journal])
        return Picture(code, caption, draw, journal=journal, logs=sorted(self.history.history), **further)


def _files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def made_of(code: str, **names: Any) -> Any:
    """Make a callback from the code that the page shows."""
    return eval(code, {name: getattr(callbacks, name) for name in callbacks.__all__} | names)


def data(points: int = 24, noise: float = 0.3) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return points around a curve, too few of them to be learnt well, and others to measure with."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-3, 3, size=(points + 60, 1)).astype("float32")
    y = (np.sin(2 * x) + rng.normal(0, noise, size=x.shape)).astype("float32")
    return (x[:points], y[:points]), (x[points:], y[points:])


def train(
    code: str,
    *further: Callback,
    first: Sequence[Callback] = (),
    optimizer: Any = None,
    epochs: int = 30,
    points: int = 24,
    batch_size: int = 8,
    callback: Any = None,
    **options: Any,
) -> Ran:
    """Train a small network, which learns a noisy curve by heart, with a callback and further ones behind it."""
    oncue.utils.set_random_seed(0)
    measured, held_out = data(points)
    model = oncue.Sequential(
        [
            layers.Input((1,)),
            layers.Dense(32, activation="tanh", name="body"),
            layers.Dense(32, activation="tanh", name="middle"),
            layers.Dense(1, name="head"),
        ]
    )
    model.compile(optimizer or oncue.optimizers.Adam(0.01), loss="mse", jit_compile=False)
    one = callback or made_of(code)
    options = {"validation_data": held_out, "verbose": 0, **options}
    try:
        model.fit(*measured, batch_size=batch_size, epochs=epochs, callbacks=[*first, one, *further], **options)
    except Interrupted:
        pass
    return Ran(one, model.history, model)


class Interrupted(Exception):
    """What takes the place of a power cut."""


class Clock:
    """A clock that stands still but for what a run adds to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def each_batch(self, seconds: Callable[[int], float]) -> LambdaCallback:
        """Return a callback with which each batch takes so many seconds, by the index of its epoch."""
        epochs = [0]

        def begin(epoch: int, logs: Any) -> None:
            epochs[0] = epoch

        def wind(batch: int, logs: Any) -> None:
            self.now += seconds(epochs[0])

        return LambdaCallback(on_epoch_begin=begin, on_train_batch_begin=wind)


class Steps(Callback):
    """Notes the loss of each batch, and where it was, counted over the whole run."""

    def __init__(self, first: int = 0, cut: int | None = None, act: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.at, self.losses, self.step, self.cut, self.act = [], [], first, cut, act
        self.at: list[int]
        self.losses: list[float]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Forget the last epoch's sum."""
        self.sum, self.seen = 0.0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the loss of the batch, out of the mean over the epoch."""
        if not self.seen:
            # A run that was taken up within an epoch.
            self.seen, self.sum = batch, logs["loss"] * batch
        total = logs["loss"] * (batch + 1)
        self.losses.append(total - self.sum)
        self.at.append(self.step)
        self.sum, self.seen = total, batch + 1
        self.step += 1
        if self.step == self.cut:
            if self.act is not None:
                self.act()
            else:
                raise Interrupted


# Drawing -----------------------------------------------------------------------------------------------------------------


def curve(axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str, label: str, **style: Any) -> None:
    """Draw a curve."""
    axes.plot(xs, ys, color=colour, label=label, linewidth=1.8, **style)


def axes_of(figure: Figure, colours: Colours, *labels: str, x: str = "epoch") -> list[Axes]:
    """Return panels above each other, with a common x."""
    panels = list(np.atleast_1d(figure.subplots(len(labels), 1, sharex=True)))
    for panel, label in zip(panels, labels, strict=True):
        panel.set_ylabel(label)
        panel.grid(color=colours.quiet, alpha=0.22)
        panel.set_axisbelow(True)
    panels[-1].set_xlabel(x)
    if x == "epoch":
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return panels


def legend(axes: Axes) -> None:
    """Say above the panel what its curves are."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)


def mark(axes: Axes, x: float, words: str, colour: str, *, left: bool = False, top: float = 0.97) -> None:
    """Draw a line at a moment, with words beside it."""
    axes.axvline(x, color=colour, linestyle=(0, (4, 2)), linewidth=1.3)
    axes.annotate(
        words,
        (x, top),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if left else 5, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=colour,
    )


def point(axes: Axes, x: float, y: float, words: str, colour: str, *, above: float = -16) -> None:
    """Draw a diamond, with words beneath or above it."""
    axes.plot([x], [y], marker="D", color=colour, markersize=6.5, linestyle="none", zorder=5)
    axes.annotate(words, (x, y), xytext=(0, above), textcoords="offset points", ha="center", color=colour)


def card(lines: Sequence[str], size: float = 8.6) -> Draw:
    """Return what draws lines of text as they are in a file or on a terminal. A line that begins with # is quiet."""

    def draw(figure: Figure, colours: Colours) -> None:
        axes = figure.add_subplot()
        axes.set_axis_off()
        for number, line in enumerate(lines):
            colour = colours.quiet if line.lstrip().startswith("#") else colours.ink
            axes.text(
                0.0, 1 - (number + 0.5) / len(lines), line, family="monospace", size=size, color=colour, va="center"
            )

    return draw


def cut(line: str, length: int = 100) -> str:
    """Return a line that fits into a card."""
    return line if len(line) <= length else f"{line[: length - 1]}…"


def height_of(lines: Sequence[str]) -> float:
    """Return the height of a card, in inches."""
    return 0.25 + 0.2 * len(lines)


def text_picture(ran: Ran, code: str, caption: str, lines: Sequence[str], size: float = 8.6, **further: Any) -> Picture:
    """Return a picture that is a card."""
    return ran.told(code, caption, card(lines, size), height=height_of(lines), **further)


# The pictures ------------------------------------------------------------------------------------------------------------


@picture("EarlyStopping")
def _() -> Picture:
    code = "EarlyStopping(patience=5, restore_best_weights=True)"
    ran = train(code, epochs=60)
    values, stop = ran.of("val_loss"), ran.callback

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "loss")
        curve(axes, ran.epochs, ran.of("loss"), colours.quiet, "loss")
        curve(axes, ran.epochs, values, colours.main, "val_loss")
        axes.axvspan(stop.best_epoch + 1, stop.stopped_epoch + 1, color=colours.second, alpha=0.13)
        axes.text(
            (stop.best_epoch + stop.stopped_epoch) / 2 + 1, max(values), "patience", ha="center", color=colours.second
        )
        mark(axes, stop.stopped_epoch + 1, "stopped", colours.bad)
        point(axes, stop.best_epoch + 1, stop.best, "weights put back", colours.good)
        axes.set_xlim(1, stop.stopped_epoch + 4)
        axes.set_ylim(0)
        legend(axes)

    return ran.told(
        code,
        f"`val_loss` was least in epoch {stop.best_epoch + 1}. After five epochs without improvement the run was stopped, and "
        "the weights of the best epoch were put back.",
        draw,
    )


@picture("StopAtThreshold")
def _() -> Picture:
    code = 'StopAtThreshold("val_loss", 0.15, times=2)'
    ran = train(code, epochs=90, points=96)
    stop = ran.callback

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "val_loss")
        curve(axes, ran.epochs, ran.of("val_loss"), colours.main, "val_loss", marker=".")
        axes.axhspan(0, stop.threshold, color=colours.good, alpha=0.13)
        axes.text(1, stop.threshold * 0.85, "good enough", color=colours.good, va="top")
        mark(axes, stop.stopped_epoch + 1, "stopped", colours.bad, left=True)
        axes.set_ylim(0)

    return ran.told(code, "The run stops when the value was good enough twice in a row.", draw)


@picture("ReduceLROnPlateau")
def _() -> Picture:
    code = "ReduceLROnPlateau(factor=0.5, patience=3)"
    ran = train(code, epochs=45)

    def draw(figure: Figure, colours: Colours) -> None:
        above, below = axes_of(figure, colours, "val_loss", "learning rate")
        curve(above, ran.epochs, ran.of("val_loss"), colours.main, "val_loss")
        below.step(ran.epochs, ran.of("learning_rate"), where="mid", color=colours.second, linewidth=1.8)
        for entry in ran.history.journal.of("learning_rate"):
            for axes in (above, below):
                axes.axvline(entry.epoch + 1, color=colours.bad, linestyle=(0, (4, 2)), linewidth=1)
        below.set_yscale("log")

    return ran.told(code, "Dashed: three epochs without improvement, after which the rate is halved.", draw, height=3.8)


@picture("LearningRateScheduler")
def _() -> Picture:
    code = "LearningRateScheduler(lambda epoch, rate: rate if epoch < 5 else rate * 0.9)"
    ran = train(code, epochs=25)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "learning rate")
        axes.step(ran.epochs, ran.of("learning_rate"), where="mid", color=colours.second, linewidth=1.8)
        axes.set_ylim(0)
        axes.text(6, 0.0102, "from epoch 6 on, nine tenths of the last", color=colours.quiet, va="bottom")
        axes.set_ylim(0, 0.0115)

    return ran.told(code, "Before each epoch the function is asked for the rate.", draw)


@picture("ModelCheckpoint")
def _() -> Picture:
    code = 'ModelCheckpoint("{epoch:02d}.keras", keep="best 3")'
    ran = train(code, optimizer=oncue.optimizers.Adam(0.03), epochs=40)
    kept = sorted(int(path.stem) for path in Path().glob("*.keras"))

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "val_loss")
        values = dict(zip(ran.epochs, ran.of("val_loss"), strict=True))
        curve(axes, ran.epochs, list(values.values()), colours.main, "val_loss")
        gone = [epoch for epoch in ran.epochs if epoch not in kept]
        axes.plot(
            gone, [values[one] for one in gone], "o", color=colours.quiet, markerfacecolor="none", label="deleted again"
        )
        axes.plot(
            kept, [values[one] for one in kept], "D", color=colours.good, markersize=7, label="on the disk in the end"
        )
        legend(axes)

    journal = [str(entry) for entry in ran.history.journal][-4:]
    return ran.told(
        code, "Of the models that were saved, the three best by `val_loss` stay.", draw, journal=["…", *journal]
    )


@picture("TerminateOnNaN")
def _() -> Picture:
    code = 'TerminateOnNaN(action="rollback", factor=0.5)'
    steps, mistakes = Steps(), [1e6]

    class Mistake(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3 and mistakes:
                self.model.optimizer.learning_rate = mistakes.pop()

    with redirect_stdout(io.StringIO()):
        ran = train(code, first=[Mistake(), steps], optimizer=oncue.optimizers.SGD(0.05), epochs=7, points=96)
    back = [entry for entry in ran.history.journal if entry.callback == "TerminateOnNaN"]

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "loss of the batch", x="step")
        losses = [one if np.isfinite(one) else np.nan for one in steps.losses]
        curve(axes, steps.at, losses, colours.main, "loss", marker=".")
        (bad,) = [at for at, one in zip(steps.at, steps.losses, strict=True) if not np.isfinite(one)]
        axes.set_ylim(0, 1.6)
        mark(axes, 36, "a rate by mistake ", colours.second, left=True)
        mark(axes, bad, "not finite: back to the end of\nthe last epoch, with half its rate", colours.bad)

    assert len(back) == 1
    return ran.told(
        code, "In epoch 4 a callback set a rate of a million by mistake. The run goes back to where all was well.", draw
    )


@picture("Freeze")
def _() -> Picture:
    code = 'Freeze(["body", "middle"], until_epoch=6)'
    moved: dict[str, list[float]] = {"body": [], "head": []}
    first: dict[str, Any] = {}

    class Distance(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            first.update({name: self.model.get_layer(name).get_weights()[0] for name in moved})

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            for name, values in moved.items():
                now = self.model.get_layer(name).get_weights()[0]
                values.append(float(np.linalg.norm(now - first[name]) / np.linalg.norm(first[name])))

    ran = train(code, Distance(), epochs=16)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "change of the weights")
        axes.axvspan(0.5, 6.5, color=colours.main, alpha=0.1)
        curve(axes, ran.epochs, moved["head"], colours.second, "head")
        curve(axes, ran.epochs, moved["body"], colours.main, "body")
        axes.text(3.5, max(moved["head"]) * 0.93, "body stands still", ha="center", color=colours.main)
        legend(axes)

    return ran.told(code, "The head is trained alone for six epochs, then all of the network is.", draw)


@picture("GradientNorms")
def _() -> Picture:
    code = "GradientNorms(every=1)"
    ran = train(code, epochs=30, points=48)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "norm of the gradients")
        curve(axes, ran.epochs, ran.of("gradient_norm_max"), colours.second, "gradient_norm_max")
        curve(axes, ran.epochs, ran.of("gradient_norm"), colours.main, "gradient_norm")
        axes.set_ylim(0)
        legend(axes)

    return ran.told(code, "Two more columns in the logs: the mean and the largest norm of each epoch.", draw)


@picture("Throughput")
def _() -> Picture:
    clock = Clock()
    code = "Throughput(tokens_per_sample=128)"
    slow = clock.each_batch(lambda epoch: 0.05 if epoch in (4, 5) else 0.02)
    ran = train(
        code, first=[slow], callback=callbacks.Throughput(tokens_per_sample=128, clock=clock), epochs=10, points=96
    )

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "samples in a second")
        speeds = ran.of("samples_per_second")
        axes.bar(ran.epochs, speeds, color=colours.main, alpha=0.85, width=0.7)
        axes.annotate("the data\ncame slowly", (5.5, speeds[4] + 12), ha="center", color=colours.bad)

    return ran.told(
        code, "In two epochs of this run each batch took longer (its clock is wound on by the batches).", draw
    )


def search(
    code: str,
    caption: str,
    callback: Callable[[list[list[float]]], Callback],
    ended: type[BaseException],
    rates: Sequence[float],
    looked: Sequence[int] = (),
) -> Picture:
    """Return the picture of a search: the curves of a run for each rate, of which some were ended early.

    Args:
        code: The callback, as a script makes it.
        caption: What is to be seen.
        callback: Makes that of a run, which puts what the run tells into the last of the lists, one for each run so far.
        ended: What comes out of a run that was ended.
        rates: The learning rates.
        looked: The epochs that the search looks at, if not at all.
    """
    tried: list[list[float]] = []
    made: list[Any] = []
    whole: list[Ran] = []
    for rate in rates:
        tried.append([])
        made.append(callback(tried))
        with suppress(ended):
            whole.append(train(code, callback=made[-1], optimizer=oncue.optimizers.Adam(rate), epochs=14))

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "val_loss")
        for values in tried:
            early = len(values) < 14
            line = colours.quiet if early else colours.main
            axes.plot(range(1, len(values) + 1), values, color=line, linewidth=1.8, alpha=0.9)
            if early:
                end = {"marker": "x", "color": colours.bad, "markersize": 7, "markeredgewidth": 2}
                axes.plot([len(values)], [values[-1]], **end)
        for epoch in looked:
            axes.axvline(epoch, color=colours.quiet, linestyle=(0, (4, 2)), linewidth=1)
        axes.set_ylim(0, 1)

    journal = [str(entry) for one in made for entry in one.model.history.journal]
    return whole[0].told(code, caption, draw, journal=journal)


@contextmanager
def standing_in(name: str, module: Any) -> Iterator[None]:
    """Put something in a module's place; what is imported meanwhile stays, unlike with `mock.patch.dict`."""
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@picture("OptunaPruning")
def _() -> Picture:
    class Pruned(Exception):
        pass

    class Trial:
        """A trial that is pruned where it is worse than the median of those before, as by Optuna's MedianPruner."""

        def __init__(self, tried: list[list[float]]) -> None:
            self.tried = tried

        def report(self, value: float, step: int) -> None:
            self.tried[-1].append(value)

        def should_prune(self) -> bool:
            *before, own = self.tried
            others = [one[len(own) - 1] for one in before if len(one) >= len(own)]
            return len(own) > 3 and len(before) > 3 and own[-1] > float(np.median(others))

    with standing_in("optuna", SimpleNamespace(TrialPruned=Pruned)):
        return search(
            "OptunaPruning(trial)",
            "Eight runs of a study. Those that were worse than the median of the runs before them were pruned (crosses).",
            lambda tried: callbacks.OptunaPruning(Trial(tried)),
            Pruned,
            (0.003, 0.01, 0.001, 0.02, 0.0005, 0.03, 0.002, 0.015),
        )


@picture("RayTuneReport")
def _() -> Picture:
    rungs: dict[int, list[float]] = {3: [], 7: []}

    def reports(tried: list[list[float]]) -> Callback:
        def report(numbers: dict[str, float]) -> None:
            value, rung = numbers["val_loss"], rungs.get(int(numbers["epoch"]))
            tried[-1].append(value)
            if rung is not None:
                rung.append(value)
                if value > float(np.median(rung)):
                    raise SystemExit(0)

        return callbacks.RayTuneReport(report)

    return search(
        "RayTuneReport()",
        "Eight trials, which tell their logs at the end of each epoch. A scheduler of successive halving looks after epochs 3 "
        "and 7, and ends those that aren't among the better half (crosses).",
        reports,
        SystemExit,
        (0.01, 0.003, 0.02, 0.001, 0.03, 0.0005, 0.015, 0.002),
        looked=tuple(rungs),
    )


@picture("Profile")
def _() -> Picture:
    code = "Profile(batches=(10, 20))"
    ran = train(code, epochs=2, points=120)
    (entry,) = ran.history.journal
    costly = [one for one in entry.data["operations"] if "#" not in one["name"]][:7]

    def draw(figure: Figure, colours: Colours) -> None:
        axes = figure.add_subplot()
        places = [-at for at in range(len(costly))]
        axes.barh(places, [one["milliseconds"] for one in costly], color=colours.main, alpha=0.85, height=0.65)
        for place, one in zip(places, costly, strict=True):
            axes.text(one["milliseconds"], place, f"  {one['calls']} calls", va="center", color=colours.quiet, size=8.5)
        axes.set_yticks(places, [cut(one["name"], 28) for one in costly], family="monospace", size=8.5)
        axes.set_xlabel("milliseconds")
        axes.margins(x=0.12)

    return ran.told(
        code, "The operations of the batches 10 to 20 that took the most time, as they were measured.", draw
    )


@picture("DeviceStats")
def _() -> Picture:
    code = 'DeviceStats("1 step", probe=lambda: {"kept_mib": kept / 2**20})'
    kept: list[Any] = []

    def leak(batch: int, logs: Any) -> None:
        kept.append(np.zeros(2**15, "float32"))

    stats = callbacks.DeviceStats("1 step", probe=lambda: {"kept_mib": sum(one.nbytes for one in kept) / 2**20})
    ran = train(code, callback=stats, first=[LambdaCallback(on_train_batch_end=leak)], epochs=10, points=96)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "MiB")
        axes.bar(ran.epochs, ran.of("kept_mib"), color=colours.main, alpha=0.85, width=0.7, label="kept_mib")
        legend(axes)

    return ran.told(
        code,
        "A callback of this run keeps an array at each step, and a probe of its own shows it. Without `probe` it logs the "
        "memory of the devices, and how busy they are.",
        draw,
    )


@picture("TimeLimit")
def _() -> Picture:
    code = 'TimeLimit("10 minutes")'
    ends: list[tuple[int, float, float]] = []
    stops: list[float] = []
    begins = 0.0

    class Epochs(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch, self.began = epoch, clock.now

        def close(self) -> None:
            ends.append((self.epoch, begins + self.began, begins + clock.now))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append((epoch, begins + self.began, begins + clock.now))
            self.began = clock.now

    for _run in range(2):
        clock = Clock()
        limit = callbacks.TimeLimit("10 minutes", clock=clock)
        one = [Epochs(), clock.each_batch(lambda epoch: 14.5)]
        ran = train(code, BackupAndRestore("backup"), first=one, callback=limit, epochs=6, points=96)
        stops.append(begins + clock.now)
        begins += 690.0

    def draw(figure: Figure, colours: Colours) -> None:
        axes = figure.add_subplot()
        for epoch, start, stop in ends:
            colour = colours.main if epoch % 2 == 0 else colours.second
            axes.barh(0, (stop - start) / 60, left=start / 60, height=0.5, color=colour, alpha=0.8)
            if stop - start > 40:
                axes.text((start + stop) / 120, 0, str(epoch + 1), ha="center", va="center", color=colours.ink)
        axes.axvline(10, color=colours.bad, linestyle=(0, (4, 2)))
        axes.text(10, 0.36, "the limit ", color=colours.bad, ha="right", va="bottom")
        axes.text(11.5, 0.36, "started again", color=colours.good, va="bottom")
        axes.set(ylim=(-0.4, 0.6), yticks=[], xlabel="minutes (bars: epochs)")
        axes.spines["left"].set_visible(False)

    return ran.told(
        code,
        "Before the limit the run saves its state, in the middle of an epoch, and ends. Started again, it goes on there. "
        "(Its clock is wound on by the batches.)",
        draw,
        height=1.9,
    )


def _two_processes(code: str, cut: int, act: Callable[[], None] | None, backup: str) -> tuple[Steps, Steps, Steps, Ran]:
    whole = Steps()
    train("None", whole, callback=LambdaCallback(), epochs=8, points=48)
    before = Steps(cut=cut, act=act)
    with suppress(oncue.Preempted):
        train(code, *([made_of(backup)] if backup else []), before, epochs=8, points=48)
    after = Steps()
    progress: list[int] = []

    def begin(epoch: int, logs: Any) -> None:
        progress.append(epoch)

    def first(batch: int, logs: Any) -> None:
        if len(progress) == 1 and not after.at and not after.step:
            after.step = progress[0] * 6 + batch

    behind = [made_of(backup)] if backup else []
    ran = train(
        code, *behind, LambdaCallback(on_epoch_begin=begin, on_train_batch_begin=first), after, epochs=8, points=48
    )
    return whole, before, after, ran


def _draw_two(whole: Steps, before: Steps, after: Steps, words: str) -> Draw:
    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "loss of the batch", x="step")
        axes.plot(
            whole.at, whole.losses, color=colours.quiet, linewidth=5, alpha=0.35, label="a run without interruption"
        )
        curve(axes, before.at, before.losses, colours.main, "first process")
        curve(axes, after.at, after.losses, colours.good, "started again", linestyle=(0, (3, 1.5)))
        mark(axes, before.at[-1], words, colours.bad)
        legend(axes)

    return draw


@picture("BackupAndRestore")
def _() -> Picture:
    code = 'BackupAndRestore("backup", save_freq=5)'
    whole, before, after, ran = _two_processes(code, 28, None, "")
    return ran.told(
        code,
        f"The first process was cut off after step {before.at[-1] + 1}. The second went on from the state that was saved after "
        f"step {after.at[0]}, and came to the same numbers as a run that nobody interrupted.",
        _draw_two(whole, before, after, "cut off"),
    )


@picture("Preemption")
def _() -> Picture:
    code = 'Preemption(action="raise")'
    whole, before, after, ran = _two_processes(
        code, 28, lambda: os.kill(os.getpid(), signal.SIGTERM), 'BackupAndRestore("backup")'
    )
    return ran.told(
        code,
        "A signal came. The step under way was ended, the state saved by `BackupAndRestore`, and the process ended; started "
        "again, the run goes on with the next batch.",
        _draw_two(whole, before, after, "SIGTERM"),
    )


@picture("WeightAverage")
def _() -> Picture:
    code = "WeightAverage(decay=0.95)"
    plain = train("None", callback=LambdaCallback(), optimizer=oncue.optimizers.Adam(0.03), epochs=30, points=96)
    ran = train(code, optimizer=oncue.optimizers.Adam(0.03), epochs=30, points=96)
    return _averages(plain, ran, code, "average of the weights")


@picture("SwapEMAWeights")
def _() -> Picture:
    code = "SwapEMAWeights()"

    def optimizer() -> Any:
        return oncue.optimizers.Adam(0.03, use_ema=True, ema_momentum=0.95)

    plain = train("None", callback=LambdaCallback(), optimizer=optimizer(), epochs=30, points=96)
    return _averages(
        plain, train(code, optimizer=optimizer(), epochs=30, points=96), code, "average, with use_ema=True"
    )


def _averages(plain: Ran, ran: Ran, code: str, words: str) -> Picture:
    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "val_loss")
        curve(axes, plain.epochs, plain.of("val_loss"), colours.quiet, "trained weights")
        curve(axes, ran.epochs, ran.of("val_loss"), colours.main, words)
        axes.set_ylim(0, sorted(plain.of("val_loss"))[-3])
        legend(axes)

    return ran.told(code, "The same run, measured with the weights as they are and with their moving average.", draw)


@picture("LearningRateFinder")
def _() -> Picture:
    code = "LearningRateFinder(min_rate=1e-5, max_rate=10.0, steps=100)"
    x = np.random.default_rng(0).normal(size=(3200, 8)).astype("float32")
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((8,)), layers.Dense(16, activation="tanh"), layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    finder = made_of(code)
    ran = Ran(finder, model.fit(x, 3 * x.sum(axis=1, keepdims=True), verbose=0, callbacks=[finder]), model)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "loss, smoothed", x="learning rate")
        curve(axes, finder.rates, finder.losses, colours.main, "loss")
        axes.set_xscale("log")
        mark(axes, finder.suggestion, f"suggested: {finder.suggestion:.2g}", colours.good, left=True)
        axes.set_ylim(0, finder.losses[0] * 1.4)

    return ran.told(
        code,
        "A test of rising rates, which is taken back. Training begins with the rate at which the loss fell fastest.",
        draw,
    )


@picture("BatchSizeFinder")
def _() -> Picture:
    code = "BatchSizeFinder(max_size=512)"
    model = oncue.Sequential([layers.Input((8,)), layers.Dense(16, activation="tanh"), layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    # A device that is busy from some 100 rows on; each step asks the clock before and after it.
    sizes = [size for size in (8, 16, 32, 64, 128, 256, 512) for _ in range(8)]
    now, asked = 0.0, itertools.count()

    def clock() -> float:
        nonlocal now
        place = next(asked)
        now += 0.002 + sizes[place] / 50_000 if place % 2 else 0.0
        return now

    finder = callbacks.BatchSizeFinder(max_size=512, clock=clock)
    x = np.ones((512, 8), "float32")
    ran = Ran(finder, model.fit(x, x[:, :1], verbose=0, callbacks=[finder]), model)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "samples in a second", x="batch size")
        curve(axes, finder.sizes, finder.samples_per_second, colours.main, "measured")
        axes.set_xscale("log", base=2)
        mark(axes, finder.suggestion, f"suggested: {finder.suggestion}", colours.good, left=True)
        axes.set_ylim(0, None)

    return ran.told(
        code,
        "A test of sizes, which is taken back. Suggested is the smallest that is nearly as quick as the best.",
        draw,
    )


def _mixed_pictures(code: str, caption: str) -> Picture:
    """Return a picture of a batch of circles and crosses, as it is and as it is trained on."""
    shown: list[Any] = []

    class Looks(Callback):
        def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
            shown.append((np.array(x.tolist()), np.array(y.tolist())))
            return x, y, sample_weight

    rows, columns = np.mgrid[-1:1:24j, -1:1:24j]
    circle = (np.abs(np.hypot(rows, columns) - 0.6) < 0.15).astype("float32")
    cross = ((np.abs(rows - columns) < 0.2) | (np.abs(rows + columns) < 0.2)).astype("float32")
    x, y = np.stack([circle, cross] * 2)[..., None], np.eye(2)[[0, 1, 0, 1]]
    model = oncue.Sequential([layers.Input((24, 24, 1)), layers.Flatten(), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    mix = made_of(code)
    ran = Ran(mix, model.fit(x, y, shuffle=False, verbose=0, callbacks=[Looks(), mix, Looks()]), model)

    def draw(figure: Figure, colours: Colours) -> None:
        for place, (pictures, targets) in enumerate(shown):
            for number in range(4):
                axes = figure.add_subplot(2, 4, 4 * place + number + 1)
                axes.imshow(pictures[number, ..., 0], cmap="gray", vmin=0, vmax=1)
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(f"[{targets[number][0]:.2f}, {targets[number][1]:.2f}]", color=colours.ink, fontsize=9)

    return ran.told(code, caption, draw)


@picture("MixUp")
def _() -> Picture:
    return _mixed_pictures(
        "MixUp(alpha=1.0, seed=8)", "Four pictures and their targets as they are, and the mixtures that are trained on."
    )


@picture("CutMix")
def _() -> Picture:
    return _mixed_pictures(
        "CutMix(seed=8)",
        "Four pictures and their targets as they are, and with a piece of another, as they are trained on.",
    )


@picture("PredictionWriter")
def _() -> Picture:
    code = 'PredictionWriter("val-{epoch}.npz", every=10)'
    ran = train(code, epochs=40, points=96)
    _, (x, y) = data(96)
    order = np.argsort(x[:, 0])
    predicted = {epoch: np.load(f"val-{epoch}.npz")["output"] for epoch in (10, 40)}

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "target, and what is predicted", x="x")
        axes.scatter(x[:, 0], y[:, 0], s=9, color=colours.quiet, label="the data of validation")
        for colour, (epoch, found) in zip((colours.second, colours.main), predicted.items(), strict=True):
            axes.plot(x[order, 0], found[order, 0], color=colour, linewidth=1.8, label=f"val-{epoch}.npz")
        legend(axes)

    return ran.told(code, "What the model predicted for the data of validation, after two of the epochs.", draw)


@picture("Control")
def _() -> Picture:
    code = 'Control("run")'
    told = {12: "rate x0.3", 30: "rate x2", 43: "stop"}
    rates: list[float] = []
    count = itertools.count()

    class Person(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rates.append(float(self.model.optimizer.learning_rate))
            words = told.get(len(rates))
            if words is not None:
                commands.tell("run", commands.command_of(*words.split()))

    control = callbacks.Control("run", clock=count.__next__)
    with redirect_stdout(io.StringIO()):
        ran = train(code, first=[Person()], callback=control, epochs=20, points=48)

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "learning rate", x="step")
        axes.step(range(1, len(rates) + 1), rates, where="post", color=colours.second, linewidth=1.8)
        for step, words in told.items():
            mark(axes, step, f"oncue control\nrun {words}", colours.bad if words == "stop" else colours.main)
        axes.set(ylim=(0, 0.0145), xlim=(0, len(rates) + 12))

    journal = ["(each command, with the time, and the user who gave it)"]
    return ran.told(
        code, "Three commands were given from another terminal while the run went on.", draw, journal=journal
    )


@picture("History")
def _() -> Picture:
    code = "History()"
    ran = train(code, callbacks.ReduceLROnPlateau(patience=1, factor=0.7), epochs=30)

    def draw(figure: Figure, colours: Colours) -> None:
        left, right = figure.subplots(1, 2)
        for axes, names in ((left, ("loss", "val_loss")), (right, ("learning_rate",))):
            for name, colour in zip(names, (colours.main, colours.second), strict=False):
                curve(axes, ran.epochs, ran.of(name), colour, name)
            legend(axes)
            axes.set_xlabel("epoch")
            axes.grid(color=colours.quiet, alpha=0.22)

    return ran.told(code, "All that was logged, epoch by epoch; `history.plot()` draws it.", draw)


@picture("TensorBoard")
def _() -> Picture:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    code = 'TensorBoard("logs", write_graph=False)'
    ran = train(code, epochs=20)
    read: dict[str, list[float]] = {}
    for part in ("train", "validation"):
        accumulator = EventAccumulator(f"logs/{part}", size_guidance={"tensors": 0})
        accumulator.Reload()
        values = [float(one.tensor_proto.float_val[0]) for one in accumulator.Tensors("epoch_loss")]
        read[part] = values

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "epoch_loss")
        for (part, values), colour in zip(read.items(), (colours.main, colours.second), strict=True):
            curve(axes, ran.epochs, values, colour, part)
        legend(axes)

    files = ["logs/train/events.out.tfevents.…", "logs/validation/events.out.tfevents.…"]
    return ran.told(code, "What TensorBoard finds in the files of this run.", draw, files=files)


@picture("CSVLogger")
def _() -> Picture:
    code = 'CSVLogger("log.csv")'
    ran = train(code, callbacks.ReduceLROnPlateau(patience=1), epochs=6)
    with open("log.csv", newline="") as file:
        rows = list(csv.reader(file))
    lines = ["# log.csv, its numbers cut to six digits here", *(",".join(one[:8] for one in row) for row in rows[1:])]
    lines.insert(1, ",".join(rows[0]))
    return text_picture(ran, code, "A row for each epoch, as soon as it has ended.", lines)


@picture("JournalLogger")
def _() -> Picture:
    code = 'JournalLogger("journal.jsonl")'
    ran = train(code, first=[callbacks.EarlyStopping(patience=2)], epochs=20)
    lines = []
    for text in Path("journal.jsonl").read_text(encoding="utf-8").splitlines():
        parsed = json.loads(text)
        if parsed["line"] == "decision":
            lines.append(cut(f'{{"line": "decision", "epoch": {parsed["epoch"]}, …, "text": "{parsed["text"]}"}}'))
        elif parsed["line"] in ("begin", "epoch", "end"):
            rest = "" if parsed["line"] != "epoch" else f', "epoch": {parsed["epoch"]}, "logs": {{"loss": …}}'
            lines.append(f'{{"line": "{parsed["line"]}"{rest}, …}}')
    shown = [*lines[:4], "…", *lines[-3:]]
    return text_picture(ran, code, "A line for each thing that happens, shortened here.", shown, 8)


@picture("RunFolder")
def _() -> Picture:
    code = 'RunFolder("runs/today", best="val_loss")'
    ran = train(code, epochs=6)
    words = {
        "best.keras": "the model, when val_loss was least",
        "config.json": "what the run was made of",
        "curves.png": "the curves",
        "environment.json": "versions, the system, the device",
        "journal.jsonl": "every decision, every epoch, and how it ended",
        "log.csv": "the logs",
        "model.json": "the model's configuration",
        "summary.txt": "its layers",
    }
    found = [Path(one).name for one in _files()]
    assert set(found) == set(words), found
    lines = ["runs/today", *(f"    {name:<20}{words[name]}" for name in found)]
    lines += ["# oncue explain runs/today", "# oncue report runs/today -o report.html"]
    last = [str(entry) for entry in ran.history.journal][-1:]
    return text_picture(ran, code, "What the run has left.", lines, journal=["…", *last])


@picture("ProgbarLogger")
def _() -> Picture:
    code = "ProgbarLogger()"
    clock, said = Clock(), io.StringIO()
    with mock.patch("time.perf_counter", clock), redirect_stdout(said):
        ran = train(code, first=[clock.each_batch(lambda epoch: 0.031)], epochs=4, points=96, verbose=2)
    lines = said.getvalue().splitlines()
    return text_picture(ran, code, "What is left in a log file; on a terminal a bar moves meanwhile.", lines)


@picture("LambdaCallback")
def _() -> Picture:
    code = 'LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, round(logs["val_loss"], 4)))'
    said = io.StringIO()
    with redirect_stdout(said):
        ran = train(code, epochs=5)
    return text_picture(ran, code, "What the function has printed.", said.getvalue().splitlines())


@picture("RemoteMonitor")
def _() -> Picture:
    heard: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            short = {name: round(value, 4) for name, value in body.items()}
            heard.append(f"POST {self.path} {json.dumps(short)}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = 'RemoteMonitor("http://localhost:9000", send_as_json=True)'
    monitor = callbacks.RemoteMonitor(f"http://127.0.0.1:{server.server_address[1]}", send_as_json=True)
    ran = train(code, callback=monitor, epochs=4)
    server.shutdown()
    server.server_close()
    return text_picture(ran, code, "What the server has heard, its numbers cut to four digits here.", heard)


@picture("Tracker")
def _() -> Picture:
    lines: list[str] = []

    class Service:
        def start(self, identity: Any, config: Any) -> str:
            lines.append(cut(f"start   configuration: {', '.join(config)}"))
            return "run-1"

        def log(self, values: Any, step: int) -> None:
            shown = {name: round(value, 4) for name, value in values.items()}
            lines.append(f"log     step {step}: {shown}")

        def tell(self, decisions: Any, step: int) -> None:
            for one in decisions:
                lines.append(cut(f"tell    step {step}: {one}"))

        def keep(self, path: Any) -> None:
            lines.append(f"keep    {path}")

        def finish(self, status: str) -> None:
            lines.append(f"finish  {status}")

    code = 'Tracker("trackio", artifacts="log.csv")'
    tracker = callbacks.Tracker(Service(), artifacts="log.csv")
    ran = train(
        code, callbacks.CSVLogger("log.csv"), first=[callbacks.EarlyStopping(patience=1)], callback=tracker, epochs=12
    )
    shown = [*lines[:4], "…", *lines[-4:]] if len(lines) > 9 else lines
    return text_picture(ran, code, "What a service is told.", shown, 8)


@picture("BaseLogger")
def _() -> Picture:
    code = "BaseLogger()"
    rng = np.random.default_rng(1)
    logger = made_of(code)
    batches, means = [], []
    for epoch in range(4):
        logs: dict[str, Any] = {}
        logger.on_epoch_begin(epoch)
        values = 1 / (1 + epoch) + rng.normal(0, 0.1, 12)
        for batch, value in enumerate(values):
            logger.on_batch_end(batch, {"loss": value, "size": 8})
        logger.on_epoch_end(epoch, logs)
        batches.append(values)
        means.append(logs["loss"])

    def draw(figure: Figure, colours: Colours) -> None:
        (axes,) = axes_of(figure, colours, "loss", x="batch, in a loop of your own")
        axes.plot(np.concatenate(batches), ".", color=colours.quiet, label="of the batches")
        for epoch, mean in enumerate(means):
            label = "in the logs of the epoch" if epoch == 0 else None
            axes.plot([12 * epoch, 12 * epoch + 11], [mean, mean], color=colours.main, linewidth=2.2, label=label)
        legend(axes)

    return Picture(code, "Of the values of batches the epoch's logs get the mean.", draw, logs=["loss"])


@contextmanager
def _hearing(heard: list[str]) -> Iterator[type[Callback]]:
    def hook(name: str) -> Any:
        arguments = ", ".join(["self", *HOOKS[name]])
        return eval(f"lambda {arguments}: heard.append(name)", {"heard": heard, "name": name})

    yield type("Hears", (Callback,), {name: hook(name) for name in HOOKS})


@picture("Callback")
def _() -> Picture:
    heard: list[str] = []
    with _hearing(heard) as kind:
        train("Hears()", callback=kind(), epochs=2)
    order = list(dict.fromkeys(heard))

    def draw(figure: Figure, colours: Colours) -> None:
        axes = figure.add_subplot()
        for at, name in enumerate(heard):
            colour = colours.second if "test" in name else colours.main if "batch" in name else colours.good
            axes.plot([at], [-order.index(name)], "o", color=colour, markersize=5.5)
        axes.set_yticks([-at for at in range(len(order))], order, family="monospace", size=8.5)
        axes.set_xticks([])
        axes.set_xlabel("two epochs of three batches, with validation: time goes to the right")
        axes.grid(axis="y", color=colours.quiet, alpha=0.22)
        axes.spines["left"].set_visible(False)

    code = "class Hears(Callback): ...  # every hook is overridden"
    return Picture(code, "The hooks of a run that goes well, in the order in which they are called.", draw, height=3.6)


@picture("CallbackList")
def _() -> Picture:
    code = 'CallbackList([CSVLogger("log.csv"), EarlyStopping(), BackupAndRestore("backup")])'
    lines = made_of(code).schedule().splitlines()
    return Picture(code, "`print(callbacks.schedule())`: who is called when.", card(lines, 8), height=height_of(lines))
