"""launch/gpu on machines that are made up: a fake nvidia-smi and a fake nvcc stand in front of the real ones."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "launch"))

from gpu_parts import fatbin, kernels, markdown, record  # noqa: E402
from gpu_parts.work import Failed, RanOver, Work  # noqa: E402

#: index, uuid, name, driver, capability, memory, free, clocks and their limits, power, mode: as nvidia-smi prints them.
H100 = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, {driver}, {capability}, 81559, {free}, 345, 2619, 1980, 2619, 700, Default"
#: What the fake check_gpu does, by kernel.
WELL = 'echo "PASS gramian"; echo "3 checks, 0 failed, digest 1"'
WRONG = 'echo "FAIL rows error 1.0 (at most 0.1)"; echo "3 checks, 1 failed, digest 1"; exit 1'
NO_GPU_HERE = 'echo "SKIP: no GPU here, nothing was checked"; exit 77'


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def container(machine=(), ptx=()):
    """What nvcc embeds for these architectures, as far as a reader of architectures looks at it."""
    body = b""
    for kind, archs in ((2, machine), (1, ptx)):
        for arch in archs:
            body += struct.pack("<HHIQQII", kind, 1, 64, 8, 0, 0, arch).ljust(64, b"\0") + b"\0" * 8
    return b"ELF" + struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body + b"end"


class Made:
    """A machine that is made up in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.library = folder / "libtfrec_ops.so"
        self.library.write_bytes(container(machine=[90]))
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CUDA_HOME": str(folder),
            "CUDA_VISIBLE_DEVICES": "",
            "TFREC_PYTHON": sys.executable,
            "TFREC_OPS_LIBRARY": str(self.library),
        }

    def gpu(self, users="", driver="580.95.05", capability="9.0", free=81000, reaches=""):
        """An H100."""
        row = H100.format(driver=driver, capability=capability, free=free)
        text = f"""
case "$1" in
  "") echo "CUDA Version: {reaches}" ;;
  --query-compute-apps*) echo "{users}" ;;
  *) echo "{row}" ;;
esac
"""
        script(self.folder / "bin" / "nvidia-smi", text)
        del self.environment["CUDA_VISIBLE_DEVICES"]

    def nvcc(self, version="13.0", archs=(75, 80, 86, 90), als=WELL, tt=WELL):
        """Makes a check_gpu that does what is said."""
        text = f"""
case "$1" in
  --version) echo "Cuda compilation tools, release {version}, V{version}.88"; exit 0 ;;
  --list-gpu-arch) printf 'compute_%s\\n' {" ".join(map(str, archs))}; exit 0 ;;
esac
while [ "$1" != -o ]; do shift; done
case "$2" in *als_check_gpu*) does='{als}' ;; *) does='{tt}' ;; esac
printf '#!/bin/sh\\n%s\\n' "$does" > "$2"
chmod +x "$2"
"""
        script(self.folder / "bin" / "nvcc", text)

    def tensorflow(self, cuda="12.5.1", version="2.21.0", headers=False):
        """A TensorFlow that can be looked at only, before the real one."""
        site = self.folder / "site"
        info = site / "tensorflow" / "python" / "platform" / "build_info.py"
        info.parent.mkdir(parents=True)
        (site / "tensorflow" / "__init__.py").touch()
        built = [("cuda_version", cuda), ("is_cuda_build", bool(cuda))]
        info.write_text(f"import collections\nbuild_info = collections.OrderedDict({built})\n")
        (site / f"tensorflow-{version}.dist-info").mkdir()
        self.environment["PYTHONPATH"] = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [str(ROOT / "launch" / "gpu"), "--output", str(self.folder / "out"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **environment},
        )

    def run(self, *arguments, **environment):
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def report(self):
        return json.loads((self.folder / "out" / "report.json").read_text())

    def statuses(self):
        return {name: part["status"] for name, part in self.report()["parts"].items()}


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_without_a_gpu_it_builds_and_says_what_it_would_do(made):
    made.nvcc(als=NO_GPU_HERE, tt=NO_GPU_HERE)
    status, out, err = made.run()
    assert (status, err) == (77, ""), out
    names = [line.split()[0] for line in made.run("--list")[1].splitlines()]
    parts = made.report()["parts"]
    assert list(parts) == names
    built = {"environment", "library", "kernels-als", "kernels-tt"}
    assert made.statuses() == {name: "built" if name in built else "no GPU" for name in names}
    assert all("with one it" in part["reason"] for part in parts.values())
    text = (made.folder / "out" / "report.md").read_text()
    assert "No figure here was measured on a GPU" in text
    assert all(f"| {name} |" in text for name in names)
    assert "no GPU" in out.splitlines()[-1]


@pytest.mark.slow  # a minute of compiling; the library's kernels are compiled by launch/setup
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_without_a_gpu_the_checks_compile_for_an_h100(made):
    made.environment["CUDA_HOME"] = ""
    status, out, _ = made.run("--part", "kernels-tt")
    assert status == 77, out
    [program] = (made.folder / "out" / "build").rglob("check_gpu")
    assert fatbin.code_in(program).machine == {90}


def test_a_check_that_does_not_compile_is_no_missing_gpu(made):
    made.nvcc(als="exit 3")
    status, out, _ = made.run("--part", "kernels-als")
    assert status == 1
    assert "check_gpu.sh ended with status 3" in out


def test_a_failing_part_does_not_stop_the_next_and_what_passed_is_not_done_again(made):
    made.gpu()
    made.nvcc(als=WRONG)
    status, out, _ = made.run("--part", "kernels")
    assert status == 1
    assert made.statuses() == {"kernels-als": "failed", "kernels-tt": "passed"}
    assert "FAIL rows error 1.0" in made.report()["parts"]["kernels-als"]["reason"]
    assert made.report()["parts"]["kernels-tt"]["figures"] == {"checks": 3, "failed": 0}
    made.nvcc()
    status, out, _ = made.run("--part", "kernels")
    assert status == 0
    assert "kernels-tt: passed before" in out
    assert "kernels-als: passed after" in out
    status, out, _ = made.run("--part", "kernels-tt", "--again")
    assert (status, "passed before" in out) == (0, False)


def ended(pid, within_s=60.0):
    """Whether a process is over; who adopted it may not have asked for its status yet."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.1)
    return False


def test_stopped_it_ends_what_it_started_and_keeps_what_was_found(made):
    made.gpu()
    made.nvcc(tt="echo $$ > pid; exec sleep 600".replace("pid", str(made.folder / "pid")))
    with made.start("--part", "kernels") as process:
        end = time.monotonic() + 300
        while not (made.folder / "pid").exists() and time.monotonic() < end:
            time.sleep(0.1)
        second = made.run("--part", "kernels")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 143, out
    assert second[0] == 2
    assert "Another launch/gpu is at work" in second[2]
    assert made.statuses() == {"kernels-als": "passed"}
    assert ended((made.folder / "pid").read_text().strip())


def test_a_part_that_runs_over_is_ended_and_what_it_said_is_kept(tmp_path):
    work = Work(tmp_path, tmp_path / "log", 1.0, dict(os.environ))
    started = time.monotonic()
    with pytest.raises(RanOver):
        work.run(["sh", "-c", "echo so far; sleep 600 & sleep 600"])
    assert time.monotonic() - started < 30
    assert "so far" in work.said()
    with pytest.raises(Failed, match="cannot be started"):
        work.run([str(tmp_path / "nothing")])


def test_a_report_of_another_card_is_not_mixed_with_this_one(made):
    made.gpu()
    made.nvcc()
    assert made.run("--part", "kernels-tt")[0] == 0
    made.environment["CUDA_VISIBLE_DEVICES"] = ""
    status, _, err = made.run("--part", "kernels-tt")
    assert status == 2
    assert "has the report of another run: GPU, cards GPU-aaaa; now: no GPU" in err


NEEDS_580 = r"The driver 550.54.14 is too old: nvcc is of CUDA 13.0, which needs 580 or newer"


@pytest.mark.parametrize(
    ("gpu", "nvcc", "match"),
    [
        ({"driver": "550.54.14"}, "13.0", [NEEDS_580, "TensorFlow, of CUDA 12.5.1, would run", "525 is enough"]),
        (
            {"driver": "515.65.01"},
            "12.4",
            ["The driver 515.65.01 is too old: TensorFlow is of CUDA 12.5.1", "needs 525"],
        ),
        ({"driver": "535.1"}, "12.4", ["TensorFlow's own kernels for NVIDIA H100 80GB HBM3", "needs 555 or newer"]),
        ({}, "11.8", ["nvcc is of CUDA 11.8, which is too old", "driver 525 or newer", "13 (580 or newer)"]),
        ({"capability": "7.0"}, "12.4", ["is too old: it has compute capability 7.0", "need 7.5"]),
        ({"capability": "12.0"}, "12.4", ["nvcc 12.4 cannot compile for this GPU (sm_120)", "up to sm_90"]),
        (
            {"free": 900, "users": "GPU-aaaa, 4711, python3, 79000"},
            "13.0",
            ["GPU 0 (NVIDIA H100 80GB HBM3) is full: 900 of 81,559 MiB", "process 4711 (python3) with 79000 MiB"],
        ),
        ({"free": 900}, "13.0", ["is full", "no process that nvidia-smi shows"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_launched(made, gpu, nvcc, match):
    made.gpu(**gpu)
    made.nvcc(nvcc)
    status, out, err = made.run()
    assert (status, out) == (2, "")
    for part in match:
        assert part in err
    assert not (made.folder / "out").exists()


def test_a_toolkit_of_another_major_version_is_said_where_it_fits(made):
    made.gpu()
    made.nvcc("13.0")
    _, out, _ = made.run("--part", "kernels-tt")
    assert "nvcc is of CUDA 13.0, TensorFlow of CUDA 12.5.1: they run side by side" in out
    made.nvcc("12.4")
    assert "side by side" not in made.run("--part", "kernels-tt", "--again")[1]


def test_a_driver_that_reaches_further_than_its_version(made):
    """NVIDIA's forward compatibility package."""
    made.gpu(driver="535.1", reaches="13.0")
    made.nvcc("13.0")
    assert made.run("--part", "kernels-tt")[0] == 0


def test_a_part_of_a_gpu_does_not_say_how_much_is_free(made):
    made.gpu(free="[N/A]")
    made.nvcc()
    assert made.run("--part", "kernels-tt")[0] == 0


def test_without_nvcc_the_parts_that_need_it_are_named(made):
    made.gpu()
    status, out, _ = made.run("--part", "kernels")
    assert status == 1
    assert out.startswith("launch/gpu: There is no nvcc, so no kernel can be compiled. Install a CUDA toolkit")
    assert made.statuses() == {"kernels-als": "blocked", "kernels-tt": "blocked"}


@pytest.mark.parametrize(
    ("tensorflow", "match"),
    [
        ({"cuda": ""}, "was built without CUDA (tensorflow-cpu?)"),
        ({"version": "2.19.0"}, "TensorFlow is 2.19.0, and tfrec's native library fits 2.21 only"),
    ],
)
def test_another_tensorflow_blocks_what_needs_it(made, tensorflow, match):
    made.gpu()
    made.nvcc()
    made.tensorflow(**tensorflow)
    status, out, _ = made.run("--part", "kernels-tt", "--part", "peaks")
    assert status == 1
    assert match in out
    assert made.statuses() == {"kernels-tt": "passed", "peaks": "blocked"}


def test_two_ranks_on_one_gpu(made):
    made.gpu()
    made.nvcc()
    status, _, err = made.run("--ranks", "2")
    assert status == 2
    assert "NCCL does not take two ranks on one GPU.\nReceived: --ranks 2 on a machine with 1 GPU." in err
    status, _, err = made.run(CUDA_VISIBLE_DEVICES="0,0")
    assert status == 2
    assert "CUDA_VISIBLE_DEVICES=0,0 names GPU 0 twice" in err


def test_a_driver_that_does_not_answer(made):
    made.nvcc()
    script(
        made.folder / "bin" / "nvidia-smi",
        'echo "NVIDIA-SMI has failed because it could not talk to the driver"; exit 9',
    )
    status, _, err = made.run(CUDA_VISIBLE_DEVICES="0")
    assert status == 2
    assert "nvidia-smi is installed but fails" in err
    assert "could not talk to the driver" in err


@pytest.mark.parametrize("code", [{"machine": [80]}, {"ptx": [100]}, {"machine": [75], "ptx": [120]}, {}])
def test_a_library_for_another_gpu(made, code):
    made.gpu()
    made.nvcc()
    made.library.write_bytes(container(**code))
    status, _, err = made.run()
    assert status == 2
    assert (
        f"{made.library} was built for another GPU: it has {fatbin.code_in(made.library)}, and this GPU is sm_90" in err
    )
    assert "-DCMAKE_CUDA_ARCHITECTURES=90-real" in err
    status, _, err = made.run(TFREC_OPS_LIBRARY=str(made.folder / "nothing.so"))
    assert (status, "is no file" in err) == (2, True)


def test_tensorflow_that_finds_no_gpu_is_a_failure(made):
    """The card is made up, so TensorFlow sees none: nothing may be measured on the CPU in its place."""
    made.gpu()
    made.nvcc()
    status, out, _ = made.run("--part", "environment", "--part", "peaks", CUDA_VISIBLE_DEVICES="0")
    if made.statuses()["environment"] == "passed":
        pytest.skip("there is a real GPU here")
    assert status == 1
    assert "nvidia-smi lists 1 GPUs and TensorFlow finds 0" in out
    assert made.statuses() == {"environment": "failed", "peaks": "blocked"}
    status, out, _ = made.run("--part", "peaks", CUDA_VISIBLE_DEVICES="0")
    assert status == 1
    assert "peaks.py ended with status 1: TensorFlow finds no GPU in this process" in out


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(["peaks", "bench-latency"], id="two parts"),
        pytest.param([], marks=pytest.mark.slow, id="all parts"),
    ],
)
def test_a_rehearsal_on_the_cpu(made, parts):
    del made.environment["TFREC_OPS_LIBRARY"]  # the real one
    arguments = [word for part in parts for word in ("--part", part)]
    with made.start("--rehearse", *arguments) as process:
        out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert set(made.statuses().values()) <= {"passed", "skipped"}
    text = (made.folder / "out" / "report.md").read_text()
    assert "Mode: rehearsal on the CPU" in text
    assert text.count("| what (rehearsal on the CPU) |") >= 2


def test_arguments(made):
    status, _, err = made.run("--part", "kernel")
    assert status == 2
    assert "There is no part 'kernel'. The parts: environment, library" in err
    assert made.run("--ranks", "0")[0] == 2
    (made.folder / "out").mkdir()
    (made.folder / "out" / "report.json").write_text("[]")
    status, _, err = made.run("--part", "kernels")
    assert status == 2
    assert "is no report of launch/gpu" in err


def test_architectures_in_a_file(tmp_path):
    path = tmp_path / "library.so"
    path.write_bytes(container([80, 90], [90]) + b"\x50\xed\x55\xba" + container([75]) + b"\x50\xed\x55\xba")
    code = fatbin.code_in(path)
    assert (code.machine, code.ptx) == ({75, 80, 90}, {90})
    assert str(code) == "machine code for sm_75, machine code for sm_80, machine code for sm_90, PTX for compute_90"
    assert [code.runs_on(arch) for arch in (75, 86, 90, 100, 70)] == ["machine", "machine", "machine", "ptx", ""]
    path.write_bytes(b"")
    assert str(fatbin.code_in(path)) == "no CUDA code"


def test_times_that_the_checks_print(tmp_path):
    work = Work(tmp_path, tmp_path / "log", 1.0, {})
    lines = (
        "users    F=128  half  cg, 3 steps       12.345 ms     2900 GB/s     6700 GFLOPS  (12 long rows)",
        "PASS something error 1.00e-05 (at most 1e-04)",
        "float       10240 ids uniform forward               45.1 us   0.004 us per id     8400 GFLOPS, scratch  9 MiB",
    )
    kernels._read_times(work, "\n".join(lines))
    assert work.rows == [
        {
            "what": "users F=128 half cg, 3 steps",
            "value": 12.345,
            "unit": "ms",
            "tflops": 6.7,
            "peak": "float32 with TF32",
            "gbs": 2900.0,
        },
        {
            "what": "float 10240 ids uniform forward",
            "value": 45.1,
            "unit": "us",
            "tflops": 8.4,
            "peak": "float32 with TF32",
        },
    ]
    # Shares of what the same card reached.
    cells = markdown._cells(work.rows[0], {"float32 with TF32": 400.0, "copy": 2_900.0})
    assert cells[1:] == ["12.35 ms", "6.7", "1.7% of float32 with TF32", "2,900", "100.0%"]


def test_a_file_is_whole_at_any_time(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    record.write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
    with pytest.raises(OSError, match="stopped"):
        record.write_atomically(path, "new")
    assert path.read_text() == "old"
