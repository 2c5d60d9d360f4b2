"""Training that goes on when workers leave and join, on Horovod's elastic launcher.

    def train(state):
        model = ...                                   # made, compiled and distributed anew, for the ranks of now
        state.fit(model, batches, epochs=10, steps_per_epoch=100)
        return model

    model = tfrec.distributed.elastic.run(train)

under ``horovodrun --min-np 1 --max-np 4 --host-discovery-script ...``. `run` calls ``train`` again whenever a worker is
lost or one joins. Graphs and samplers contain the number of ranks, so ``train`` makes everything that depends on it,
and keeps outside what does not, such as data. `ElasticState` remembers where training was.

Horovod's launcher finds the workers, starts them and numbers them; what is committed, and what is done with it, is
here.
Horovod's own state of a Keras model calls methods that Keras 3 does not have, and its ``run`` recognises errors by the
names of operations, of which those here are not.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tfrec.distributed import ranks
from tfrec.distributed.elastic_state import CommitCallback, ElasticState, RanksChanged
from tfrec.errors import InputError, RankLostError

T = TypeVar("T")

_ENDS = "where all have ended their work"


class _Listener:
    """Hears from the launcher that hosts were added or removed; the launcher calls it in a thread of its own."""

    def __init__(self) -> None:
        self._news = threading.Event()

    def on_hosts_updated(self, timestamp: int, update: Any) -> None:
        """Called by Horovod."""
        self._news.set()

    def heard(self) -> bool:
        """Whether there are news since the ranks were numbered."""
        return self._news.is_set()

    def forget(self) -> None:
        """The ranks are numbered again, which takes account of all news until now."""
        self._news.clear()


def run(train: Callable[[ElasticState], T], state: ElasticState | None = None) -> T:
    """``train(state)``, again from the last commit whenever a worker is lost or one joins, until it returns.

    Every worker calls it; it calls `tfrec.distributed.init`. Alone, without a launcher, it is ``train(state)``.

    Args:
        train: makes model, optimizer and batches for the ranks that there are now, restores the state into them
            (`ElasticState.fit` does, or `ElasticState.restore`) and trains. It may be called any number of times.
        state: what it starts from; default: nothing.

    Returns:
        What ``train`` returned, after it has on every worker.

    Raises:
        InputError: several workers whose launcher is not elastic; or, on a worker that joins and has other software or
            data than the others, what differs. The others go on.
        RankLostError: the launcher has given up.
    """
    state = state if state is not None else ElasticState()
    ranks.init(elastic=True)
    if not ranks.is_elastic():
        if ranks.launched_elastic():
            raise InputError(
                "`tfrec.distributed.elastic.run` must be the first to join the other workers.\n"
                "Received: a call after `tfrec.distributed.init()`.\nLeave that out, or call `init(elastic=True)`."
            )
        if ranks.size() > 1:
            raise InputError(not_elastic(f"{ranks.size()} ranks of a launcher that ends all when one ends"))
        return train(state)
    from horovod.common.elastic import notification_manager

    listener = _Listener()
    state.news = listener.heard
    notification_manager.init()
    notification_manager.register_listener(listener)
    before: list[str] | None = None
    lost_at = 0.0
    try:
        while True:
            try:
                state.sync()
                if before is not None and ranks.rank() == 0:
                    _tell(state, before, time.perf_counter() - lost_at)
                before = workers()
                result = train(state)
                # Any worker's success ends the job: none may leave while another is at work.
                ranks.exchange(None, _ENDS)
                return result
            except Exception as error:
                meant = ranks.meaning(error)
                if not isinstance(meant, RankLostError | RanksChanged):
                    raise
                lost_at = time.perf_counter()
            # Not inside of `except`: the error holds the frames, and these the model of before.
            gc.collect()
            listener.forget()
            ranks.restart()
    finally:
        notification_manager.remove_listener(listener)


def workers() -> list[str]:
    """The hosts of all ranks, in their order."""
    return [ranks.host(r) for r in range(ranks.size())]


def not_elastic(received: str) -> str:
    """The message for a start without what workers that come and go need."""
    return (
        f"`--elastic` must be started by horovodrun with a script that prints the hosts.\nReceived: {received}.\n"
        "Start it with launch/train --min-np 1 --max-np 4 --host-discovery-script FILE, or with horovodrun and the "
        "same options."
    )


def _tell(state: ElasticState, before: list[str], seconds: float) -> None:
    """What has changed, on rank 0."""
    now = workers()
    gone, new = list(before), list(now)
    for host in before:
        if host in new:
            new.remove(host)
            gone.remove(host)
    changes = [f"lost {', '.join(gone)}"] if gone else []
    changes += [f"{', '.join(new)} joined"] if new else []
    where = f"from epoch {state.epoch + 1}, step {state.step}" if state.commits else "from the start"
    print(
        f"elastic: {' and '.join(changes) or 'a worker was replaced'}. Going on with {len(now)} "
        f"rank{'s' * (len(now) > 1)} {where}, after {seconds:.1f} s.",
        flush=True,
    )


__all__ = ["CommitCallback", "ElasticState", "RanksChanged", "run"]
