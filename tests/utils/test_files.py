"""Downloads, against a server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from oncue.utils.files import DownloadError, cache_home, get_file, hash_file

CONTENT = b"on cue" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_downloaded_once(serve: Callable[[dict[str, bytes]], str], tmp_path: Path) -> None:
    files = {"a.bin": CONTENT}
    url = serve(files) + "a.bin"
    path = get_file("b.bin", url, file_hash=SHA256, cache_dir=tmp_path)
    assert path == str(tmp_path / "datasets" / "b.bin")
    assert Path(path).read_bytes() == CONTENT
    files.clear()
    assert get_file("b.bin", url, file_hash=SHA256.upper(), cache_dir=tmp_path) == path
    assert [entry.name for entry in (tmp_path / "datasets").iterdir()] == ["b.bin"]


def test_a_cached_file_with_another_hash_is_replaced(serve: Callable[[dict[str, bytes]], str], tmp_path: Path) -> None:
    cached = tmp_path / "datasets" / "a.bin"
    cached.parent.mkdir()
    cached.write_bytes(b"half a file")
    url = serve({"a.bin": CONTENT}) + "a.bin"
    assert get_file(origin=url, cache_dir=tmp_path) == str(cached)
    assert cached.read_bytes() == b"half a file"
    get_file(origin=url, file_hash=SHA256, cache_dir=tmp_path)
    assert cached.read_bytes() == CONTENT
    cached.write_bytes(b"older")
    get_file(origin=url, cache_dir=tmp_path, force_download=True)
    assert cached.read_bytes() == CONTENT


def test_a_download_with_another_hash_is_not_kept(serve: Callable[[dict[str, bytes]], str], tmp_path: Path) -> None:
    cached = tmp_path / "datasets" / "a.bin"
    cached.parent.mkdir()
    cached.write_bytes(b"mine")
    with pytest.raises(ValueError, match=SHA256[:20]):
        get_file(origin=serve({"a.bin": b"evil"}) + "a.bin", file_hash=SHA256, cache_dir=tmp_path)
    assert [(entry.name, entry.read_bytes()) for entry in cached.parent.iterdir()] == [("a.bin", b"mine")]


def test_other_hashes(serve: Callable[[dict[str, bytes]], str], tmp_path: Path) -> None:
    url = serve({"a.bin": CONTENT}) + "a.bin"
    md5 = hashlib.md5(CONTENT).hexdigest()
    path = get_file(origin=url, file_hash=md5, cache_dir=tmp_path)
    assert get_file(origin=url, file_hash=md5, hash_algorithm="md5", cache_dir=tmp_path) == path
    assert get_file(origin=url, md5_hash=md5, cache_dir=tmp_path) == path
    assert hash_file(path) == SHA256


def test_failures_say_which_file_to_put_where(serve: Callable[[dict[str, bytes]], str], tmp_path: Path) -> None:
    url = serve({}) + "a.bin"
    with pytest.raises(DownloadError, match=r"404.*put it at .*a\.bin"):
        get_file(origin=url, cache_dir=tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
    with pytest.raises(OSError, match="put it at"):
        get_file(origin=closed, cache_dir=tmp_path)
    assert list((tmp_path / "datasets").iterdir()) == []


def test_an_interrupted_download_is_not_kept(tmp_path: Path, broken_server: str) -> None:
    with pytest.raises(DownloadError, match="broke after 4 of 104 bytes"):
        get_file(origin=broken_server + "a.bin", cache_dir=tmp_path)
    assert list((tmp_path / "datasets").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/b", "a\\b", "..", "", "a\0b"])
def test_names_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`fname`"):
        get_file(name, "http://127.0.0.1:1/x", cache_dir=tmp_path)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`origin`"):
        get_file("a")
    with pytest.raises(ValueError, match="`origin`"):
        get_file("a", "ftp://host/a")
    with pytest.raises(ValueError, match="`cache_subdir`"):
        get_file("a", "http://host/a", cache_dir=tmp_path, cache_subdir="../..")
    with pytest.raises(ValueError, match="`hash_algorithm`"):
        get_file("a", "http://host/a", cache_dir=tmp_path, file_hash="0" * 64, hash_algorithm="sha3000")
    with pytest.raises(ValueError, match="`file_hash`"):
        get_file("a", "http://host/a", cache_dir=tmp_path, file_hash="123")
    with pytest.raises(ValueError, match="`fname`"):
        get_file(None, "http://host/", cache_dir=tmp_path)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert cache_home() == tmp_path
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".keras"


def archives(folder: Path) -> dict[str, Path]:
    (folder / "words.txt").write_text("on cue")
    with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
        tar.add(folder / "words.txt", arcname="in/words.txt")
    with zipfile.ZipFile(folder / "a.zip", "w") as packed:
        packed.write(folder / "words.txt", "in/words.txt")
    return {"tar": folder / "a.tar.gz", "zip": folder / "a.zip"}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_is_unpacked_beside_itself(kind: str, tmp_path: Path) -> None:
    archive = archives(tmp_path)[kind]
    options = {"origin": archive.as_uri(), "cache_dir": tmp_path / "cache", "extract": True}
    folder = Path(get_file(archive.name, **options))
    assert folder.name == "a_extracted" and (folder / "in" / "words.txt").read_text() == "on cue"
    assert Path(get_file("other", **options)).name == "other"
    (folder / "in" / "words.txt").unlink()
    get_file(archive.name, **options, force_download=True)
    assert (folder / "in" / "words.txt").is_file()
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_outside_the_folder_is_not_unpacked_there(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("on cue")
    archive = tmp_path / f"a.{kind}"
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = 6
            tar.addfile(member, io.BytesIO(b"on cue"))
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, "on cue")
    cache = tmp_path / "cache"
    with contextlib.suppress(ValueError):
        # What is absolute may become relative instead.
        get_file("a.x", archive.as_uri(), cache_dir=cache, extract=True)
    assert not Path("/out.txt").exists() and not list(cache.rglob("../out.txt"))
    assert all(path.is_relative_to(cache / "datasets" / "a_extracted") for path in cache.rglob("out.txt"))


def test_what_is_no_archive_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("on cue")
    with pytest.raises(ValueError, match="not a tar or zip archive"):
        get_file("a.tar", (tmp_path / "words.txt").as_uri(), cache_dir=tmp_path / "cache", extract=True)
