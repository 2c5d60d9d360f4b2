"""What training has reached, kept in each worker's memory: weights, optimizer, epoch, step and the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfrec.distributed import ranks
from tfrec.distributed.epoch_sums import add_sums, epoch_sums, set_epoch_sums
from tfrec.distributed.optimizer import is_distributed, labels
from tfrec.distributed.sharding import shard_of
from tfrec.errors import InputError

#: Steps between two commits, where nothing else is said.
COMMIT_EVERY = 100
#: Between the seeds of two ranks: more than the number of any.
_SEED_STRIDE = 1_000_003
_COMMIT, _SYNC = "at a commit", "where the ranks look for the latest commit"
for _text in (_COMMIT, _SYNC):
    ranks.place(_text)


class RanksChanged(Exception):
    """The launcher has news of its hosts: every rank leaves what it does, right after a commit."""


class ElasticState:
    """The last commit of a training, in host memory, and the way back to it.

    Committed are the model's weights, its optimizer's variables (the loss scale among them), the states of seed
    generators, epoch, step in the epoch, the epoch's sums of loss and metrics so far, and ``values``.

    A commit costs a copy of all variables to host memory on every rank, and a small exchange; memory for one such copy.

    Args:
        **values: anything else to remember, JSON values: the best metric, rows of a history.

    Attributes:
        epoch: number of complete epochs.
        step: of the epoch under way, complete steps.
        values: what is to be committed next; after a loss, what was committed last.
        commits: how many there were.
        again: whether some worker was in this training before the ranks changed.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> state = ElasticState(best=0.0)
        >>> state.values["best"] = 0.5
        >>> state.commit(model, epoch=3)
        >>> state.values["best"] = 0.7  # and then a worker is lost
        >>> state.restore(model), state.epoch, state.values
        (True, 3, {'best': 0.5})
    """

    def __init__(self, **values: Any) -> None:
        self.epoch = self.step = self.commits = 0
        self.again = False
        self.values: dict[str, Any] = values
        #: Whether the launcher has news; `tfrec.distributed.elastic.run` sets it.
        self.news: Callable[[], bool] = lambda: False
        #: Whether a rank of now has not committed with the others: everything is compared again.
        self.newcomers = True
        self._committed = json.dumps(values)
        self._arrays: list[np.ndarray] = []
        self._labels: list[list[Any]] = []
        self._root = 0
        self._sums: dict[str, list[float]] = {}
        self._resumes = False

    def commit(self, model: keras.Model, epoch: int, step: int = 0) -> None:
        """Remember all of ``model`` and ``values``. Every rank must call it at the same step.

        Args:
            model: compiled and built.
            epoch: number of complete epochs.
            step: complete steps of the next.

        Raises:
            RanksChanged: on every rank, after the commit, when hosts were added or removed.
        """
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        # Rows of which other ranks have others come back from a checkpoint (`restore`), so they are not copied.
        variables = [] if sharded(model) else state_variables(model)
        told = ranks.exchange([bool(self.news()), epoch_sums(model) if step else {}], _COMMIT)
        self._sums = add_sums([sums for _, sums in told])
        # Copies: on the CPU `numpy()` of a variable may be the variable's own memory.
        self._arrays = [np.array(v.numpy()) for v in variables]
        self._labels = labels(model, variables)
        self.epoch, self.step = epoch, step
        self._committed = json.dumps(self.values)
        self.commits += 1
        self._root = ranks.rank()
        self.begins()
        # Without rows a commit is no way back: training is left where a checkpoint was written, after an epoch.
        if any(news for news, _ in told) and not (step and sharded(model)):
            raise RanksChanged

    def begins(self) -> None:
        """This worker has been compared with the others and trains: those that join are compared with it."""
        ranks.become_member()

    def sync(self) -> None:
        """The latest commit of any rank on all of them, after a change of ranks. Every rank must call it.

        Raises:
            InputError: on a rank that joins with other software than the others'.
            SharedError: the ranks of a start have different software.
        """
        ranks.introduce()
        told = ranks.exchange([self.commits, ranks.is_member()], _SYNC)
        latest = max(commits for commits, _ in told)
        self.newcomers = not all(member for _, member in told)
        self.again = any(member for _, member in told)
        # Those that joined before their first commit have a copy too; a rank that has trained goes before.
        root = next(r for r, one in enumerate(told) if one == max(told))
        self._root = root
        if latest and any(commits != latest for commits, _ in told):
            header = [self._labels, self.epoch, self.step, self._committed, self._sums]
            header = ranks.exchange(header if ranks.rank() == root else None, _SYNC)[root]
            self._labels, self.epoch, self.step, self._committed, self._sums = header
            mine = self._arrays if ranks.rank() == root else [np.zeros(s, d) for _, s, d in self._labels]
            self._arrays = [ranks.broadcast(values, root) for values in mine]
            self.commits = latest
        self.values = json.loads(self._committed)

    def restore(self, model: keras.Model) -> bool:
        """The last commit in a model, made as the one that was committed; False where there is none.

        Seed generators get the counter of the commit and a seed for each rank, so that no two ranks drop out alike.

        Raises:
            InputError: another model; or one of which each rank holds rows of its own, so that a lost rank's are lost.
        """
        if not self.commits:
            return False
        lost = sharded(model)
        if lost and ranks.is_elastic():
            raise InputError(
                f"Tables that are shared among the ranks ({', '.join(lost)}) are in no commit: the rows of a lost rank "
                "are lost with it.\nLoad the last checkpoint of all ranks, and call `state.clear()`."
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        variables = state_variables(model)
        found = labels(model, variables)
        if found != self._labels:
            other = next((a, b) for a, b in zip([*found, None], [*self._labels, None], strict=False) if a != b)
            raise InputError(
                f"The model is not the one that was committed: it has {other[0]} where that had {other[1]}.\n"
                "Make it with the same settings, and call it on a batch first where its layers get their shapes then."
            )
        for variable, array in zip(variables, self._arrays, strict=True):
            variable.assign(array)
        for seed in _seeds(model):
            state = np.array(seed.numpy())
            state.flat[0] += np.asarray(_SEED_STRIDE * (ranks.rank() - self._root) % 2**31).astype(state.dtype)
            seed.assign(state)
        self.values = json.loads(self._committed)
        self._resumes = self.step > 0
        return True

    def clear(self) -> None:
        """Forget the commit, because training goes on from something else."""
        self.epoch = self.step = self.commits = 0
        self._arrays, self._labels, self._sums = [], [], {}

    def fit(
        self,
        model: keras.Model,
        batches: Callable[[int, int], Any],
        *,
        epochs: int,
        steps_per_epoch: int,
        commit_every: int = COMMIT_EVERY,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        before_commit: Callable[[], None] = lambda: None,
        limit_steps: bool = True,
        **options: Any,
    ) -> None:
        """``model.fit`` from the last commit on, with commits.

        Args:
            model: compiled, `tfrec.distributed.distribute` called.
            batches: what ``fit`` iterates over from ``(epoch, step)`` on: this rank's part of every global batch, so
                that another number of ranks trains on the same batches.
            epochs: of the whole training.
            steps_per_epoch: of a whole epoch.
            commit_every: steps between commits; one more follows each epoch, after all other callbacks.
            callbacks: as in Keras.
            before_commit: called before each commit, to put what is to be remembered into ``values``.
            limit_steps: False: ``batches`` end with the epoch, so ``fit`` is not given their number.
            **options: of ``fit``.

        Raises:
            RanksChanged: see `commit`; `tfrec.distributed.elastic.run` catches it.
        """
        self.restore(model)
        while self.epoch < epochs:
            # An epoch that was begun has fewer steps than the others, so it is a `fit` of its own.
            first = self.step
            model.fit(
                batches(self.epoch, first),
                initial_epoch=self.epoch,
                epochs=self.epoch + 1 if first else epochs,
                steps_per_epoch=steps_per_epoch - first if limit_steps else None,
                callbacks=[*callbacks, CommitCallback(self, commit_every, steps_per_epoch, before_commit)],
                **options,
            )
            if model.stop_training:
                return

    def resume_epoch(self, model: keras.Model) -> None:
        """The sums of an epoch that was begun, once, at the place where Keras has set them to 0."""
        if self._resumes:
            self._resumes = False
            set_epoch_sums(model, self._sums, ranks.rank() == 0)


class CommitCallback(keras.callbacks.Callback):
    """Commits every so many steps and after each epoch. Put it after all callbacks that change something.

    Args:
        state: see `ElasticState`.
        every: steps between commits, from 1.
        steps: of a whole epoch; None: as Keras has it.
        before: called before each commit.

    Raises:
        InputError: ``every`` out of range.
    """

    def __init__(
        self,
        state: ElasticState,
        every: int = COMMIT_EVERY,
        steps: int | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        if every < 1:
            raise InputError(f"`every` must be at least 1.\nReceived: every={every}.")
        self.state, self.every, self.steps, self.before = state, every, steps, before
        self._epoch = self._first = self._done = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Commit where nothing is yet: then a worker that is lost in the first steps costs no start from the disk."""
        if self.steps is None and (self.params or {}).get("steps") is not None:
            self.steps = self.state.step + int(self.params["steps"])
        built = bool(self.model.weights) and all(layer.built for layer in self.model._flatten_layers())
        if not self.state.commits and built:
            self._commit(self.state.epoch, self.state.step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start counting, from where the epoch was left."""
        self._epoch, self._first = epoch, self.state.step if epoch == self.state.epoch else 0
        self._done = self._first
        self.state.resume_epoch(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Commit when it is time to; ``batch`` is the last step done."""
        done, passes = self._first + batch + 1, getattr(self.model.optimizer, "_passes", 1)
        # The end of an epoch commits after validation. Gradients that wait for other batches are in no commit.
        ends = self.steps is not None and done >= self.steps
        if done // self.every > self._done // self.every and not ends and done % passes == 0:
            self._done = done
            self._commit(self._epoch, done)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Commit."""
        self._commit(epoch + 1, 0)

    def _commit(self, epoch: int, step: int) -> None:
        # Rows of a lost rank are in no commit, and its table goes back to the checkpoint of an epoch: see `restore`.
        if step and sharded(self.model):
            return
        self.before()
        self.state.commit(self.model, epoch, step)


def state_variables(model: keras.Model) -> list[Any]:
    """All that training changes: weights, the optimizer's variables, seeds. Each once, in the order of their making."""
    found = [*model.weights, *model.optimizer.variables, *_seeds(model)]
    return list({id(v): v for v in found}.values())


def sharded(model: keras.Model) -> list[str]:
    """Names of the variables of which each rank holds its own rows."""
    return [v.path for v in model.weights if shard_of(v) is not None]


def _seeds(model: keras.Model) -> list[Any]:
    known = {id(v) for v in [*model.weights, *model.metrics_variables]}
    return [v for v in model.non_trainable_variables if id(v) not in known]


def is_whole(model: keras.Model) -> bool:
    """Whether a commit holds all of the model, so that a training can go on from it."""
    return is_distributed(model.optimizer) and not sharded(model)
