"""When the steps of a model are compiled: asked for, or worth it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oncue import torch_private
from oncue.core.console import print_message
from oncue.feeding.batch import Batch
from oncue.training.graph.recorded import CudaRecorder, Recorder
from oncue.training.graph.traced_graph import Compiler
from oncue.training.graph.traced_step import Signature, Step, TracedStep, signature_and_leaves

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

STEPS_WORTH_COMPILING = 200_000
"""The length of a run from which `jit_compile="auto"` compiles."""

_STEPS_WORTH_MENTIONING = 10_000


class GraphChoice:
    """Whether the steps of a model are compiled, what their batches look like, and those that were compiled.

    Args:
        jit_compile: As `compile` takes it.

    Example:
        >>> choice = GraphChoice("auto")
        >>> choice.choose("auto", 1_000, verbose=0)
        >>> choice.on
        False
    """

    compiler: Compiler = staticmethod(torch_private.compile_traced)
    """Makes a graph that was traced a quick one."""

    def __init__(self, jit_compile: bool | str = False) -> None:
        self.on = jit_compile is True
        """Whether steps are compiled."""
        self.steps: dict[str, TracedStep] = {}
        """The compiled steps, by "train", "test" and "predict"."""
        self.record: Recorder | None = None
        """Records graphs on any device; None for CUDA graphs where there is CUDA."""
        self.record_cuda = CudaRecorder()
        """Records them there."""
        self.warned = False
        """Whether there was a warning that something can't be compiled."""
        self._typical: dict[str, Signature] = {}
        self._steps_ahead = 0

    def choose(self, jit_compile: bool | str, steps: int | None, verbose: Any) -> None:
        """Decide for a run that is about to begin.

        Args:
            jit_compile: What `compile` was given.
            steps: How many steps the run has, or None when that isn't known.
            verbose: Whether to print that a run is compiled which needn't be.
        """
        self._steps_ahead = steps or 0
        self.prefer(jit_compile)
        if self.on and jit_compile == "auto" and verbose:
            print_message(f'Compiling the training step, because {steps:,} steps lie ahead (jit_compile="auto").')

    def expect(self, kind: str, batch: Batch) -> None:
        """Take a batch as an example of those that steps of a kind are compiled for."""
        self._typical[kind] = signature_and_leaves(batch)[0]

    def go_on(self, before: GraphChoice) -> None:
        """Take over what the choice before this one knows of a run that is under way."""
        self._typical, self._steps_ahead = before._typical, before._steps_ahead

    def drop(self, kind: str) -> None:
        """Let graphs be traced again: what those of a kind were made from has changed. What was compiled stays."""
        for name in {kind, "predict"} & self.steps.keys():
            self.steps[name].forget()

    def prefer(self, jit_compile: bool | str) -> None:
        """Decide anew for the run that is under way.

        Args:
            jit_compile: As `compile` takes it.
        """
        self.on = worth_compiling(jit_compile, self._steps_ahead)

    def account(self, jit_compile: bool | str) -> str:
        """Return how the steps of the last `fit` ran, in a sentence; empty for a short run of eager steps."""
        if self.on:
            step = self.steps.get("train")
            return "" if step is None else step.account
        if jit_compile != "auto" or self._steps_ahead < _STEPS_WORTH_MENTIONING:
            return ""
        least = f"{STEPS_WORTH_COMPILING:,}"
        return f'The steps ran eagerly: compiling them is worth it from {least} steps on (jit_compile="auto").'

    @contextmanager
    def stepping(self, model: Trainer, plan: Plan, kind: str, eager: Step, *, alone: bool) -> Iterator[Step]:
        """Enclose a pass over batches, and say which step to take.

        Args:
            model: The model.
            plan: Its plan, whose choice this is.
            kind: "train", "test" or "predict".
            eager: The eager step.
            alone: Whether no user code runs between the batches.

        Yields:
            The compiled step where the model is to be compiled, else the eager one.
        """
        if not self.on:
            yield eager
            return
        if kind not in self.steps:
            self.steps[kind] = TracedStep(model, plan, kind)
        step = self.steps[kind].renew(eager, self._typical.get(kind), alone)
        try:
            yield step if model._parallel is None else step.on_own_rows
        finally:
            step.end()

    def __getstate__(self) -> dict[str, Any]:
        # Neither copies nor files can have graphs.
        return {**vars(self), "steps": {}, "record": None, "warned": False}


def worth_compiling(jit_compile: bool | str, steps: int | None) -> bool:
    """Return whether a run is to be compiled.

    With "auto" that is so when it is long enough to win back the ten seconds or more that compiling takes: a graph
    saves about a tenth of a millisecond in each step of a small network.

    Args:
        jit_compile: What `compile` was given.
        steps: How many steps the run has, or None when that isn't known.

    Example:
        >>> worth_compiling("auto", 1_000), worth_compiling("auto", 1_000_000), worth_compiling(True, 1)
        (False, True, True)
    """
    return jit_compile is True or (jit_compile == "auto" and steps is not None and steps >= STEPS_WORTH_COMPILING)
