"""What this machine has: GPUs and their driver, the CUDA toolkit, TensorFlow. Looks only; judges nothing."""

from __future__ import annotations

import ast
import csv
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from gpu_parts.problems import Unusable

#: What nvidia-smi is asked for each GPU.
_ASKED = {
    "index": "index",
    "uuid": "uuid",
    "name": "name",
    "driver": "driver_version",
    "capability": "compute_cap",
    "memory_mib": "memory.total",
    "free_mib": "memory.free",
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "max_sm_mhz": "clocks.max.sm",
    "max_memory_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "compute_mode": "compute_mode",
}


@dataclass(frozen=True)
class GPU:
    """One GPU, as nvidia-smi describes it."""

    told: dict[str, str]
    users: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The card's name."""
        return self.told["name"]

    @property
    def arch(self) -> int:
        """90 for compute capability 9.0."""
        major, _, minor = self.told["capability"].partition(".")
        return 10 * int(major) + int(minor or 0)

    @property
    def driver(self) -> str:
        """The driver's version."""
        return self.told["driver"]

    @property
    def memory_mib(self) -> int | None:
        """All its memory; None where nvidia-smi does not say, as of a part of a GPU."""
        return _whole(self.told["memory_mib"])

    @property
    def free_mib(self) -> int | None:
        """Free memory; None where nvidia-smi does not report it."""
        return _whole(self.told["free_mib"])


@dataclass(frozen=True)
class TensorFlow:
    """The TensorFlow that this Python finds, without importing it."""

    folder: Path
    version: str
    cuda: str  # the toolkit it was built with; empty: without CUDA

    @property
    def has_headers(self) -> bool:
        """Whether the native library can be compiled against it."""
        return (self.folder / "include" / "tensorflow").is_dir()


@dataclass
class Machine:
    """All of it."""

    gpus: list[GPU] = field(default_factory=list)
    visible: str | None = None
    reaches: tuple[int, ...] = ()
    """The version of CUDA up to which the driver goes, by its own word; empty: not known. It is above what comes with
    the driver where NVIDIA's forward compatibility package is installed."""
    nvcc: str | None = None
    toolkit: str = ""
    nvcc_archs: frozenset[int] = frozenset()
    sanitizer: str | None = None
    tensorflow: TensorFlow | None = None

    @property
    def archs(self) -> list[int]:
        """The different architectures of the GPUs."""
        return sorted({gpu.arch for gpu in self.gpus})

    def to_json(self) -> dict[str, object]:
        """For the report."""
        tensorflow = self.tensorflow
        return {
            "gpus": [gpu.told for gpu in self.gpus],
            "toolkit": f"CUDA {self.toolkit} ({self.nvcc})" if self.nvcc else "no nvcc",
            "compute-sanitizer": self.sanitizer or "not there",
            "tensorflow": f"{tensorflow.version}, built with CUDA {tensorflow.cuda or '(none)'}"
            if tensorflow
            else "none",
            "python": platform.python_version(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
        }


def look() -> Machine:
    """This machine.

    Raises:
        Unusable: there is a GPU driver that does not work.
    """
    machine = Machine(visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
    machine.gpus = _gpus(machine.visible)
    found = re.search(r"CUDA (?:UMD )?Version: *(\d+)\.(\d+)", _output(["nvidia-smi"])) if machine.gpus else None
    machine.reaches = tuple(map(int, found.groups())) if found else ()
    machine.nvcc = _nvcc()
    if machine.nvcc:
        found = re.search(r"release (\d+\.\d+)", _output([machine.nvcc, "--version"]))
        machine.toolkit = found.group(1) if found else ""
        listed = _output([machine.nvcc, "--list-gpu-arch"])
        machine.nvcc_archs = frozenset(int(a) for a in re.findall(r"compute_(\d+)\b", listed))
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    machine.sanitizer = _first("compute-sanitizer", f"{home}/bin/compute-sanitizer")
    machine.tensorflow = _tensorflow()
    return machine


def _output(command: list[str]) -> str:
    """What a short command prints; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _whole(text: str) -> int | None:
    try:
        return int(float(text))
    except ValueError:
        return None


def _first(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


def _nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return _first(f"{home}/bin/nvcc") if home else _first("nvcc", "/usr/local/cuda/bin/nvcc")


def _gpus(visible: str | None) -> list[GPU]:
    if shutil.which("nvidia-smi") is None:
        if Path("/dev/nvidiactl").exists():
            raise Unusable("There is an NVIDIA driver, but no nvidia-smi on PATH to ask it. Put its folder on PATH.")
        return []
    query = ["nvidia-smi", f"--query-gpu={','.join(_ASKED.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise Unusable(
            "nvidia-smi gave no answer within a minute, so the GPU or its driver hangs. Restart it."
        ) from None
    said = (done.stdout + done.stderr).strip()
    if "No devices were found" in said:
        return []
    if done.returncode:
        raise Unusable(
            f"nvidia-smi is installed but fails, so no GPU can be used. "
            f"Its output: {' '.join(said.split()) or '(nothing)'}\n"
            "Fix the driver (in a container: start it with access to the GPU), then start again."
        )
    users: dict[str, list[str]] = {}
    apps = _output(
        ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    )
    for row in csv.reader(apps.splitlines(), skipinitialspace=True):
        if len(row) == 4:
            users.setdefault(row[0], []).append(f"process {row[1]} ({row[2]}) with {row[3]} MiB")
    found = []
    for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True):
        told = dict(zip(_ASKED, row, strict=False))
        found.append(GPU(told, tuple(users.get(told["uuid"], ()))))
    return _only(found, visible)


def _only(gpus: list[GPU], visible: str | None) -> list[GPU]:
    """Those that CUDA_VISIBLE_DEVICES names; CUDA stops reading it at the first that is none."""
    if visible is None:
        return gpus
    chosen: list[GPU] = []
    for name in (part.strip() for part in visible.split(",")):
        match = [g for g in gpus if name and (g.told["index"] == name or g.told["uuid"].startswith(name))]
        if len(match) != 1:
            break
        if match[0] in chosen:
            raise Unusable(
                f"Each rank needs a GPU of its own, but CUDA_VISIBLE_DEVICES={visible} names GPU {name} twice.\n"
                "Name each GPU once."
            )
        chosen += match
    return chosen


def _tensorflow() -> TensorFlow | None:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    cuda = version = ""
    info = folder / "python" / "platform" / "build_info.py"
    found = re.search(r"OrderedDict\((\[.*\])\)", info.read_text(), re.DOTALL) if info.is_file() else None
    if found:
        built = dict(ast.literal_eval(found.group(1)))
        cuda = str(built.get("cuda_version", "")) if built.get("is_cuda_build") else ""
    for entry in folder.parent.glob("tensorflow*-*.dist-info"):
        name, _, text = entry.name.removesuffix(".dist-info").rpartition("-")
        if name in ("tensorflow", "tensorflow_cpu"):
            version = text
    return TensorFlow(folder, version or "of an unknown version", cuda)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
