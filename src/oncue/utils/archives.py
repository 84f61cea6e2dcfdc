"""Unpacks tar and zip archives: what is in one never gets outside its folder."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

_FORMATS = ("tar", "zip")
_FREE, _RATIO = 64 << 20, 100
# RuntimeError is for a file that is encrypted, NotImplementedError for a way of compressing that isn't known.
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    OverflowError,
)  # fmt: skip


def unpack(archive: Path, folder: Path, archive_format: str | Sequence[str] | None = "auto") -> None:
    """Unpack an archive into a folder, which is there whole or not at all, and takes the place of an older one.

    Args:
        archive: A tar (compressed or not) or zip file.
        folder: The folder to make.
        archive_format: "tar", "zip", a list of these, or "auto" for both.

    Raises:
        ValueError: For a file that is no such archive, is damaged, has a member that lies outside the folder, or unpacks to
            more than 100 times its size and 64 MB.

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
    room = _room(archive)
    try:
        with tarfile.open(archive) as file:
            for member in file:
                room -= member.size
                if room < 0:
                    raise _too_much(archive)
                file.extract(member, folder, filter="data")
    except _BROKEN as error:
        raise ValueError(f"{str(archive)!r} was not unpacked: {error}.") from error


def _unzip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            if sum(member.file_size for member in file.infolist()) > _room(archive):
                raise _too_much(archive)
            for name in file.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{str(archive)!r} was not unpacked: its member {name!r} lies outside the folder.")
            file.extractall(folder)
    except _BROKEN as error:
        raise ValueError(f"{str(archive)!r} was not unpacked: {error}.") from error


def _room(archive: Path) -> int:
    """Return how many bytes an archive may unpack to: a disk is full sooner than a reader of the archive's size would think."""
    return _FREE + _RATIO * archive.stat().st_size


def _too_much(archive: Path) -> ValueError:
    return ValueError(
        f"{str(archive)!r} was not unpacked: it unpacks to more than {_RATIO} times its size. If it is what you want, unpack "
        "it yourself."
    )
