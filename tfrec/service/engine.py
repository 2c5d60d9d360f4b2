"""One loaded model: questions in ids or titles, answered in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.names import ItemNames, UserNames
from tfrec.recommender import Recommender
from tfrec.service.limits import Refused
from tfrec.service.searching import Names
from tfrec.serving.any_length import AnyLength


@dataclass(frozen=True)
class ListQuestion:
    """Asks for a list.

    Args:
        k: its length.
        user: the user's number; None: no user of the data.
        history: of a new user, item numbers; None: this is not about one.
        similar_to: the number of an item; then neither of the two.
        exclude: item numbers.
        among: item numbers; None: all.
    """

    k: int
    user: int | None = None
    history: tuple[int, ...] | None = None
    similar_to: int | None = None
    exclude: tuple[int, ...] = ()
    among: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ListAnswer:
    """Item numbers and scores, best first, and whether the model knows a taste; False: these are popular items."""

    items: list[int]
    scores: list[float]
    known: bool


@dataclass(frozen=True)
class ExplainQuestion:
    """Asks what each item of a history adds to an item's score."""

    item: int
    k: int
    user: int | None = None
    history: tuple[int, ...] | None = None


@dataclass
class _Rows:
    """Pairs of row and item, while they are gathered."""

    row: list[np.ndarray] = field(default_factory=list)
    item: list[np.ndarray] = field(default_factory=list)

    def add(self, row: int, items: Any) -> None:
        items = np.asarray(items, np.int64)
        self.row.append(np.full(len(items), row, np.int64))
        self.item.append(items)

    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        empty = np.zeros(0, np.int64)
        return tf.constant(np.concatenate([empty, *self.row])), tf.constant(np.concatenate([empty, *self.item]))


class Engine:
    """Answers for one recommender. Called from one thread at a time.

    Args:
        recommender: of a finished run.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        v = recommender.vocabulary
        self.users, self.items = UserNames(v.user_ids), ItemNames(v.item_ids, v.labels)
        #: Ids as JSON has them, and what is shown.
        self.item_ids, self.user_ids = v.item_ids.tolist(), v.user_ids.tolist()
        self.titles = [str(label) for label in v.labels]
        #: How many interactions each item has, and the items, the most popular first.
        self.popularity = v.popularity.astype(np.int64).tolist()
        self.by_popularity = np.argsort(-v.popularity, kind="stable")
        self.item_search = Names(self.titles, [str(raw) for raw in self.item_ids], v.popularity)
        user_names = [str(raw) for raw in self.user_ids]
        self.user_search = Names(user_names, user_names)
        self.served = recommender.served()
        self.lists = AnyLength(self.served)
        self.takes_histories = bool(recommender.model.takes_histories)
        self.compares_items = bool(recommender.model.compares_items())
        self.explains = bool(recommender.model.explains())
        self._known_users = recommender.model.num_users if self.lists.answers_users else 0

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    def warm_up(self) -> None:
        """Ask everything once: the first call of a function prepares its graph."""
        self.users.find("")
        self.items.find("")
        self.items.find("\0")  # names that fit nothing build all tables
        questions = [ListQuestion(1, user=0), ListQuestion(1)]
        if self.takes_histories:
            questions.append(ListQuestion(1, history=(0,)))
        if self.compares_items:
            questions.append(ListQuestion(1, similar_to=0))
        self.answer_lists(questions)

    def answer_lists(self, questions: Sequence[ListQuestion]) -> list[ListAnswer]:
        """An answer to each, those of one kind in one call."""
        kinds: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            kinds.setdefault(self._kind(question), []).append(place)
        found: dict[int, ListAnswer] = {}
        for kind, places in kinds.items():
            answers = self._ask(kind, [questions[p] for p in places])
            found.update(zip(places, answers, strict=True))
        return [found[place] for place in range(len(questions))]

    def explain(self, questions: Sequence[ExplainQuestion]) -> list[tuple[float, list[int], list[float]]]:
        """Of each: the score, the items that add most to it, and what they add.

        Raises:
            Refused: the model cannot explain.
        """
        return [self._explain(question) for question in questions]

    def _explain(self, question: ExplainQuestion) -> tuple[float, list[int], list[float]]:
        items, values = self._history(question.user, question.history)
        liked = values != 0
        # A row of a sparse matrix, as the model takes it.
        row = self.recommender.vocabulary.histories[:1].copy()
        row.data, row.indices = values[liked], items[liked].astype(row.indices.dtype)
        row.indptr = np.array([0, liked.sum()], row.indptr.dtype)
        try:
            score, ids, parts = self.recommender.model.explain(row, question.item, k=question.k)
        except InputError as error:
            raise Refused(400, "model", f"This model gives no reasons. {str(error).splitlines()[0]}") from error
        return float(score), ids.tolist(), parts.tolist()

    def _kind(self, question: ListQuestion) -> str:
        if question.similar_to is not None:
            return "similar"
        if question.history is None and question.user is not None and question.user < self._known_users:
            return "user"
        return "history" if self.takes_histories else "user"

    def history(self, user: int, k: int) -> tuple[int, list[int]]:
        """How many items a user has, and the k most popular of them."""
        items = self._history(user, None)[0]
        most = items[np.argsort(-self.recommender.vocabulary.popularity[items], kind="stable")][:k]
        return len(items), most.tolist()

    def _history(self, user: int | None, history: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        """Item numbers, rising, and their values, float32."""
        v = self.recommender.vocabulary
        if history is not None:
            items = np.unique(np.array(history, np.int64))
            return items, np.ones(len(items), np.float32) if v.weights is None else v.weights[items].astype(np.float32)
        if user is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        first, last = v.histories.indptr[user], v.histories.indptr[user + 1]
        items = v.histories.indices[first:last].astype(np.int64)
        order = np.argsort(items)
        return items[order], v.histories.data[first:last][order].astype(np.float32)

    def _ask(self, kind: str, questions: Sequence[ListQuestion]) -> list[ListAnswer]:
        if kind != "similar" and self.recommender.indexed is not None:
            return self._ask_index(questions)
        seen, among, of_history = _Rows(), _Rows(), _Rows()
        values: list[np.ndarray] = [np.zeros(0, np.float32)]
        for row, question in enumerate(questions):
            if kind == "similar":
                seen.add(row, [question.similar_to])
            else:
                items, value = self._history(question.user, question.history)
                seen.add(row, items)
                of_history.add(row, items[value != 0])
                values.append(value[value != 0])
            seen.add(row, question.exclude)
            among.add(row, question.among or ())
        limited = tf.constant([q.among is not None for q in questions])
        k = tf.constant(max(q.k for q in questions), tf.int32)
        filters = (*seen.tensors(), *among.tensors(), limited, k)
        if kind == "similar":
            found = self.lists.similar(tf.constant([q.similar_to for q in questions], tf.int64), *filters)
        elif kind == "history":
            found = self.lists.by_history(*of_history.tensors(), tf.constant(np.concatenate(values)), *filters)
        else:
            users = [q.user if q.user is not None and q.user < self._known_users else -1 for q in questions]
            found = self.lists.by_user(tf.constant(users, tf.int64), *filters)
        numbers, scores = found["numbers"].numpy(), found["scores"].numpy()
        counts, known = found["counts"].numpy(), found["known"].numpy()
        answers = []
        for row, question in enumerate(questions):
            count = min(int(counts[row]), question.k)
            answers.append(ListAnswer(numbers[row, :count].tolist(), scores[row, :count].tolist(), bool(known[row])))
        return answers

    def _ask_index(self, questions: Sequence[ListQuestion]) -> list[ListAnswer]:
        """Lists for users, from the index; a choice among items is scored in full, one question at a time."""
        of_index = [place for place, question in enumerate(questions) if question.among is None]
        blocks = [of_index] if of_index else []
        blocks += [[place] for place, question in enumerate(questions) if question.among is not None]
        found: dict[int, ListAnswer] = {}
        for block in blocks:
            asked = [questions[place] for place in block]
            users = np.array([-1 if q.user is None else q.user for q in asked], np.int64)
            rows = [self._history(q.user, q.history) for q in asked]
            histories = self._matrix([items for items, _ in rows], [values for _, values in rows])
            left_out = [np.union1d(items, q.exclude) for (items, _), q in zip(rows, asked, strict=True)]
            seen = self._matrix(left_out, [np.ones(len(items), np.float32) for items in left_out])
            choice = {} if asked[0].among is None else {"items": sorted(set(asked[0].among) - set(asked[0].exclude))}
            k = max(q.k for q in asked)
            ids, scores, known = self.recommender.best_items(users, histories, seen, k, choice)
            for row, (place, question) in enumerate(zip(block, asked, strict=True)):
                count = min(int((ids[row] >= 0).sum()), question.k)
                found[place] = ListAnswer(ids[row, :count].tolist(), scores[row, :count].tolist(), bool(known[row]))
        return [found[place] for place in range(len(questions))]

    def _matrix(self, items: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> scipy.sparse.csr_matrix:
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in items])])
        columns = np.concatenate([np.zeros(0, np.int32), *items]).astype(np.int32)
        data = np.concatenate([np.zeros(0, np.float32), *values]).astype(np.float32)
        return scipy.sparse.csr_matrix((data, columns, offsets), shape=(len(items), self.num_items))
