"""Which process this is, and the collectives on arrays. The only module that imports Horovod.

Without `init`, or started without a launcher, there is one process: rank 0 of 1. Horovod need not be installed then.

**Ranks meet before they exchange.** Horovod pairs operations by name: two ranks that are at different places wait for
each other forever. So each step of training, and each collective here, begins with the same small operation, in which
every rank reports where it is (`meet`). Ranks at different places then all see it, and stop with a message.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import socket
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

import tfrec
from tfrec.distributed.watch import Watch
from tfrec.errors import InputError, RankLostError, SharedError, TfrecWarning

T = TypeVar("T")

_hvd: Any = None
_hosts: list[str] = [socket.gethostname()]
_watch: Watch | None = None
#: Whether the loss of a rank is expected, and whether this one has trained with the others before (`agree`).
_elastic = _member = False
#: The last shared error: one that leaves a graph has only its text.
_shared: SharedError | None = None
_PRINT_SECONDS = 1.0
#: How often Horovod is started again before a job is given up: each is another rank that ends while it starts.
_RESTARTS = 3
#: What launchers tell a process about the number of processes.
_SIZE_VARIABLES = {
    "HOROVOD_SIZE": "horovodrun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun or srun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
}
#: What horovodrun tells a process that workers may leave and join.
ELASTIC_VARIABLE = "HOROVOD_ELASTIC"
#: What srun tells each of the processes that it starts, and what Slurm tells a batch script, which is one process.
_STEP_TASKS, _JOB_TASKS = "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"

#: Where a rank can be (`meet`): the number that goes over the wire -> what to say.
_PLACES: dict[int, str] = {}


def place(label: str) -> int:
    """The number of a place where ranks meet; ``label`` ends a sentence that begins with "is"."""
    number = zlib.crc32(label.encode())
    _PLACES[number] = label
    return number


STEP = place("at a training step")
_SUM, _GATHER, _BROADCAST = place("at a sum"), place("at a gather"), place("at a broadcast")


def init(elastic: bool = False) -> None:
    """Join the other processes and take this one's GPU. Call once, before TensorFlow touches a device.

    The processes compare their versions and tfrec's own code. From then on an error that ends a process is printed
    once, with rank and host.

    Args:
        elastic: workers may leave and join; `tfrec.distributed.elastic.run` has them compare, each time.

    Raises:
        InputError: several processes were started but Horovod does not import, or has no news of them; too few
            GPUs.
        SharedError: versions, or the files of tfrec, differ between processes.
    """
    global _hvd, _elastic
    started = _hvd is None
    expected, launcher = _expected_size()
    joins = launched_elastic()
    if _hvd is None and (expected > 1 or joins):
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise InputError(
                f"{launcher} started {expected} processes, but Horovod does not import: {error}.\n{how_to_install()}."
            ) from error
        hvd.init()
        # Of workers that come and go, the number when this one was started is out of date.
        if hvd.size() != expected and not joins:
            raise InputError(
                f"{launcher} started {expected} processes, but Horovod has {hvd.size()}: it was built without "
                "MPI, as launch/setup does.\nStart them with launch/train -np N or horovodrun, under Slurm with "
                "srun python -m tfrec.slurm COMMAND."
            )
        _hvd = hvd
    elif _hvd is None:
        _look_for_other_tasks()
    problem = _take_gpu()
    if _hvd is not None and started:
        sys.excepthook = _excepthook
        _elastic = elastic and joins
        if _elastic:
            _sign_in()
            _raise(problem)
            return
        introduce()
        together(lambda: _raise(problem), "taking a GPU")
    elif problem is not None:
        raise problem


def launched_elastic() -> bool:
    """Whether the launcher keeps the job going when a process ends, and adds others."""
    return os.environ.get(ELASTIC_VARIABLE) == "1"


def is_elastic() -> bool:
    """Whether `init` was told so, under a launcher that is."""
    return _elastic


def introduce() -> None:
    """Learn the others' hosts, and compare the software. Every process must call it.

    Raises:
        SharedError: versions, or the files of tfrec, differ between processes.
    """
    if _watch is None:
        _sign_in()
    # The name that the user gave the host, where workers come and go by it.
    name = os.environ.get("HOROVOD_HOSTNAME") if _elastic else None
    _hosts[:] = [str(host) for host in exchange(name or socket.gethostname(), "at the start")]
    agree(_software(), "The ranks do not run the same software", "Install the same on every host.")


def _sign_in() -> None:
    global _watch
    _watch = Watch(rank(), size(), lambda: _steps())


def become_member() -> None:
    """From now on a rank that joins is compared with this one (`agree`)."""
    global _member
    _member = True


def is_member() -> bool:
    """Whether this rank has trained with the others."""
    return _member


def restart() -> None:
    """Join the ranks that there are now, after one has left or joined; this one's number may be another then.

    Raises:
        RankLostError: the launcher has given up.
    """
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None
    for left in reversed(range(_RESTARTS)):
        _hvd.shutdown()
        try:
            _hvd.init()
            break
        except Exception as error:  # whatever Horovod makes of it when another rank ends at this moment
            if not left:
                raise RankLostError(
                    f"Horovod cannot start again after a rank was lost: {error}.\nIf horovodrun's --reset-limit or "
                    "--min-np ended the job, its own message is near this one. The same command continues after the "
                    "last checkpoint."
                ) from error
    _sign_in()


def how_to_install() -> str:
    """How to install Horovod for this environment's TensorFlow, as a sentence without its full stop."""
    setup = Path(__file__).parents[2] / "launch" / "setup"
    if setup.is_file():
        return f"Run {setup}, which builds it for this TensorFlow, and use its environment"
    return (
        "Build its wheel with launch/wheel --horovod in tfrec's repository, and install it: pip install "
        "dist/horovod-*.whl"
    )


def built_with() -> list[str]:
    """The controllers and back ends that Horovod was built with: Gloo, MPI, NCCL, CUDA.

    Raises:
        ImportError: Horovod is missing, or does not import.
    """
    import horovod.tensorflow as hvd

    parts = {"Gloo": hvd.gloo_built, "MPI": hvd.mpi_built, "NCCL": hvd.nccl_built, "CUDA": hvd.cuda_built}
    return [name for name, built in parts.items() if built()]


def _expected_size() -> tuple[int, str]:
    for name, launcher in _SIZE_VARIABLES.items():
        text = os.environ.get(name, "1")
        if text.isdigit() and int(text) > 1:
            return int(text), launcher
    return 1, ""


def _look_for_other_tasks() -> None:
    """Refuse to be one of several tasks of srun that were not made ranks; warn where a batch script has several.

    Raises:
        SharedError: srun started several tasks, without tfrec.slurm.
    """
    if "HOROVOD_SIZE" in os.environ:  # a launcher, or the user, says that this process is alone
        return
    in_step, in_job = (
        int(text) if (text := os.environ.get(name, "")).isdigit() else None for name in (_STEP_TASKS, _JOB_TASKS)
    )
    if in_step is not None and in_step > 1:
        raise SharedError(
            "Several tasks of srun must be started as ranks.\n"
            f"Received: {in_step} tasks without Horovod's variables. Each would do the whole work and write into the "
            "same folder.\n"
            "Start them with srun python -m tfrec.slurm COMMAND. For independent runs set HOROVOD_SIZE=1 and give each "
            "its own folder."
        )
    if in_step is None and in_job is not None and in_job > 1:
        warnings.warn(
            f"Slurm has {in_job} tasks here, but this process is alone: it trains as one rank.\n"
            "For several ranks start srun python -m tfrec.slurm COMMAND, or launch/train -np N or horovodrun, once in "
            "the job.",
            TfrecWarning,
            stacklevel=3,
        )


def _take_gpu() -> InputError | None:
    """Take the GPU of this local rank. Returns the error, since no rank may raise before they have met."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if _hvd is None or not gpus:
        return None
    # srun --gpus-per-task shows each task only its own, which all are then the first.
    of_task = "SLURM_GPUS_PER_TASK" in os.environ or "gpu" in os.environ.get("SLURM_TRES_PER_TASK", "")
    number = 0 if of_task and local_rank() >= len(gpus) else local_rank()
    if number >= len(gpus):
        return InputError(
            f"Each process needs a GPU of its own.\n"
            f"Received: local rank {local_rank()} (rank {rank()} of {size()}) on a machine with {len(gpus)} GPUs.\n"
            "Start fewer processes per machine; under Slurm ask for --gpus-per-task 1."
        )
    tf.config.set_visible_devices(gpus[number], "GPU")
    return None


def _raise(problem: Exception | None) -> None:
    if problem is not None:
        raise problem


def _software() -> dict[str, Any]:
    """What ranks must have in common: versions, Keras's settings, and tfrec's files."""
    folder = Path(tfrec.__file__).parent
    files = {
        f"file {path.relative_to(folder.parent)}": hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
        for path in sorted(folder.rglob("*.py"))
    }
    return {
        "tfrec": tfrec.__version__,
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "NumPy": np.__version__,
        "Keras's floatx": keras.config.floatx(),
        "Keras's epsilon": keras.config.epsilon(),
        **files,
    }


def horovod() -> Any:
    """``horovod.tensorflow`` when there are several processes, else None."""
    return _hvd


def rank() -> int:
    """Number of this process, from 0."""
    return _hvd.rank() if _hvd is not None else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return _hvd.local_rank() if _hvd is not None else 0


def local_size() -> int:
    """Number of processes on this machine."""
    return _hvd.local_size() if _hvd is not None else 1


def on_gpu() -> bool:
    """Whether this process has a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def size() -> int:
    """Number of processes."""
    return _hvd.size() if _hvd is not None else 1


def host(of_rank: int | None = None) -> str:
    """The name of the machine of a rank; default: this one."""
    r = rank() if of_rank is None else of_rank
    return _hosts[r] if r < len(_hosts) else "a new host"


def where() -> str:
    """This process for error messages, such as ``rank 1 of 4 on node7``."""
    return f"rank {rank()} of {size()} on {host()}"


def named(some: Sequence[int]) -> str:
    """Ranks for messages, such as ``ranks 1, 3 (node1, node2)``."""
    hosts = list(dict.fromkeys(host(r) for r in some))
    return f"rank{'s' * (len(some) > 1)} {', '.join(map(str, some))} ({', '.join(hosts)})"


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Around what waits for other ranks: Horovod's errors become a message that names who is missing.

    Raises:
        RankLostError: another rank has ended or does not answer.
    """
    try:
        with _watch.waiting() if _watch is not None else contextlib.nullcontext():
            yield
    except tf.errors.OpError as error:
        meant = meaning(error)
        if meant is error:
            raise
        raise meant from None


def meaning(error: BaseException) -> BaseException:
    """What went wrong between ranks, where TensorFlow names only the operation that failed; else ``error``."""
    if _shared is not None and isinstance(error, tf.errors.OpError) and str(_shared) in str(error):
        return _shared
    return as_lost(error) or error


_OF_OTHERS = re.compile(r"Horovod has been shut down|/gloo/[\w/]+\.(?:cc|h):\d+\]")


def as_lost(error: BaseException) -> RankLostError | None:
    """What an error of Horovod means, or None for another error."""
    # The operation in flight fails with Gloo's own words ("[.../gloo/transport/tcp/pair.cc:598] Connection closed by
    # peer", "... Timed out waiting 30000ms for recv operation to complete"), those after it with Horovod's.
    if _hvd is None or not isinstance(error, tf.errors.OpError) or not _OF_OTHERS.search(str(error)):
        return None
    # Where ranks may leave, the launcher finds out who has, and the others need not wait for that.
    found = _watch.lost() if _watch is not None and not _elastic else None
    if found is None:
        return RankLostError(
            "Another rank has ended, so the others cannot continue; its own message, if it left one, is near this one."
        )
    return RankLostError(f"{named(found.ranks)} {found.text}", told=found.told)


def meet(number: int, samples: Any = 0.0, step: Any = 0.0) -> tf.Tensor:
    """Every rank reports where it is; inside and outside of graphs. Every process must call it.

    Args:
        number: of the place, from `place`.
        samples: a number that the others get to know.
        step: another one.

    Returns:
        float64 ``[size, 3]``: place, samples, step of each rank.
    """
    # Python's numbers would become float32 on the way.
    values = (
        tf.cast(x, tf.float64) if tf.is_tensor(x) else tf.constant(x, tf.float64) for x in (number, samples, step)
    )
    row = tf.stack(list(values))
    return row[None] if _hvd is None else _gather_rows(row)


@tf.function
def _gather_rows(row: tf.Tensor) -> tf.Tensor:
    # A function, since operations outside of graphs have no names of their own, and without name scopes: it must be the
    # same name everywhere. On the host, which decides whether to go on.
    with tf.device("CPU:0"):
        return _hvd.allgather(row[None], name="tfrec.meet", ignore_name_scope=True)


def apart(rows: np.ndarray, of: str = "") -> SharedError:
    """The error of ranks that met at different places.

    Args:
        rows: what `meet` gave.
        of: what to add on how to fix it.
    """
    groups: dict[str, list[int]] = {}
    for r, (number, _, step) in enumerate(rows.tolist()):
        text = _PLACES.get(int(number), "elsewhere")
        text = f"is at training step {int(step)}" if int(number) == STEP else f"is {text}"
        if int(number) != STEP and step > 0:
            text += f" after {int(step)} step{'s' * (step > 1)}"
        groups.setdefault(text, []).append(r)
    said = "; ".join(f"{named(some)} {text if len(some) == 1 else 'are' + text[2:]}" for text, some in groups.items())
    remedy = of or (
        "Every rank must make the same number of steps in every epoch, and the same calls of tfrec.distributed.\n"
        "Give all ranks as many batches: `steps_per_epoch` of fit with a data set that repeats, or `take(n)`."
    )
    return _remembered(SharedError(f"The ranks are no longer at the same place: {said}.\n{remedy}"))


def _remembered(error: SharedError) -> SharedError:
    """``error``, to be known again when it comes out of a graph."""
    global _shared
    _shared = error
    return error


def _meet(number: int) -> None:
    """Raise on every rank unless all are at ``number``."""
    with watched():
        rows = meet(number, step=float(_steps())).numpy()
    if (rows[:, 0] != rows[0, 0]).any():
        raise apart(rows)


def meet_at(label: str) -> None:
    """Raise on every rank unless all are at the same place; outside of graphs. Every process must call it.

    Args:
        label: of the place, see `place`.

    Raises:
        SharedError: another rank is elsewhere.
    """
    if _hvd is not None:
        _meet(place(label))


#: The steps of the epoch under way, for messages; set by tfrec.distributed.optimizer.
_steps: Callable[[], float] = lambda: 0.0  # noqa: E731


def count_steps_with(count: Callable[[], float] | None) -> None:
    """Have messages say how many steps ``count()`` this rank has made in the epoch under way; None: none is."""
    global _steps
    _steps = count or (lambda: 0.0)


def sum_across_ranks(values: np.ndarray) -> np.ndarray:
    """Element-wise float64 sum over all processes, the same on each. Every process must call it."""
    values = np.asarray(values, np.float64)
    if _hvd is None:
        return values
    _meet(_SUM)
    with watched():
        return _hvd.allreduce(tf.constant(values), op=_hvd.Sum, name="tfrec.sum").numpy()


def gather_across_ranks(values: np.ndarray) -> np.ndarray:
    """``values`` of every process stacked in order of rank, ``[size, ...]``. Every process must call it."""
    values = np.asarray(values)
    if _hvd is None:
        return values[None]
    _meet(_GATHER)
    with watched():
        return _hvd.allgather(tf.constant(values[None]), name="tfrec.gather").numpy()


def broadcast_from_zero(values: np.ndarray) -> np.ndarray:
    """Rank 0's ``values`` on every process; shapes and dtypes must agree. Every process must call it."""
    return broadcast(values, 0)


def broadcast(values: np.ndarray, root: int) -> np.ndarray:
    """The ``values`` of rank ``root`` on every process; shapes and dtypes must agree. Every process must call it."""
    if _hvd is None:
        return np.asarray(values)
    _meet(_BROADCAST)
    with watched():
        return _hvd.broadcast(tf.constant(values), root_rank=root, name="tfrec.broadcast").numpy()


def broadcast_json(value: Any) -> Any:
    """Rank 0's JSON value on every process. Every process must call it."""
    return exchange(value if rank() == 0 else None, "at a broadcast of rank 0's value")[0]


def exchange(value: Any, label: str = "at an exchange") -> list[Any]:
    """The JSON values of all processes, in order of rank. Every process must call it.

    Args:
        value: this rank's.
        label: where this is, for the message when another rank is elsewhere; see `place`.
    """
    if _hvd is None:
        return [value]
    _meet(place(label))
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    with watched():
        lengths = _hvd.allgather(tf.constant([len(text)], tf.int64), name="tfrec.lengths").numpy()
        everything = _hvd.allgather(tf.constant(text), name="tfrec.exchange").numpy().tobytes()
    ends = np.cumsum(lengths)
    return [json.loads(everything[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def agree(values: dict[str, Any], problem: str, remedy: str) -> None:
    """Raise on every rank when ``values``, JSON by name, are not the same on all.

    Where some ranks have trained together and others join them, those that differ are refused and the rest go on.

    Raises:
        SharedError: ``problem``, then each name that differs, with the values, ranks and hosts; then ``remedy``.
        InputError: the same, on a rank that is refused.
        RankLostError: on the others, which are then without it.
    """
    if _hvd is None:
        return
    told = exchange([_member, values], "where the ranks compare what they were given")
    everyone = [one for _, one in told]
    members = [r for r, (member, _) in enumerate(told) if member]
    refused = [r for r, (member, one) in enumerate(told) if members and not member and one != everyone[members[0]]]
    lines = []
    for name in dict.fromkeys(name for one in everyone for name in one):
        groups: dict[str, list[int]] = {}
        for r, one in enumerate(everyone):
            groups.setdefault(json.dumps(one[name]) if name in one else "missing", []).append(r)
        if len(groups) > 1:
            lines.append(f"  {name}: " + "; ".join(f"{value} on {named(some)}" for value, some in groups.items()))
    if lines:
        shown = lines if len(lines) <= 12 else [*lines[:12], f"  and {len(lines) - 12} more"]
        if rank() in refused:
            raise InputError("\n".join([f"{problem}, so this one cannot join:", *shown, remedy]))
        if refused:
            raise RankLostError(f"{named(refused)} cannot join", told=True)
        raise _remembered(SharedError("\n".join([f"{problem}:", *shown, remedy])))


def together(do: Callable[[], T], doing: str = "work") -> T:
    """``do()``, on every rank; an error on one is an error on all. No collective may be inside.

    Args:
        do: what each rank does by itself.
        doing: what that is, for a message.

    Raises:
        SharedError: `InputError` on some rank; the message names the rank and host unless all have the same.
        RankLostError: another error on another rank, which that rank prints.
    """
    if _hvd is None:
        return do()
    value: Any = None
    failure: Exception | None = None
    try:
        value = do()
    except Exception as error:
        failure = error
    kind = "" if failure is None else "input" if isinstance(failure, InputError) else type(failure).__name__
    everyone = exchange([kind, str(failure)], f"where all have ended {doing}")
    if failure is not None and kind != "input":
        raise failure
    others = [r for r, (k, _) in enumerate(everyone) if k not in ("", "input")]
    if others:
        raise RankLostError(f"{named(others)} failed {doing}: {everyone[others[0]][1]}", told=True)
    groups: dict[str, list[int]] = {}
    for r, (k, text) in enumerate(everyone):
        if k:
            groups.setdefault(text, []).append(r)
    if not groups:
        return value
    if len(groups) == 1 and len(next(iter(groups.values()))) == size():
        raise SharedError(next(iter(groups))) from failure
    raise SharedError("\n".join(f"on {named(some)}: {text}" for text, some in groups.items())) from failure


def says(error: BaseException) -> bool:
    """Whether this rank is to print ``error``, so that each is printed once."""
    if isinstance(error, RankLostError):
        left = _watch.first_left() if _watch is not None else None
        return not error.told and left in (None, rank())
    if _hvd is None and isinstance(error, SharedError):
        # Tasks of srun that are no ranks (`_look_for_other_tasks`).
        return os.environ.get("SLURM_PROCID", "0") == "0"
    return rank() == 0 or not (isinstance(error, SharedError) or getattr(error, "on_all_ranks", False))


def told(printed: bool) -> None:
    """Say to the other ranks that this one ends with an error, and leave the one that prints it the time to.

    Launchers end all processes as soon as one has failed.
    """
    if _watch is not None:
        _watch.sign_off("told")
    if not printed:
        time.sleep(_PRINT_SECONDS)


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    error = meaning(error)
    if says(error):
        if not isinstance(error, RankLostError):
            sys.__excepthook__(type(error), error, trace)
        print(f"error on {where()}: {error}", file=sys.stderr, flush=True)
    told(says(error))
