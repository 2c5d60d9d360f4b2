"""What all parts of one start share: the machine, the kind of run, where things are, and what is missing for what."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gpu_parts.fatbin import code_in
from gpu_parts.machine import Machine
from gpu_parts.problems import Problem

ROOT = Path(__file__).resolve().parents[2]
#: Kinds of run.
ON_GPU, REHEARSAL, NO_GPU = "GPU", "rehearsal on the CPU", "no GPU"


@dataclass
class Session:
    """One start of launch/gpu."""

    machine: Machine
    mode: str
    output: Path
    target: int = 90
    """The architecture to compile for where there is no GPU."""
    ranks: int | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def archs(self) -> list[int]:
        """The architectures to compile for."""
        return self.machine.archs or [self.target]

    @property
    def python(self) -> str:
        """The Python that TensorFlow runs in: this one."""
        return sys.executable

    @functools.cached_property
    def named_library(self) -> Path | None:
        """The native library that the user names."""
        named = os.environ.get("TFREC_OPS_LIBRARY")
        return Path(named).resolve() if named else None

    @property
    def build(self) -> Path:
        """Where this start compiles the native library."""
        archs = "-".join(map(str, self.archs))
        return ROOT / "build" / f"ops-gpu-sm_{archs}-{sys.implementation.cache_tag}"

    @property
    def library(self) -> Path | None:
        """The native library to use: the named one, else the best of the one built here and the installed one."""
        if self.named_library is not None:
            return self.named_library
        there = [p for p in (self.build / "libtfrec_ops.so", ROOT / "tfrec/ops/libtfrec_ops.so") if p.is_file()]
        if self.mode == REHEARSAL:
            return there[-1] if there else None
        for kind in ("machine", "ptx"):
            for path in there:
                if all(code_in(path).runs_on(arch) == kind for arch in self.archs):
                    return path
        return None

    def stale_library(self) -> str:
        """Says that the library compiled here is older than its sources; empty where it is not."""
        library = self.library
        if library is None or library.parent != self.build:
            return ""
        newest = max(file.stat().st_mtime for file in (ROOT / "custom_ops").rglob("*") if file.is_file())
        return "the native library is older than custom_ops: run the part `library`" * (
            newest > library.stat().st_mtime
        )

    def missing(self, need: str) -> str:
        """Why a need is not met; empty where it is."""
        for problem in self.problems:
            if problem.need == need:
                return problem.text.partition(". ")[0]  # all of it was said at the start
        if need == "nvcc":
            return "" if self.machine.nvcc else "there is no nvcc"
        if need == "tensorflow":
            return "" if self.machine.tensorflow else "this Python finds no TensorFlow"
        if need == "library":
            return "" if self.library else "there is no native library for this GPU (see the part `library`)"
        # The name of a Python package.
        return "" if importlib.util.find_spec(need) else f"this Python has no package {need}"

    def cannot_build(self) -> str:
        """Why the native library cannot be compiled here; empty where it can."""
        for need in ("nvcc", "tensorflow"):
            if why := self.missing(need):
                return why
        tensorflow = self.machine.tensorflow
        if tensorflow is not None and not tensorflow.has_headers:
            return f"TensorFlow in {tensorflow.folder} came without its headers (include/)"
        for tool, what in (("cmake", "cmake"), (os.environ.get("CXX", "g++"), "a C++ compiler (g++)")):
            if shutil.which(tool) is None:
                return f"there is no {what}"
        return ""

    def environment(self) -> dict[str, str]:
        """Of every command."""
        found = dict(os.environ)
        if self.machine.nvcc:
            found["PATH"] = f"{Path(self.machine.nvcc).parent}{os.pathsep}{found.get('PATH', '')}"
            found["CUDACXX"] = self.machine.nvcc
        # The folder of this package is for this process alone: others must not import from it by the name of a file.
        launch = str(ROOT / "launch")
        found["PYTHONPATH"] = os.pathsep.join(p for p in found.get("PYTHONPATH", "").split(os.pathsep) if p != launch)
        found["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        # TensorFlow takes what it needs, and not the whole card; what the driver compiles at first use is kept.
        found["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        found.setdefault("CUDA_CACHE_MAXSIZE", str(4 << 30))
        found["PYTHONUNBUFFERED"] = "1"
        if self.mode != ON_GPU:
            found["CUDA_VISIBLE_DEVICES"] = "-1"
        library = self.library
        if library is not None:
            found["TFREC_OPS_LIBRARY"] = str(library)
        return found

    def script(self, name: str, *arguments: str) -> list[str]:
        """The command that runs a script of ``on_device``."""
        path = Path(__file__).parent / "on_device" / f"{name}.py"
        return [self.python, str(path), *arguments, *([] if self.mode == ON_GPU else ["--rehearse"])]
