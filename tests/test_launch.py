"""The launch scripts say what is wrong in one line. (That they work is what runs these tests.)"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / "launch"


def run(script, *arguments, **environment):
    return subprocess.run(
        [str(LAUNCH / script), *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


def only(tmp_path, *names):
    """A folder for PATH with nothing but these commands and what a shell script needs."""
    for name in (*names, "bash", "env", "cat", "sha256sum", "cut", "dirname", "date", "mkdir", "flock", "grep", "tr"):
        found = next((Path(p) / name for p in os.environ["PATH"].split(":") if (Path(p) / name).exists()), None)
        if found:
            (tmp_path / name).symlink_to(found)
    return str(tmp_path)


@pytest.mark.parametrize("wrong", ["0", "two", "-1", ""])
def test_number_of_processes(wrong):
    done = run("train", "-np", wrong)
    assert done.returncode == 2
    assert "takes a number from 1" in done.stderr


def test_unknown_option():
    done = run("setup", "--gpu")
    assert done.returncode == 2
    assert "unknown option '--gpu'" in done.stderr


@pytest.mark.parametrize(
    ("present", "match"),
    [
        ((), "no Python found"),
        (("python3.11",), "no C++ compiler"),
        (("python3.11", "g++"), "no cmake"),
    ],
)
def test_missing_tools_are_named(tmp_path, present, match):
    (tmp_path / "bin").mkdir()
    path = only(tmp_path / "bin", *present)
    done = run("setup", PATH=path, TFREC_VENV=str(tmp_path / "venv"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert match in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "venv").exists()


def test_sanitize_says_what_is_missing(tmp_path):
    done = run("sanitize", "--fast")
    assert done.returncode == 2
    assert "unknown argument '--fast'" in done.stderr
    done = run("sanitize", TFREC_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "has no Python. Run launch/setup --test first" in done.stderr


def test_wrong_python_version(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'Python 3.9.1'; exit 0; fi\nexit 1\n")
    fake.chmod(0o755)
    done = run("setup", TFREC_PYTHON=str(fake), TFREC_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "Python 3.9.1, but 3.11 to 3.13 is needed" in done.stderr


@pytest.fixture
def environment_without_horovod(tmp_path):
    """Runs the launch scripts on an environment whose Python installs all but Horovod, and that once it is mended."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for name in ("setup.cfg", "setup.py", "pyproject.toml"):
        shutil.copy(LAUNCH.parent / name, tmp_path / name)
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"""#!/bin/sh
cd {tmp_path}
case "$*" in
  */install.py*) echo tried >>tries; [ -e mended ] || {{ echo "the compiler is tired" >&2; exit 1; }} ;;
  "-m tfrec.train"*) echo trains ;;
esac
"""
    )
    horovodrun = python.with_name("horovodrun")
    horovodrun.write_text("#!/bin/sh\n")
    for file in (python, horovodrun):
        file.chmod(0o755)

    def start(script, *arguments):
        done = subprocess.run(
            [str(tmp_path / "launch" / script), *arguments],
            capture_output=True,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if k != "CUDA_HOME"},
                "TFREC_PYTHON": sys.executable,
                "TFREC_VENV": str(tmp_path / "venv"),
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
            },
        )
        tries = tmp_path / "tries"
        return done, len(tries.read_text().splitlines()) if tries.exists() else 0

    return start


def test_one_process_does_without_horovod(environment_without_horovod, tmp_path):
    start = environment_without_horovod
    done, tries = start("train", "-np", "1")
    assert (done.returncode, done.stdout, tries) == (0, "trains\n", 1)
    assert "the compiler is tired" in done.stderr
    assert "Horovod is missing" in done.stderr
    # Said again, not tried again.
    done, tries = start("train", "-np", "1")
    assert (done.returncode, done.stdout, tries) == (0, "trains\n", 1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"why is in {tmp_path}/venv/tfrec-horovod.log" in done.stderr
    assert "the compiler is tired" in (tmp_path / "venv" / "tfrec-horovod.log").read_text()


def test_several_processes_need_horovod(environment_without_horovod, tmp_path):
    start = environment_without_horovod
    for number, arguments in enumerate((("train", "-np", "2"), ("train", "-np", "1", "-H", "a:1"), ("setup",)), 1):
        done, tries = start(*arguments)
        assert (done.returncode, done.stdout, tries) == (1, "", number)
        assert "the compiler is tired" in done.stderr
        assert "Horovod is missing" in done.stderr.splitlines()[-1]
    (tmp_path / "mended").touch()
    done, tries = start("setup")
    assert (done.returncode, tries) == (0, 4)
    assert "missing" not in done.stderr
    # Up to date now, however it is called.
    for arguments in (("setup",), ("setup", "--one-process"), ("train", "-np", "1"), ("train", "-np", "2")):
        done, tries = start(*arguments)
        assert (done.returncode, done.stderr, tries) == (0, "", 4)


def test_where_setup_is_called_from_does_not_matter(environment_without_horovod, tmp_path, monkeypatch):
    (tmp_path / "mended").touch()
    start = environment_without_horovod
    start("setup")
    monkeypatch.chdir(tmp_path / "launch")
    environment = {**os.environ, "TFREC_VENV": str(tmp_path / "venv"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(["./setup"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def launch_train(folder, horovodrun):
    """A copy of launch/train in a folder of its own, with this source as its horovodrun; returns the copy's path."""
    (folder / "launch").mkdir()
    shutil.copy(LAUNCH / "train", folder / "launch" / "train")
    setup = folder / "launch" / "setup"
    setup.write_text("#!/bin/sh\n")
    binaries = folder / "venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    runner = binaries / "horovodrun"
    runner.write_text(f"#!{sys.executable}\n{horovodrun}")
    for script in (setup, runner):
        script.chmod(0o755)
    return str(folder / "launch" / "train")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 0), ("fails", 3)])
def test_the_status_of_a_run_on_ranks(tmp_path, sent, status):
    """horovodrun itself ends with 0 when it is interrupted; this stands in for it."""
    start = launch_train(
        tmp_path,
        "import signal, sys, time\n"
        "if 'fails' in sys.argv: sys.exit(3)\n"
        "if 'ends' in sys.argv: sys.exit(0)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: sys.exit(0))\n"
        "print(*sys.argv[1:], flush=True)\n"
        "time.sleep(60)\n"
        "sys.exit(9)\n",
    )
    what = "fails" if sent == "fails" else "vae-cf" if sent else "ends"
    with subprocess.Popen(
        [start, "-np", "2", what],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TFREC_VENV": str(tmp_path / "venv")},
    ) as process:
        assert process.stdout is not None
        if isinstance(sent, signal.Signals):
            assert process.stdout.readline().split()[:2] == ["-np", "2"]
            process.send_signal(sent)
        assert process.wait(30) == status


def test_tensorflows_notices_are_taken_out_and_nothing_else(tmp_path):
    """horovodrun's own process prints them; stands in for it. What the ranks print is kept."""
    lines = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795617590.760768   26430 port.cc:153] oneDNN custom operations are on.",
        "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
        "E0000 00:00:1795617578.087899   26196 cuda_platform.cc:52] failed call to cuInit",
        "[1]<stderr>:I0000 a line of a rank",
        "the run failed",
    ]
    start = launch_train(tmp_path, f"import sys\nsys.stderr.write({chr(10).join([*lines, ''])!r})\n")
    for level, shown in ((None, lines[3:]), ("3", lines[3:]), ("0", lines[3:])):
        environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        environment["TFREC_VENV"] = str(tmp_path / "venv")
        if level:
            environment["TF_CPP_MIN_LOG_LEVEL"] = level
        done = subprocess.run(
            [start, "-np", "2", "vae-cf"],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert (done.returncode, done.stderr.splitlines()) == (0, shown), level


def test_workers_that_come_and_go(tmp_path):
    """Their options reach horovodrun; without the loopback it would wait forever for hosts of this machine alone."""
    start = launch_train(tmp_path, "import sys\nprint(*sys.argv[1:], sep='\\n')\n")
    script = tmp_path / "hosts.sh"

    def run(*arguments, prints="localhost:1\n127.0.0.1:1\n"):
        script.write_text(f"#!/bin/sh\nprintf '{prints}'\n")
        script.chmod(0o755)
        environment = {**os.environ, "TFREC_VENV": str(tmp_path / "venv")}
        return subprocess.run([start, *arguments], capture_output=True, text=True, timeout=60, env=environment)

    options = ["--min-np", "2", "--max-np", "4", "--host-discovery-script", str(script), "neumf", "--elastic"]
    done = run(*options)
    assert done.returncode == 0, done.stderr
    sent = done.stdout.splitlines()
    assert sent[sent.index("--network-interface") + 1] == "lo"
    assert sent[sent.index("--max-np") + 1] == "4"
    assert sent[-2:] == ["neumf", "--elastic"]
    assert "--network-interface" not in run(*options, prints="localhost:1\nnode2:1\n").stdout
    assert run("--network-interface", "eth1", *options).stdout.splitlines().count("--network-interface") == 1
    assert "offers 1 workers now" in run(*options, prints="node2:1\n").stderr
    for wrong, said in (
        (dict(prints=""), "must print a line HOST or HOST:SLOTS"),
        (dict(prints="node one\n"), "It printed: node one"),
    ):
        done = run(*options, **wrong)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert "needs --elastic after the recipe" in run(*options[:-1]).stderr
