"""The network of `tfrec.models.NeuMF`: tables, layers, and the way from pairs to logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers import ShardedEmbedding
from tfrec.layers.relu_dropout import kept_share, relu_dropout
from tfrec.layers.tt_embedding import TTEmbedding
from tfrec.models.base import Model
from tfrec.models.carry import Side
from tfrec.models.neumf_carry import carry_to_parts, check_trains
from tfrec.models.neumf_checks import check_arguments
from tfrec.models.neumf_terms import Terms, take
from tfrec.models.pairs import in_chunks, pairs, serve_pairs
from tfrec.models.queries import user_tensor
from tfrec.models.recommends import Recommends

Branch = Literal["neumf", "gmf", "mlp"]
GMFWeights = Literal["learned", "ones"]
Table = Literal["dense", "tt", "sharded"]
#: Pairs that go through the layers at once; see `NeuMF`. On a CPU the activations then fit its cache; a GPU wants more
#: work per launch.
CHUNK_PAIRS_CPU, CHUNK_PAIRS_GPU = 5_120, 1 << 18
#: Items of a tensor-train or sharded table whose rows are held at once when all items are scored.
BLOCK_ITEMS = 1 << 15


class NeuMFNetwork(Recommends, Model):
    """Users and items in, logits out. Arguments, input and output as those of `tfrec.models.NeuMF`, which trains it."""

    def __init__(
        self,
        num_users: int,
        num_items: int,
        mf_dim: int = 64,
        layer_dims: Sequence[int] = (256, 256, 128, 64),
        dropout: float = 0.5,
        embedding_l2: float = 0.0,
        mlp_embedding_l2: float | None = None,
        gmf_weights: GMFWeights = "learned",
        branch: Branch = "neumf",
        split_final: bool = False,
        chunk_pairs: int | None = None,
        noise_seed: int = 0,
        user_embedding: Table = "dense",
        item_embedding: Table = "dense",
        embedding_ranks: int = 16,
        embedding_group: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check_policy()
        check_arguments(
            num_users,
            num_items,
            mf_dim,
            layer_dims,
            dropout,
            embedding_l2,
            mlp_embedding_l2,
            gmf_weights,
            branch,
            split_final,
            chunk_pairs,
        )
        for name, kind in (("user_embedding", user_embedding), ("item_embedding", item_embedding)):
            if kind not in ("dense", "tt", "sharded"):
                raise InputError(f"`{name}` must be 'dense', 'tt' or 'sharded'.\nReceived: {kind!r}.")
        self.embedding_kinds = {"user": user_embedding, "item": item_embedding}
        if embedding_group is not None and embedding_group < 1:
            raise InputError(f"`embedding_group` must be at least 1.\nReceived: embedding_group={embedding_group}.")
        self.embedding_ranks = embedding_ranks
        self.embedding_group = embedding_group
        self.num_users = num_users
        self.num_items = num_items
        self.mf_dim = mf_dim
        self.layer_dims = tuple(layer_dims)
        self.dropout = dropout
        self.embedding_l2 = embedding_l2
        self.mlp_embedding_l2 = embedding_l2 if mlp_embedding_l2 is None else mlp_embedding_l2
        self.gmf_weights = gmf_weights
        self.branch = branch
        self.split_final = split_final
        self.chunk_pairs = chunk_pairs
        self.noise_seed = noise_seed
        # The number of different items in a batch is not known ahead, which XLA would need.
        self.supports_jit = False
        self.built = False
        self.build()

    @property
    def gmf_width(self) -> int:
        """Width of the GMF part of an embedding."""
        return 0 if self.branch == "mlp" else self.mf_dim

    @property
    def mlp_width(self) -> int:
        """Width of the MLP part of an embedding."""
        return 0 if self.branch == "gmf" else self.layer_dims[0] // 2

    def build(self, input_shape: Any = None) -> None:
        """Create all weights; their shapes are known from the constructor."""
        if self.built:
            return
        # One row holds both branches' embeddings, GMF first: one access per user or item instead of two.
        # Keras must not cast the variables: rows are cast after they are gathered, not the whole table before.
        width = self.gmf_width + self.mlp_width
        normal = keras.initializers.RandomNormal(stddev=0.01)
        self.user_embedding = self._table("user", self.num_users, width, normal)
        self.item_embedding = self._table("item", self.num_items, width, normal)
        self.kernels, self.biases = [], []
        if self.mlp_width:
            for i, (before, after) in enumerate(zip(self.layer_dims[:-1], self.layer_dims[1:], strict=True), start=1):
                self.kernels.append(
                    self.add_weight(
                        name=f"kernel_{i}", shape=(before, after), initializer="glorot_uniform", autocast=False
                    )
                )
                self.biases.append(
                    self.add_weight(name=f"bias_{i}", shape=(after,), initializer="zeros", autocast=False)
                )
        # LeCun's initialization of the one output layer, whether it is split or not.
        widths = [w for w in (self.gmf_width, self.layer_dims[-1] if self.mlp_width else 0) if w]
        limit = (3.0 / sum(widths)) ** 0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        names = [n for n, w in (("gmf", self.gmf_width), ("mlp", self.mlp_width)) if w]
        parts = list(zip(names, widths, strict=True)) if self.split_final else [("final", sum(widths))]
        self.final_kernels = [
            self.add_weight(name=f"{name}_kernel", shape=(w, 1), initializer=uniform, autocast=False)
            for name, w in parts
        ]
        if self.gmf_width and self.gmf_weights == "ones":
            kernel = self.final_kernels[0]
            kernel.assign(
                tf.concat([tf.ones([self.gmf_width, 1]), tf.convert_to_tensor(kernel)[self.gmf_width :]], axis=0)
            )
        self.final_biases = [
            self.add_weight(name=f"{name}_bias", shape=(1,), initializer="zeros", autocast=False) for name, _ in parts
        ]
        self.steps = self.add_weight(name="steps", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.built = True

    def _table(self, side: str, rows: int, width: int, initializer: keras.initializers.RandomNormal) -> Any:
        """The embeddings of one side: a variable ``[rows, width]``, or a layer of the same first distribution."""
        name = f"{side}_embedding"
        if self.embedding_kinds[side] == "dense":
            return self.add_weight(name=name, shape=(rows, width), initializer=initializer, autocast=False)
        layer: Any
        if self.embedding_kinds[side] == "sharded":
            layer = ShardedEmbedding(rows, width, initializer, replicate_below=0, dtype="float32", name=name)
            layer.build()
            return layer
        layer = TTEmbedding(
            rows,
            width,
            self.embedding_ranks,
            *self._factors(rows, width),
            embeddings_initializer=initializer,
            dtype="float32",
            name=name,
        )
        layer.build()
        return layer

    def _factors(self, rows: int, width: int) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Row and column factors of a tensor-train table."""
        if self.embedding_group is None:
            return None, None
        group = min(self.embedding_group, rows)
        return (-(-rows // group), group), (1, width)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Logits, see the class. Ids beyond the tables raise on a CPU; a GPU reads zeros."""
        return self.scores(*pairs(inputs))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int | None]:
        """``[B, C]``."""
        shape = tuple(input_shape["item"] if isinstance(input_shape, dict) else input_shape[1])
        return (shape[0], shape[1] if len(shape) == 2 else 1)

    # ---- scoring

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """The probability that a user chooses an offered item. Rank by `scores`: here different logits may round
        to one number."""
        return tf.sigmoid(best)

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """See `Model.served`."""
        return serve_pairs(self)

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """Logits of candidates, without dropout and without gradient.

        Args:
            queries: numbers of users, int ``[B]``.
            items: int ``[B, C]``, or None for all items in order (C = I).

        Returns:
            float32 ``[B, C]``.

        Raises:
            InputError: histories.
        """
        users = user_tensor(queries)
        user_rows, user_index, _ = self.rows("user", users)
        if items is not None:
            item_rows, item_index, _ = self.rows("item", items)
            return self._score(user_rows, user_index, item_rows, item_index)
        if self.embedding_kinds["item"] == "dense":
            found = self._score(user_rows, user_index, self.table_rows("item", None), None)
        else:
            found = self._score_in_blocks(user_rows, user_index)
        return tf.ensure_shape(found, [None, self.num_items])

    def _score(
        self, user_rows: tf.Tensor, user_index: tf.Tensor, item_rows: tf.Tensor, item_index: tf.Tensor | None
    ) -> tf.Tensor:
        """Logits of the items that each user's row of ``item_index`` names, or of all ``item_rows``."""
        terms, late = self.terms(user_rows, item_rows, self.early_weights()), self.late_weights()
        width = tf.shape(item_rows)[0] if item_index is None else tf.shape(item_index)[1]

        def chunk(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
            of_items = None if item_index is None else item_index[first:last]
            return self.logits(take(terms, user_index[first:last], of_items), late)

        found = in_chunks(tf.size(user_index), self.chunk_users(width), width, chunk)
        return tf.ensure_shape(found, [None, None if item_index is None else item_index.shape[1]])

    def _score_in_blocks(self, user_rows: tf.Tensor, user_index: tf.Tensor) -> tf.Tensor:
        """Logits of all items, some at a time: a table that is not dense is never whole in memory."""
        count = -(-self.num_items // BLOCK_ITEMS)
        parts = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=tf.TensorShape([None, None]))

        def step(i: tf.Tensor, parts: tf.TensorArray) -> Any:
            ids = tf.cast(i, tf.int64) * BLOCK_ITEMS
            ids = tf.range(ids, tf.minimum(ids + BLOCK_ITEMS, self.num_items))
            found = self._score(user_rows, user_index, self.table_rows("item", ids), None)
            return i + 1, parts.write(i, tf.transpose(found))  # blocks follow one another on the first axis

        _, parts = tf.while_loop(lambda i, _: i < count, step, (tf.constant(0), parts), parallel_iterations=1)
        return tf.transpose(parts.concat())

    # ---- the network

    def rows(self, side: str, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The embeddings of the different ids, float32; the place of each id among them, in the shape of ``ids``; and
        these different ids."""
        # int64: places of int32 would be in host memory, and go over the bus to each gather on a GPU.
        different, index = tf.unique(tf.reshape(ids, [-1]), out_idx=tf.int64)
        return self.table_rows(side, different), tf.reshape(index, tf.shape(ids)), different

    def table_rows(self, side: str, ids: tf.Tensor | None) -> tf.Tensor:
        """Rows of a table, or all of it, float32."""
        table = self.user_embedding if side == "user" else self.item_embedding
        if ids is None and self.embedding_kinds[side] != "dense":
            ids = tf.range(self.num_users if side == "user" else self.num_items, dtype=tf.int64)
        if self.embedding_kinds[side] == "tt":
            rows = table(ids)
        elif self.embedding_kinds[side] == "sharded":
            rows = table.rows(ids)
        else:
            rows = tf.convert_to_tensor(table)
            rows = rows if ids is None else tf.gather(rows, ids)
        return self.used_rows(rows)

    @property
    def exchanges_rows(self) -> bool:
        """Whether other processes hold rows of its tables, so that scoring is a collective."""
        tables = (self.user_embedding, self.item_embedding)
        return any(isinstance(t, ShardedEmbedding) and t.shard is not None and t.shard.size > 1 for t in tables)

    def early_weights(self) -> list[tf.Tensor]:
        """The first layer's kernel and bias, float32; nothing for GMF."""
        return [tf.convert_to_tensor(w) for w in (*self.kernels[:1], *self.biases[:1])]

    def late_variables(self) -> list[keras.Variable]:
        """The weights after the first layer."""
        return [*self.kernels[1:], *self.biases[1:], *self.final_kernels, *self.final_biases]

    def late_weights(self) -> list[tf.Tensor]:
        """The weights after the first layer, in the precision of the computation."""
        return [tf.cast(tf.convert_to_tensor(w), self.compute_dtype) for w in self.late_variables()]

    def terms(self, user_rows: tf.Tensor, item_rows: tf.Tensor, early: list[tf.Tensor]) -> Terms:
        """What a pair needs of its user and of its item: the GMF embedding, and its half of the first layer."""
        found: Terms = {}
        for side, rows in (("user", user_rows), ("item", item_rows)):
            rows = tf.cast(rows, self.compute_dtype)
            if self.gmf_width:
                found[side, "gmf"] = rows[:, : self.gmf_width]
            if self.mlp_width:
                kernel, bias = (tf.cast(w, rows.dtype) for w in early)
                if side == "user":
                    found[side, "hidden"] = tf.matmul(rows[:, self.gmf_width :], kernel[: self.mlp_width]) + bias
                else:
                    found[side, "hidden"] = tf.matmul(rows[:, self.gmf_width :], kernel[self.mlp_width :])
        return found

    def logits(self, terms: Terms, late: list[tf.Tensor], seed: tf.Tensor | None = None) -> tf.Tensor:
        """From terms of users ``[p, D]`` and items ``[p or 1, C, D]`` to logits, float32 ``[p, C]``.

        With a seed: with dropout.
        """
        hidden_layers = len(self.kernels) - 1 if self.mlp_width else 0
        kernels, biases = late[:hidden_layers], late[hidden_layers : 2 * hidden_layers]
        final_kernels, final_biases = self._final(late[2 * hidden_layers :])
        # Scores are float32 from the last product on: rounded to 16 bits, those of different items would be equal.
        last = self.compute_dtype if seed is not None else "float32"
        final_kernels = [tf.cast(kernel, last) for kernel in final_kernels]
        parts = []
        if self.gmf_width:
            product = terms["user", "gmf"][:, None, :] * terms["item", "gmf"]
            shape = tf.shape(product)[:2]
            product = self.used_activation("product", tf.reshape(product, [-1, self.gmf_width]))
            parts.append(tf.matmul(tf.cast(product, last), final_kernels[0]))
        if self.mlp_width:
            drop = self.dropout if seed is not None else 0.0
            unscale = 1.0 / kept_share(drop)
            noise = seed if seed is not None else tf.constant([0, 0])
            first = terms["user", "hidden"][:, None, :] + terms["item", "hidden"]
            shape = tf.shape(first)[:2]
            hidden = self.used_activation(
                "hidden_1", relu_dropout(tf.reshape(first, [-1, self.layer_dims[1]]), drop, noise)
            )
            for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True), start=1):
                hidden = relu_dropout(tf.matmul(hidden, kernel * unscale) + bias, drop, noise + tf.constant([0, i]))
                hidden = self.used_activation(f"hidden_{i + 1}", hidden)
            parts.append(tf.matmul(tf.cast(hidden, last), final_kernels[-1] * unscale))
        # The same order of sums whether the layer is split or not, so that the two are the same numbers.
        logit = tf.add_n([tf.cast(p, tf.float32) for p in parts]) + tf.cast(tf.add_n(final_biases), tf.float32)
        return tf.reshape(logit, shape)

    def used_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """What the network sees of rows of a table; a subclass may round them."""
        return rows

    def used_activation(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """What the next layer sees of an activation; a subclass may round it."""
        return value

    def _final(self, final: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The output layer's kernels by branch, and its biases."""
        count = len(self.final_kernels)
        kernels, biases = final[:count], final[count:]
        if count == 1 and self.branch == "neumf":
            kernels = [kernels[0][: self.gmf_width], kernels[0][self.gmf_width :]]
        return kernels, biases

    def chunk_users(self, width: tf.Tensor) -> tf.Tensor:
        """Users whose ``width`` pairs each make a chunk."""
        pairs = self.chunk_pairs
        if pairs is None:
            pairs = CHUNK_PAIRS_GPU if tf.config.list_logical_devices("GPU") else CHUNK_PAIRS_CPU
        return tf.maximum(pairs // tf.maximum(width, 1), 1)

    # ---- configuration

    def carry_over(self, old: Any, users: Any, items: Any) -> None:
        """As `Recommends.carry_over`. A tensor train's cores serve all rows at once: its rows must be those of ``old``,
        in the same order; they are then copied as they are.

        Raises:
            InputError: other rows in a tensor train, besides what is named there.
        """
        if type(old) is type(self):
            check_trains(self, old, users, items)
        if "sharded" in self.embedding_kinds.values():
            carry_to_parts(self, old, users, items)
            return
        super().carry_over(old, users, items)

    def row_axes(self) -> list[tuple[keras.Variable, Side, int]]:
        """The dense tables."""
        tables: dict[Side, Any] = {"user": self.user_embedding, "item": self.item_embedding}
        return [(table, side, 0) for side, table in tables.items() if self.embedding_kinds[side] == "dense"]

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "num_users": self.num_users,
            "num_items": self.num_items,
            "mf_dim": self.mf_dim,
            "layer_dims": list(self.layer_dims),
            "dropout": self.dropout,
            "embedding_l2": self.embedding_l2,
            "mlp_embedding_l2": self.mlp_embedding_l2,
            "gmf_weights": self.gmf_weights,
            "branch": self.branch,
            "split_final": self.split_final,
            "chunk_pairs": self.chunk_pairs,
            "noise_seed": self.noise_seed,
            "user_embedding": self.embedding_kinds["user"],
            "item_embedding": self.embedding_kinds["item"],
            "embedding_ranks": self.embedding_ranks,
            "embedding_group": self.embedding_group,
        }
