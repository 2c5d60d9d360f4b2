"""What every model offers: scores, recommendations, similar items, reasons, and a start from an earlier model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.best import answer, best_by_scores, best_by_vectors, similar_rows
from tfrec.models.carry import Side, carry_weights
from tfrec.models.matrices import sparse_matrix
from tfrec.models.queries import are_histories, history_tensor, user_tensor
from tfrec.models.questions import Choice, count, row_number, row_numbers

#: Numbers of rows, as arguments.
Numbers = int | Sequence[int] | np.ndarray


class Recommends:
    """A mixin for Keras models over I items.

    A model states whom it can be asked about, and gives either `query_vectors` and `item_vectors`, whose inner
    products are the scores, or `scores` itself. The rest follows, the same for every model:

    - B queries are numbers of users, int ``[B]``, where the model has ``num_users``; or histories, sparse rows
      ``[B, I]``, where it has ``takes_histories``.
    - What `scores` gives is what evaluation and serving rank by. `link` makes of the winners' scores what is shown.

    Attributes:
        num_items: I.
        num_users: U, or None: the model has no users by number.
        takes_histories: whether queries may be histories.
    """

    num_items: Any
    num_users: Any = None
    takes_histories: bool = False
    weights: Any

    # ---- what a model defines --------------------------------------------------------------------------------------

    def query_vectors(self, queries: Any) -> tf.Tensor:
        """Vectors ``[B, F]`` of users or histories; see `item_vectors`.

        Raises:
            InputError: the model has none.
        """
        raise self.cannot("has no vectors of users")

    def item_vectors(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Vectors ``[I, F]`` and a bias ``[I]`` or None: the score of a query q is ``q.y_i + b_i``.

        Raises:
            InputError: the model has none.
        """
        raise self.cannot("has no vectors of items")

    def inner_products(self) -> tuple[Callable[[Any], tf.Tensor], tf.Tensor]:
        """The scores as inner products and nothing else: for an index that knows no bias.

        Returns:
            what makes vectors float32 ``[B, G]`` of queries, in a graph too; and vectors float32 ``[I, G]`` of the
            items. A bias is one more column, with a 1 in each query.

        Raises:
            InputError: the scores are no inner products.
        """
        if not self.has_item_vectors():
            raise self.cannot(
                "has scores that are no inner product of a user's and an item's vector",
                "Use als, ease, vae-cf or popularity",
            )
        table, bias = self.item_vectors()
        table = tf.cast(table, tf.float32)

        def vectors(queries: Any) -> tf.Tensor:
            q = tf.cast(self.query_vectors(queries), tf.float32)
            return q if bias is None else tf.pad(q, [[0, 0], [0, 1]], constant_values=1.0)

        return vectors, table if bias is None else tf.concat([table, tf.cast(bias, tf.float32)[:, None]], axis=1)

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """What items are ranked by: higher is better.

        Args:
            queries: numbers of users, int ``[B]``; or histories ``[B, I]``: a `tf.SparseTensor`, also inside a
                `tf.function`, or a SciPy matrix.
            items: int ``[B, C]``, candidates of each query; None: all items in order.

        Returns:
            float32 ``[B, C]``, or ``[B, I]``.

        Raises:
            InputError: queries of a kind that the model does not accept, or rows of another width.
        """
        table, bias = self.item_vectors()
        q, y = tf.cast(self.query_vectors(queries), tf.float32), tf.cast(table, tf.float32)
        scores = tf.matmul(q, y, transpose_b=True)
        return of_candidates(scores if bias is None else scores + bias, items)

    def similarities(self, items: tf.Tensor) -> tf.Tensor:
        """How similar all items are to some, in a graph too, where that is not the cosine of `item_vectors`.

        Args:
            items: int ``[B]``.

        Returns:
            float32 ``[B, I]``.
        """
        raise self.cannot("has no vectors to compare items by", "Use als, vae-cf or ease")

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """What is shown with the winners, as a probability: here the scores as they are.

        Args:
            best: float32 ``[B, k]``, some of
            scores: float32 ``[B, I]``.

        Returns:
            float32 ``[B, k]``, in the same order as ``best``.
        """
        return best

    def reasons(self, row: Any, item: int, k: int) -> tuple[float, np.ndarray, np.ndarray]:
        """The answer of `explain`, for arguments that are checked.

        Args:
            row: one history, float32 CSR ``[1, I]``.
            item: the item to explain.
            k: how many contributions.

        Raises:
            InputError: the model cannot.
        """
        raise self.cannot("cannot explain a recommendation", "Use als, vae-cf or ease")

    def answerable(self, queries: Any) -> tf.Tensor:
        """bool ``[B]``: False where the model has nothing to say, so that nothing is recommended."""
        rows = history_tensor(queries, self.num_items) if are_histories(queries) else user_tensor(queries)
        batch = rows.dense_shape[0] if isinstance(rows, tf.SparseTensor) else tf.size(rows)
        return tf.fill([batch], True)

    def row_axes(self) -> list[tuple[keras.Variable, Side, int]]:
        """The weights with an axis over users or over items, for `carry_over`: weight, side and axis."""
        return []

    def checked_users(self, users: Any) -> np.ndarray:
        """Numbers of users, int64 ``[B]``.

        Raises:
            InputError: the model has no users by number, or none of this number.
        """
        if self.num_users is None:
            raise self.cannot(
                "has no users by number", "Give their histories, matrix[users]; or use als or neumf, which do"
            )
        return row_numbers(users, "users", self.num_users)

    def checked_rows(self, rows: Any, name: str, num_rows: int | None = None) -> scipy.sparse.csr_matrix:
        """Rows over the items as float32 CSR ``[B, I]`` without stored zeros.

        Args:
            rows: SciPy matrix or `tf.SparseTensor`, ``[B, I]`` or ``[I]``.
            name: of the argument, for messages.
            num_rows: B; None: any.

        Raises:
            InputError: see `tfrec.models.matrices.sparse_matrix`.
        """
        return sparse_matrix(rows, name, num_rows, self.num_items)

    # ---- what people ask -------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Any,
        user_items: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        filter_items: Sequence[int] | np.ndarray | None = None,
        items: Sequence[int] | np.ndarray | None = None,
        *,
        linked: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items with the highest `scores`; equal scores by lower number first.

        Args:
            users: a user's number, or ``[B]`` of them; or histories, sparse rows ``[B, I]`` (``[I]`` for one).
            user_items: the rows of these users, ``[B, I]`` (``[1, I]`` or ``[I]`` for one); needed by ``filter_seen``
                where ``users`` are numbers. With histories: what to leave out in their place.
            k: how many, from 1; no more than there are items, or ``items``.
            filter_seen: leave out a user's items in ``user_items``, dislikes too.
            filter_items: items to leave out for everybody.
            items: choose among these only.
            linked: give what is shown with the winners, see `link`, in place of their scores.

        Returns:
            item numbers and scores: int32 and float32 ``[k]`` for one user, shorter where fewer are left; ``[B, k]``
            for several, filled up with -1 and -infinity.

        Raises:
            InputError: unknown users or items, queries of a kind that the model does not accept, ``user_items`` missing
                or with another number of rows, or both ``items`` and ``filter_items``.
        """
        k, choice = count(k), self.item_choice(items, filter_items)
        if are_histories(users):
            if not self.takes_histories:
                raise self.cannot("answers for users by number only", "Give their numbers; or use als, vae-cf or ease")
            one = len(users.shape) == 1
            queries: Any = self.checked_rows(users, "users")
            seen = queries if user_items is None else self.checked_rows(user_items, "user_items", queries.shape[0])
        else:
            queries = self.checked_users(users)
            one = np.ndim(users) == 0
            if filter_seen and user_items is None:
                raise InputError(
                    "`filter_seen` needs `user_items`, the rows of these users.\nReceived: None.\n"
                    "Give user_items=matrix[users], or filter_seen=False."
                )
            seen = self.checked_rows(user_items, "user_items", len(queries)) if filter_seen else None
        return answer(*self.best_items(queries, k, seen if filter_seen else None, choice, linked), one)

    def best_items(
        self, queries: Any, k: int, seen: scipy.sparse.csr_matrix | None, choice: Choice, linked: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists for queries that are checked: int64 ``[B]``, or CSR ``[B, I]``; see `best_by_vectors`."""
        num_queries = queries.shape[0]
        table, bias = self.item_vectors() if self.has_item_vectors() else (None, None)
        link = self.link if linked and type(self).link is not Recommends.link else None
        if table is not None and bias is None and link is None and num_queries:
            vectors = self.query_vectors(queries)
            ids, scores = best_by_vectors(vectors, tf.cast(table, vectors.dtype), k, seen, choice)
        else:
            ids, scores = best_by_scores(
                lambda first, last: self.scores(queries[first:last]), num_queries, self.num_items, k, seen, choice, link
            )
        silent = ~self.answerable(queries).numpy()
        ids[silent], scores[silent] = -1, -np.inf
        return ids, scores

    def similar_items(
        self,
        items: Numbers,
        k: int = 10,
        filter_items: Sequence[int] | np.ndarray | None = None,
        among: Sequence[int] | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items with the highest cosine ``y_i.y_j / |y_i| |y_j|`` of `item_vectors`, the item itself first.

        Args:
            items: an item's number, or ``[B]`` of them.
            k: how many, from 1; no more than there are items, or ``among``.
            filter_items: items to leave out.
            among: choose among these only.

        Returns:
            as `recommend`. Nothing is similar to an item with a vector of zeros.

        Raises:
            InputError: the model has no vectors of items, or unknown items.
        """
        if not self.has_item_vectors():
            self.similarities(items)  # says which models can
        numbers = row_numbers(items, "items", self.num_items)
        choice = Choice.of(self.num_items, ("among", among), ("filter_items", filter_items))
        table, _ = self.item_vectors()
        return answer(*similar_rows(table, numbers, count(k), choice), np.ndim(items) == 0)

    def explain(self, user_items: Any, item: int, k: int = 10, user: int = 0) -> tuple[float, np.ndarray, np.ndarray]:
        """How much each item of a history contributes to an item's score: by what each of them adds to its score.

        Args:
            user_items: the user's row, ``[1, I]`` or ``[I]``, or several rows ``[U, I]``.
            item: the item to explain.
            k: how many contributions, from 1.
            user: which row of ``user_items``.

        Returns:
            the score that the row gives the item; the items with the largest contributions, int32; and these
            contributions, float32. A contribution is defined by the model's `reasons`.

        Raises:
            InputError: the model cannot, or a number out of range.
        """
        if not self.explains():
            self.reasons(None, item, k)
        matrix = self.checked_rows(user_items, "user_items")
        k, item = count(k), row_number(item, "item", self.num_items)
        return self.reasons(matrix[row_number(user, "user", matrix.shape[0])], item, k)

    def carry_over(self, old: Any, users: Any, items: Any) -> None:
        """Start from an earlier model of the same class, whose users and items may have had other numbers.

        Rows of users and items of the old model are copied, in every weight with an axis over users or items;
        new ones keep their initial values. All other weights are copied.

        Args:
            old: the model to start from, made with the same options, but for the numbers of users and items.
            users: int ``[U]``: each user's number in ``old``, -1 for a new one. Ignored where the model knows no
                users by number.
            items: int ``[I]``: the same for items.

        Raises:
            InputError: a model of another class or form, or numbers that it does not have. Nothing has changed then.
        """
        carry_weights(self, old, users, items)

    # ---- helpers ---------------------------------------------------------------------------------------------------

    def has_item_vectors(self) -> bool:
        """Whether the scores are inner products."""
        return type(self).item_vectors is not Recommends.item_vectors

    def compares_items(self) -> bool:
        """Whether items have a similarity."""
        return self.has_item_vectors() or type(self).similarities is not Recommends.similarities

    def explains(self) -> bool:
        """Whether `explain` has an answer."""
        return type(self).reasons is not Recommends.reasons

    def item_choice(self, items: Any, filter_items: Any) -> Choice:
        """Which items may be recommended."""
        return Choice.of(self.num_items, ("items", items), ("filter_items", filter_items))

    def cannot(self, what: str, instead: str = "Use als or vae-cf") -> InputError:
        """The error of a model that has no answer: "NeuMF <what>.", and which models have."""
        return InputError(f"{type(self).__name__} {what}.\n{instead}.")


def of_candidates(scores: tf.Tensor, items: Any) -> tf.Tensor:
    """Of all items' scores ``[B, I]`` those of the candidates ``[B, C]``; all without candidates."""
    return scores if items is None else tf.gather(scores, items, batch_dims=1)
