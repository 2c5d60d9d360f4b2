"""Which GPUs a compiled library has code for, read from the file itself: no CUDA tool is needed.

nvcc embeds containers that begin with a magic number. A container has a header (16 bytes: magic, version, header size,
size of what follows) and entries, each with a header of its own: kind (1 PTX, 2 machine code), its sizes, and at byte
28 the architecture, such as 90.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x50\xed\x55\xba"
_PTX, _MACHINE_CODE = 1, 2


@dataclass(frozen=True)
class Code:
    """The architectures, such as 80 for compute capability 8.0, that a file has code for."""

    machine: frozenset[int]
    ptx: frozenset[int]

    def __str__(self) -> str:
        if not self.machine and not self.ptx:
            return "no CUDA code"
        parts = [f"machine code for sm_{a}" for a in sorted(self.machine)]
        return ", ".join(parts + [f"PTX for compute_{a}" for a in sorted(self.ptx)])

    def runs_on(self, arch: int) -> str:
        """``machine`` code is there, or ``ptx`` that the driver compiles when it loads the file, or ``""``."""
        # Machine code runs on its own major version, on the same or a later minor one.
        if any(a // 10 == arch // 10 and a <= arch for a in self.machine):
            return "machine"
        return "ptx" if any(a <= arch for a in self.ptx) else ""


def code_in(path: Path) -> Code:
    """What is embedded in a shared library or an executable."""
    machine: set[int] = set()
    ptx: set[int] = set()
    if not path.stat().st_size:
        return Code(frozenset(), frozenset())
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = data.find(_MAGIC)
        while position >= 0 and position + 16 <= len(data):
            _, header_bytes, body_bytes = struct.unpack_from("<HHQ", data, position + 4)
            end = position + header_bytes + body_bytes
            if header_bytes != 16 or end > len(data):  # the same four bytes by chance
                position = data.find(_MAGIC, position + 4)
                continue
            entry = position + header_bytes
            while entry + 32 <= end:
                kind, _, entry_header, entry_bytes = struct.unpack_from("<HHIQ", data, entry)
                (arch,) = struct.unpack_from("<I", data, entry + 28)
                if entry_header == 0:
                    break
                {_PTX: ptx, _MACHINE_CODE: machine}.get(kind, set()).add(arch)
                entry += entry_header + entry_bytes
            position = data.find(_MAGIC, end)
    return Code(frozenset(machine), frozenset(ptx))
