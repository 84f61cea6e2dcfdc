"""TensorBoard: curves, histograms, images, graphs, embeddings and profiles for TensorBoard, without TensorFlow."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from oncue import legacy
from oncue.callbacks import tensorboard_arguments as arguments
from oncue.callbacks.brings_parts import BringsParts
from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.contract import HasLearningRate
from oncue.core.files import reason_of
from oncue.core.protocols import (
    gpus_of,
    iterations_of,
    optimizer_of,
    optimizers_of,
    run_state_of,
    steps_per_execution_of,
)
from oncue.core.warn import warn

if TYPE_CHECKING:
    from oncue.tensorboard.event_file import EventFile
    from oncue.tensorboard.projector import Projector
    from oncue.tensorboard.trace import Trace


@builtin
class TensorBoard(Callback):
    """Writes what TensorBoard shows; look at it with `tensorboard --logdir logs`.

    Files, tags and steps are those of Keras on TensorFlow, but only the `tensorboard` package is needed. The folder
    `log_dir/train` has `epoch_loss` and the like by epoch; `log_dir/validation` has the same of validation, and
    `evaluation_loss_vs_iterations` by optimizer step. Between two moments at which something is written, nothing is
    read from the device.

    Args:
        log_dir: The folder to write to. Give each run a folder of its own.
        histogram_freq: Write histograms of all weights every so many epochs; 0 for never.
        write_graph: Write the model's graph. Sequential and functional models are shown layer by layer (choose
            "Conceptual graph" on the page), other torch modules as traced by `torch.fx`, or as the tree of their
            modules where they can't be traced.
        write_images: Write the weights as images too, in the epochs of `histogram_freq`. The least weight is black,
            the greatest white.
        write_steps_per_second: Write the batches trained per second: of epochs, and of batches if `update_freq` is not
            "epoch".
        update_freq: "epoch"; "batch" to write the logs of every batch; or a whole number of batches.
        profile_batch: The batch to profile with `torch.profiler`, counted from 1 over the whole run; or a pair, the
            first and the last; 0 for none. The trace goes to `log_dir/train/plugins/profile`.
        embeddings_freq: Write the embedding layers every so many epochs; 0 for never. The projector shows those that
            `embeddings_metadata` labels.
        embeddings_metadata: The file that labels the rows, relative to `log_dir`; or a dict from layer names to files.
        write_grads: Write histograms of the gradients of the epoch's last batch too, in the epochs of `histogram_freq`.
        **old: `embeddings_layer_names`, `batch_size` and `embeddings_data` of Keras 2.

    Raises:
        ImportError: When the `tensorboard` package is missing.
        ValueError: For a frequency or a range of batches that can't be meant.
        TypeError: For an argument that doesn't exist.
        OSError: Before the first step, when `log_dir` can't be written.

    Example:
        >>> import os, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> callback = TensorBoard(folder, write_graph=False)
        >>> callback.on_train_begin()
        >>> callback.on_epoch_end(0, {"loss": 0.5})
        >>> callback.close()
        >>> os.listdir(folder)
        ['train']
    """

    makes_way: ClassVar[bool] = True
    main_process_only: ClassVar[bool] = True
    state_fields: ClassVar[tuple[str, ...]] = ("global_step", "step_at_epoch_begin", "written")

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: int | tuple[int, int] | str = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: str | Mapping[str, str] | None = None,
        write_grads: bool = False,
        **old: Any,
    ) -> None:
        super().__init__()
        arguments.require_tensorboard()
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = arguments.frequency("histogram_freq", histogram_freq)
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = arguments.update_frequency(update_freq)
        self.reads_batch_logs = self.update_freq == 1
        self._first_profiled, self._last_profiled = arguments.profiled_range(profile_batch)
        self.embeddings_freq = arguments.frequency("embeddings_freq", embeddings_freq)
        self.embeddings_metadata = embeddings_metadata
        self.write_grads = write_grads
        for name in arguments.old_names(old):
            legacy.warn_once(f"TensorBoard({name}=...)", None)
        self.embeddings_layer_names: list[str] = list(old.get("embeddings_layer_names") or ())
        self.global_step = 0
        self.step_at_epoch_begin = 0
        self._files: dict[str, EventFile] = {}
        self._projector: Projector | None = None
        self._trace: Trace | None = None
        self._left_out: set[str] = set()
        self._epoch_seconds: float | None = None
        self._epoch_begun = self._batch_written = 0.0
        self._step_written = self._step_begun = 0
        self._steps_per_execution = 1
        self._label = "0"
        self._next_label: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no open files.
        own: dict[str, Any] = {"_files": {}, "_projector": None, "_trace": None, "_left_out": set(self._left_out)}
        return {**super().__getstate__(), **own}

    def listens_to(self, hook: str) -> bool:
        """Return whether a hook is needed: no batch is, unless something is written or counted there."""
        if hook == "on_train_batch_begin":
            return self._last_profiled > 0
        if hook == "on_train_batch_end":
            counts = iterations_of(self.model) is None
            return self.update_freq != "epoch" or self.write_steps_per_second or self._last_profiled > 0 or counts
        return self.write_steps_per_second if hook in ("on_epoch_begin", "on_test_begin") else True

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it needs of the model."""
        return ("numbers",) if self.histogram_freq else ()

    def stand_in(self) -> BringsParts | None:
        """Return what other processes run in its place where each has a part of the weights."""
        return BringsParts(self._bring) if self.histogram_freq or self.embeddings_freq else None

    def _bring(self, model: Any, epoch: int) -> None:
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            from oncue.tensorboard.weight_summaries import weight_summaries

            for _ in weight_summaries(model, images=self.write_images, gradients=self.write_grads):
                pass
        if self.embeddings_freq and epoch % self.embeddings_freq == 0:
            from oncue.tensorboard.projector import Projector

            projector = Projector(model, self.log_dir, self.embeddings_metadata, self.embeddings_layer_names)
            projector.write(epoch, follows=True)

    # A run -------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the files, so that a folder which can't be written is known now, and write the graph."""
        self.close()
        self.global_step = self.step_at_epoch_begin = self._step_written = self._step_begun = 0
        self._left_out.clear()
        self._steps_per_execution = steps_per_execution_of(self.model)
        self._label, self._next_label = self._next_label or uuid.uuid4().hex[:12], None
        # A run that is resumed continues its files, which it is about to get back.
        run_state = run_state_of(self._run)
        resumes = run_state is not None and run_state.waiting is not None
        train = None if resumes and "://" not in self.log_dir else self._file("train")
        if self.histogram_freq:
            from oncue.named_weights import weights_of

            weights_of(self.model, "TensorBoard's `histogram_freq`")
        if self.embeddings_freq:
            from oncue.tensorboard.projector import Projector

            self._projector = Projector(self.model, self.log_dir, self.embeddings_metadata, self.embeddings_layer_names)
            self._projector.begin()
        if train is not None:
            if self.write_graph:
                self._write_graph(train)
            train.flush()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clocks."""
        self._epoch_begun = self._batch_written = time.perf_counter()
        self._step_begun = self.global_step
        self._epoch_seconds = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the profiler when its first batch comes."""
        step = self.step_at_epoch_begin + batch + 1
        # Several batches may run between two hooks.
        last = step + self._steps_per_execution - 1
        if self._trace is None and self._first_profiled <= last and step <= self._last_profiled:
            from oncue.tensorboard.trace import Trace

            self._trace = Trace("TensorBoard", gpus=gpus_of(self.model))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the batch; write its logs when they are due."""
        before, step = self.global_step, self.step_at_epoch_begin + batch + 1
        self.global_step = step
        if self._trace is not None and step >= self._last_profiled:
            self._end_trace()
        if self.update_freq == "epoch" or step // self.update_freq == before // self.update_freq:
            return
        numbers = self._numbers("batch_{}", logs)
        if self.write_steps_per_second:
            # Reading the logs has waited for the device, so the clock is right.
            now = time.perf_counter()
            numbers["batch_steps_per_second"] = _per_second(step - self._step_written, now - self._batch_written)
            self._batch_written, self._step_written = now, step
        self._write("train", step, numbers)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stop the epoch's clock: validation is not training."""
        self._stop_clock()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write what `evaluate`, or the validation inside `fit`, measured, by optimizer step."""
        iterations = iterations_of(self.model)
        step = self.global_step if iterations is None else int(iterations)
        self._write("validation", step, self._numbers("evaluation_{}_vs_iterations", logs))
        self._flush()

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Let the epoch's clock go on after a validation amid its batches."""
        if self._epoch_seconds is not None:
            paused = time.perf_counter() - self._epoch_begun - self._epoch_seconds
            self._epoch_begun += paused
            self._batch_written += paused
            self._epoch_seconds = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch's logs, its histograms and its embeddings."""
        given = dict(logs or {})
        trained = {name: value for name, value in given.items() if not name.startswith("val_")}
        if given:
            trained.update(self._learning_rates(trained))
        numbers = self._numbers("epoch_{}", trained)
        if self.write_steps_per_second:
            self._stop_clock()
            done = self.global_step - self._step_begun
            numbers["epoch_steps_per_second"] = _per_second(done, self._epoch_seconds or 0.0)
        self.step_at_epoch_begin = self._step_written = self.global_step
        self._write("train", epoch, numbers)
        validated = {name[4:]: value for name, value in given.items() if name.startswith("val_")}
        self._write("validation", epoch, self._numbers("epoch_{}", validated))
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        if self._projector is not None and epoch % self.embeddings_freq == 0:
            self._projector.write(epoch)
        self._flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Stop a running profile, and close the files, which are on the disk then."""
        try:
            self._end_trace()
        finally:
            while self._files:
                _, file = self._files.popitem()
                try:
                    file.close()
                except FileNotFoundError:
                    warn(
                        f"The event file '{file.path}' was removed during the run; events that TensorBoard wrote are lost."
                    )

    def after_close(self) -> None:
        """Close the files, also when a second Ctrl-C has ended `close` too early."""
        self.close()

    def growing_files(self) -> list[str]:
        """Return the event files, whose sizes the state has."""
        return [] if "://" in self.log_dir else [file.path for file in self._files.values()]

    def check_saved(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that names other files than its own.

        Args:
            state: A saved state.

        Raises:
            ValueError: For such a state.
        """
        if "://" not in self.log_dir:
            _checked(state["written"])

    def left_in_fork(self) -> tuple[str, ...]:
        """Return what a fork begins without: it writes files of its own."""
        return ("written",)

    @property
    def written(self) -> dict[str, Any]:
        """The event files and their sizes: a resumed run cuts them there and continues, so that no event is in them twice."""
        local = {} if "://" in self.log_dir else self._files
        files = {run: [os.path.basename(file.path), file.size()] for run, file in local.items()}
        return {"label": self._label, "files": files}

    @written.setter
    def written(self, state: dict[str, Any]) -> None:
        if "://" in self.log_dir:
            return
        self.close()
        label, sizes = _checked(state)
        if label != self._label:
            # What this run has begun before it knew that it continues another's.
            self._remove_files(self._label)
        # The clocks of a resumed epoch have been running since it was taken up.
        self._step_begun = self._step_written = self.global_step
        self._label = label
        from oncue.tensorboard.event_file import EventFile, whole_until

        for run, (name, size) in sizes.items():
            path = os.path.join(self.log_dir, run, name)
            if os.path.islink(path) or not os.path.isfile(path):
                warn(
                    f"The event file '{path}' of the interrupted run is gone; its events are lost, and a new file is started."
                )
                continue
            whole = whole_until(path, size)
            if whole < size:
                warn(
                    f"The event file '{path}' has lost its end, as after a power cut: {size - whole} bytes of the events that "
                    "the interrupted run had written. It is continued after the last event that is whole."
                )
            self._files[run] = EventFile(os.path.join(self.log_dir, run), resume=(name, whole))
        # Files that the run started after its state was captured.
        self._remove_files(self._label)

    def mark_files(self) -> dict[str, Any] | None:
        """Return the label in the names of the event files that this run is going to start."""
        self._next_label = uuid.uuid4().hex[:12]
        return None if "://" in self.log_dir else {"folder": os.path.abspath(self.log_dir), "label": self._next_label}

    def take_back(self, mark: dict[str, Any]) -> None:
        """Remove the event files of a run that begins anew.

        Args:
            mark: What `mark_files` returned when that run began.
        """
        if "://" not in self.log_dir and mark["folder"] == os.path.abspath(self.log_dir):
            self.close()
            self._remove_files(mark["label"])

    def _remove_files(self, label: str) -> None:
        """Remove the event files with a label, but for those that are open."""
        for run in _RUNS:
            folder = os.path.join(self.log_dir, run)
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                known = run in self._files and self._files[run].path == os.path.join(folder, name)
                if name.endswith(f".{label}.v2") and not known:
                    os.unlink(os.path.join(folder, name))

    # Writing -----------------------------------------------------------------------------------------------------

    def _file(self, run: str) -> EventFile:
        if run not in self._files:
            from oncue.tensorboard.event_file import EventFile

            try:
                self._files[run] = EventFile(os.path.join(self.log_dir, run), self._label)
            except OSError as error:
                raise type(error)(
                    error.errno,
                    f"TensorBoard can't write to `log_dir`={self.log_dir!r} ({reason_of(error, self.log_dir)}); give a folder "
                    "that can be written",
                    error.filename,
                ) from error
        return self._files[run]

    def _write(self, run: str, step: int, numbers: Mapping[str, float]) -> None:
        if numbers:
            from oncue.tensorboard.summaries import scalar

            self._file(run).add(step, [scalar(tag, value) for tag, value in numbers.items()])

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def _numbers(self, tag: str, logs: Mapping[str, Any] | None) -> dict[str, float]:
        numbers = {}
        for name, value in (logs or {}).items():
            try:
                numbers[tag.format(name)] = float(value)
            except (TypeError, ValueError, RuntimeError):
                if name not in self._left_out:
                    self._left_out.add(name)
                    warn(f"TensorBoard leaves `{name}` out: its value {value!r} is no number.")
        return numbers

    def _learning_rates(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        if optimizer_of(self.model) is None:
            return {}
        found = {}
        for name, optimizer in optimizers_of(self.model):
            if name:
                found[f"learning_rate_{name}"] = optimizer.learning_rate
            # A callback may have changed the rate since: the logs know the one that the epoch was trained with.
            elif "learning_rate" not in logs and isinstance(optimizer, HasLearningRate):
                found["learning_rate"] = optimizer.learning_rate
        return found

    def _stop_clock(self) -> None:
        if self._epoch_seconds is None:
            self._epoch_seconds = time.perf_counter() - self._epoch_begun

    def _write_graph(self, file: EventFile) -> None:
        from oncue.tensorboard.graph import graph_config, graph_def
        from oncue.tensorboard.summaries import model_graph

        config = graph_config(self.model)
        if config is None:
            self._decided("note", "no_graph", model=type(self.model).__name__)
        else:
            file.add(0, [model_graph("keras", config)])
            # The page opens on it, and shows an error where there is none.
            operations = graph_def(config)
            if operations is not None:
                file.add_graph(operations)

    def _write_weights(self, epoch: int) -> None:
        from oncue.tensorboard.weight_summaries import weight_summaries

        for values in weight_summaries(self.model, images=self.write_images, gradients=self.write_grads):
            self._file("train").add(epoch, values)

    def _end_trace(self) -> None:
        trace, self._trace = self._trace, None
        if trace is not None:
            from oncue.tensorboard.trace import profile_path

            path = profile_path(os.path.join(self.log_dir, "train"))
            if trace.stop(path):
                self._decided("note", "profiled", first=self._first_profiled, last=self.global_step, path=path)


_RUNS = ("train", "validation")


def _checked(state: Any) -> tuple[str, dict[str, tuple[str, int]]]:
    """Return the label, and by folder the names and sizes of event files, that a state has.

    Raises:
        ValueError: For what no run has written: files elsewhere, or of others.
    """
    label, files = (state.get("label"), state.get("files")) if isinstance(state, dict) else (None, None)
    if not isinstance(label, str) or re.fullmatch("[0-9a-f]{1,32}", label) is None or not isinstance(files, dict):
        raise ValueError(f"The state of TensorBoard must have a label and files; got {str(state)[:200]!r}.")
    found = {}
    for run, file in files.items():
        name, size = file if isinstance(file, list) and len(file) == 2 else (None, None)
        known = isinstance(name, str) and re.fullmatch(rf"events\.out\.tfevents\.[^/\\:\0]+\.{label}\.v2", name)
        if run not in _RUNS or not known or type(size) is not int or size < 0:
            raise ValueError(
                f"The state of TensorBoard must have event files of the folders {' and '.join(_RUNS)}, each with its size; got "
                f"{str(run)[:100]!r}: {str(file)[:200]!r}."
            )
        found[run] = (str(name), size)
    return label, found


def _per_second(steps: int, seconds: float) -> float:
    return steps / seconds if seconds > 0 else 0.0
