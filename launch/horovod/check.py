"""Whether the Horovod of this environment is sound: python launch/horovod/check.py [--cuda]

Reads the built library: what it needs from TensorFlow must be in TensorFlow's libraries, what it needs of CUDA must be
in itself, and no run path may lead to a folder that can go away. Then imports it in a new process. With ``--cuda`` it
must have NCCL. Needs nm and readelf, which come with the compiler.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# The CUDA runtime, the functions that nvcc makes calls to, and the driver. TensorFlow's libraries export the first two.
CUDA = re.compile(r"^(__)?cuda|^cu[A-Z]")
# Symbols of the C and C++ libraries carry a version.
SYSTEM = re.compile(r"@@?(GLIBC|GLIBCXX|CXXABI|GCC|OPENMP|GOMP)")


def undefined(*files: Path) -> set[str]:
    """Symbols that the object files or shared libraries leave to others, without those of the C and C++ libraries."""
    return {name for file in files for kind, name in _symbols(file, "--undefined-only") if kind == "U"}


def exported(libraries: Iterable[Path]) -> set[str]:
    """Symbols that the shared libraries offer to others."""
    return {name for library in libraries for _, name in _symbols(library, "--defined-only")}


def _symbols(file: Path, *options: str) -> list[tuple[str, str]]:
    dynamic = () if file.suffix == ".o" else ("--dynamic",)
    rows = [line.split()[-2:] for line in _run("nm", *dynamic, *options, str(file)).splitlines()]
    return [(kind, re.sub("@.*", "", name)) for kind, name in rows if not SYSTEM.search(name)]


def demangled(names: Iterable[str]) -> list[str]:
    """C++ names as they are written."""
    names = sorted(names)
    return _run("c++filt", *names).splitlines() if names else []


def run_paths(library: Path) -> list[str]:
    """The folders that are written into ``library``, where the libraries that it names are looked for."""
    return [path for paths in _dynamic(library, "RUNPATH", "RPATH") for path in paths.split(":")]


def _dynamic(library: Path, *tags: str) -> list[str]:
    return re.findall(rf"\((?:{'|'.join(tags)})\).*\[(.*)\]", _run("readelf", "--dynamic", "--wide", str(library)))


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(library: Path, tensorflow: Path) -> tuple[list[Path], list[str]]:
    """The libraries that ``library`` names and that are on its run path or TensorFlow's; the names of the others."""
    paths = [Path(path.replace("$ORIGIN", str(library.parent))) for path in run_paths(library)]
    found, others = [], []
    for name in _dynamic(library, "NEEDED"):
        here = [folder / name for folder in (*paths, tensorflow, tensorflow / "python") if (folder / name).is_file()]
        found += here[:1]
        others += [] if here else [name]
    return found, others


def problems(library: Path, tensorflow: Path, cuda: bool = False) -> list[str]:
    """What is wrong with a built library.

    Args:
        library: Horovod's shared library.
        tensorflow: TensorFlow's folder in site-packages.
        cuda: whether it must be built for GPUs.
    """
    said = []
    wants = undefined(library)
    of_cuda = {name for name in wants if CUDA.search(name)}
    if of_cuda:
        said.append(f"takes the CUDA runtime from other libraries, not from itself: {_shown(of_cuda)}")
    found, others = needed(library, tensorflow)
    missing = wants - of_cuda - exported(found)
    if missing:
        where = ", ".join(path.name for path in found) or "none of TensorFlow's libraries"
        said.append(f"needs what the libraries it names ({where}) do not have: {_shown(missing)}")
    for path in run_paths(library):
        if not path.startswith("$ORIGIN"):
            said.append(f"has a run path that does not move with the environment: {path}")
    if cuda and not any(path.name.startswith("libnccl.so") for path in found):
        said.append("does not name NCCL" if not any("libnccl" in name for name in others) else "does not find NCCL")
    return said


def _shown(names: set[str]) -> str:
    written = demangled(names)
    return "; ".join(written[:5]) + (f"; and {len(written) - 5} more" if len(written) > 5 else "")


def does_not_import(cuda: bool = False) -> str | None:
    """Why Horovod does not import in a new process, or what it was built without; None if all is well."""
    code = "import horovod.tensorflow as h; print('built with', h.gloo_built() and 'Gloo', h.nccl_built() and 'NCCL')"
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=quiet)
    if done.returncode:
        return "does not import:\n" + "\n".join((done.stderr or f"it ended with {done.returncode}").splitlines()[-12:])
    built = next((line.split() for line in done.stdout.splitlines() if line.startswith("built with")), [])
    lacking = [name for name in ("Gloo", "NCCL")[: 1 + cuda] if name not in built]
    return f"was built without {' and '.join(lacking)}" if lacking else None


def find(package: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    # A folder of that name somewhere on the path, such as this script's, is no package.
    return Path(found.origin).parent if found and found.origin else None


def all_problems(cuda: bool) -> list[str]:
    """What is wrong with this environment's Horovod."""
    horovod, tensorflow = find("horovod"), find("tensorflow")
    if horovod is None or tensorflow is None:
        return [f"is not installed, or TensorFlow is not, in {sys.prefix}"]
    libraries = sorted((horovod / "tensorflow").glob("mpi_lib*.so"))
    if not libraries:
        return [f"has no library for TensorFlow in {horovod / 'tensorflow'}"]
    said = [f"{text} ({library})" for library in libraries for text in problems(library, tensorflow, cuda)]
    import_problem = does_not_import(cuda)
    return [*said, import_problem] if import_problem else said


def main() -> int:
    """The command. Returns the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", action="store_true", help="it must be built for GPUs, with NCCL")
    said = all_problems(parser.parse_args().cuda)
    for text in said:
        print(f"Horovod {text}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
