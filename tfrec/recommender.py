"""A model, its ids and titles, each user's history, and popularity for unknown users."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec.quiet import load_tensorflow

load_tensorflow()

import keras
import numpy as np
import pyarrow as pa
import scipy.sparse
import tensorflow as tf

from tfrec.ann import KINDS, AnnIndex, IndexedLists, IndexReport, exclusions, read_index, remove_index, write_index
from tfrec.data import Interactions
from tfrec.data.csr import to_sparse_tensor
from tfrec.data.files import atomic_folder
from tfrec.errors import InputError
from tfrec.evaluation import evaluate_full_ranking
from tfrec.lists import check_lists_path, write_lists
from tfrec.metrics import Ties
from tfrec.models.best import best_by_scores
from tfrec.models.questions import Choice
from tfrec.names import ItemNames, UserNames
from tfrec.printing import printable
from tfrec.runs.loading import load_model
from tfrec.runs.report import save_model
from tfrec.runs.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tfrec.serving.served import Served

#: Users that are answered at once.
_BLOCK = 1_024
#: Users whose lists say how well an index finds.
_SAMPLE = 512
#: Items from which on lists around centroids are faster than a graph of neighbours, see docs/results/speed.md.
_MANY = 500_000


@dataclass(frozen=True)
class Explanation:
    """Why an item.

    Args:
        item: its raw id.
        title: its title, or its id as text.
        score: what the user's history gives it.
        because: a table ``item, title, contribution``: what each item of the history adds, the most first.
    """

    item: Any
    title: str
    score: float
    because: pa.Table


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Args:
        metrics: name -> mean over the users.
        users: how many these are.
        left_out: reason -> how many targets were left out.
    """

    metrics: dict[str, float]
    users: int
    left_out: Mapping[str, int] = field(default_factory=dict)


class Recommender:
    """Answers in raw ids and titles, around any fitted model.

    Args:
        model: with the questions of `tfrec.models.recommends.Recommends`; or a Keras model with ``num_items`` and
            ``scores(queries, items=None)``, which becomes one by having that mixin.
        data: what it was fitted to, its users and items in the model's order; or a vocabulary.

    Raises:
        InputError: numbers of users or items that do not fit.

    Example:
        >>> import tfrec
        >>> data = tfrec.load("synthetic", num_users=60, num_items=30)
        >>> model = tfrec.ALS(factors=4, iterations=2)
        >>> _ = model.fit(data.to_csr(), verbose=0)
        >>> table = tfrec.Recommender(model, data).recommend([0, 5], k=3)
        >>> table.column_names, table.num_rows
        (['user', 'rank', 'item', 'title', 'score'], 6)
    """

    def __init__(self, model: keras.Model, data: Interactions | Vocabulary) -> None:
        self.model: Any = model
        self.vocabulary = vocabulary_of(data) if isinstance(data, Interactions) else data
        self._indexed: IndexedLists | None = None
        known = getattr(model, "num_users", None)
        sizes = [("items", model.num_items, len(self.vocabulary.item_ids))]
        if known is not None and known > len(self.vocabulary.user_ids):
            sizes.append(("users", known, len(self.vocabulary.user_ids)))
        for name, found, expected in sizes:
            if found != expected:
                raise InputError(
                    f"The model and the data must have equally many {name}.\nReceived: a model of {found:,}, data "
                    f"of {expected:,}.\nGive the data that the model was trained on."
                )

    @cached_property
    def _users(self) -> UserNames:
        return UserNames(self.vocabulary.user_ids)

    @cached_property
    def _items(self) -> ItemNames:
        return ItemNames(self.vocabulary.item_ids, self.vocabulary.labels)

    # ---- questions -------------------------------------------------------------------------------------------------

    def recommend(
        self, users: Sequence[Any], k: int = 10, *, exclude: Sequence[Any] = (), among: Sequence[Any] | None = None
    ) -> pa.Table:
        """The best items for users of the data.

        Args:
            users: raw ids. One that the data does not have, or of whose taste nothing is known, gets what is popular.
            k: how many, from 1; a user who has nearly everything gets fewer.
            exclude: items to leave out, by raw id or title.
            among: choose among these only.

        Returns:
            A row for each item: ``user, rank, item, title, score``, rank from 1.
        """
        users = _several(users, "users")
        numbers = [self._users.find(user) for user in users]
        known = np.array([-1 if n is None else n for n in numbers], np.int64)
        ids, scores = self._answer(known, None, k, exclude, among)
        return self._table({"user": _raw(users)}, ids, scores)

    def describe(self, user: Any) -> str:
        """A line about a user's history.

        Raises:
            InputError: the data does not have the user.
        """
        number = self._users.number(user)
        history = self.vocabulary.histories[number]
        items = history.indices[history.data > 0]
        some = ", ".join(printable(self.vocabulary.labels[i]) for i in items[:3])
        who, count = printable(self.vocabulary.user_ids[number]), f"{len(items):,} item{'' if len(items) == 1 else 's'}"
        return f"{who} has {count}{': ' if some else '.'}{some}"

    def recommend_to(
        self,
        histories: Sequence[Sequence[Any]],
        k: int = 10,
        *,
        exclude: Sequence[Any] = (),
        among: Sequence[Any] | None = None,
    ) -> pa.Table:
        """The best items for new users, by their items.

        Args:
            histories: of each, the items by raw id or title. An empty one gets what is popular.
            k: how many, from 1.
            exclude: items to leave out.
            among: choose among these only.

        Returns:
            As `recommend`; ``user`` is the place in ``histories``, from 0.

        Raises:
            InputError: the model answers for its training users only.
        """
        self.check_takes_histories()
        rows = self._history_rows(histories)
        ids, scores = self._answer(np.full(len(histories), -1), rows, k, exclude, among)
        return self._table({"user": np.arange(len(histories))}, ids, scores)

    def similar_items(
        self, items: Sequence[Any], k: int = 10, *, exclude: Sequence[Any] = (), among: Sequence[Any] | None = None
    ) -> pa.Table:
        """The items most similar to each of some, by raw id or title.

        Returns:
            A row for each: ``item, title, rank, similar_item, similar_title, score``; the item itself is left out.

        Raises:
            InputError: an unknown item, or a model that cannot compare items.
        """
        items = _several(items, "items")
        numbers = np.array([self._items.number(item) for item in items], np.int64)
        ids, scores = self._similar(numbers, k, exclude, among)
        names = {"item": self.vocabulary.item_ids[numbers], "title": self.vocabulary.labels[numbers]}
        return self._table(names, ids, scores, prefix="similar_")

    def explain(self, user: Any, item: Any, k: int = 10) -> Explanation:
        """How much each item of a user's history contributes to an item's score.

        Args:
            user: a raw id of the data; or a list of items, for a new user.
            item: raw id or title.
            k: how many of the history, from 1.

        Raises:
            InputError: an unknown user or item, or a model that cannot explain.
        """
        number = self._items.number(item)
        if not isinstance(user, str | bytes | int | np.integer):
            row = self._history_rows([user])
        else:
            row = _liked(self.vocabulary.histories[self._users.number(user)])
        score, ids, contributions = self.model.explain(row, number, k=k)
        return Explanation(
            _plain(self.vocabulary.item_ids[number]),
            str(self.vocabulary.labels[number]),
            float(score),
            pa.table(
                {
                    "item": _column(self.vocabulary.item_ids[ids]),
                    "title": _column(self.vocabulary.labels[ids]),
                    "contribution": pa.array(contributions),
                }
            ),
        )

    # ---- everybody -------------------------------------------------------------------------------------------------

    def write(
        self,
        path: str | Path,
        k: int = 50,
        *,
        what: str = "recommendations",
        exclude: Sequence[Any] = (),
        among: Sequence[Any] | None = None,
    ) -> Path:
        """The best items of every user, or the most similar ones of every item, into a table, in blocks.

        Args:
            path: ends in .parquet, .csv or .tsv.
            k: items of each list, from 1.
            what: ``recommendations`` or ``similar_items``.
            exclude: items to leave out.
            among: choose among these only.

        Returns:
            ``path``, written whole or not at all, with the columns of `recommend` or `similar_items`.
        """
        path = Path(path)
        check_lists_path(path)
        items = {"item": self.vocabulary.item_ids, "title": self.vocabulary.labels}
        if what == "similar_items":
            lists = items
            columns = {"similar_item": items["item"], "similar_title": items["title"]}

            def answer(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                return self._similar(block, k, exclude, among)
        elif what == "recommendations":
            lists, columns = {"user": self.vocabulary.user_ids}, items

            def answer(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                return self._answer(block, None, k, exclude, among)
        else:
            raise InputError(f"`what` must be 'recommendations' or 'similar_items'.\nReceived: {what!r}.")
        count = len(next(iter(lists.values())))
        blocks = (np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))
        lines = write_lists(path, lists, columns, ((block, *answer(block)) for block in blocks))
        print(f"Wrote {lines:,} lines to {printable(path)}", flush=True)
        return path

    def evaluate(
        self,
        targets: Interactions | Mapping[Any, Iterable[Any]],
        metrics: Sequence[str] = ("recall@20", "ndcg@10"),
        ties: Ties = "expected",
    ) -> Evaluated:
        """How well users' targets are ranked among all items that they do not have.

        Args:
            targets: interactions, or user -> items, in raw ids.
            metrics: names, see `tfrec.metrics.Metric`.
            ties: how tied scores are ranked.

        Returns:
            The metrics; targets of users or items unknown to the model, and those that a user has already, are
            left out and counted.
        """
        wanted, left_out = wanted_items(self.vocabulary, targets)
        rows = np.flatnonzero(np.diff(wanted.indptr))
        if len(rows) == 0:
            raise InputError(f"No target is left to measure.\nReceived: {left_out or 'none'}.")
        seen = _pattern(self.vocabulary.histories[rows])

        def score(block: np.ndarray, _: scipy.sparse.csr_matrix) -> tf.Tensor:
            return self._scores(rows[block])

        report = evaluate_full_ranking(score, seen, wanted[rows], metrics, ties=ties)
        return Evaluated(report.metrics, report.users, left_out)

    # ---- vectors ---------------------------------------------------------------------------------------------------

    def item_vectors(self) -> np.ndarray:
        """Vectors of the items, for an index of another library: it ranks by inner product as `recommend` does.

        Returns:
            float32 ``[I, G + 1]``: those of `tfrec.models.recommends.Recommends.inner_products`, and a last column with
            each item's share of all interactions, by which users of whom nothing is known are answered.

        Raises:
            InputError: the model's scores are no inner products.
        """
        table = self.model.inner_products()[1].numpy()
        return np.concatenate([table, _share(self.vocabulary)[:, None]], axis=1)

    def query_vectors(
        self, users: Sequence[Any] | None = None, *, histories: Sequence[Sequence[Any]] | None = None
    ) -> np.ndarray:
        """Vectors of users by raw id, or of new users by their items, for `item_vectors`.

        What a user has already is among an index's answers, and must be left out of them.

        Args:
            users: raw ids. Either these
            histories: or, of each new user, the items by raw id or title.

        Returns:
            float32 ``[B, G + 1]``. Whoever is not known has a 1 in the last column and zeros elsewhere, others a 0.

        Raises:
            InputError: neither or both, or a model whose scores are no inner products, or that takes no histories.
        """
        if (users is None) == (histories is None):
            given = "neither" if users is None else "both"
            raise InputError(f"Give `users`, or `histories` of new users.\nReceived: {given}.")
        vectors, table = self.model.inner_products()
        if histories is not None:
            self.check_takes_histories()
            numbers, rows = np.full(len(histories), -1), self._history_rows(histories)
        else:
            found = [self._users.find(user) for user in _several(users, "users")]
            numbers = np.array([-1 if n is None else n for n in found], np.int64)
            rows = self._rows_of(numbers)
        by_number, by_history = self._ways(numbers, rows)
        made = np.zeros((len(numbers), table.shape[1] + 1), np.float32)
        made[:, -1] = 1.0
        for chosen, queries in ((by_number, numbers), (by_history, _liked(rows))):
            if len(chosen):
                made[chosen, :-1], made[chosen, -1] = vectors(queries[chosen]).numpy(), 0.0
        return made

    def check_takes_histories(self) -> None:
        """Raise InputError for a model that answers for its training users only."""
        if not self.model.takes_histories:
            raise InputError(
                f"{type(self.model).__name__} recommends to its training users only, not to a list of items.\n"
                "Ask for users of the data, or train vae-cf, als or ease."
            )

    # ---- large catalogues ------------------------------------------------------------------------------------------

    def index(
        self,
        kind: str = "auto",
        dtype: str = "float16",
        *,
        recall: float = 0.95,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Answer from an index of the items' vectors from now on, without scoring all of them.

        `recommend`, `recommend_to` and `write` use it, but for a choice ``among`` items. What a user has, and
        ``exclude``, is left out; k are given whenever k are left. Scores are inner products: of VAE-CF logits, no
        probabilities. `evaluate` and `similar_items` go on scoring all items. `save` writes the index, too.

        Args:
            kind: ``hnsw``, a graph; ``ivf``, lists around centroids; ``auto``: ``ivf`` from 500,000 items on;
                ``exact``: no index any more.
            dtype: how the index stores vectors, ``float32``, ``float16`` or ``int8``.
            recall: recall@10 against all scores that is wanted, in (0, 1]: the mean over up to 512 users, without what
                they have.
            seed: which users these are, and that of k-means.
            progress: is told how many items of how many are in.

        Returns:
            what was built, with the recall that was reached.

        Raises:
            InputError: faiss is not installed, the model's scores are no inner products, or a kind, a type or a recall
                that there is not.

        Example:
            >>> import tfrec
            >>> data = tfrec.load("synthetic", num_users=60, num_items=30)
            >>> model = tfrec.ALS(factors=4, iterations=2)
            >>> _ = model.fit(data.to_csr(), verbose=0)
            >>> recommender = tfrec.Recommender(model, data)
            >>> report = recommender.index("ivf", recall=1.0)
            >>> report.recall, recommender.recommend([0], k=5).num_rows
            (1.0, 5)
        """
        kinds = ("auto", *KINDS, "exact")
        if kind not in kinds:
            raise InputError(f"`kind` must be one of {', '.join(kinds)}.\nReceived: {kind!r}.")
        if kind == "exact":
            self._indexed = None
            return IndexReport("exact", "float32", self.model.num_items, 0, 1.0, recall, 0.0)
        vectors, table = self.model.inner_products()
        rng = np.random.default_rng(seed)
        users = np.sort(rng.permutation(len(self.vocabulary.user_ids))[:_SAMPLE])
        histories = self._rows_of(users)
        by_number, by_history = self._ways(users, histories)
        asked = ((by_number, users), (by_history, _liked(histories)))
        sample = [vectors(queries[chosen]).numpy() for chosen, queries in asked if len(chosen)]
        seen = exclusions(_pattern(histories[np.concatenate([by_number, by_history])]))
        if not sample:
            raise InputError(
                "An index is tried out on users of whose taste something is known.\n"
                "Received: a recommender without any.\nGive it the interactions that the model was trained on."
            )
        index = AnnIndex.build(
            table,
            np.concatenate(sample),
            ("ivf" if table.shape[0] >= _MANY else "hnsw") if kind == "auto" else kind,
            dtype,
            offsets=seen[0],
            excluded=seen[1],
            recall=recall,
            seed=seed,
            progress=progress,
        )
        self._indexed = IndexedLists(self.model, index)
        return index.report

    @property
    def indexed(self) -> IndexReport | None:
        """What index answers; None: all items are scored."""
        return None if self._indexed is None else self._indexed.index.report

    def write_index(self, folder: str | Path) -> None:
        """Write the index, or remove what is there where there is none."""
        if self._indexed is None:
            remove_index(Path(folder))
        else:
            write_index(self._indexed.index, Path(folder))

    def read_index(self, folder: str | Path) -> IndexReport | None:
        """Answer from the index in a folder, where there is one.

        Raises:
            InputError: it is damaged, or of another model.
        """
        index = read_index(Path(folder), lambda: self.model.inner_products()[1])
        self._indexed = None if index is None else IndexedLists(self.model, index)
        return self.indexed

    # ---- to disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the model with its ids, titles and index, for `load`; whole or not at all."""
        folder = Path(folder)
        with atomic_folder(folder) as temporary:
            save_model(self.model, temporary / "model.keras")
            self.vocabulary.save(temporary / "items.arrow", temporary / "users.arrow")
            self.write_index(temporary)
            (temporary / "recommender.json").write_text(json.dumps({"format": 1}))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """A recommender that `save` wrote, or that of a finished run.

        Raises:
            InputError: there is none, or it is damaged.
        """
        folder = Path(folder)
        missing = [n for n in ("model.keras", "items.arrow", "users.arrow") if not (folder / n).is_file()]
        if missing:
            raise InputError(
                f"{folder} has no recommender: {', '.join(missing)} not found.\n"
                "Give the folder of a finished run, or one that Recommender.save wrote."
            )
        model = load_model(folder / "model.keras")
        made = cls(model, Vocabulary.load(folder / "items.arrow", folder / "users.arrow"))
        made.read_index(folder)
        return made

    def export(
        self,
        folder: str | Path,
        *,
        k: Sequence[int] = (),
        raw_ids: bool = True,
        served: Served | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a SavedModel that needs TensorFlow alone, see `tfrec.serving`.

        Args:
            folder: a new one; for a server ``NAME/1``.
            k: lengths of the lists of signatures ``top_K``; the first is that of ``recommend``. Default: 10.
            raw_ids: the data's ids; False: numbers from 0.
            served: what `served` gave, in place of ``k`` and ``raw_ids``.
            about: put into ``signatures.json`` besides.
        """
        from tfrec.serving import export

        return export(self.served(raw_ids, k) if served is None else served, Path(folder), about)

    def served(self, raw_ids: bool = True, k: Sequence[int] = ()) -> Served:
        """What `export` writes: asked by user where the model has all of them, else by history."""
        from tfrec.serving import ServedHistories, ServedUsers

        known, v = getattr(self.model, "num_users", None), self.vocabulary
        if known is not None and (known == len(v.user_ids) or not self.model.takes_histories):
            users, seen = v.user_ids[:known], _pattern(v.histories[:known])
            return ServedUsers(
                self.model, users, v.item_ids, v.labels, v.popularity, seen, raw_ids, weights=v.weights, ks=k
            )
        return ServedHistories(self.model, v.item_ids, v.labels, v.popularity, raw_ids, weights=v.weights, ks=k)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _answer(
        self,
        users: np.ndarray,
        rows: scipy.sparse.csr_matrix | None,
        k: int,
        exclude: Sequence[Any],
        among: Sequence[Any] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Items ``[B, k]``, -1 where there is none, and what is shown with them.

        Args:
            users: numbers ``[B]``; -1: no user of the data.
            rows: for these, their histories, ``[B, I]``; None: nothing.
        """
        histories = self._rows_of(users) if rows is None else rows
        choice = self._choice(exclude, among)
        return self.best_items(users, histories, _pattern(histories), self._count(k), choice)[:2]

    def best_items(
        self,
        users: np.ndarray,
        histories: scipy.sparse.csr_matrix,
        seen: scipy.sparse.csr_matrix,
        k: int,
        choice: Mapping[str, Any],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lists by numbers, for callers that have checked them.

        Args:
            users: numbers ``[B]``; -1: no user of the data.
            histories: ``[B, I]``, what they have; not read for users whom the model knows by number.
            seen: ``[B, I]``, what is left out.
            k: from 1 to I.
            choice: ``filter_items``, numbers of items to leave out for everybody, or ``items``, those to choose among.

        Returns:
            items int32 ``[B, k]``, -1 where there is none, scores float32 ``[B, k]``, and bool ``[B]``: whether a taste
            is known; False: these are popular items.
        """
        by_number, by_history = self._ways(users, histories)
        ids = np.full((len(users), k), -1, np.int32)
        scores = np.full((len(users), k), -np.inf, np.float32)
        known = np.zeros(len(users), bool)
        for chosen, queries in ((by_number, users), (by_history, _liked(histories))):
            if len(chosen):
                found = self._found(queries[chosen], seen[chosen], k, choice)
                width = found[0].shape[1]
                ids[chosen, :width], scores[chosen, :width] = found
                known[chosen] = True
        others = np.flatnonzero(~known)
        if len(others):
            found = self._popular(seen[others], k, choice)
            width = found[0].shape[1]
            ids[others, :width], scores[others, :width] = found
        return ids, scores, known

    def _found(
        self, queries: Any, seen: scipy.sparse.csr_matrix, k: int, choice: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._indexed is None:
            found: tuple[np.ndarray, np.ndarray] = self.model.recommend(queries, seen, k=k, linked=True, **choice)
            return found
        without = np.unique(np.array(choice.get("filter_items", ()), np.int64))
        return self._indexed.best(queries, seen, k, without, choice.get("items"))

    def _ways(self, users: np.ndarray, histories: scipy.sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Who can be asked for by number, and who by history."""
        known = getattr(self.model, "num_users", None) or 0
        number = (users >= 0) & (users < known)
        history = ~number & (np.diff(_liked(histories).indptr) > 0) & bool(self.model.takes_histories)
        return np.flatnonzero(number), np.flatnonzero(history)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """Scores of all items ``[B, I]``, for users of the data."""
        histories = self.vocabulary.histories[users]
        by_number, by_history = self._ways(users, histories)
        popularity = self.vocabulary.popularity
        scores = np.tile(popularity.astype(np.float32), (len(users), 1))
        if len(by_number):
            scores[by_number] = self.model.scores(tf.constant(users[by_number])).numpy()
        if len(by_history):
            scores[by_history] = self.model.scores(to_sparse_tensor(_liked(histories)[by_history])).numpy()
        return scores

    def _popular(
        self, seen: scipy.sparse.csr_matrix, k: int, choice: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What most users have, with its share of all interactions."""
        num_users, num_items = seen.shape
        share = tf.constant(_share(self.vocabulary))
        chosen = Choice.of(num_items, ("among", choice.get("items")), ("exclude", choice.get("filter_items")))
        return best_by_scores(
            lambda first, last: tf.tile(share[None], [last - first, 1]), num_users, num_items, k, seen, chosen
        )

    def _similar(
        self, items: np.ndarray, k: int, exclude: Sequence[Any], among: Sequence[Any] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most similar items ``[B, k]`` of each of ``items``, without the item itself."""
        choice = self._choice(exclude, among)
        k = self._count(k)
        if "items" in choice:
            choice["among"] = choice.pop("items")
        # One more, as the item itself comes first.
        wanted = min(k + 1, len(self.vocabulary.item_ids))
        ids, scores = self.model.similar_items(items, k=wanted, **choice)
        others = ids != items[:, None]
        # Of rows without the item itself the last is left out.
        others &= (np.cumsum(others, axis=1) <= k) & (ids >= 0)
        found = np.full((len(items), k), -1, np.int32)
        shown = np.full((len(items), k), -np.inf, np.float32)
        row, place = np.nonzero(others)
        column = (np.cumsum(others, axis=1) - 1)[row, place]
        found[row, column], shown[row, column] = ids[row, place], scores[row, place]
        return found, shown

    def _choice(self, exclude: Sequence[Any], among: Sequence[Any] | None) -> dict[str, Any]:
        without = [self._items.number(item) for item in _several(exclude, "exclude")]
        if among is None:
            return {"filter_items": without} if without else {}
        chosen = {self._items.number(item) for item in _several(among, "among")} - set(without)
        return {"items": sorted(chosen)}

    def _count(self, k: int) -> int:
        num_items = len(self.vocabulary.item_ids)
        if not 1 <= k <= num_items:
            raise InputError(f"`k` must lie in [1, {num_items}], the number of items.\nReceived: {k}.")
        return int(k)

    def _rows_of(self, users: np.ndarray) -> scipy.sparse.csr_matrix:
        """What users have, nothing for -1."""
        if (users >= 0).all():
            return scipy.sparse.csr_matrix(self.vocabulary.histories[users])
        rows = self.vocabulary.histories[np.maximum(users, 0)].copy()
        gone = np.repeat(users < 0, np.diff(rows.indptr))
        lengths = np.where(users < 0, 0, np.diff(rows.indptr))
        return scipy.sparse.csr_matrix(
            (rows.data[~gone], rows.indices[~gone], np.concatenate([[0], np.cumsum(lengths)])), shape=rows.shape
        )

    def _history_rows(self, histories: Sequence[Sequence[Any]]) -> scipy.sparse.csr_matrix:
        """The rows of people who have these items."""
        lists = [np.unique([self._items.number(i) for i in _several(h, "histories")]) for h in histories]
        columns = np.concatenate([*lists, []]).astype(np.int64)
        weights = self.vocabulary.weights
        values = np.ones(len(columns), np.float32) if weights is None else weights[columns]
        offsets = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
        return scipy.sparse.csr_matrix((values, columns, offsets), shape=(len(lists), len(self.vocabulary.item_ids)))

    def _table(self, names: dict[str, np.ndarray], ids: np.ndarray, scores: np.ndarray, prefix: str = "") -> pa.Table:
        row, place = np.nonzero(ids >= 0)
        chosen = ids[row, place]
        return pa.table(
            {
                **{name: _column(values[row]) for name, values in names.items()},
                "rank": pa.array((place + 1).astype(np.int32)),
                f"{prefix}item": _column(self.vocabulary.item_ids[chosen]),
                f"{prefix}title": _column(self.vocabulary.labels[chosen]),
                "score": pa.array(scores[row, place]),
            }
        )


def wanted_items(
    vocabulary: Vocabulary, targets: Interactions | Mapping[Any, Iterable[Any]]
) -> tuple[scipy.sparse.csr_matrix, dict[str, int]]:
    """Targets ``[V, I]``, and why others were left out."""
    users = UserNames(vocabulary.user_ids)
    if isinstance(targets, Interactions):
        pairs = targets.positives()
        user_ids, item_ids = pairs.user_ids[pairs.user_index], pairs.item_ids[pairs.item_index]
    else:
        listed = [
            (user, item)
            for user, items in targets.items()
            for item in _several(list(items) if isinstance(items, set | frozenset) else items, "targets")
        ]
        user_ids, item_ids = _raw([u for u, _ in listed]), _raw([i for _, i in listed])
    of_user = {raw: users.find(raw) for raw in np.unique(user_ids.astype(object)).tolist()}
    of_item = {str(raw): number for number, raw in enumerate(vocabulary.item_ids.tolist())}
    rows = np.array([-1 if (n := of_user[u]) is None else n for u in user_ids.tolist()], np.int64)
    columns = np.array([of_item.get(str(i), -1) for i in item_ids.tolist()], np.int64)
    known = (rows >= 0) & (columns >= 0)
    shape = vocabulary.histories.shape
    ones = np.ones(int(known.sum()), np.float32)
    wanted = scipy.sparse.coo_matrix((ones, (rows[known], columns[known])), shape=shape).tocsr()
    wanted.data[:] = 1.0
    had = wanted.multiply(_pattern(vocabulary.histories))
    left = scipy.sparse.csr_matrix(wanted - had)
    left.eliminate_zeros()
    counts = {
        "of users unknown to the model": int((rows < 0).sum()),
        "of items unknown to the model": int(((rows >= 0) & (columns < 0)).sum()),
        "that the user has already": int(had.nnz),
    }
    return left, {reason: count for reason, count in counts.items() if count}


def vocabulary_of(data: Interactions) -> Vocabulary:
    """What a recommender keeps of the data that its model was fitted to."""
    matrix = data.to_csr()
    popularity = np.bincount(matrix.indices[matrix.data > 0], minlength=data.num_items).astype(np.float32)
    return Vocabulary(data.item_ids, data.item_titles, popularity, data.user_ids, matrix)


def _liked(histories: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Without what was met and not liked; dislikes stay."""
    if histories.nnz and not histories.data.all():
        histories = histories.copy()
        histories.eliminate_zeros()
    return histories


def _share(vocabulary: Vocabulary) -> np.ndarray:
    """Each item's part of all interactions, float32 ``[I]``."""
    counts = vocabulary.popularity
    return (counts / max(float(counts.sum()), 1.0)).astype(np.float32)


def _pattern(histories: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """A 1 for everything that a user has met."""
    ones = np.ones(histories.nnz, np.float32)
    return scipy.sparse.csr_matrix((ones, histories.indices, histories.indptr), shape=histories.shape)


def _several(names: Any, argument: str) -> list[Any]:
    """Ids or titles of a list, an array, or a series of any library, as Python values.

    Raises:
        InputError: no list of one dimension, or a name that is missing or no name.
    """
    if isinstance(names, str | bytes | int | np.integer):
        raise InputError(f"`{argument}` must be a list of names.\nReceived: {names!r}.\nGive [{names!r}].")
    if isinstance(names, Mapping) or hasattr(names, "columns") or getattr(names, "ndim", 1) != 1:
        raise InputError(
            f"`{argument}` must be a list of names.\nReceived: {type(names).__name__}.\n"
            "Give one column of it, or a list."
        )
    # NumPy, pandas, polars and PyArrow, in this order.
    for convert in ("tolist", "to_list", "to_pylist"):
        if hasattr(names, convert):
            names = getattr(names, convert)()
            break
    return [_name(name, argument) for name in names]


def _name(name: Any, argument: str) -> Any:
    if isinstance(name, pa.Scalar):
        name = name.as_py()
    if isinstance(name, float | np.floating) and float(name).is_integer():
        return int(name)  # pandas has whole numbers with gaps as floats
    if name is None or isinstance(name, float | np.floating | list | tuple | dict | set | np.ndarray):
        raise InputError(f"`{argument}` must hold ids or titles.\nReceived: {name!r}.\nLeave such entries out.")
    return name


def _raw(names: Sequence[Any]) -> np.ndarray:
    """Names as an array of int64, or of text."""
    if names and all(isinstance(name, int | np.integer) for name in names):
        return np.array(names, np.int64)
    return np.array([*map(str, names), None], dtype=object)[:-1]


def _column(values: np.ndarray) -> pa.Array:
    return pa.array([str(v) for v in values], pa.string()) if values.dtype == object else pa.array(values)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["Evaluated", "Explanation", "Recommender"]
