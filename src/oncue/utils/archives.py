"""Unpacks tar and zip archives: what is in one never gets outside its folder."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

_FORMATS = ("tar", "zip")


def unpack(archive: Path, folder: Path, archive_format: str | Sequence[str] | None = "auto") -> None:
    """Unpack an archive into a folder, which is there whole or not at all, and takes the place of an older one.

    Args:
        archive: A tar (compressed or not) or zip file.
        folder: The folder to make.
        archive_format: "tar", "zip", a list of these, or "auto" for both.

    Raises:
        ValueError: For a file that is no such archive, or one with a member that lies outside the folder.

    Example:
        >>> here = Path(tempfile.mkdtemp())
        >>> with zipfile.ZipFile(here / "a.zip", "w") as file:
        ...     file.writestr("words.txt", "on cue")
        >>> unpack(here / "a.zip", here / "a")
        >>> (here / "a" / "words.txt").read_text()
        'on cue'
    """
    formats = _FORMATS if archive_format == "auto" else [archive_format]
    if isinstance(archive_format, (list, tuple)):
        formats = list(archive_format)
    unknown = [one for one in formats if one not in _FORMATS]
    if unknown:
        raise ValueError(f"`archive_format` must be 'auto', 'tar', 'zip' or a list of these; got {archive_format!r}.")
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        if "tar" in formats and tarfile.is_tarfile(archive):
            _untar(archive, made)
        elif "zip" in formats and zipfile.is_zipfile(archive):
            _unzip(archive, made)
        else:
            raise ValueError(
                f"{str(archive)!r} can't be unpacked: it is not a {' or '.join(map(str, formats))} archive."
            )
        os.chmod(made, 0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _untar(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{str(archive)!r} was not unpacked: {error}.") from error


def _unzip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.namelist():
                if not (folder / member).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(
                        f"{str(archive)!r} was not unpacked: its member {member!r} lies outside the folder."
                    )
            file.extractall(folder)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{str(archive)!r} was not unpacked: {error}.") from error
