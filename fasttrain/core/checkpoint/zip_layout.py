"""What must stand between the records of a checkpoint file; for checking files byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ALIGNMENT = 64
_LIMIT32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record: `header` and `data` are file offsets."""

    name: bytes
    size: int
    crc: int
    header: int

    @property
    def data(self) -> int:
        start = self.header + 34 + len(self.name) + len(self._zip64())
        return -(-start // ALIGNMENT) * ALIGNMENT

    @property
    def end(self) -> int:
        """Where the next record's header stands."""
        return self.data + self.size + len(self.descriptor())

    def local_header(self) -> bytes:
        """The bytes from `header` to `data`."""
        large = self._zip64()
        padding = self.data - (self.header + 34 + len(self.name) + len(large))
        lengths = (len(self.name), len(large) + 4 + padding)
        fixed = struct.pack("<L5H3L2H", 0x04034B50, 0, self._flags(), 0, 0, 0, 0, 0, 0, *lengths)
        return fixed + self.name + large + b"FB" + struct.pack("<H", padding) + b"Z" * padding

    def descriptor(self) -> bytes:
        """The bytes that follow the data."""
        if self.size == 0:
            return b""
        width = "Q" if self._zip64() else "L"
        return struct.pack(f"<LL2{width}", 0x08074B50, self.crc, self.size, self.size)

    def directory_entry(self) -> bytes:
        """The record's entry in the directory at the file's end."""
        large = self._zip64()
        size, header = min(self.size, _LIMIT32), min(self.header, _LIMIT32)
        fixed = struct.pack(
            "<L6H3L5H2L", 0x02014B50, 0, 0, self._flags(), 0, 0, 0, self.crc, size, size,
            len(self.name), len(large), 0, 0, 0, 0, header,
        )  # fmt: skip
        return fixed + self.name + large

    def _flags(self) -> int:
        return 0x0808 if self.size else 0x0800

    def _zip64(self) -> bytes:
        fields = [self.size, self.size] if self.size >= _LIMIT32 else []
        fields += [self.header] if self.header >= _LIMIT32 else []
        if not fields:
            return b""
        return struct.pack(f"<2H{len(fields)}Q", 1, 8 * len(fields), *fields)


def directory_end(count: int, size: int, offset: int) -> bytes:
    """The last bytes of the file, after the directory."""
    count16 = min(count, 0xFFFF)
    return (
        struct.pack("<LQ2H2L4Q", 0x06064B50, 44, 0x031E, 45, 0, 0, count, count, size, offset)
        + struct.pack("<LLQL", 0x07064B50, 0, offset + size, 1)
        + struct.pack("<L4H2LH", 0x06054B50, 0, 0, count16, count16,
                      min(size, _LIMIT32), min(offset, _LIMIT32), 0)
    )  # fmt: skip
