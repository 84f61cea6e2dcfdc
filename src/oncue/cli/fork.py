"""`oncue fork`: a folder in which a new run goes on from a state that another has kept, with settings of its own."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
import uuid
import zlib
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncue.cli.contents import states_in
from oncue.cli.output import say, say_json
from oncue.core.files import is_alive, machine, sync_file, sync_folder
from oncue.core.journal import Entry
from oncue.core.run_record import FILE, decision_of, line_of

if TYPE_CHECKING:
    from oncue.checkpoints.training_state import TrainingState

_BACKUP = "backup"
_PIECE, _MOST_BYTES = 1 << 20, 256 << 20
_NOTHING = {"size": 0, "crc32": 0, "tail": ""}


def fork(options: Namespace) -> int:
    """Make the folder of a new run from a state of another, which isn't touched."""
    run, new = Path(options.run), Path(options.new)
    if not run.is_dir():
        raise FileNotFoundError(f"There is no folder '{run}'.")
    if new.exists() or new.is_symlink():
        raise FileExistsError(f"There is something at '{new}' already. Give a name that isn't taken.")
    if not new.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{new.absolute().parent}' to make '{new.name}' in.")
    if new.resolve().is_relative_to(run.resolve()):
        raise ValueError(f"'{new}' is inside of '{run}', which stays as it is. Give a place beside it.")
    own_folder = run / _BACKUP if (run / _BACKUP).is_dir() else run
    _refuse_link_out(own_folder, run)
    state, path = _state_after(options.epoch, own_folder, run)
    entry = _mark(state, options.epoch, run)
    temporary = _temporary_beside(new)
    try:
        backup = temporary if own_folder is run else temporary / _BACKUP
        backup.mkdir(parents=True)
        carried = own_folder is not run and _carry_journal(state, run / FILE, temporary / FILE, entry)
        if not carried:
            for _, written in _journals(state):
                written.update(_NOTHING)
        state.write(backup / "state-1.safetensors")
        for folder in {backup, temporary}:
            sync_folder(folder)
        # Another process may have made it meanwhile; a folder is only put in the place of none, or of an empty one.
        os.rename(temporary, new)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(new.absolute().parent)
    if options.json:
        say_json({"forked": str(path), "epoch": options.epoch, "wrote": str(new)})
        return 0
    callback = f'BackupAndRestore("{new}")' if own_folder is run else f'RunFolder("{new}", resume=True)'
    say(f"wrote {new}: a script with {callback} goes on with epoch {options.epoch + 1} there.")
    return 0


# The state --------------------------------------------------------------------------------------------------------------


def _state_after(epochs: int, folder: Path, run: Path) -> tuple[TrainingState, Path]:
    from oncue.checkpoints.store import kept_epochs, kept_state

    kept = kept_epochs(folder)
    if epochs in kept:
        path = kept_state(folder, epochs)
        return _read(path, epochs), path
    found = set(kept)
    # The states to resume from may be of the end of an epoch, too.
    for path in states_in(folder):
        if path.name != kept_state(folder, epochs).name:
            state = _read(path)
            if state.batch == 0 and state.epoch == epochs:
                return state, path
            found |= {state.epoch} if state.batch == 0 else set()
    there = ", ".join(map(str, sorted(found)[:200]))
    raise ValueError(
        f"'{run}' has no state after epoch {epochs}. "
        + (f"There are states after epochs: {there}." if there else "It has none of the end of an epoch.")
        + " Which ones stay is said by `keep` of `RunFolder(..., resume=True)` and `BackupAndRestore`, such as keep='all'."
    )


def _read(path: Path, epochs: int | None = None) -> TrainingState:
    from oncue.checkpoints.training_state import TrainingState

    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"'{path}' is no file, but {'a link' if stat.S_ISLNK(mode) else 'something else'}.")
    try:
        state = TrainingState.read(path)
        if epochs is not None and (state.epoch != epochs or state.batch):
            raise ValueError(f"it is the state of epoch {state.epoch + 1}, batch {state.batch}")
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: {error}.") from None
    return state


def _mark(state: TrainingState, epochs: int, run: Path) -> Entry:
    """Write into a state where it comes from, and return the entry of its journal that says so."""
    from oncue.checkpoints.training_state import FORKED

    origin = {"run": os.path.abspath(run), "epochs": epochs}
    entry = Entry(time.time(), epochs - 1, None, "fork", kind="fork", data=origin, what="forked")
    journal = state.parts.get("journal")
    if not isinstance(journal, dict) or not isinstance(journal.get("entries"), list):
        raise ValueError(f"The state in '{run}' has no journal, which no run has saved.")
    journal["entries"] = [*journal["entries"], entry.plain()]
    state.parts[FORKED] = origin
    # What ended that run needn't end this one.
    state.stopped = False
    return entry


# The journal's file -----------------------------------------------------------------------------------------------------


def _journals(state: TrainingState) -> list[tuple[str, dict[str, Any]]]:
    """Return what a state knows of the files of JournalLoggers, by the callbacks' keys."""
    found = []
    parts = state.parts.get("callbacks")
    for key, own in parts.items() if isinstance(parts, dict) else ():
        written = own.get("written") if isinstance(own, dict) else None
        if re.fullmatch(r"JournalLogger(#\d+)?", str(key)) and isinstance(written, dict):
            found.append((str(key), written))
    return found


def _carry_journal(state: TrainingState, source: Path, target: Path, entry: Entry) -> bool:
    """Copy the journal of the other run up to the state, and say in it where this one is from; False where it can't be."""
    journals = _journals(state)
    if not source.is_file() or source.is_symlink():
        return False
    for key, written in journals:
        size, checksum, tail = written.get("size"), written.get("crc32"), written.get("tail")
        if type(size) is not int or not 0 <= size <= _MOST_BYTES or not isinstance(tail, str) or not tail.isascii():
            continue
        if not _copied(source, target, size, checksum):
            continue
        line = line_of("decision", decision_of(entry)).decode("ascii")
        written["tail"] = tail + line
        for other, further in journals:
            if other != key:
                further.update(_NOTHING)
        forked: dict[str, Any] = {
            "how": "forked",
            "error": str(entry.text),
            "epoch": entry.epoch,
            "time": entry.time,
            "costs": {},
        }
        with open(target, "ab") as file:
            file.write((tail + line).encode("ascii") + line_of("end", forked))
        sync_file(target)
        return True
    return False


def _copied(source: Path, target: Path, size: int, checksum: Any) -> bool:
    found, left = 0, size
    with open(source, "rb") as read, open(target, "wb") as write:
        while left and (piece := read.read(min(_PIECE, left))):
            found, left = zlib.crc32(piece, found), left - len(piece)
            write.write(piece)
    if left or found != checksum:
        target.unlink()
        return False
    return True


# Places -----------------------------------------------------------------------------------------------------------------


def _refuse_link_out(path: Path, folder: Path) -> None:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"'{path}' is a link that leads out of the run's folder, to '{path.resolve()}'.")


def _temporary_beside(new: Path) -> Path:
    folder, start = new.absolute().parent, f".{new.name[:50]}.{machine()}-"
    # What a fork left that was killed.
    for path in folder.glob(f"{_literal(start)}*-fork.tmp"):
        process = path.name[len(start) :].split("-")[0]
        if process.isdigit() and not is_alive(int(process)) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    return folder / f"{start}{os.getpid()}-{uuid.uuid4().hex[:8]}-fork.tmp"


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)
