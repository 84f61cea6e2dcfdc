"""Projector: the tables of embedding layers, as TensorBoard's projector reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from oncue.core.suggest import nearest
from oncue.core.warn import warn
from oncue.named_weights import as_array, as_tensor
from oncue.shards import whole


class Projector:
    """Writes `projector_config.pbtxt`, and the tables of embedding layers.

    In each such epoch Keras writes a weights file, which the projector can't read; it is written here too. A layer
    whose rows have labels, and every embedding of a plain torch module, also has its table of the last such epoch as
    text beside it, which the projector does read.

    Args:
        model: A model with `layers`, or a torch module with `torch.nn.Embedding` somewhere inside.
        log_dir: Where the configuration goes; tables and weights go to its folder `train`.
        metadata: The file that labels the rows, or a dict from layer names to files.
        only: The names of the layers to write; all embedding layers when empty.

    Raises:
        TypeError: When the model has neither layers nor modules.
        ValueError: For the name of a layer that isn't an embedding layer of the model.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> list(Projector(torch.nn.ModuleDict({"words": torch.nn.Embedding(3, 2)}), folder).tables)
        ['words']
    """

    def __init__(
        self,
        model: Any,
        log_dir: str,
        metadata: str | Mapping[str, str] | None = None,
        only: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.log_dir = log_dir
        tables = dict(_embeddings(model))
        if not tables:
            warn(f"TensorBoard's `embeddings_freq` is set, but {type(model).__name__} has no embedding layer.")
        files = (
            dict.fromkeys(tables, os.fspath(metadata)) if isinstance(metadata, (str, os.PathLike)) else metadata or {}
        )
        _check("embeddings_metadata", files, tables)
        _check("embeddings_layer_names", only, tables)
        self.tables = {name: layer for name, layer in tables.items() if not only or name in only}
        plain = not hasattr(model, "save_weights") or getattr(model, "module", None) is not None
        self.shown = {name for name in self.tables if plain or name in files}
        self._files = {name: os.fspath(path) for name, path in files.items()}

    def begin(self) -> None:
        """Write the settings, which name the files that are going to be there."""
        config = ProjectorConfig()
        for name in self.tables:
            entry = config.embeddings.add(tensor_name=name)
            if name in self.shown:
                entry.tensor_path = _table_path(name)
            if name in self._files:
                entry.metadata_path = self._files[name]
        os.makedirs(os.path.join(self.log_dir, "train"), exist_ok=True)
        with open(os.path.join(self.log_dir, "projector_config.pbtxt"), "w", encoding="utf-8") as file:
            file.write(str(config))

    def write(self, epoch: int, follows: bool = False) -> None:
        """Write the tables, and the weights file of the epoch.

        Args:
            epoch: The index of the epoch.
            follows: Whether this process only brings its parts of the weights, which the main process writes.
        """
        for name in sorted(self.shown):
            table = whole(as_tensor(_table(self.tables[name])), "the tables of embeddings")
            if follows:
                continue
            path = os.path.join(self.log_dir, *_table_path(name).split("/"))
            with open(path + ".tmp", "w", encoding="utf-8") as file:
                for row in as_array(table).tolist():
                    file.write("\t".join(map("{:.7g}".format, row)) + "\n")
            os.replace(path + ".tmp", path)
        if hasattr(self.model, "save_weights"):
            self.model.save_weights(os.path.join(self.log_dir, "train", f"keras_embedding.ckpt-{epoch}.weights.h5"))


def _embeddings(model: Any) -> Iterator[tuple[str, Any]]:
    inside = getattr(model, "module", None)
    if isinstance(inside, torch.nn.Module):
        model = inside
    layers = getattr(model, "layers", None)
    if isinstance(layers, (list, tuple)):
        for layer in layers:
            if _is_embedding(layer):
                yield layer.name if hasattr(layer, "name") else type(layer).__name__, layer
            elif isinstance(getattr(layer, "layers", None), (list, tuple)):
                yield from _embeddings(layer)
    elif isinstance(model, torch.nn.Module):
        for name, module in model.named_modules():
            if _is_embedding(module):
                yield name or "embedding", module
    else:
        raise TypeError(
            f"TensorBoard's `embeddings_freq` needs a model with `layers`, or a torch module; got "
            f"{type(model).__name__}. Use `embeddings_freq=0`."
        )


def _is_embedding(layer: Any) -> bool:
    # By name, so that layers of torch, of oncue and of Keras itself are known without importing any.
    return any(kind.__name__ == "Embedding" for kind in type(layer).__mro__)


def _table(layer: Any) -> Any:
    return layer.embeddings if hasattr(layer, "embeddings") else layer.weight


def _table_path(name: str) -> str:
    return f"train/embedding_{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.tsv"


def _check(argument: str, names: Any, known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            near = nearest(str(name), known)
            hint = "" if near is None else f" Did you mean {near!r}?"
            raise ValueError(
                f"`{argument}` names {name!r}, which isn't an embedding layer of the model.{hint} The embedding layers "
                f"are: {', '.join(known) or 'none'}."
            )
