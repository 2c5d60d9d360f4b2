"""A worker of an elastic job: `tfrec train` that logs its steps and, once, is killed at one. Started by jobs.

Arguments: a JSON file with what to do, then those of `tfrec train`. The file's keys:

    log     folder for the logs, one per process: JSON lines
    kill    [rank, step]: the first process of that rank to reach the step, counted through the epochs, kills itself
    grow    [epoch, lines]: rank 0 writes these hosts into the file that the discovery script prints, before that epoch
    hosts   that file
    all     the other workers kill themselves too, in their next step
    rejoin  options that are added for a worker that is started after the kill; with "other code" instead of one its
            files differ
    pause   seconds after each step
    wait    [epoch, size]: before that epoch wait until there are as many ranks, or the launcher has news of one
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

plan = json.loads(Path(sys.argv[1]).read_text())
log = (Path(plan["log"]) / f"{os.getpid()}.jsonl").open("a")


def tell(**what):
    from tfrec import distributed

    at = {"time": time.time(), "rank": distributed.rank(), "size": distributed.size(), "pid": os.getpid()}
    log.write(json.dumps({**at, **what}) + "\n")
    log.flush()


def checksum(model):
    return hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in model.get_weights())).hexdigest()[:16]


def observe():
    from tfrec import distributed, fitting
    from tfrec.distributed import elastic_state

    plain, finish = elastic_state.CommitCallback, fitting._Training._finish

    class Observed(plain):
        def on_epoch_begin(self, epoch, logs=None):
            grow = plan.get("grow")
            if grow is not None and epoch == grow[0] and distributed.rank() == 0:
                Path(plan["hosts"]).write_text("\n".join(grow[1]) + "\n")
            wait = plan.get("wait")
            if wait is not None and epoch == wait[0]:
                ends = time.monotonic() + 60
                while distributed.size() < wait[1] and not self.state.news() and time.monotonic() < ends:
                    time.sleep(0.05)
            super().on_epoch_begin(epoch, logs)

        def on_train_batch_end(self, batch, logs=None):
            step = self._epoch * self.steps + self._first + batch + 1
            tell(step=step)
            kill = plan.get("kill")
            if kill is not None and distributed.rank() == kill[0] and distributed.size() > 1 and step >= kill[1]:
                with contextlib.suppress(FileExistsError):
                    (Path(plan["log"]) / "killed").touch(exist_ok=False)
                    tell(killed=step)
                    os.kill(os.getpid(), signal.SIGKILL)
            if plan.get("all") and (Path(plan["log"]) / "killed").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(plan.get("pause", 0.0))
            super().on_train_batch_end(batch, logs)

        def on_epoch_end(self, epoch, logs=None):
            tell(epoch=epoch + 1, weights=checksum(self.model), loss=logs["loss"])
            super().on_epoch_end(epoch, logs)

    def finished(self, model, outcome, started):
        tell(shipped=checksum(model))
        return finish(self, model, outcome, started)

    elastic_state.CommitCallback, fitting._Training._finish = Observed, finished


def differ():
    """What a worker of another installation has."""
    from tfrec.distributed import ranks

    software = ranks._software
    ranks._software = lambda: {**software(), "file tfrec/models/vae_cf.py": "0123456789ab"}


if __name__ == "__main__":
    sys.argv = ["train", *sys.argv[2:]]
    rejoin = plan.get("rejoin", []) if (Path(plan["log"]) / "killed").exists() else []
    sys.argv += [option for option in rejoin if option != "other code"]
    from tfrec import commands, train

    commands.quiet_tensorflow()
    observe()
    if "other code" in rejoin:
        differ()
    train.main()
