"""Jobs under horovodrun's elastic launcher on this machine, for the tests and the study of workers that come and go."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WORKER = Path(__file__).with_name("elastic_worker.py")
HOROVODRUN = Path(sys.executable).with_name("horovodrun")
#: Two names of this machine: the launcher gives up a whole host when a worker on it is lost.
HOSTS = ("localhost:1", "127.0.0.1:1")
TIME_LIMIT_S = 240


@dataclass
class Job:
    """What a job left: its exit status, its screen, a row for each step and epoch, and metrics.json."""

    status: int
    screen: str
    rows: list
    metrics: dict | None

    def of(self, key):
        """The rows that have ``key``, in order of time."""
        return [row for row in self.rows if key in row]

    def seconds_lost(self):
        """From the kill to the end of the next step of a worker that survived it."""
        (killed,) = self.of("killed")
        after = [r for r in self.of("step") if r["time"] > killed["time"] and r["size"] < killed["size"]]
        return min(r["time"] for r in after) - killed["time"]

    def last_weights(self):
        """The checksums that the workers of the last epoch had of their weights."""
        rows = self.of("epoch")
        last = max(r["epoch"] for r in rows)
        return [r["weights"] for r in rows if r["epoch"] == last and r["time"] > max(x["time"] for x in rows) - 5]


def discovery(folder, hosts=HOSTS):
    """A script that prints the lines of a file, which may change; returns both paths."""
    folder.mkdir(exist_ok=True)
    listed, script = folder / "hosts.txt", folder / "discover.sh"
    listed.write_text("\n".join(hosts) + "\n")
    script.write_text(f"#!/bin/sh\ncat '{listed}'\n")
    script.chmod(0o755)
    return script, listed


def command(script, *options, low=1, high=2, start=2, cooldown=("1", "2"), more=()):
    """The command line of a job."""
    return [
        sys.executable, str(HOROVODRUN), "-np", str(start), "--min-np", str(low), "--max-np", str(high),
        "--network-interface", "lo", "--host-discovery-script", str(script), "--elastic-timeout", "60",
        *(["--blacklist-cooldown-range", *cooldown] if cooldown else []), *more, *options,
    ]  # fmt: skip


def run(folder, *options, plan=None, hosts=HOSTS, **launcher):
    """A whole job of ``tfrec train`` in ``folder``, with the worker's ``plan``."""
    script, listed = discovery(folder, hosts)
    log = folder / "log"
    log.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps({**(plan or {}), "log": str(log), "hosts": str(listed)}))
    train = [sys.executable, str(WORKER), str(folder / "plan.json"), *options, "--elastic", "--output-dir", "out"]
    done = subprocess.run(
        command(script, *train, **launcher), capture_output=True, text=True, timeout=TIME_LIMIT_S, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for path in log.glob("*.jsonl") for line in path.read_text().splitlines()]
    metrics = folder / "out" / "metrics.json"
    return Job(
        done.returncode,
        done.stdout + done.stderr,
        sorted(rows, key=lambda r: r["time"]),
        json.loads(metrics.read_text()) if metrics.is_file() else None,
    )
