"""EASE: one weight for each pair of items, by a closed form.

A user's row x is predicted as x B. B minimises, over all rows X of the training users,

    |X - X B|^2 + lambda |B|^2    with B_ii = 0,

so that no item is explained by itself. With P = (X'X + lambda I)^-1 the solution is B_ij = -P_ij / P_jj.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers.memory import free_bytes
from tfrec.models import ease_solve
from tfrec.models.base import FLOAT_MAX, Model
from tfrec.models.best import answer, best_by_scores
from tfrec.models.queries import history_tensor
from tfrec.models.questions import Choice, count, row_numbers
from tfrec.models.recommends import Numbers, Recommends, of_candidates
from tfrec.models.rows import check_width, serve_rows, sparse_rows


@keras.saving.register_keras_serializable(package="tfrec")
class EASE(Recommends, Model):
    """A linear model of the items, without latent factors: accurate where items are few thousand and users many.

    Its time and memory depend on the number of items alone, almost: the weights take 4 I^2 bytes, and `fit` I^3
    multiply-adds. Users are known by their histories only.

    Args:
        num_items: I, from 1.
        regularization: lambda, above 0. Hundreds are usual where entries are 1; the more users, the larger.

    Input shape: histories, SparseTensor or tensor ``[B, I]``.
    Output shape: scores, float32 ``[B, I]``, in every precision.

    Raises:
        InputError: an argument out of range, weights that do not fit this machine's memory, or rows of another width.

    Example:
        >>> import scipy.sparse
        >>> plays = scipy.sparse.csr_matrix([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
        >>> model = EASE(num_items=4, regularization=2.0)
        >>> _ = model.fit(plays, verbose=0)
        >>> model(tf.constant([[1.0, 0, 0, 0]])).numpy().round(3).tolist()
        [[0.0, 0.5, 0.0, 0.0]]
    """

    takes_histories = True

    def __init__(self, num_items: int, regularization: float = 500.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        num_items = count(num_items, "num_items")
        if isinstance(regularization, bool) or not 0 < regularization <= FLOAT_MAX:
            raise InputError(
                f"`regularization` must be above 0, and finite.\nReceived: regularization={regularization}."
            )
        _check_memory(num_items, 4.0 * num_items**2, "weights")
        self.num_items = num_items
        self.regularization = float(regularization)
        # Counts beyond 2,048 would be rounded in 16 bits.
        self.autocast = False
        # XLA on a GPU has no kernel for a sparse product.
        self.supports_jit = False
        self.item_weights = self.add_weight(
            name="item_weights",
            shape=(num_items, num_items),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
        )
        self.build((None, num_items))

    def build(self, input_shape: Any = None) -> None:
        """Nothing to build: the weights are there from the start."""
        self.built = True

    # ---- training --------------------------------------------------------------------------------------------------

    def fit(self, user_items: Any, verbose: int = 1) -> keras.callbacks.History:
        """Compute the weights. They are made in the memory that they stay in, and some hundred MB besides.

        All is computed in float32. How far that is off is measured afterwards on some columns, in float64.

        Args:
            user_items: ``[U, I]`` SciPy matrix or tf.SparseTensor: 1 for a user's items, or counts, from 0.
            verbose: 1: print what it needs before, and seconds after; 0: silent.

        Returns:
            history with one entry each of ``gramian_seconds``, ``inverse_seconds``, ``weights_seconds`` and
            ``weight_error``, the largest error found.

        Raises:
            InputError: a matrix without entries or of another width, negative numbers, NaN or infinity, an entry that
                occurs twice, counts whose squares float32 does not hold, too little memory, or a regularization with
                which float32 is not enough; only after the last has the model lost the weights it had.
        """
        matrix = self.checked_rows(user_items, "user_items")
        _check_counts(matrix, self.regularization)
        needed = float(ease_solve.working_bytes(matrix))
        _check_memory(self.num_items, needed, "fit, besides its weights,")
        if verbose:
            print(
                f"EASE: {self.num_items:,} items need {_gib(4.0 * self.num_items**2)} GiB for the weights and up to "
                f"{_gib(needed)} GiB more while they are computed; {_gib(free_bytes())} GiB are free",
                flush=True,
            )
        history = keras.callbacks.History()
        history.set_model(self)
        history.on_train_begin()
        memory = _Memory(self.item_weights)
        try:
            logs = self._solve(memory.array, matrix)
        except BaseException:
            # What is half done is no model.
            memory.array[...] = 0.0
            raise
        finally:
            memory.give()
        history.on_epoch_end(0, logs)
        if verbose:
            print(
                f"EASE: Gramian {logs['gramian_seconds']:.2g} s, inverse {logs['inverse_seconds']:.2g} s, weights "
                f"{logs['weights_seconds']:.2g} s; the largest error of a weight is about {logs['weight_error']:.1e}",
                flush=True,
            )
        return history

    def _solve(self, dense: np.ndarray, matrix: scipy.sparse.csr_matrix) -> dict[str, float]:
        """The weights into ``dense``; what `fit` tells."""
        times = [time.perf_counter()]
        ease_solve.fill_gramian(dense, matrix, self.regularization)
        times.append(time.perf_counter())
        ease_solve.invert(dense)
        times.append(time.perf_counter())
        ease_solve.mirror(dense)
        error = ease_solve.weight_error(dense, matrix, self.regularization)
        ease_solve.check_weight_error(error)
        ease_solve.to_weights(dense)
        times.append(time.perf_counter())
        names = ("gramian_seconds", "inverse_seconds", "weights_seconds")
        return {**dict(zip(names, np.diff(times).tolist(), strict=True)), "weight_error": error}

    def carry_over(self, old: Any, users: Any, items: Any) -> None:
        """Nothing: the closed form has no start to carry. `fit` gives the same whatever was there."""

    # ---- what people ask -------------------------------------------------------------------------------------------

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """``x B``: for each item the sum of what the history's items add to it.

        Args:
            queries: histories ``[B, I]``: tf.SparseTensor, also inside a tf.function, or a SciPy matrix.
            items: int ``[B, C]``, the candidates of each history; None: all items.

        Returns:
            float32 ``[B, I]``, or ``[B, C]``. An item of the history has a score too, from the others.

        Raises:
            InputError: numbers of users, which the model does not have, or rows of another width.
        """
        rows = history_tensor(queries, self.num_items)
        weights = tf.convert_to_tensor(self.item_weights)
        if items is None:
            return tf.sparse.sparse_dense_matmul(rows, weights)
        items = tf.cast(tf.convert_to_tensor(items), tf.int64)

        def from_all() -> tf.Tensor:
            return of_candidates(tf.sparse.sparse_dense_matmul(rows, weights), items)

        def one_by_one() -> tf.Tensor:
            row, item = rows.indices[:, 0], rows.indices[:, 1]
            places = item[:, None] * self.num_items + tf.gather(items, row)
            parts = tf.gather(tf.reshape(weights, [-1]), places) * rows.values[:, None]
            return tf.math.unsorted_segment_sum(parts, row, tf.shape(items)[0])

        # Whichever makes fewer numbers.
        few = tf.size(rows.values, tf.int64) * tf.shape(items, tf.int64)[1] <= rows.dense_shape[0] * self.num_items
        return tf.ensure_shape(tf.cond(few, one_by_one, from_all), items.shape)

    def inner_products(self) -> tuple[Callable[[Any], tf.Tensor], tf.Tensor]:
        """Dense histories ``[B, I]`` and the columns of the weights ``[I, I]``, 4 I^2 bytes."""
        return self._dense, tf.transpose(tf.convert_to_tensor(self.item_weights))

    def _dense(self, queries: Any) -> tf.Tensor:
        return tf.sparse.to_dense(tf.sparse.reorder(history_tensor(queries, self.num_items)))

    def answerable(self, queries: Any) -> tf.Tensor:
        """bool ``[B]``: False for a history without entries, whose scores are all 0."""
        rows = history_tensor(queries, self.num_items)
        entries = tf.cast(rows.values != 0, tf.int32)
        return tf.math.unsorted_segment_sum(entries, rows.indices[:, 0], rows.dense_shape[0]) > 0

    def similarities(self, items: tf.Tensor) -> tf.Tensor:
        """The weights ``B_ij`` of items ``[B]``; see `similar_items`."""
        return tf.gather(tf.convert_to_tensor(self.item_weights), items)

    def similar_items(
        self,
        items: Numbers,
        k: int = 10,
        filter_items: Sequence[int] | np.ndarray | None = None,
        among: Sequence[int] | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items j with the highest weights ``B_ij``: how much having item i once adds to the score of j.

        This is no cosine, and not the same both ways: it is what i adds about j beyond the other items. It may be
        negative. The item itself has no weight, and is left out.

        Args:
            items: an item's number, or ``[B]`` of them.
            k: how many, from 1; no more than there are items, or ``among``.
            filter_items: items to leave out.
            among: choose among these only.

        Returns:
            as `recommend`.

        Raises:
            InputError: unknown items.
        """
        numbers = row_numbers(items, "items", self.num_items)
        choice = Choice.of(self.num_items, ("among", among), ("filter_items", filter_items))
        itself = scipy.sparse.csr_matrix(
            (np.ones(len(numbers), np.float32), (np.arange(len(numbers)), numbers)), (len(numbers), self.num_items)
        )

        def rows(first: int, last: int) -> tf.Tensor:
            return self.similarities(numbers[first:last])

        best = best_by_scores(rows, len(numbers), self.num_items, count(k), itself, choice)
        return answer(*best, np.ndim(items) == 0)

    def reasons(self, row: Any, item: int, k: int) -> tuple[float, np.ndarray, np.ndarray]:
        """The summands ``x_i B_ij`` of the score of item j. Negative ones lower the score."""
        places = np.stack([row.indices, np.full(row.nnz, item)], axis=1)
        parts = row.data.astype(np.float64) * tf.gather_nd(tf.convert_to_tensor(self.item_weights), places).numpy()
        order = np.argsort(-parts, kind="stable")[:k]
        return float(parts.sum()), row.indices[order].astype(np.int32), parts[order].astype(np.float32)

    # ---- as a Keras model ------------------------------------------------------------------------------------------

    def call(self, x: tf.SparseTensor | tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """`scores` of all items."""
        return self.scores(sparse_rows(x, self.num_items, "x"))

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """See `Model.served`."""
        return serve_rows(self)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """``[B, I]``."""
        check_width(input_shape, self.num_items, "x")
        return (input_shape[0], self.num_items)

    def save_own_variables(self, store: Any) -> None:
        """As in Keras, with one copy of the weights less."""
        store["0"] = np.asarray(tf.convert_to_tensor(self.item_weights))

    def load_own_variables(self, store: Any) -> None:
        """Read the weights to where they stay."""
        self._check_load_own_variables(store)
        given, memory = store["0"], _Memory(self.item_weights)
        if tuple(given.shape) != memory.array.shape:
            raise InputError(
                f"The file's weights must be of shape {memory.array.shape}.\nReceived: shape {tuple(given.shape)}.\n"
                "Load them into a model with num_items of the one that was saved."
            )
        step = max(1, (64 << 20) // (4 * self.num_items))
        for first in range(0, self.num_items, step):
            memory.array[first : first + step] = given[first : first + step]
        memory.give()

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "num_items": self.num_items, "regularization": self.regularization}


class _Memory:
    """A weight's memory as an array to write to, so that a large weight is never there twice.

    Whoever holds a tensor of the weight sees what is written, as tensors of a variable share its memory. Where they do
    not, on a GPU or after updates of single rows, the array is one of its own, which `give` assigns.

    Attributes:
        array: float32, of the weight's shape.
    """

    def __init__(self, weight: keras.Variable) -> None:
        self._weight = weight
        self._tensor = tf.convert_to_tensor(weight.value)
        address = np.asarray(self._tensor).ctypes.data
        # Two reads of the same address are no copies: the first is still held.
        again = np.asarray(tf.convert_to_tensor(weight.value)).ctypes.data
        self._shared = "GPU" not in weight.value.device and address == again
        if not self._shared:
            self.array = np.zeros(weight.shape, np.float32)
            return
        # TensorFlow's own views are read-only.
        pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
        self.array = np.ctypeslib.as_array(pointer, tuple(weight.shape))

    def give(self) -> None:
        """End of writing."""
        if not self._shared:
            self._weight.assign(self.array)


def _check_counts(matrix: scipy.sparse.csr_matrix, regularization: float) -> None:
    """Raise InputError for what has no Gramian in float32."""
    if matrix.nnz == 0:
        raise InputError(f"`user_items` must have entries.\nReceived: an empty matrix of shape {matrix.shape}.")
    if matrix.data.min() < 0:
        row = int(np.searchsorted(matrix.indptr, matrix.data.argmin(), side="right")) - 1
        raise InputError(
            f"`user_items` must be counts, at least 0.\nReceived: {matrix.data.min()} in row {row}.\n"
            "Leave out what users dislike, or use als, where a negative number means that."
        )
    squares = np.bincount(matrix.indices, matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[1])
    if squares.max() + regularization > FLOAT_MAX:
        item = int(squares.argmax())
        raise InputError(
            "The sum of each item's squared counts must lie within float32.\n"
            f"Received: {squares[item]:.3g} for item {item}.\nLower the counts, for instance to 1."
        )


def _check_memory(num_items: int, needed: float, what: str) -> None:
    """Raise InputError where this many bytes are not free."""
    free = free_bytes()
    if needed > free:
        raise InputError(
            f"EASE's {what} of {num_items:,} items need {_gib(needed)} GiB, this machine has {_gib(free)} free.\n"
            f"Received: num_items={num_items}.\n"
            "Leave out rare items, or use another model: als and vae-cf take any number of items."
        )


def _gib(number: float) -> str:
    return f"{number / 2**30:,.1f}"
