"""PredictionWriter: what a model predicts, written to a file batch by batch."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.file_name import FileName
from oncue.core.files import reason_of, replacing, require_file, sweep
from oncue.core.numbers import whole
from oncue.core.suggest import unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[Any]"]


@builtin
class PredictionWriter(Callback):
    """Writes what `predict` computes to a file, as soon as each batch is done; in `fit` what the model predicts in validation.

    - `predict(x, callbacks=[PredictionWriter("out.csv")])` writes the rows of `x`, in their order. With
      `steps=` or a generator it writes what there is.
    - `fit(..., callbacks=[PredictionWriter("val-{epoch}.npz")])` writes the predictions for the arrays of validation when an
      epoch has ended, by a pass of its own over them.

    The file is there when all is written, or not at all: an error, Ctrl-C or a kill leave the one that was there before. One
    batch at a time is kept in memory. Each batch waits for the device.

    The file's ending says its form:

    - `.csv`: a column for each number of an output: `output`, or `output_0`, `output_1` and so on; of a model with several
      outputs their names, or numbers, in place of `output`.
    - `.npz`: an array for each output, as `numpy.load` reads it. It takes twice its place on the disk while it is made.
    - `.parquet`: a column for each output, with pyarrow: numbers, or lists of a fixed size.

    Args:
        filename: The file; its folder is made. In `fit` `{epoch}` stands for the epoch, counted from 1; without it the
            file is that of the last epoch.
        every: In `fit`, write after each so many epochs.

    Raises:
        ValueError: For another ending; before the first step, in a `fit` without arrays to validate on.
        ImportError: For `.parquet` without pyarrow.
        OSError: Before the first step, when the file can't be written.

    Example:
        >>> import numpy as np, oncue, tempfile
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, kernel_initializer="ones")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "out.csv")
        ...     predicted = model.predict(np.eye(2), verbose=0, callbacks=[PredictionWriter(path)])
        ...     print(path.read_text())
        output
        1.0
        1.0
        <BLANKLINE>
    """

    # After those that decide which weights the model has.
    makes_way = True
    reads_batch_logs = True

    def __init__(self, filename: str | os.PathLike[str], every: int = 1) -> None:
        super().__init__()
        path = os.fspath(filename)
        kind = os.path.splitext(path)[1].lower()
        if kind not in _FORMS:
            raise unknown("ending of a PredictionWriter's `filename`", kind or path, _FORMS)
        if kind == ".parquet" and importlib.util.find_spec("pyarrow") is None:
            raise ImportError(
                "PredictionWriter needs pyarrow for a .parquet file: `pip install pyarrow`. Or give .csv or .npz."
            )
        self.filename = path
        self.every = whole("PredictionWriter", "every", every, least=1)
        self._name = FileName(path, "PredictionWriter", ("epoch",))
        self._name.check_names(["epoch"])
        self._open: ExitStack | None = None
        self._form: _Form | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no open file.
        return {**super().__getstate__(), "_open": None, "_form": None}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find out whether there is something to predict, and whether the file can be written.

        Raises:
            ValueError: Without arrays to validate on.
            OSError: When the file can't be written.
        """
        if self._held_out() is None:
            raise ValueError(
                "PredictionWriter in `fit` writes the predictions for the arrays that the run validates on, and this one, of a "
                f"{type(self.model).__name__}, has none: give `validation_data` as arrays, or use it in `predict`."
            )
        if self.ranks.main:
            _prepare(Path(self._name.fill({"epoch": 1})))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the predictions for the data of validation, when that is due."""
        if (epoch + 1) % self.every:
            return
        path = self._name.fill({"epoch": epoch + 1})
        writer = PredictionWriter(path.replace("{", "{{").replace("}", "}}"))
        self.model.predict(self._held_out(), verbose=0, callbacks=[writer])
        self._decided("note", "file", path=path)

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin the file.

        Raises:
            ValueError: When the name asks for an epoch.
            OSError: When it can't be written.
        """
        self._give_up()
        if self._name.names:
            raise ValueError(
                f"`predict` has no epochs, which PredictionWriter's filename={self.filename!r} asks for. Leave out '{{epoch}}'."
            )
        self._open, self._shapes = ExitStack(), {}
        if self.ranks.main:
            path = Path(self._name.fill({}))
            _prepare(path)
            temporary = self._open.enter_context(replacing(path))
            self._form = _FORMS[path.suffix.lower()](temporary, self._open)

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the rows of the batch; those of all processes, in their order."""
        import numpy as np

        arrays = dict(_named((logs or {})["outputs"]))
        ranks = self.ranks
        if ranks.size > 1:
            parts = [_unpacked(data) for data in ranks.gather_bytes(_packed(arrays))]
            arrays = {name: np.concatenate([part[name] for part in parts]) for name in arrays}
        shapes = {name: array.shape[1:] for name, array in arrays.items()}
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            raise ValueError(
                f"PredictionWriter can't join rows of the shapes {self._shapes} and, from batch {batch + 1} on, {shapes}. Pad "
                "them to one length."
            )
        if self._form is not None:
            self._form.write(arrays)

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Finish the file, which takes its name now."""
        opened, form = self._open, self._form
        self._open = self._form = None
        if opened is not None:
            with opened:
                if form is not None:
                    form.finish()

    def on_exception(self, exception: BaseException) -> None:
        """Leave the file as it was."""
        self._give_up()

    def close(self) -> None:
        """Leave the file as it was, if it isn't whole."""
        self._give_up()

    def _give_up(self) -> None:
        opened, self._open, self._form = self._open, None, None
        if opened is not None:
            with suppress(_Unfinished), opened:
                raise _Unfinished

    def _held_out(self) -> Any:
        found = None if self._run is None else self._run.held_out
        return None if found is None else found[0]


class _Unfinished(Exception):
    """Ends the block of a file that isn't to be there."""


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_file(path)
        sweep(path.parent, re.escape(path.name[:50]))
        with suppress(_Unfinished), replacing(path):
            raise _Unfinished
    except OSError as error:
        why = f"PredictionWriter can't write to its `filename` ({reason_of(error, path)}). Give one that can be written to"
        raise type(error)(error.errno, why, os.fspath(path)) from None


# What a model gave -----------------------------------------------------------------------------------------------------


def _named(outputs: Any, name: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Give the arrays in what a model gave, with their names; one alone is "output"."""
    if isinstance(outputs, Mapping):
        parts: Sequence[tuple[Any, Any]] = list(outputs.items())
    elif isinstance(outputs, (list, tuple)):
        parts = list(enumerate(outputs))
    else:
        yield name or "output", _array(outputs)
        return
    for key, part in parts:
        yield from _named(part, f"{name}_{key}" if name else str(key))


def _array(tensor: Any) -> NDArray[Any]:
    import numpy as np

    tensor = tensor.detach()
    # NumPy lacks bfloat16.
    found: NDArray[Any] = np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).cpu())
    return found if found.ndim else found[None]


def _packed(arrays: Arrays) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, *arrays.values())
    return json.dumps(list(arrays)).encode("utf-8") + b"\n" + file.getvalue()


def _unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    import numpy as np

    names, _, content = data.partition(b"\n")
    with np.load(io.BytesIO(content)) as found:
        return {name: found[f"arr_{place}"] for place, name in enumerate(json.loads(names))}


# The forms of files ----------------------------------------------------------------------------------------------------


class _Form(Protocol):
    """Writes rows to a file."""

    def __init__(self, path: Path, opened: ExitStack) -> None: ...

    def write(self, arrays: Arrays) -> None: ...

    def finish(self) -> None: ...


class _Csv:
    """A row of text for each row."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._file = opened.enter_context(open(path, "w", newline="", encoding="utf-8"))
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._begun = False

    def write(self, arrays: Arrays) -> None:
        flat = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
        if not self._begun:
            self._begun = True
            self._rows.writerow(
                name if array.shape[1] == 1 and arrays[name].ndim < 3 else f"{name}_{place}"
                for name, array in flat.items()
                for place in range(array.shape[1])
            )
        # The shortest text that is read as the same number of the array's type.
        texts = [array.astype(str).tolist() for array in flat.values()]
        self._rows.writerows([*chain.from_iterable(parts)] for parts in zip(*texts, strict=True))

    def finish(self) -> None:
        self._file.close()


class _Npz:
    """An array for each output; its rows are gathered in a file, since the number of all stands before them."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._path, self._opened = path, opened
        self._files: dict[str, tuple[Any, list[int], Any]] = {}

    def write(self, arrays: Arrays) -> None:
        import tempfile

        for name, array in arrays.items():
            if name not in self._files:
                file = self._opened.enter_context(tempfile.TemporaryFile(dir=self._path.parent))
                self._files[name] = file, [0, *array.shape[1:]], array.dtype
            file, shape, _ = self._files[name]
            shape[0] += len(array)
            file.write(array.tobytes())

    def finish(self) -> None:
        from numpy.lib import format as form

        with zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
            for name, (file, shape, dtype) in self._files.items():
                file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": form.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
                    form.write_array_header_1_0(member, header)
                    while piece := file.read(1 << 20):
                        member.write(piece)


class _Parquet:
    """A column for each output, in groups of a batch's rows."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._path, self._opened = path, opened
        self._writer: Any = None

    def write(self, arrays: Arrays) -> None:
        import pyarrow
        from pyarrow import parquet

        columns = {}
        for name, array in arrays.items():
            flat = array.reshape(len(array), -1)
            values = pyarrow.array(flat.reshape(-1))
            width = flat.shape[1]
            alone = width == 1 and array.ndim < 3
            columns[name] = values if alone else pyarrow.FixedSizeListArray.from_arrays(values, width)
        table = pyarrow.table(columns)
        if self._writer is None:
            self._writer = self._opened.enter_context(parquet.ParquetWriter(self._path, table.schema))
        self._writer.write_table(table)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


_FORMS: dict[str, type[_Form]] = {".csv": _Csv, ".npz": _Npz, ".parquet": _Parquet}
