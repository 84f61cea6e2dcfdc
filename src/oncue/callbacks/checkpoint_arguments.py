"""Checks of what ModelCheckpoint is made with, and of the path it writes to."""

from __future__ import annotations

import errno
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

from oncue.core.every import Every
from oncue.core.file_name import FileName
from oncue.core.files import OF_PARTS, check_target, reason_of, sweep, try_beside
from oncue.core.numbers import finite, number_of, whole
from oncue.core.protocols import size_of_save
from oncue.core.remote import RemoteFolder, downloaded, is_url, try_folder
from oncue.legacy import warn_once

if TYPE_CHECKING:
    from oncue.checkpoints.retention import Rule
    from oncue.checkpoints.score_note import ScoreNote

_OWNER = "ModelCheckpoint"
_MODEL_ENDINGS = (".keras", ".h5", ".hdf5")
_WEIGHTS_ENDINGS = (".weights.h5", ".h5", ".hdf5", ".safetensors")


def read_path(filepath: Any, weights_only: bool, sharded: bool = False) -> str:
    """Return the path as a string, when its ending names a format.

    Args:
        filepath: The path.
        weights_only: Whether it is for weights alone.
        sharded: Whether it is for a folder, in which each process writes its parts of the weights.

    Raises:
        TypeError: For anything but a path.
        ValueError: For another ending.
    """
    if not isinstance(filepath, (str, os.PathLike)) or isinstance(os.fspath(filepath), bytes):
        raise TypeError(
            f"`filepath` of {_OWNER} must be a string or a path, such as 'model_{{epoch:02d}}.keras'; got {filepath!r} of "
            f"type {type(filepath).__name__}."
        )
    path = os.fspath(filepath)
    if sharded or path.endswith(OF_PARTS):
        if not path.endswith(OF_PARTS) or is_url(path):
            raise ValueError(
                f"`filepath` of {_OWNER} with sharded=True must be a folder on a disk that all processes see, and end in "
                f"{OF_PARTS}, such as 'weights_{{epoch:02d}}{OF_PARTS}'; got '{path}'."
            )
        if not sharded or not weights_only:
            raise ValueError(
                f"A {OF_PARTS} folder is for weights alone, of which each process writes its parts: give {_OWNER} "
                f"`sharded=True` and `save_weights_only=True`; got '{path}'. All that a run needs to go on is kept by "
                "BackupAndRestore."
            )
        return path
    endings = _WEIGHTS_ENDINGS if weights_only else _MODEL_ENDINGS
    if path.endswith(endings):
        return path
    if weights_only:
        hint = " For the whole model, use `save_weights_only=False`." if path.endswith(".keras") else ""
    else:
        hint = " For the weights alone, use `save_weights_only=True`." if path.endswith(_WEIGHTS_ENDINGS) else ""
    what = "weights" if weights_only else "whole models"
    raise ValueError(
        f"`filepath` of {_OWNER} must end in {endings[0]} (or {', '.join(endings[1:])}) to save {what}; got '{path}'.{hint}"
    )


def read_threshold(value: Any) -> float | None:
    """Return a value to beat as a float; an infinite one is beaten by anything.

    Raises:
        ValueError: For NaN, or anything but a number.
    """
    if value is None:
        return None
    number = number_of(value)
    if number is not None and math.isinf(number):
        return number
    return finite(_OWNER, "initial_value_threshold", value)


def read_period(save_freq: Any, every: str | Every | None, period: Any) -> Every:
    """Return the period that one of three arguments gives.

    Args:
        save_freq: "epoch" or a number of batches.
        every: A period in words, or None.
        period: A number of epochs, in the word of Keras 2, or None.

    Returns:
        The period, nothing of it passed.

    Raises:
        ValueError: If two of them are given, or one isn't a period.
    """
    given = [f"save_freq={save_freq!r}"] if save_freq != "epoch" else []
    given += [f"{name}={value!r}" for name, value in (("every", every), ("period", period)) if value is not None]
    if len(given) > 1:
        raise ValueError(f"{_OWNER} takes one period; got {' and '.join(given)}. Use only `every`.")
    if period is not None:
        epochs = whole(_OWNER, "period", period, least=1)
        warn_once("period", f"every='{epochs} epochs'")
        return Every(f"{epochs} epochs")
    if every is not None:
        return Every(every, _OWNER)
    if save_freq == "epoch":
        return Every("1 epoch")
    try:
        return Every(f"{whole(_OWNER, 'save_freq', save_freq, least=1)} steps")
    except ValueError:
        raise ValueError(
            f"`save_freq` of {_OWNER} must be 'epoch' or a whole number of batches, 1 or more; got {save_freq!r} of type "
            f"{type(save_freq).__name__}. For other periods use `every`, such as every='10 minutes'."
        ) from None


def read_rules(keep: Any) -> tuple[Rule, ...]:
    """Return the rules that `keep` stands for; none for None."""
    if keep is None:
        return ()
    # Most runs keep every file, and importing callbacks shouldn't load the rules.
    from oncue.checkpoints.retention import as_rules

    return as_rules(keep, _OWNER)


def read_when_busy(when_busy: Any, asynchronous: bool) -> str:
    """Return what to do when a save is due and the one before isn't done.

    Raises:
        ValueError: For another word, and where nothing is saved in the background.
    """
    if when_busy not in ("wait", "skip"):
        raise ValueError(f"`when_busy` of {_OWNER} must be 'wait' or 'skip'; got {when_busy!r}.")
    if when_busy == "skip" and not asynchronous:
        raise ValueError(
            f"`when_busy='skip'` of {_OWNER} is for saves in the background; got asynchronous={asynchronous!r}. Add "
            "`asynchronous=True`, or leave it out."
        )
    return str(when_busy)


def check_all_saved(when_busy: str) -> None:
    """Refuse to skip saves where the best ones count.

    Raises:
        ValueError: For "skip".
    """
    if when_busy == "skip":
        raise ValueError(
            f"{_OWNER} could miss the best with `when_busy='skip'`: use 'wait' with `save_best_only=True` and with a `keep` "
            "that compares scores."
        )


def check_measured(monitor: str, every: Every) -> None:
    """Refuse to choose the best by what is measured at another time than files are saved.

    Raises:
        ValueError: For a value of validation and a period that isn't one of epochs.
    """
    if every.unit != "epoch" and monitor.startswith("val_"):
        raise ValueError(
            f"{_OWNER} can't tell the best by `{monitor}` every {every}: it is measured when an epoch ends. Use "
            f"`monitor='{monitor[4:]}'`, or `every='1 epoch'`."
        )


def check_recorded(name: FileName, keeps: bool, idle: bool) -> None:
    """Refuse `keep` and `resume_best` where they can't do anything.

    Args:
        name: The file name.
        keeps: Whether `keep` is given.
        idle: Whether `resume_best` is set, though nothing depends on the best.

    Raises:
        ValueError: For a name that is always the same, and a best that nothing depends on.
    """
    if keeps and not name.names:
        raise ValueError(
            f"`keep` of {_OWNER} needs a file name that differs from save to save; got '{name.template}'. Use a "
            "placeholder, such as 'model_{epoch:02d}.keras'."
        )
    if idle:
        raise ValueError(f"`resume_best` of {_OWNER} goes with `save_best_only=True` or `keep='best 3'`; got neither.")


def absolute(path: str) -> str:
    """Return a path from the root; a URL as it is.

    Example:
        >>> absolute("memory://runs/m.oncue.json")
        'memory://runs/m.oncue.json'
    """
    return path if is_url(path) else os.path.abspath(path)


def existing_files(name: FileName) -> list[str]:
    """Return the paths, or the URLs, of the files that have such a name."""
    if not is_url(name.template):
        return name.existing()
    folder = name.folder.rstrip("/")
    return [f"{folder}/{one}" for one in RemoteFolder(folder).names() if name.fits(one)]


def note_in(path: str) -> ScoreNote | None:
    """Return what a file says of its score, on a disk or at a URL."""
    from oncue.checkpoints.score_note import read_note

    if not is_url(path):
        return read_note(path)
    with downloaded(path) as local:
        return read_note(local)


def try_path(name: FileName, model: Any, weights_only: bool) -> None:
    """Make the folder of a file name and write there, to find out before training that it can be done.

    Args:
        name: The file name.
        model: What is saved there. When it can estimate the size of a file, so much must be free: an old file stays
            until the new one is whole.
        weights_only: Whether its weights alone are saved.

    Raises:
        OSError: When it can't, naming the path.
    """
    if is_url(name.template):
        # Of "memory://{epoch}.keras" no folder is left but the store itself.
        folder = name.folder if is_url(name.folder) else f"{name.folder}/"
        try_folder(f"{folder}/m" if name.names else name.template)
        return
    if not name.names and not name.template.endswith(OF_PARTS):
        check_target(name.fill({}))
    try:
        if name.folder:
            os.makedirs(name.folder, exist_ok=True)
        sweep(name.folder or os.curdir, name.pattern)
        free = shutil.disk_usage(name.folder or os.curdir).free
        try_beside(os.path.join(name.folder, name.plain_name))
    except OSError as error:
        raise OSError(
            error.errno,
            f"{_OWNER} can't write where its `filepath` points ({reason_of(error, name.template)}), so training doesn't "
            "begin. Give a folder that can be written to",
            name.template,
        ) from None
    size = size_of_save(model, name.template, weights_only=weights_only)
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"{_OWNER} needs about {size / 1e6:.1f} MB for a file, and {free / 1e6:.1f} MB are free where its `filepath` "
            "points, so training doesn't begin. Make room, or give another folder",
            name.template,
        )
