"""To and from TensorFlow Recommenders' layers ``factorized_top_k``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data import Interactions
from tfrec.errors import InputError
from tfrec.evaluation import evaluate_full_ranking
from tfrec.metrics import Metric, Ties
from tfrec.models.questions import count
from tfrec.printing import printable
from tfrec.recommender import Evaluated, Recommender, vocabulary_of, wanted_items
from tfrec.retrieval.legacy_keras import load_tfrs
from tfrec.retrieval.lists import ListScores
from tfrec.retrieval.queries import By, Queries

#: The layer of TFRS.
Kind = Literal["brute-force", "streaming"]
#: Items that ``Streaming`` scores at once.
_BATCH = 8_192


def to_tfrs(recommender: Recommender, kind: Kind = "brute-force", k: int = 10, *, by: By = "users") -> Any:
    """A layer of TensorFlow Recommenders that finds what the model recommends.

    Its items are those of `Recommender.item_vectors` with their raw ids; its query model is `Queries`, which takes raw
    ids. Users that the data does not have, or of whose taste nothing is known, get what is popular. Scores are the
    model's own: VAE-CF's logits, not its probabilities. What a user has is not left out: for that there are
    ``query_with_exclusions`` of TFRS and `Queries.exclusions`.

    The layer is a copy of the items as they are now. It can be saved with ``tf.saved_model.save``.

    Args:
        recommender: of ALS, EASE, VAE-CF, popularity, or a model of your own with vectors. EASE's are as many as it has
            items: 4 I^2 bytes.
        kind: ``brute-force`` (`tfrs.layers.factorized_top_k.BruteForce`), or ``streaming``, which holds the scores of
            8,192 items at once.
        k: length of the lists, from 1.
        by: what queries are: raw ids of ``users`` ``[B]``; or ``histories``, raw ids of items ``[B, L]``, filled up
            with -1 or ``""``.

    Returns:
        the layer: ``layer(queries)`` gives scores and raw ids, ``[B, k]`` each.

    Raises:
        InputError: a model whose scores are no inner products, as NeuMF's; ``k`` beyond the number of items; or what
            `load_tfrs` raises.
    """
    if kind not in get_args(Kind):
        raise InputError(f"`kind` must be one of {', '.join(get_args(Kind))}.\nReceived: {kind!r}.")
    num_items = len(recommender.vocabulary.item_ids)
    if count(k) > num_items:
        raise InputError(f"`k` must be at most {num_items}, the number of items.\nReceived: k={k}.")
    queries, vectors = Queries(recommender, by), recommender.item_vectors()
    layers = load_tfrs().layers.factorized_top_k
    ids = queries.items.all_ids()
    if kind == "streaming":
        index = layers.Streaming(queries, k=k)
        index.index_from_dataset(tf.data.Dataset.from_tensor_slices((ids, vectors)).batch(_BATCH))
    else:
        index = layers.BruteForce(queries, k=k)
        index.index(tf.constant(vectors), ids)
    # Keras saves what it was called with: any number of queries, of any length.
    tf.function(lambda q: index(q), input_signature=[queries.signature], autograph=False).get_concrete_function()
    return index


def from_tfrs(
    index: Any,
    data: Recommender | Interactions,
    targets: Interactions | Mapping[Any, Iterable[Any]],
    metrics: Sequence[str] = ("recall@20", "ndcg@10"),
    ties: Ties = "expected",
    *,
    queries: Callable[[np.ndarray], Any] | None = None,
) -> Evaluated:
    """How well an index of TensorFlow Recommenders ranks users' targets, measured as `Recommender.evaluate` does.

    What a user has is left out. Lists are as long as it takes: the deepest cutoff, what users have, and what is tied at
    the cutoff. What an index does not find comes after what it finds.

    Args:
        index: a ``factorized_top_k`` layer, or anything that is called with queries and ``k`` and gives scores and ids
            of items, best first. Ids -1 and ``""`` stand for none.
        data: what users have, and the catalogue.
        targets: interactions, or user -> items, in raw ids.
        metrics: names, see `tfrec.metrics.Metric`.
        ties: how tied scores are ranked.
        queries: makes what the index takes of raw ids of users ``[B]``; None: a tensor of them, int64 or string.

    Returns:
        as `Recommender.evaluate`.

    Raises:
        InputError: no target is left, an id that no item has, or an index that does not find as many as a metric needs.
    """
    vocabulary = data.vocabulary if isinstance(data, Recommender) else vocabulary_of(data)
    wanted, left_out = wanted_items(vocabulary, targets)
    rows = np.flatnonzero(np.diff(wanted.indptr))
    if len(rows) == 0:
        raise InputError(f"No target is left to measure.\nReceived: {left_out or 'none'}.")
    wanted = wanted[rows]
    histories = vocabulary.histories[rows]
    seen = scipy.sparse.csr_matrix((np.ones_like(histories.data), histories.indices, histories.indptr), histories.shape)
    numbers = _Numbers(vocabulary.item_ids)

    def search(block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        users = vocabulary.user_ids[rows[block]]
        asked = (_tensor if queries is None else queries)(users)
        try:
            scores, ids = index(asked, k=k)
        except tf.errors.InvalidArgumentError as error:
            raise InputError(
                f"The index must give lists of {k} items: the cutoff, and what users have.\n"
                f"Received: {str(error).splitlines()[0][:300]}.\nPut all items into it, or name a lower cutoff."
            ) from error
        return numbers.of(np.asarray(ids)), np.asarray(scores, np.float32)

    parsed = [Metric.parse(metric) for metric in metrics]
    depth = max(min(m.k or wanted.shape[1], wanted.shape[1]) for m in parsed)
    whole = next((str(m) for m in parsed if m.of_catalogue or m.needs_all_ranks), None)
    score = ListScores(search, wanted, depth, whole)
    report = evaluate_full_ranking(score, seen, wanted, metrics, ties=ties)
    return Evaluated(report.metrics, report.users, left_out)


class _Numbers:
    """Numbers of items by the ids that an index gives."""

    def __init__(self, item_ids: np.ndarray) -> None:
        self._numbers = {str(raw): number for number, raw in enumerate(item_ids.tolist())}

    def of(self, ids: np.ndarray) -> np.ndarray:
        """int64, in the shape of ``ids``; -1 for none.

        Raises:
            InputError: an id that no item has.
        """
        distinct, places = np.unique(ids, return_inverse=True)
        texts = [raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw) for raw in distinct.tolist()]
        found = [self._numbers.get(text, -1) for text in texts]
        unknown = [t for t, n in zip(texts, found, strict=True) if n < 0 and t not in ("", "-1")]
        if unknown:
            raise InputError(
                f"The index must give ids of the catalogue's items.\nReceived: {printable(unknown[0])}.\n"
                "Give the index the raw ids as identifiers, and the data that it was made from."
            )
        return np.array(found, np.int64)[places].reshape(ids.shape)


def _tensor(users: np.ndarray) -> tf.Tensor:
    return tf.constant([str(u) for u in users]) if users.dtype == object else tf.constant(users, tf.int64)
