"""`get_file`: a file from the cache folder, downloaded once and checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from oncue.utils.archives import unpack

_TIMEOUT_SECONDS = 10.0
_CHUNK = 1 << 20
_HEX_DIGITS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}


class DownloadError(OSError):
    """A file could not be downloaded; the message says which file to put where."""


def cache_home() -> Path:
    """Return Keras's cache folder: `KERAS_HOME`, else `~/.keras`.

    Returns:
        The folder, which may not exist yet.

    Example:
        >>> cache_home().is_absolute()
        True
    """
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser().absolute()


def hash_file(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Return the hash of a file's bytes in hexadecimal.

    Args:
        path: The file.
        algorithm: A name that `hashlib.new` accepts. Default: "sha256".

    Returns:
        Lower-case hexadecimal digits.

    Raises:
        ValueError: If hashlib doesn't know the algorithm.

    Example:
        >>> hash_file(os.devnull)[:12]
        'e3b0c44298fc'
    """
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def get_file(
    fname: str | None = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: str | list[str] | None = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
) -> str:
    """Return the path of a file in the cache, downloading it first if it is missing or its hash is wrong.

    The download is written to a temporary file beside the target, flushed and checked, and only then renamed to the
    target, so that an interrupted download leaves no partial file.

    Args:
        fname: The file's name in the cache, without folders. Default: the last part of `origin`.
        origin: The URL: http, https or file.
        untar: The old name of `extract`, for tar archives.
        md5_hash: The old name of `file_hash` with `hash_algorithm="md5"`.
        file_hash: The expected hash in hexadecimal; None (default) for no check.
        cache_subdir: The folder within the cache folder; an absolute path is used as is. Default: "datasets".
        hash_algorithm: A name that hashlib knows, or "auto" (default) to infer it from the length of `file_hash`.
        extract: Whether the file is an archive that is to be unpacked, into a folder beside it: `<name>_extracted`, or
            `fname` where that has no extension.
        archive_format: "tar", "zip", a list of these, or "auto" (default) for both; None unpacks nothing.
        cache_dir: The cache folder. Default: `KERAS_HOME`, else `~/.keras`.
        force_download: Download even if the file is there.

    Returns:
        The path of the file, or of the folder that it was unpacked into.

    Raises:
        DownloadError: If the file can't be downloaded or written; an OSError.
        ValueError: If an argument can't be used, the downloaded file has another hash, or it can't be unpacked.

    Example:
        >>> here = Path(tempfile.mkdtemp())
        >>> _ = (here / "words.txt").write_text("on cue")
        >>> path = get_file(origin=(here / "words.txt").as_uri(), cache_dir=here / "cache")
        >>> Path(path).relative_to(here).as_posix()
        'cache/datasets/words.txt'
    """
    if origin is None:
        raise ValueError("`get_file` needs `origin`, the URL to download from.")
    if md5_hash is not None and file_hash is None:
        file_hash, hash_algorithm = md5_hash, "md5"
    scheme = urllib.parse.urlsplit(origin).scheme
    if scheme not in ("http", "https", "file"):
        raise ValueError(f"`origin` must be an http, https or file URL; got {origin!r}.")
    target, folder = _target(fname, origin, cache_dir, cache_subdir), None
    if extract or untar:
        named = fname is not None and "." in fname
        folder = target.with_name(f"{target.name.partition('.')[0]}_extracted") if named else target
        target = target if named else target.with_name(f"{target.name}_archive")
    algorithm = _algorithm(hash_algorithm, file_hash)
    there = target.is_file() and not force_download and (file_hash is None or _matches(target, file_hash, algorithm))
    if not there:
        _download(origin, target, file_hash, algorithm)
    if folder is None:
        return str(target)
    if archive_format is not None and (not there or not folder.is_dir()):
        unpack(target, folder, "tar" if untar and archive_format == "auto" else archive_format)
    return str(folder)


def _target(fname: str | None, origin: str, cache_dir: str | os.PathLike[str] | None, cache_subdir: str) -> Path:
    name = fname if fname is not None else os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(origin).path))
    if not name or name in (".", "..") or any(mark in name for mark in ("/", "\\", "\0")):
        raise ValueError(
            f"`fname` must be a file name without folders; got {name!r}. Choose folders with `cache_dir` and "
            "`cache_subdir`."
        )
    home = cache_home() if cache_dir is None else Path(cache_dir).expanduser().absolute()
    folder = home / cache_subdir
    # An absolute `cache_subdir` is the folder itself, as in Keras; a relative one must not climb out of the cache.
    if not os.path.isabs(cache_subdir) and not folder.resolve().is_relative_to(home.resolve()):
        raise ValueError(f"`cache_subdir` must stay within the cache folder {home}; got {cache_subdir!r}.")
    return folder / name


def _algorithm(name: str, file_hash: str | None) -> str:
    if name == "auto":
        found = _HEX_DIGITS.get(len(file_hash)) if file_hash is not None else "sha256"
        if found is None:
            raise ValueError(f"`file_hash` has no known length; got {file_hash!r}. Pass its `hash_algorithm`.")
        return found
    if name not in hashlib.algorithms_available:
        raise ValueError(f'`hash_algorithm` must be "auto" or a name hashlib knows, such as "sha256"; got {name!r}.')
    return name


def _matches(path: Path, file_hash: str, algorithm: str) -> bool:
    return hash_file(path, algorithm) == file_hash.strip().lower()


def _download(origin: str, target: Path, file_hash: str | None, algorithm: str) -> None:
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        with os.fdopen(descriptor, "wb") as file, urllib.request.urlopen(origin, timeout=_TIMEOUT_SECONDS) as answer:
            expected = answer.headers.get("Content-Length")
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            if expected is not None and file.tell() != int(expected):
                raise DownloadError(f"the connection to {origin} broke after {file.tell()} of {expected} bytes")
        if file_hash is not None and not _matches(Path(temporary), file_hash, algorithm):
            raise ValueError(
                f"The file from {origin} doesn't have the expected {algorithm} hash: "
                f"{hash_file(temporary, algorithm)} instead of {file_hash}. It was not kept."
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
        temporary = None
    except urllib.error.HTTPError as error:
        raise DownloadError(_advice(origin, target, f"{error.code} {error.reason}")) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)
        raise DownloadError(_advice(origin, target, str(error if reason is None else reason))) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _advice(origin: str, target: Path, reason: str) -> str:
    return (
        f"{target.name} could not be downloaded ({reason}). Download {origin} on a machine with network access, and "
        f"put it at {target}."
    )
