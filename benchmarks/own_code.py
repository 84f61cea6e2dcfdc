"""Times oncue's own code against the libraries that could replace it.

python benchmarks/own_code.py progress
python benchmarks/own_code.py trees      # needs `pip install optree`
python benchmarks/own_code.py writes --megabytes 256
python benchmarks/own_code.py scaling
python benchmarks/own_code.py background

Each figure is the minimum of several, to reduce the influence of other processes. `progress` also prints the final output.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
import timeit
import zlib
from collections import OrderedDict, UserDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from oncue import nested
from oncue.checkpoints.writer import Writer
from oncue.core import console
from oncue.core.progbar import Progbar
from oncue.core.write_behind import WriteBehind
from oncue.optimizers.loss_scale import LossScale


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def microseconds(action: Callable[[], object], times: int, rounds: int = 15) -> float:
    return min(timeit.repeat(action, number=times, repeat=rounds)) / times * 1e6


def row(name: str, ours: float, theirs: float) -> None:
    print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")


# Progress ---------------------------------------------------------------------------------------------------------


def rich_bar(stream: io.StringIO, live: bool, width: int = 60) -> Progress:
    columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(20), TextColumn("{task.fields[logs]}"))
    drawn = Console(file=stream, force_terminal=live, width=width, color_system=None)
    return Progress(*columns, console=drawn)


def left_by_rich(live: bool) -> str:
    stream = Terminal() if live else io.StringIO()
    with rich_bar(stream, live, 60 if live else 200) as bar:
        task = bar.add_task("", total=2, logs="")
        for step in (1, 2):
            bar.update(task, completed=step, logs=f"0s 5ms/step - loss: {1 / step:.4f} - {'metric' * 9}: 0.5000")
    return stream.getvalue()


def left_by_ours(live: bool) -> str:
    stream = Terminal() if live else io.StringIO()
    before, console.sys.stdout = console.sys.stdout, stream
    try:
        bar = Progbar(2)
        for step in (1, 2):
            bar.update(step, [("loss", 1 / step), ("metric" * 9, 0.5)])
    finally:
        console.sys.stdout = before
    return stream.getvalue()


def progress() -> None:
    for where, live in (("a pipe", False), ("a terminal", True)):
        print(f"In {where}, oncue: {left_by_ours(live)!r}\n\nIn {where}, rich:  {left_by_rich(live)!r}\n")
    ours = Progbar(10**9, interval=1e9)
    ours.update(1)

    def update() -> None:
        # Like ProgbarLogger, which only computes values that will be drawn.
        if ours.is_due():
            ours.update(1, [("loss", 0.5)])

    with rich_bar(Terminal(), True) as theirs:
        task = theirs.add_task("", total=10**9, logs="")
        taken = microseconds(update, 2_000), microseconds(lambda: theirs.update(task, advance=1), 2_000)
        print("what a callback prints")
        caught = theirs.console.file.getvalue()  # type: ignore[attr-defined]
    print(f"rich captures what a callback prints: {'what a callback prints' in caught}\n")
    print("| microseconds of an update that draws nothing | oncue | rich | ratio |\n|---|---|---|---|")
    row("on a terminal", *taken)


# Trees ------------------------------------------------------------------------------------------------------------


def trees() -> None:
    import optree

    leaf = torch.ones(1)
    cases = {
        "a tensor": leaf,
        "a pair": (leaf, leaf),
        "a dict of two": {"b": leaf, "a": leaf},
        "nested": ({"a": leaf, "b": (leaf, leaf)}, [leaf, None]),
    }

    def itself(tensor: Any) -> Any:
        return tensor

    print("| microseconds | oncue | optree | ratio |\n|---|---|---|---|")
    for name, tree in cases.items():
        ours = microseconds(lambda t=tree: nested.flatten(t), 2_000)  # type: ignore[misc]
        row(f"flatten {name}", ours, microseconds(lambda t=tree: optree.tree_leaves(t, none_is_leaf=True), 2_000))  # type: ignore[misc]
        ours = microseconds(lambda t=tree: nested.map_leaves(itself, t), 2_000)  # type: ignore[misc]
        row(f"map {name}", ours, microseconds(lambda t=tree: optree.tree_map(itself, t), 2_000))  # type: ignore[misc]
        ours = microseconds(lambda t=tree: list(nested.named_leaves(t, "x")), 2_000)  # type: ignore[misc]
        row(f"paths of {name}", ours, microseconds(lambda t=tree: optree.tree_flatten_with_accessor(t), 2_000))  # type: ignore[misc]
    print("\n| leaves of | oncue | optree |\n|---|---|---|")
    likes: list[Any] = [OrderedDict(out=1, aux=2), UserDict(ids=1), torch.Size([2, 3])]
    for like in likes:
        print(f"| {type(like).__name__} | {nested.flatten(like)} | {optree.tree_leaves(like)} |")


# Writes -----------------------------------------------------------------------------------------------------------


def writes(megabytes: int) -> None:
    pieces = [torch.randn(1 << 18).numpy().data.cast("B") for _ in range(megabytes)]

    def behind() -> None:
        with WriteBehind(path) as file:
            for piece in pieces:
                file.write(piece)
            file.checksum()
            file.synchronise()

    def one_after_the_other(checked: bool) -> None:
        checksum = 0
        with open(path, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                if checked:
                    checksum = zlib.crc32(piece, checksum)
            os.fsync(file.fileno())

    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "file"
        ours = microseconds(behind, 1, 7) / 1e3
        print(f"| milliseconds for {megabytes} MiB | oncue | sequential | ratio |\n|---|---|---|---|")
        row("written, with a checksum", ours, microseconds(lambda: one_after_the_other(True), 1, 7) / 1e3)
        row("written, without", ours, microseconds(lambda: one_after_the_other(False), 1, 7) / 1e3)


# Loss scaling -----------------------------------------------------------------------------------------------------


class Nothing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        pass


def scaling() -> None:
    weights = [torch.nn.Parameter(torch.ones(64, 64)) for _ in range(8)]
    gradients = [torch.ones(64, 64) for _ in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    ours = LossScale(2.0**15, 2000, torch.device("cpu"))
    optimizer, theirs = Nothing(weights), torch.amp.GradScaler("cpu", init_scale=2.0**15)
    theirs.scale(torch.ones(()))

    def step() -> None:
        theirs.unscale_(optimizer)
        theirs.step(optimizer)
        theirs.update()

    def step_and_check() -> bool:
        before = theirs.get_scale()
        step()
        return theirs.get_scale() < before

    print("| microseconds of a step around an optimizer that does nothing | oncue | torch | ratio |\n|---|---|---|---|")
    taken = microseconds(lambda: ours.update(ours.unscale(gradients)), 500)
    row("unscale and update", taken, microseconds(step, 500))
    row("and return whether the step was skipped", taken, microseconds(step_and_check, 500))


# Background -------------------------------------------------------------------------------------------------------


def background() -> None:
    def job() -> None:
        pass

    def least(begin: Callable[[], object]) -> float:
        taken = []
        for _ in range(100):
            # By now the previous thread is waiting for another job.
            time.sleep(0.002)
            taken.append(microseconds(begin, 1, 1))
        return min(taken)

    writer, executor = Writer("nothing"), ThreadPoolExecutor(1)
    print("| microseconds to start a job | oncue | ThreadPoolExecutor | ratio |\n|---|---|---|---|")
    row("the first", least(lambda: Writer("nothing").submit(job)), least(lambda: ThreadPoolExecutor(1).submit(job)))
    row("another", least(lambda: writer.submit(job)), least(lambda: executor.submit(job)))


def main() -> None:
    parser = argparse.ArgumentParser()
    others = {"progress": progress, "scaling": scaling, "trees": trees, "background": background}
    parser.add_argument("what", choices=[*others, "writes"])
    parser.add_argument("--megabytes", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "writes":
        writes(options.megabytes)
    else:
        others[options.what]()


if __name__ == "__main__":
    main()
