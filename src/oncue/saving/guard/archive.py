"""The `.keras` archive: three members, each once, each with a limit on its unpacked size."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from typing import Any, BinaryIO

from oncue.saving.guard.basics import MAX_ENTRIES, MAX_JSON_BYTES, MEGABYTE, refuse

MEMBERS = {"metadata.json": MEGABYTE, "config.json": MAX_JSON_BYTES, "model.weights.h5": None}


def read_archive(file: BinaryIO, source: Any) -> dict[str, bytes]:
    """Read the members of a `.keras` archive, with a limit on the bytes that are actually unpacked.

    There are three, and files of layers' own below "assets/".

    Args:
        file: The archive.
        source: Its path, for messages.

    Returns:
        The contents by name.

    Raises:
        ValueError: If members are missing, unexpected, duplicate, links, encrypted, or too large when unpacked.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            _check_assets([name for name in names if name.startswith("assets/")], source)
            names = [name for name in names if not name.startswith("assets/")]
            if sorted(names) != sorted(MEMBERS):
                known = ", ".join(MEMBERS)
                refuse(source, f"a .keras archive has the members {known}, each once; this one has {names[:8]}.")
            if min(member.header_offset for member in members) != 0:
                refuse(source, "there is something before the archive.")
            return {member.filename: _read_member(archive, member, source) for member in members if not member.is_dir()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        # All that `zipfile` raises for damage: NotImplementedError for a method of packing, RuntimeError for a password.
        refuse(source, f"it is not a whole .keras archive ({type(error).__name__}).")


def _check_assets(names: list[str], source: Any) -> None:
    for name in names:
        steps = name.removesuffix("/").split("/")
        if ".." in steps or "." in steps or "" in steps or "\\" in name or ":" in name or "\0" in name:
            refuse(source, f"its member {name[:200]!r} is no plain path below 'assets/'.")
    if len(set(names)) != len(names) or len(names) > MAX_ENTRIES:
        refuse(source, "it has an asset twice, or more of them than any model.")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Any) -> bytes:
    name = member.filename
    if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
        refuse(source, f"its member {name!r} is a link or encrypted.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refuse(source, f"its member {name!r} is compressed in a way that Keras doesn't use.")
    # Keras stores without compression. A repacked archive is fine, a bomb is not.
    packed = member.compress_size
    limit = MEMBERS.get(name) or min(16 * MEGABYTE + 100 * packed, 192 * MEGABYTE + 4 * packed)
    if member.compress_type == zipfile.ZIP_STORED:
        limit = min(limit, member.compress_size) if MEMBERS.get(name) else member.compress_size
    content = io.BytesIO()
    with archive.open(member) as stream:
        while part := stream.read(MEGABYTE):
            if content.tell() + len(part) > limit:
                refuse(source, f"its member {name!r} unpacks to more than {limit} bytes.")
            content.write(part)
    return content.getvalue()
