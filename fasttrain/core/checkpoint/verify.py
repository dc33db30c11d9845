"""Tell whether a checkpoint file is whole: every size, every checksum, every byte between."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO

from fasttrain import native
from fasttrain.core.checkpoint.container import num_threads
from fasttrain.core.checkpoint.restricted import load
from fasttrain.core.checkpoint.zip_layout import Record, directory_end

_BLOCK = 1 << 20


def damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a checkpoint file, None when it is whole.

    A zip file of torch's present layout is checked to the last bit, other zip files by their sizes
    and checksums, files of torch's older formats by loading them (restricted).
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            if not head:
                return "the file is empty"
            if head == b"PK\x03\x04" or _ends_like_zip(file):
                return _zip_damage(file)
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    try:
        load(path)
    except Exception as error:
        return str(error)
    return None


def _ends_like_zip(file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22))
    return b"PK\x05\x06" in file.read()


def _zip_damage(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        return f"the directory at the file's end is missing or damaged ({error})"
    if _num_entries(file) not in (None, min(len(entries), 0xFFFF)):
        return "the directory at the file's end is damaged (it lacks entries)"
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        return "it has no record data.pkl"
    ranges = []
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            return f"record {entry.filename} is compressed or its sizes differ"
        offset = _data_offset(file, entry)
        if offset is None:
            return f"the header of record {entry.filename} is damaged"
        ranges.append((offset, entry.file_size))
    size = file.seek(0, os.SEEK_END)
    if any(offset + length > size for offset, length in ranges):
        return "the file is cut short"
    for entry, crc in zip(entries, _crcs(file, ranges), strict=True):
        if crc != entry.CRC:
            return f"the checksum of record {entry.filename} is wrong"
    if any(entry.filename.endswith("/.format_version") for entry in entries):
        return _layout_damage(file, entries, size)
    return None


def _num_entries(file: IO[bytes]) -> int | None:
    """How many entries the file's last bytes tell (at most 0xFFFF); None behind a comment."""
    file.seek(-22, os.SEEK_END)
    end = file.read()
    return int(struct.unpack("<H", end[10:12])[0]) if end[:4] == b"PK\x05\x06" else None


def _data_offset(file: IO[bytes], entry: zipfile.ZipInfo) -> int | None:
    """Where the record's data starts; None when its header does not fit the directory's entry."""
    file.seek(entry.header_offset)
    fixed = file.read(30)
    if len(fixed) < 30 or fixed[:4] != b"PK\x03\x04":
        return None
    name_size, extra_size = struct.unpack("<2H", fixed[26:])
    if file.read(name_size) != entry.orig_filename.encode("utf-8"):
        return None
    return entry.header_offset + 30 + int(name_size) + int(extra_size)


def _crcs(file: IO[bytes], ranges: Sequence[tuple[int, int]]) -> list[int]:
    if native.enabled():
        crcs = native.module().checkpoint_crc_ranges(file.fileno(), list(ranges), num_threads())
        return list(crcs)
    return [_crc(file, *span) for span in ranges]


def _crc(file: IO[bytes], offset: int, size: int) -> int:
    file.seek(offset)
    crc = 0
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        crc = zlib.crc32(block, crc)
        size -= len(block)
    return crc


def _layout_damage(file: IO[bytes], entries: list[zipfile.ZipInfo], size: int) -> str | None:
    """Compare every byte outside of the records' data with what it must be."""
    cursor, directory = 0, b""
    for entry in entries:
        record = Record(entry.filename.encode("utf-8"), entry.file_size, entry.CRC, cursor)
        for offset, expected in (
            (record.header, record.local_header()),
            (record.data + record.size, record.descriptor()),
        ):
            file.seek(offset)
            if file.read(len(expected)) != expected:
                return f"the header of record {entry.filename} is damaged"
        directory += record.directory_entry()
        cursor = record.end
    directory += directory_end(len(entries), len(directory), cursor)
    file.seek(cursor)
    if file.read(len(directory) + 1) != directory:
        return "the directory at the file's end is damaged"
    return None if cursor + len(directory) == size else "the file has another length than it tells"
