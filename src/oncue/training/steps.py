"""Steps: the step of each pass of a run, and another one from the moment on at which a hook has changed the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from oncue.callbacks import CallbackList
from oncue.checkpoints import device_copies
from oncue.core.builtin import is_builtin
from oncue.core.warn import warn
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.row_share import RowShare
from oncue.layers.modes import switch_on
from oncue.training.parallel_step import (
    make_parallel_own_step,
    make_parallel_prediction,
    make_parallel_step,
)
from oncue.training.step import make_step, own_step, pack
from oncue.training.watch import Watch

if TYPE_CHECKING:
    from oncue.checkpoints.owed_waits import OwedWaits
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

Step = Callable[[Batch], Any]

_BETWEEN_UPDATES = (
    *(f"on_{moment}_{end}" for moment in ("epoch", "train_batch", "test", "test_batch") for end in ("begin", "end")),
    "on_validation_end",
)
"""The hooks that are called between two updates."""
_SETTINGS = frozenset(("jit_compile", "run_eagerly", "steps_per_execution"))
"""What may change without a step being another one."""
_OBJECTS = frozenset(("activity_regularizer", "regularizer", "constraint"))
"""Objects that a hook may have put on layers and weights."""


class Steps:
    """The steps of a run's passes of one kind; each pass is enclosed in a `with` block.

    A step is made at the first batch, and again at the first batch after a hook that has changed what it was made from: the
    model is prepared anew on that batch, as it was when the run began.

    Args:
        model: A prepared model.
        kind: "train", "test" or "predict".
        callbacks: The list of the run.
        batches: Where the batches come from.
        around: What to put around each step, if anything.
    """

    def __init__(
        self,
        model: Trainer,
        kind: str,
        callbacks: CallbackList,
        batches: Batches,
        around: Callable[[Step], Step] | None = None,
    ) -> None:
        self._model, self._kind, self._callbacks, self._around = model, kind, callbacks, around
        self._watch = Watch(model)
        self._eager: Step | None = None
        self._stale = False
        self._pass = ExitStack()
        self.plan: Plan = model._plan
        """The plan that the last step was made from."""
        self.changed = self._watch.changed
        """Whether the model is no longer what the step was made from."""
        others_change = kind == "train" and any(not is_builtin(type(one)) for one in callbacks.roles.changing)
        self.watched = others_change or callbacks.calls_others(f"on_{kind}_batch_begin", f"on_{kind}_batch_end")
        """Whether that can happen within a pass: callbacks of the user's listen to its batches."""
        self._alone = not (self.watched or batches.calls_others)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._pass.close()

    @property
    def ends(self) -> Callable[[], bool] | None:
        """Says after a batch whether the pass ends there, on all processes of a run; None for a run of one."""
        parallel = self._model._parallel
        return None if parallel is None else parallel.questions.ends(self._kind)

    @property
    def share(self) -> RowShare | None:
        """Which rows of each batch are this process's, of several; None on a process alone."""
        parallel = self._model._parallel
        return None if parallel is None else parallel.share

    def finish(self) -> None:
        """Run the steps whose batches a compiled step has only gathered yet; see `TracedStep.finish`."""
        step = self.plan.graphs.steps.get(self._kind)
        if step is not None:
            step.finish()

    def restored(self) -> None:
        """Take note that what the model is now was restored, which is no change by a hook."""
        if self._watch.changed():
            self._watch.look()
            self._stale = True

    def make(self, batch: Batch, index: int) -> Step:
        """Return the step for a batch and those after it, until a hook changes the model.

        Args:
            batch: The batch that is next.
            index: Its index in the pass.

        Raises:
            ValueError: When what a hook has made of the model can't be trained.
        """
        self._pass.close()
        model = self._model
        changed = self._watch.changed()
        if changed or self._stale:
            names = self._watch.what()
            # A backup says of these, too, that it can't hold them.
            model._changes += [name for name in names if name in _OBJECTS]
            model._prepare_again(batch, self._kind)
            if self._kind == "train":
                switch_on(model)
            if self._stale or not _SETTINGS.issuperset(names):
                model._plan.graphs.drop(self._kind)
            self._watch.look()
            self._eager, self._stale = None, False
        if changed:
            self._callbacks.journal.write(
                "CallbackList",
                what="changed_in_hook",
                epoch=self._callbacks.progress.epoch,
                # Entries count the batches of training.
                batch=index if self._kind == "train" else None,
                kind="change",
                data={"names": names, "steps": self._kind},
            )
        self.plan = model._plan
        if self._eager is None:
            if self._kind == "train" and not self.plan.trains and "train_step" not in self.plan.overridden:
                warn("The model has no trainable weights, so training changes nothing.")
            self._eager = eager_step(model, self.plan, self._kind, self._owed())
        step: Step = self._pass.enter_context(
            self.plan.graphs.stepping(model, self.plan, self._kind, self._eager, alone=self._alone)
        )
        if self._kind == "train":
            self._let_updates_wait(step)
        if model._parallel is not None and self._kind == "predict":
            step = make_parallel_prediction(step, model._parallel)
        return step if self._around is None else self._around(step)

    def _owed(self) -> OwedWaits | None:
        """Return what copies out of the model's device put off, where they go on beside its work."""
        # The device is looked for once in a run, not in each epoch.
        pace = self.plan.pace if self._kind == "train" else None
        beside = pace is not None and device_copies.copies_of(pace.device) is not None
        return self._callbacks.owed if beside else None

    def _let_updates_wait(self, step: Step) -> None:
        """Put off waits for copies where nothing but the updates of this step changes the weights, else for the whole step."""
        alone = self._alone and not self._callbacks.calls_others(*_BETWEEN_UPDATES)
        own = step is self._eager and self._model._parallel is None and not self.plan.overridden
        owed = self._owed()
        if owed is not None and alone and own and self.plan.trains:
            owed.begin(self._only_updated)
        elif owed is not None:
            # A graph has the update in it.
            owed.end()

    def _only_updated(self) -> list[Tensor]:
        optimizer = self.plan.optimizer
        assert optimizer is not None
        weights = [one for one in optimizer._parameters if one.requires_grad]
        return [*weights, *optimizer.state_tensors()]


def eager_step(model: Trainer, plan: Plan, kind: str, owed: OwedWaits | None = None) -> Step:
    """Return what trains, evaluates or predicts on one batch: the user's own method, or what all models have.

    Args:
        model: A prepared model.
        plan: Its plan.
        kind: "train", "test" or "predict".
        owed: As for `make_step`.
    """
    parallel, name = model._parallel, f"{kind}_step"
    if kind == "predict":
        own = model.predict_step if name in plan.overridden else None
        forward = model._predict_forward()

        def predict(batch: Batch) -> Any:
            return forward(batch[0]) if own is None else own(pack(batch))

        return predict
    training = kind == "train"
    if name in plan.overridden:
        step = own_step(plan, name, model.train_step if training else model.test_step)
        return step if parallel is None else make_parallel_own_step(step, training, parallel, model.optimizer)
    return make_step(plan, training, owed) if parallel is None else make_parallel_step(plan, training, parallel)
