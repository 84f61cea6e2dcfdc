"""Files of Keras models: written by Keras's own serialisation through oncue's store, and read by it behind the guard."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch

from oncue.checkpoints.score_note import ending
from oncue.checkpoints.snapshot import Snapshot
from oncue.core import remote
from oncue.core.files import replacing
from oncue.core.protocols import optimizer_of
from oncue.core.warn import warn
from oncue.keras_names import check_backend
from oncue.losses.lookup import FUNCTIONS
from oncue.nested import map_leaves
from oncue.saving import guard, safetensors_file, weights_json
from oncue.saving.arguments import path_and_kind
from oncue.saving.formats import MODELS
from oncue.saving.hdf5_file import write_pieces
from oncue.saving.legacy_weights import read_names
from oncue.saving.model_config import warn_of_code
from oncue.saving.tree import Stored, Tree
from oncue.saving.weights_h5 import NOT_WEIGHTS, settle
from oncue.torch_private import tensor_tables
from oncue.with_keras import keras_private
from oncue.with_keras.safe_config import Allowance, check_config

if TYPE_CHECKING:
    from oncue.with_keras.model import KerasModel

_WEIGHTS = "model.weights.h5"


class KerasFiles:
    """Writes and reads the files of a Keras model in oncue's loop; `model.own_files` makes it.

    Keras serialises into memory, so that a failing disk is met by oncue's store alone, and reads from memory what the
    guard has looked through.

    Args:
        model: The model.
    """

    def __init__(self, model: KerasModel) -> None:
        self._model = model

    def prepare_model(self, kind: str, include_optimizer: bool, note: str | None) -> Callable[[Path], None]:
        """Take the content of a file of the whole model, and return a function that writes it.

        Raises:
            ValueError: For a layer that Keras could only write as a pickle.
        """
        model = self._settled(with_optimizer=include_optimizer)
        _refuse_pickles(model)
        _warn_of_classes(model)
        content = io.BytesIO()
        if kind == ".keras":
            if not include_optimizer:
                raise ValueError(
                    "`include_optimizer=False` is not for .keras files of a Keras model, in which Keras always keeps what it "
                    "was compiled with. Leave it out, or use the extension .h5."
                )
            keras_private.write_archive(model, content)
            with zipfile.ZipFile(content, "a") as archive:
                warn_of_code(model, archive.read("config.json").decode())
                archive.comment = ending(note)
            return lambda path: _replace(path, content)
        with h5py.File(content, "w") as file:
            keras_private.write_legacy_model(model, file, include_optimizer and optimizer_of(model) is not None)
            _lengthen(file)
        return lambda path: write_pieces([content.getbuffer()], path, ending(note))

    def prepare_weights(
        self, kind: str, snapshot: Snapshot | None, note: str | None, skipped: Sequence[Any] = ()
    ) -> Callable[[Path], None]:
        """Take the content of a file of the weights, and return a function that writes it.

        Raises:
            ValueError: For `.safetensors`, when a layer saves more than its weights.
        """
        if kind == ".safetensors":
            _refuse_own_state(self._model.keras_model)
            return safetensors_file.prepare_weights(self._tensors(), snapshot, note)
        model = self._settled(with_optimizer=kind == ".weights.h5")
        content = io.BytesIO()
        if kind == ".weights.h5":
            keras_private.write_weights(model, content, skipped)
        else:
            with h5py.File(content, "w") as file:
                keras_private.write_legacy_weights(model, file)
        return lambda path: write_pieces([content.getbuffer()], path, ending(note))

    def weights_tree(self, skipped: Sequence[Any]) -> Tree:
        """Return the content of a `.weights.h5` file."""
        content, tree = io.BytesIO(), Tree()
        keras_private.write_weights(self._settled(with_optimizer=True), content, skipped)
        with h5py.File(content, "r") as file:
            for path in sorted(guard.paths_of_arrays(file, "the model"), key=_in_order):
                above, _, name = path.rpartition("/")
                group = tree.members.get(above) or tree.create_group(above)
                assert isinstance(group, Tree)
                group[name] = Stored(torch.from_numpy(np.array(guard.read_array(file[path]))), name=path)
        return tree

    def read_weights(
        self, path: Path, kind: str, skip_mismatch: bool, by_name: bool, skipped: Sequence[Any] = ()
    ) -> None:
        """Set the weights from a file, all of them or none.

        Raises:
            ValueError: For a file that breaks a rule of `guard`, or weights that don't fit.
        """
        model = self._settled()
        if kind == ".safetensors":
            safetensors_file.read_weights(self._tensors(), path, skip_mismatch)
            keras_private.refresh(model)
            self._model._after_load()
            return
        if kind == ".keras":
            content = _archive(path)[0]
        else:
            content = _joined(path) if kind == weights_json.ENDING else _hdf5(path)[0]
        with self._all_or_nothing():
            if kind in (".keras", ".weights.h5", weights_json.ENDING):
                asked = keras_private.read_weights(model, content, skip_mismatch, skipped)
                _settle_unread(content, asked, path, skip_mismatch)
            else:
                with h5py.File(content, "r") as file:
                    whole = "layer_names" not in file.attrs and "model_weights" in file
                    group = file["model_weights"] if whole else file
                    keras_private.read_legacy_weights(model, group, skip_mismatch, by_name)
        self._model._after_load()

    def size(self, kind: str, weights_only: bool) -> int:
        """Return about how many bytes a file takes: those of the arrays."""
        model = self._model.keras_model
        variables = list(model.variables)
        if optimizer_of(model) is not None and (not weights_only or kind == ".weights.h5"):
            variables += model.optimizer.variables
        return sum(one.value.numel() * one.value.element_size() for one in variables)

    def _tensors(self) -> torch.nn.Module:
        """Return a module of the model's variables, under the names that they have in the model."""
        self._model._take_weights()
        ours = {id(variable.value) for variable in self._model.keras_model.variables}
        module = torch.nn.Module()
        # Their names have dots, as no module lets its own.
        table, _ = tensor_tables(module)
        table.update({name: one for name, one in self._model.named_parameters() if id(one) in ours})
        return module

    def _settled(self, with_optimizer: bool = False) -> Any:
        """Return the Keras model, with all that was trained so far."""
        model = self._model
        model._settle()
        if with_optimizer and model._compiled_here:
            warn(
                f"The file has '{model.name}' as the Keras model was compiled, without the optimizer that `compile` of oncue's "
                "model was given. Compile the Keras model itself, `keras_model.compile(...)`, to have that in the file."
            )
        return model.keras_model

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        model = self._model.keras_model
        optimizer = optimizer_of(model)
        variables = [*model.variables, *(() if optimizer is None else optimizer.variables)]
        before = [variable.value.detach().clone() for variable in variables]
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for variable, value in zip(variables, before, strict=True):
                    variable.value.copy_(value)
            keras_private.refresh(model)
            raise


def load_model(
    filepath: str | os.PathLike[str], custom_objects: dict[str, Any] | None = None, compile: bool = True
) -> KerasModel:
    """Load a model of the real Keras, with its own layers, from a file that Keras or oncue has written.

    The file is looked through first: code and pickles in it, classes that aren't Keras's or yours, and files that it would
    read are refused by name. Keras's safe mode is on, whatever the process has set.

    Args:
        filepath: A `.keras`, `.h5` or `.hdf5` file, or the URL of one.
        custom_objects: Your own classes and functions by name; those registered with Keras are known.
        compile: Whether to compile it as it was, with its optimizer's state.

    Returns:
        The model, as `oncue.Model(keras_model)` makes it; the Keras model is its `keras_model`.

    Raises:
        ValueError: For another extension, another backend than torch, and a file that is not whole or not safe.
        FileNotFoundError: When it isn't there.

    Example:
        >>> import os, tempfile
        >>> os.environ["KERAS_BACKEND"] = "torch"
        >>> import keras, oncue
        >>> model = oncue.Model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/m.keras")
        ...     load_model(f"{folder}/m.keras").count_params()
        9
    """
    from oncue.with_keras.model import KerasModel

    check_backend()
    path, kind = path_and_kind(filepath, MODELS, "a whole model", "load_model('model.keras')")
    if remote.is_url(filepath):
        with remote.downloaded(str(filepath)) as local:
            return load_model(local, custom_objects, compile)
    read = _read_archive if kind == ".keras" else _read_legacy
    return KerasModel.of(read(path, custom_objects, compile))


def _read_archive(path: Path, custom_objects: dict[str, Any] | None, compile: bool) -> Any:
    _, numbers, members = _archive(path)
    guard.read_json(members["metadata.json"], path)
    check_config(guard.read_json(members["config.json"], path), path, custom_objects)
    # Made of what was looked at, so that nothing else is read.
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    content.seek(0)
    with _made(path, numbers):
        return keras_private.read_archive(content, custom_objects, compile)


def _read_legacy(path: Path, custom_objects: dict[str, Any] | None, compile: bool) -> Any:
    content, numbers = _hdf5(path)
    with h5py.File(content, "r+") as file:
        if "model_config" not in file.attrs:
            guard.refuse(path, "it has no model in it, only weights: make the model and call `model.load_weights`.")
        for name in ("model_config", "training_config"):
            text = file.attrs.get(name)
            if text is None:
                continue
            if not isinstance(text, (bytes, str)):
                guard.refuse(path, f"its attribute {name} is no text.")
            check_config(guard.read_json(text, path), path, custom_objects)
        _lengthen(file)
        state = _taken_out(file, path)
        with _made(path, numbers):
            model = keras_private.read_legacy_model(file, custom_objects, compile)
            if state and optimizer_of(model) is not None:
                _put_optimizer(model, state, path)
    return model


def _taken_out(file: Any, path: Path) -> list[Any]:
    """Return the state of the optimizer, and take it out of a file: Keras would build the optimizer for no weights."""
    group = guard.group_at(file, "optimizer_weights", path)
    if group is None:
        return []
    datasets = [guard.dataset_at(group, name, path) for name in read_names(group, "weight_names", path)]
    values = [None if dataset is None else guard.read_array(dataset) for dataset in datasets]
    del file["optimizer_weights"]
    return values


def _put_optimizer(model: Any, state: list[Any], path: Path) -> None:
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    shapes = [None if value is None else tuple(value.shape) for value in state]
    if shapes == [tuple(variable.shape) for variable in optimizer.variables]:
        for variable, value in zip(optimizer.variables, state, strict=True):
            variable.assign(value)
    elif len(state) > 2:
        warn(f"The optimizer's state in {str(path)!r} doesn't fit and was left out; the optimizer starts from scratch.")


@contextmanager
def _made(path: Path, numbers: int) -> Iterator[None]:
    """Let Keras make a model in a block: of no more numbers than there are, and with errors that name the file."""
    try:
        with Allowance(numbers, path):
            yield
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        if str(error).startswith(repr(str(path))):
            raise
        raise ValueError(f"{str(path)!r} was not loaded: Keras can't make the model in it. {error}") from error


def _lengthen(file: Any) -> None:
    """Give losses their long names, because Keras finds no others when it reads the form of Keras 1 and 2."""
    text = file.attrs.get("training_config")
    training = None if text is None else json.loads(text)
    if isinstance(training, dict) and "loss" in training:
        file.attrs["training_config"] = json.dumps(
            {**training, "loss": map_leaves(_long_name, training["loss"])}
        ).encode("utf-8")


def _long_name(loss: Any) -> Any:
    known = FUNCTIONS.get(loss) if isinstance(loss, str) else None
    return loss if known is None else known.__name__


def _archive(path: Path) -> tuple[io.BytesIO, int, dict[str, bytes]]:
    """Return the weights in a `.keras` file, how many numbers they are, and all members, once they were looked through."""
    with guard.opened(path) as file:
        members = guard.read_archive(file, path)
    return *_looked_through(io.BytesIO(members[_WEIGHTS]), path), members


def _hdf5(path: Path) -> tuple[io.BytesIO, int]:
    with guard.opened(path) as file:
        return _looked_through(io.BytesIO(file.read()), path)


def _joined(path: Path) -> io.BytesIO:
    """Return the weights of several files as the content of one."""
    content = io.BytesIO()
    with weights_json.opened_files(path) as arrays, h5py.File(content, "w") as file:
        for name in arrays.paths:
            file[name] = guard.read_array(arrays.dataset(name))
    content.seek(0)
    return content


def _in_order(path: str) -> list[tuple[int, str]]:
    """Return what sorts the arrays of a group by their numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in path.split("/")]


def _looked_through(content: io.BytesIO, path: Path) -> tuple[io.BytesIO, int]:
    """Return an HDF5 file, of which all data sets and the checksum were looked at, and how many numbers are in it."""
    with guard.opened_hdf5(content, path) as file:
        numbers = guard.count_of_numbers(file, path)
    content.seek(0)
    return content, numbers


def _replace(path: Path, content: io.BytesIO) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _settle_unread(content: io.BytesIO, asked: set[str], path: Path, skip_mismatch: bool) -> None:
    """Refuse weights that no part of the model was looked for in, or warn of them; Keras would leave them out."""
    with h5py.File(content, "r") as file:
        arrays = sorted(guard.paths_of_arrays(file, path))
    # Files of Keras 2.13 have the weights elsewhere.
    if any(name.startswith("_layer_checkpoint_dependencies") for name in arrays):
        return
    groups = {name: name.rpartition("vars/")[0].rstrip("/") for name in arrays}
    problems = [
        f"{name}: the model has no such weight"
        for name, group in groups.items()
        if group not in asked and not NOT_WEIGHTS & set(name.split("/")) and not name.startswith("optimizer/")
    ]
    settle(problems, path, skip_mismatch)


def _refuse_pickles(model: Any) -> None:
    import keras

    found = next(
        (one for one in keras_private.layers_of(model) if isinstance(one, keras.layers.TorchModuleWrapper)), None
    )
    if found is not None:
        raise ValueError(
            f"'{found.name}', a TorchModuleWrapper, would be a pickle in the file, which runs code when it is opened. Save the "
            "weights: `model.save_weights('model.weights.h5')`."
        )


def _warn_of_classes(model: Any) -> None:
    found = keras_private.not_made_again(model)
    if found is not None:
        warn(
            f"A file of the whole of '{model.name}' can't be opened again: {found[0]} would be made by `{found[0]}(**config)`, "
            f"and {found[1]}. Let its `__init__` take `**kwargs` and hand them on, or define `from_config`; or save the "
            "weights alone."
        )


def _refuse_own_state(model: Any) -> None:
    found = keras_private.saves_more(model)
    if found is not None:
        raise ValueError(
            f"'{found.name}' can't be kept in a .safetensors file, which holds only weights: {type(found).__name__} says by "
            "itself what is saved. Name the file 'model.weights.h5', or, for a whole model, 'model.keras'."
        )
