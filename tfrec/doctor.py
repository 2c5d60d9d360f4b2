"""Examine an installation: tfrec doctor. Versions, native library, machine, Horovod, data, and what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfrec import commands
from tfrec.printing import printable

#: Launchers of several processes.
LAUNCHERS = ("horovodrun", "mpirun", "srun")
_GIB = 2**30


@dataclass(frozen=True)
class Arguments:
    """Show what is installed and what the machine offers, and name what is wrong, with its fix. The exit status is 1 if
    something that tfrec needs is wrong."""

    json: bool = False
    """Print JSON in place of lines."""


@dataclass
class Findings:
    """What was found.

    Args:
        sections: title -> name -> value, in the order in which they are printed.
        errors: what tfrec needs and is wrong, each with its fix.
        warnings: what is missing for some uses.
    """

    sections: dict[str, dict[str, str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """As they are printed."""
        out = []
        for title, rows in self.sections.items():
            out += ["", title, *(f"  {name:<20} {printable(value)}".rstrip() for name, value in rows.items())]
        problems = [("error", text) for text in self.errors] + [("warning", text) for text in self.warnings]
        out += ["", "Problems" if problems else "No problem found."]
        out += [f"  {kind}: " + printable(text, keep="\n").replace("\n", "\n    ") for kind, text in problems]
        return out[1:]


def diagnose() -> Findings:
    """Look at everything. Whatever is broken becomes an error or a warning, never an exception."""
    found = Findings()
    looks: dict[str, Callable[[Findings], dict[str, str]]] = {
        "tfrec": packages,
        "Native library": native_library,
        "Machine": machine,
        "GPUs": gpus,
        "Horovod": horovod,
        "Data": data_folders,
    }
    for title, look in looks.items():
        try:
            found.sections[title] = look(found)
        except Exception as error:  # a broken package may raise anything when it is imported
            found.sections[title] = {"failed": f"{type(error).__name__}: {error}"}
            found.errors.append(f"{title} could not be examined: {type(error).__name__}: {_first_line(error)}")
    return found


def packages(found: Findings) -> dict[str, str]:
    """Versions of tfrec, Python and what tfrec requires, with what does not satisfy it."""
    import tfrec

    rows = {"tfrec": f"{tfrec.__version__}, {Path(tfrec.__file__).parent}", "Python": platform.python_version()}
    if not (3, 11, 4) <= sys.version_info[:3] < (3, 14):
        found.errors.append(
            f"Python must be 3.11.4 to 3.13. Received: {platform.python_version()}.\nInstall Python 3.11."
        )
    for requirement in importlib.metadata.requires("tfrec") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        wanted = requirement[len(name) :].strip().strip("()")
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "missing"
            found.errors.append(f"{name} is missing.\nInstall it: pip install '{name}{wanted}'")
            continue
        rows[name] = version
        if not _satisfies(version, wanted):
            found.errors.append(
                f"{name} must be {wanted}. Received: {version}.\nInstall it: pip install '{name}{wanted}'"
            )
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        found.errors.append(f"KERAS_BACKEND must be tensorflow. Received: {backend}.\nUnset it.")
    commands.quiet_tensorflow()
    import keras

    rows["Keras imports"] = f"with the backend {keras.backend.backend()}"
    return rows


def native_library(found: Findings) -> dict[str, str]:
    """Where the library is, what it was built for, and whether it loads."""
    from tfrec.ops.built_for import built_for
    from tfrec.ops.native import cpu_kernels, how_to_build, library, library_path

    path = library_path()
    rows = {"file": str(path)}
    if not path.is_file():
        rows["file"] += ", missing"
        found.errors.append(
            f"The native operations are not built, so slow TensorFlow ones are used.\n{how_to_build()}."
        )
        return rows
    rows["built for"] = str(built_for(path) or "unknown")
    try:
        loaded = library() is not None
    except Exception as error:
        rows["loads"] = "no"
        found.errors.append(str(error))
        return rows
    rows["loads"] = "yes" if loaded else "no, TFREC_NATIVE_OPS=0"
    if loaded:
        rows["kernels"] = cpu_kernels()
    return rows


def machine(found: Findings) -> dict[str, str]:
    """Processor, cores, instruction sets and memory."""
    from tfrec.layers.memory import free_bytes
    from tfrec.runs.environment import processor

    flags = _cpu_flags()
    known = {
        "AVX2": "avx2",
        "AVX-512": "avx512f",
        "AVX-512 VNNI": "avx512_vnni",
        "AMX": "amx_tile",
        "AMX int8": "amx_int8",
    }
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "instruction sets": ", ".join(name for name, flag in known.items() if flag in flags) or "no AVX2",
        "memory": f"{total / _GIB:.1f} GiB, {free_bytes() / _GIB:.1f} GiB free",
    }


def gpus(found: Findings) -> dict[str, str]:
    """What TensorFlow and nvidia-smi see."""
    import tensorflow as tf

    seen = tf.config.list_physical_devices("GPU")
    rows = {}
    for gpu in seen:
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        rows[gpu.name.rsplit("physical_device:", 1)[-1]] = f"{details.get('device_name', '?')}, {capability}"
    cuda = tf.sysconfig.get_build_info().get("cuda_version", "none")
    rows["TensorFlow's CUDA"] = str(cuda)
    smi = shutil.which("nvidia-smi")
    if smi is None:
        rows["nvidia-smi"] = "not found, so no NVIDIA driver" if not seen else "not found"
        return rows
    query = [smi, "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip().splitlines()
    rows |= {f"nvidia-smi {number}": line for number, line in enumerate(listed)}
    if listed and not seen:
        found.warnings.append(
            f"TensorFlow sees none of the {len(listed)} GPUs of nvidia-smi.\nInstall the CUDA libraries: launch/setup "
            "--cuda in the repository, or pip install 'tensorflow[and-cuda]'. Check CUDA_VISIBLE_DEVICES."
        )
    return rows


def horovod(found: Findings) -> dict[str, str]:
    """Its version, what it was built with, and the launchers that exist."""
    from tfrec.distributed import built_with, how_to_install

    rows = {name: shutil.which(name) or "not found" for name in LAUNCHERS}
    if importlib.util.find_spec("horovod") is None:
        found.warnings.append(
            f"Horovod is missing. One process works without it, several need it.\n{how_to_install()}."
        )
        return {"version": "missing", **rows}
    try:
        parts = built_with()
    except Exception as error:
        found.warnings.append(f"Horovod does not import: {_first_line(error)}\n{how_to_install()}.")
        return {"version": importlib.metadata.version("horovod"), "imports": "no", **rows}
    return {"version": importlib.metadata.version("horovod"), "built with": ", ".join(parts) or "nothing", **rows}


def data_folders(found: Findings) -> dict[str, str]:
    """Where data sets are read from, which are there, and the size of the cache."""
    from tfrec.data import NAMES
    from tfrec.data.files import cache_folder
    from tfrec.data.published_sets import DATASETS

    rows = {}
    named = os.environ.get("TFREC_DATA")
    rows["TFREC_DATA"] = named or "not set, so data sets are downloaded"
    if named and not Path(named).is_dir():
        found.errors.append(f"TFREC_DATA must be a folder. Received: {named}.\nName an existing one, or unset it.")
    elif named:
        entries = {entry.name for entry in Path(named).iterdir()}
        sets = {d.name for d in DATASETS.values() if {d.name, d.folder, d.archive} & entries} | entries & set(NAMES)
        rows["data sets"] = ", ".join(sorted(sets)) or "none"
    cache = cache_folder()
    rows["cache"] = f"{cache}, {_size(cache) / 2**20:,.0f} MiB"
    place = cache
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        found.errors.append(
            f"The cache cannot be written: {place}.\nSet XDG_CACHE_HOME to a folder that you may write to."
        )
    rows["disk"] = f"{shutil.disk_usage(place).free / _GIB:,.1f} GiB free"
    return rows


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _satisfies(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted.replace(" ", "")).contains(version, prereleases=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def doctor(arguments: Arguments) -> int:
    """Print what was found; returns the exit status."""
    found = diagnose()
    if arguments.json:
        whole: dict[str, Any] = {**found.sections, "errors": found.errors, "warnings": found.warnings}
        print(json.dumps(whole, indent=2))
    else:
        print("\n".join(found.lines()))
    return commands.EXIT_FAILED if found.errors else 0


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "doctor")
    commands.run(lambda: sys.exit(doctor(arguments)))


if __name__ == "__main__":
    main()
