"""What the native library was built for, read from the file: another TensorFlow could not load it to ask."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

#: How the text of custom_ops/common/build_info.cc begins. Put together here, so that no other file contains it whole.
_MARK = b"tfrec_built_for" + b"\n"


@dataclass(frozen=True)
class BuiltFor:
    """What a native library was built with and for.

    Args:
        tensorflow: the version whose headers it was compiled with, ``2.21.0``.
        compiler: its name and version, ``gcc 12.2.0``.
        processor: as CMake calls it, ``x86_64``.
        instruction_sets: those with CPU kernels of their own, ``("baseline", "avx2", "avx512")``.
        cuda_toolkit: version of the CUDA toolkit; empty where it has no CUDA kernels.
        cuda_architectures: as CMake lists them: ``80-real`` is machine code for compute capability 8.0, ``90`` has
            intermediate code too, which newer GPUs can run.
    """

    tensorflow: str
    compiler: str
    processor: str
    instruction_sets: tuple[str, ...]
    cuda_toolkit: str
    cuda_architectures: tuple[str, ...]

    @property
    def tensorflow_minor(self) -> str:
        """``2.21`` of ``2.21.0``: TensorFlow's C++ interface is the same within a minor version."""
        return minor(self.tensorflow)

    def __str__(self) -> str:
        cuda = f"CUDA {self.cuda_toolkit} ({', '.join(self.cuda_architectures)})" if self.cuda_toolkit else "no CUDA"
        return (
            f"TensorFlow {self.tensorflow}, {self.processor} ({', '.join(self.instruction_sets)}), {cuda}, "
            f"by {self.compiler}"
        )


def minor(version: str) -> str:
    """The first two numbers of a version.

    Example:
        >>> minor("2.21.0")
        '2.21'
    """
    return ".".join(version.split(".")[:2])


def built_for(library: Path) -> BuiltFor | None:
    """What ``library`` was built for; None where the file does not say, as it is none of tfrec's.

    Raises:
        OSError: it cannot be read.
    """
    with library.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return None
        with mapped:
            start = mapped.find(_MARK)
            end = mapped.find(b"\0", start) if start >= 0 else -1
            if end < 0:
                return None
            text = mapped[start + len(_MARK) : end].decode(errors="replace")
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return BuiltFor(
        tensorflow=found.get("tensorflow", ""),
        compiler=found.get("compiler", ""),
        processor=found.get("processor", ""),
        instruction_sets=tuple(found.get("instruction_sets", "").split()),
        cuda_toolkit=found.get("cuda_toolkit", ""),
        cuda_architectures=tuple(found.get("cuda_architectures", "").split()),
    )
