"""Profile: where the time of some batches goes, and the memory of a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncue.callbacks.callback import Callback
from oncue.callbacks.tensorboard_arguments import profiled_range
from oncue.core.builtin import builtin
from oncue.core.files import reason_of, try_beside
from oncue.core.protocols import gpus_of, steps_per_execution_of, tensors_of
from oncue.core.warn import warn

if TYPE_CHECKING:
    from oncue.tensorboard.trace import Trace

_MOST_COSTLY = 10


@builtin
class Profile(Callback):
    """Profiles some batches by `torch.profiler`: the trace into a file, what took the most time into the journal.

    The folder gets, of the batches 10 to 20,

    - `batches-10-20.pt.trace.json`, what ran when, on the host and the device, which https://ui.perfetto.dev,
      chrome://tracing and TensorBoard show;
    - `batches-10-20.txt`, a table of the most costly operations, the first of which the journal and the report have, too; on
      a GPU by the time of the GPU;
    - with `memory`, `batches-10-20.memory.pickle`, a snapshot of the GPU's memory with who allocated it, which
      https://pytorch.org/memory_viz shows.

    Profiled steps are slower, and the first batches have what is done once, such as compiling: leave some out. The other
    batches of the run aren't touched. A validation between the batches is profiled with them, and is in the files.

    A run that ends amid the batches writes what it has. A run that is resumed counts on: it profiles what is left of them, and
    nothing when the profile was done before the state was saved. Of several processes the main one profiles itself.

    Args:
        batches: The batch to profile, counted from 1 over the whole run; or a pair, the first and the last.
        folder: The folder for the files, on this machine; it is made. `RunFolder(..., profile=(10, 20))` has one.
        memory: Whether to take the snapshot of memory; CUDA only.

    Raises:
        ValueError: For batches that can't be meant, and, before the first step, for `memory` where the model isn't on CUDA.
        OSError: Before the first step, when the folder can't be written to.

    Example:
        >>> import numpy as np, oncue, tempfile
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     profile = Profile(batches=(3, 4), folder=folder)
        ...     history = model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=2, verbose=0, callbacks=[profile])
        ...     sorted(os.listdir(folder))
        ['batches-3-4.pt.trace.json', 'batches-3-4.txt']
    """

    makes_way = True
    main_process_only = True
    state_fields = ("step", "step_at_epoch_begin")

    def __init__(
        self,
        batches: int | tuple[int, int] = (10, 20),
        folder: str | os.PathLike[str] = "profile",
        *,
        memory: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.last = profiled_range(batches, "batches")
        if self.last == 0:
            raise ValueError(
                "`batches` of Profile are counted from 1; got 0. To profile nothing, leave the callback out."
            )
        if "://" in os.fspath(folder):
            raise ValueError(
                f"`folder` of Profile must be on this machine, where torch writes; got {os.fspath(folder)!r}."
            )
        self.folder = Path(folder)
        self.memory = memory
        self._trace: Trace | None = None
        self._begin()

    def _begin(self) -> None:
        self.step = self.step_at_epoch_begin = 0
        self._from = 0
        self._in_one = 1

    def __getstate__(self) -> dict[str, Any]:
        # What runs belongs to one run.
        return {**super().__getstate__(), "_trace": None}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look at what can be known before the first step.

        Raises:
            ValueError: For `memory` where the model isn't on CUDA.
            OSError: When the folder can't be written to.
        """
        self.close()
        self._begin()
        self._in_one = steps_per_execution_of(self.model)
        if self.memory:
            kinds = sorted({one.device.type for one in tensors_of(self.model).values()})
            if "cuda" not in kinds:
                raise ValueError(
                    f"`memory=True` of Profile takes a snapshot of a CUDA device's memory, and the model is on "
                    f"{' and '.join(kinds) or 'no device that it tells'}. Leave it out: Profile(batches=({self.first}, "
                    f"{self.last}))."
                )
        params = self.params or {}
        known = (params.get("epochs") or 0) * (params.get("steps") or 0)
        if 0 < known < self.first:
            warn(
                f"Profile will see nothing: `batches` begins with {self.first}, and the run has {known} batches. Give "
                f"batches=({max(known // 2, 1)}, {known})."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try_beside(self.folder / "batches.txt")
        except OSError as error:
            why = f"Profile can't write to its `folder` ({reason_of(error, self.folder)}). Give one that can be written to"
            raise type(error)(error.errno, why, os.fspath(self.folder)) from None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the profile when its first batch comes."""
        step = self.step_at_epoch_begin + batch + 1
        # Several batches may run between two hooks.
        if self._from or step > self.last or step + self._in_one <= self.first:
            return
        if self._in_trial:
            # What is taken back belongs to no run.
            return
        from oncue.tensorboard.trace import Trace

        self._from = step
        self._trace = Trace("Profile", self.memory, gpus_of(self.model))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the batch, and write the profile after its last one."""
        self.step = self.step_at_epoch_begin + batch + 1
        if self._trace is not None and self.step >= self.last:
            self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let the count go on with the next epoch."""
        self.step_at_epoch_begin = self.step

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Note that nothing was profiled, when that is so."""
        if self.step < self.first:
            self._decided("note", "not_profiled", first=self.first, batches=self.step)

    def close(self) -> None:
        """Write what was profiled until the run ended."""
        self._write()

    def _write(self) -> None:
        trace, self._trace = self._trace, None
        if trace is None:
            return
        last = max(self.step, self._from)
        stem = os.fspath(self.folder / f"batches-{self._from}-{last}")
        path, memory = f"{stem}.pt.trace.json", f"{stem}.memory.pickle" if self.memory else None
        if trace.stop(path, table=f"{stem}.txt", memory=memory):
            costly = [one._asdict() for one in trace.costs[:_MOST_COSTLY]]
            found = {"first": self._from, "last": last, "path": path, "memory": memory, "operations": costly}
            self._decided("note", "profiled", **found)
