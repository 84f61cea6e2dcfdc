"""TrainingState: everything that a run needs to resume, and its file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from oncue.checkpoints.encoding import decode, encode, json_of
from oncue.checkpoints.format_2 import upgraded_journal
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.state_file import TensorBlocks, read_beginning, read_state, write_state
from oncue.checkpoints.store import OtherVersion
from oncue.core.files import require_file

if TYPE_CHECKING:
    from oncue.shards.planned import Plan

FORMAT = 3
"""The version of the file format."""
FORKED = "forked"
"""The part that only the first state of a run that was forked from another has."""
_READABLE = (2, FORMAT)
_DATA = {"data": "training data", "validation_data": "validation data"}
_PLAIN = ("fingerprint", "epoch", "batch", "stopped", "redone")


class Files(Protocol):
    """The files of the processes that have parts of a state, such as those of a `Store`."""

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Give a path to read a file from, which may be gone after the block."""

    def size(self, name: str) -> int:
        """Return how large a file is."""


class Beside:
    """The files that are beside another.

    Args:
        path: The other.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = Path(os.path.dirname(path))

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Give the path of a file."""
        require_file(self._folder / name)
        return nullcontext(self._folder / name)

    def size(self, name: str) -> int:
        """Return how large a file is."""
        require_file(self._folder / name)
        return os.path.getsize(self._folder / name)


def _new_plan() -> Plan:
    # Imports torch's own, which takes a second.
    from oncue.shards.planned import Plan

    return Plan()


@dataclass(frozen=True)
class PartOfSave:
    """One process's part of a state of which several processes have parts.

    Args:
        rank: The number of the process.
        size: How many there are.
        number: The number of the state in its folder.
        token: What all files of the state have in common, and those of no other.
        plan: What is planned once for states of the same tensors, such as those of a run.
    """

    rank: int
    size: int
    number: int
    token: str
    plan: Plan = field(default_factory=_new_plan, repr=False, compare=False)

    @property
    def file(self) -> str:
        """The name of the file of a process other than the main one."""
        return part_of_state(self.number, self.rank)


@dataclass
class TrainingState:
    """The position of a run, and everything in it that changes during training.

    Args:
        fingerprint: The setup of the run, by name; a run that resumes must have the same.
        epoch: The index of the epoch to continue with.
        batch: The number of batches of that epoch already trained.
        stopped: Whether the run had been asked to stop, so that there is nothing to continue.
        redone: The batches of that epoch that are trained a second time, because the epoch is restarted.
        parts: The weights, the optimizer's state and so on, by name: plain containers, numbers and tensors.
        exact: Whether the run must go on as it would have gone on then; not with what was adopted, or left out. It is no part
            of the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     TrainingState({"optimizer": "SGD"}, epoch=3, parts={"journal": []}).write(f"{folder}/state")
        ...     TrainingState.read(f"{folder}/state").epoch
        3
    """

    fingerprint: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    stopped: bool = False
    redone: int = 0
    parts: dict[str, Any] = field(default_factory=dict)
    exact: bool = True

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, and flush it to disk; see `oncue.checkpoints.state_file`.

        Raises:
            TypeError: If a part has anything but plain containers, numbers and tensors.
            OSError: If it can't be written.
        """
        self.freeze(Snapshot()).write(path)

    def freeze(self, snapshot: Snapshot, save: PartOfSave | None = None) -> FrozenState:
        """Return a copy of the present state, which further training doesn't change.

        Args:
            snapshot: Copies the tensors, into memory that it reuses for the next state.
            save: Which part of it this process writes, where processes have parts of its tensors; None for one that isn't
                written, or by one process.

        Raises:
            TypeError: If a part has anything but plain containers, numbers and tensors.
        """
        tensors: dict[str, Any] = {}
        parts = {name: encode(part, tensors, f"`{name}`") for name, part in self.parts.items()}
        plain = {"format": FORMAT, **{name: getattr(self, name) for name in _PLAIN}, "parts": parts}
        from oncue.shards import is_sharded

        sharded = {name: tensor for name, tensor in tensors.items() if is_sharded(tensor)}
        if not sharded:
            return FrozenState(plain, snapshot.take(tensors), snapshot.blocks)
        plan = _new_plan() if save is None else save.plan
        own: dict[str, Any] = plan.own_parts(sharded)
        others = {name: tensor for name, tensor in tensors.items() if name not in sharded}
        if save is not None:
            of_save = {"rank": save.rank, "size": save.size, "token": save.token}
            if save.rank:
                plain, others = {"format": FORMAT}, {}
            else:
                of_save["table"] = plan.table
                of_save["files"] = [part_of_state(save.number, rank) for rank in range(1, save.size)]
            plain["processes"] = of_save
        return FrozenState(plain, snapshot.take({**others, **own}), snapshot.blocks, sharded)

    @classmethod
    def read(cls, path: str | os.PathLike[str], files: Files | None = None, like: Iterable[Any] = ()) -> TrainingState:
        """Return the state that was written into a file.

        Args:
            path: The file.
            files: The files of the parts of other processes; by default they are where the file is.
            like: Tensors of the run that reads it: where processes have parts of them, each gets its parts of the state, and
                reads no more than it needs for them. That all files are sound is known when all processes have read it.

        Raises:
            OtherVersion: If it has a format version that isn't read.
            ValueError: If it isn't a state, or has been damaged.
            OSError: If it can't be read.
        """
        try:
            data, tensors = read_beginning(path, _names_of_parts) or read_state(path)
            version = data.get("format") if isinstance(data, dict) else None
            if not isinstance(version, int):
                raise ValueError("it has no format")
            if version not in _READABLE:
                read = " and ".join(map(str, _READABLE))
                raise OtherVersion(
                    f"it can't be read as the state of a run: its format is {version!r:.20}, and this oncue reads {read}"
                )
            if data.get("processes") is not None:
                kept = _KEPT.fullmatch(os.path.basename(path))
                found = _of_processes(data["processes"], path, files or Beside(path), like, kept[1] if kept else None)
                tensors = {**tensors, **found}
            parts = {name: decode(part, tensors) for name, part in data["parts"].items()}
            _check_plain(data)
            if data["format"] == 2:
                parts["journal"] = upgraded_journal(parts["journal"])
            return cls(parts=parts, **{name: data[name] for name in _PLAIN})
        except OtherVersion:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it can't be read as the state of a run: {error}") from error

    @property
    def forked(self) -> dict[str, Any] | None:
        """The run and the epoch that the state was forked from, until another state of the new run is saved; else None."""
        found = self.parts.get(FORKED)
        return found if isinstance(found, dict) else None

    def at_epoch(self, without: Collection[str] = ()) -> TrainingState:
        """Return the state at the start of the epoch that was interrupted, and so with no position in its data.

        Args:
            without: Parts to leave out, such as "data", whose place stays otherwise where no epoch was interrupted.
        """
        left = {"metrics", *without, *(["data", "validations"] if self.batch else [])}
        parts = {**self.parts, **dict.fromkeys(left)}
        return replace(self, batch=0, redone=self.batch or self.redone, parts=parts, exact=False)

    def changed(self, fingerprint: dict[str, Any]) -> list[str]:
        """Return the names of what differs from another setup."""
        names = [*self.fingerprint, *(name for name in fingerprint if name not in self.fingerprint)]
        return [name for name in names if _differ(name, self.fingerprint.get(name), fingerprint.get(name))]

    def check(self, fingerprint: dict[str, Any], folder: str | os.PathLike[str]) -> None:
        """Refuse to resume with another setup.

        Args:
            fingerprint: The setup of the run that resumes.
            folder: Where the state comes from, for the message.

        Raises:
            ValueError: If the setups differ; the message names the first difference, with both values.
        """
        for name in self.changed(fingerprint):
            if name in _DATA:
                raise ValueError(_other_data(name, self.fingerprint[name], fingerprint[name], os.fspath(folder)))
            before, now = _difference(self.fingerprint.get(name), fingerprint.get(name))
            raise ValueError(
                f"The run can't resume from the backup in '{os.fspath(folder)}', because `{name}` has changed: in the "
                f"backup it is {before}, now it is {now}. Put it back as it was. Or, to start over, delete the folder, "
                "give another `backup_dir`, or use on_mismatch='restart'; to keep what fits, "
                "on_mismatch='adopt'."
            )

    def adopted(self, fingerprint: dict[str, Any]) -> tuple[TrainingState, list[str]]:
        """Return the parts of the state that fit another setup.

        Weights fit by name, shape and dtype; the optimizer's state, if its class and all weights are the same; callbacks
        by name and fields; the position within an epoch, if everything else is the same. The epoch count, the History, the
        journal and the random generators always do.

        Args:
            fingerprint: The setup of the run that resumes.

        Returns:
            A state for that setup, without the parts that don't fit; and descriptions of those parts.
        """
        changed = self.changed(fingerprint)
        if not changed:
            return self, []
        parts, left = dict(self.parts), list[str]()
        old, new = self.fingerprint["weights"], fingerprint["weights"]
        if "weights" in changed:
            known: dict[str, list[Any]] = {}
            for one, weight in zip(old, parts["weights"].values(), strict=True):
                known.setdefault(str(one), []).append(weight)
            # Layers of one kind have different names in another setup; they are matched in order.
            parts["weights"] = [known[str(one)].pop(0) if known.get(str(one)) else None for one in new]
            parts["layers"] = parts["own_arrays"] = {}
            fitting = sum(weight is not None for weight in parts["weights"])
            left.append(f"{len(new) - fitting} of {len(new)} weights")
        if "weights" in changed or "optimizer" in changed:
            parts["optimizer"] = None
            left.append("the optimizer's state")
        settings = parts.get("settings")
        if settings is not None and "weights" in changed:
            parts["settings"] = None
            if settings["changed"]:
                left.append("what callbacks had changed of the layers' settings")
        elif settings is not None and "optimizer" in changed:
            kept = {key: part for key, part in settings["changed"].items() if not key.startswith("optimizer")}
            parts["settings"] = {**settings, "changed": kept, "groups": []}
        if "callbacks" in changed:
            before, now = self.fingerprint["callbacks"], fingerprint["callbacks"]
            parts["callbacks"] = {
                key: state for key, state in parts["callbacks"].items() if before.get(key) == now.get(key)
            }
            missing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            left.append(f"the states of {', '.join(missing)}")
        if "validation_data" in changed:
            parts["validation"] = None
            left.append("the place in the validation data")
        state = replace(self, fingerprint=fingerprint, parts=parts, exact=False)
        if self.batch or {"batches", "batch_size", "data"} & set(changed):
            state = replace(state.at_epoch(without=["data", "validation", "data_settings"]), redone=self.batch)
            left.append("the place in the data")
        return state, left


@dataclass(frozen=True)
class FrozenState:
    """A TrainingState in a form that can be written, or taken back, later.

    Args:
        plain: Everything but the tensors, in a form that JSON can express.
        tensors: The tensors, on the CPU.
        blocks: Returns the tensors as they stand in a file.
        sharded: Those tensors of which processes have parts; of them `tensors` has this process's.

    Example:
        >>> frozen = TrainingState({}, epoch=3, parts={"seen": [1, 2]}).freeze(Snapshot())
        >>> frozen.thaw().parts
        {'seen': [1, 2]}
    """

    plain: dict[str, Any]
    tensors: dict[str, Any]
    blocks: Callable[[], TensorBlocks]
    sharded: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, and flush it to disk.

        Raises:
            OSError: If it can't be written.
        """
        save = self.plain.get("processes")
        write_state(path, json_of(self.plain), self.blocks(), None if save is None else save["size"])

    def thaw(self) -> TrainingState:
        """Return the state, with tensors of its own."""
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        if self.sharded:
            from oncue.shards import like

            for name, one in self.sharded.items():
                tensors[name] = like(tensors[name].to(one.device), one)
        parts = {name: decode(part, tensors) for name, part in self.plain["parts"].items()}
        return TrainingState(parts=parts, **{name: self.plain[name] for name in _PLAIN})


_KEPT = re.compile(r"(state-epoch-[0-9]{1,15})\.safetensors")
_PART = re.compile(r"state-[0-9]{1,18}\.part-[0-9]{1,9}\.safetensors")


def part_of_state(number: int, rank: int) -> str:
    """Return the name of the file of a process's part of a state.

    Args:
        number: The number of the state.
        rank: That of the process.

    Example:
        >>> part_of_state(3, 1)
        'state-3.part-1.safetensors'
    """
    return f"state-{number}.part-{rank}.safetensors"


def _names_of_parts(data: Any) -> Collection[str]:
    """Return the names of the tensors of which processes have parts, from the JSON of the main process's file."""
    save = data.get("processes") if isinstance(data, dict) else None
    table = save.get("table") if isinstance(save, dict) else None
    return table.keys() if isinstance(table, dict) else ()


def _of_processes(
    save: Any, path: str | os.PathLike[str], files: Files, like: Iterable[Any], kept: str | None = None
) -> dict[str, Any]:
    """Return the tensors of which several processes have saved parts.

    Args:
        save: What the file of the main process says of them.
        path: That file.
        files: Those of the others.
        like: The tensors of the run.
        kept: How the names begin of a state that is kept: those of its parts were changed with its own.

    Raises:
        ValueError: With the name of a file that is missing, damaged or of another state.
    """
    from oncue.shards import mesh_of
    from oncue.shards.planned import assembled, check_table

    names, token, table = save["files"], save["token"], save["table"]
    if save["size"] != len(names) + 1 or not all(isinstance(name, str) and _PART.fullmatch(name) for name in names):
        raise ValueError("its `processes` names files that aren't parts of states")
    if len({*names}) != len(names):
        raise ValueError("its `processes` names a file twice")
    if kept is not None:
        names = [f"{kept}.{name.split('.', 1)[1]}" for name in names]
    room = os.path.getsize(path)
    for name in names:
        try:
            room += files.size(name)
        except FileNotFoundError:
            raise ValueError(f"its part '{name}' is missing") from None
        except ValueError as error:
            raise ValueError(f"its part '{name}' is damaged: {error}") from error
    check_table(table, room)

    def reading(name: str | None, wanted: Collection[str], take: Callable[[str, Any], object]) -> None:
        try:
            with nullcontext(Path(path)) if name is None else files.opened(name) as local:
                data, _ = read_state(local, wanted.__contains__, take)
        except FileNotFoundError:
            raise ValueError(f"its part '{name}' is missing") from None
        except ValueError as error:
            raise error if name is None else ValueError(f"its part '{name}' is damaged: {error}") from error
        if not isinstance(data, dict) or (data.get("processes") or {}).get("token") != token:
            raise ValueError(f"its part '{name}' is of another state")

    return assembled(table, [partial(reading, name) for name in (None, *names)], mesh_of(like))


_MOST = 1 << 40


def _check_plain(data: dict[str, Any]) -> None:
    """Refuse a position that no run can have."""
    for name in ("epoch", "batch", "redone"):
        if type(data[name]) is not int or not 0 <= data[name] < _MOST:
            raise ValueError(f"its `{name}` is {str(data[name])[:100]!r}")
    if type(data["stopped"]) is not bool:
        raise ValueError(f"its `stopped` is {str(data['stopped'])[:100]!r}")
    if not isinstance(data["fingerprint"], dict):
        raise ValueError("its `fingerprint` must be a dict")


def _differ(name: str, before: Any, now: Any) -> bool:
    if name in _DATA:
        return bool(_of_data(before, now))
    return bool(_class_alone(before) != _class_alone(now) if name == "optimizer" else before != now)


def _class_alone(optimizer: Any) -> Any:
    # The class that does the arithmetic says something only of an optimizer that was handed in; ours have had several.
    if not isinstance(optimizer, dict) or optimizer.get("class") == "TorchOptimizer":
        return optimizer
    return {name: value for name, value in optimizer.items() if name != "torch"}


def _of_data(before: dict[str, str] | None, now: dict[str, str] | None) -> list[str]:
    if before is None or now is None:
        # An older state has no description of its data, and validation may be added.
        return []
    # Not all rows are read in every run.
    return [part for part in before if part in now and before[part] != now[part]]


def _other_data(name: str, before: dict[str, str], now: dict[str, str], folder: str) -> str:
    part = _of_data(before, now)[0]
    return (
        f"The run can't resume from the backup in '{folder}', because the {_DATA[name]} have changed: in the backup `{part}` "
        f"is {before[part]}, now it is {now[part]}. A folder is for one run: give each run of its own data another one, as "
        f"backup_dir='{folder}/fold_1' for the first fold of a cross-validation. Or put the data back as they were. Or, to "
        "start over, delete the folder or use on_mismatch='restart'; to keep what was learned from the other data, "
        "on_mismatch='adopt'."
    )


def _difference(before: Any, now: Any) -> tuple[str, str]:
    # Of long lists, only the differences are useful to the reader.
    if isinstance(before, list) and isinstance(now, list):
        pairs = [(a, b) for a, b in zip(before, now, strict=False) if a != b]
        if pairs and len(before) == len(now):
            return str(pairs[0][0]), str(pairs[0][1])
        return f"a list of {len(before)}: {_brief(before)}", f"a list of {len(now)}: {_brief(now)}"
    return repr(before), repr(now)


def _brief(items: list[Any]) -> str:
    text = str(items)
    return text if len(text) <= 300 else text[:297] + "..."
