"""NeuMF with tensor-train tables against NeuMF with the dense tables that they stand for."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests import oracles
from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.optimizers import Adam

USERS, ITEMS = 40, 60
SIDES = [("tt", "dense"), ("dense", "tt"), ("tt", "tt")]


def make(user="tt", item="tt", **options):
    keras.utils.set_random_seed(3)
    options = {"mf_dim": 4, "layer_dims": (8, 8, 5), "dropout": 0.0, "embedding_ranks": 6, **options}
    model = NeuMF(USERS, ITEMS, user_embedding=user, item_embedding=item, **options)
    random = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(random.normal(0, 0.5, weight.shape))
    return model


def name(weight):
    return "/".join(weight.path.split("/")[-2 if weight.name.startswith("core_") else -1 :])


def dense_twin(model):
    twin = make("dense", "dense", embedding_l2=model.embedding_l2, mlp_embedding_l2=model.mlp_embedding_l2)
    own = {name(w): w for w in model.weights}
    for weight in twin.weights:
        table = getattr(model, weight.name) if weight.name.endswith("_embedding") else None
        weight.assign(table.full_table() if hasattr(table, "full_table") else own[weight.name])
    return twin


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("group", [None, 1, 7])
def test_logits_loss_and_gradients_are_those_of_the_dense_tables(random, sides, graph, group):
    model = make(*sides, embedding_l2=0.1, mlp_embedding_l2=0.3, embedding_group=group)
    twin = dense_twin(model)
    users, items = random.integers(USERS, size=15), random.integers(ITEMS, size=(15, 3))
    np.testing.assert_allclose(model.scores(users, items), twin.scores(users, items), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.scores(users), twin.scores(users), rtol=1e-4, atol=1e-5)
    found, wanted = [], []
    for m, into in ((model, found), (twin, wanted)):
        m.compile(Adam())
        m.optimizer.build(m.trainable_variables)
        run = tf.function(m.loss_and_gradients) if graph else m.loss_and_gradients
        loss, gradients = run(tf.constant(users), tf.constant(items))
        into += [
            loss,
            {name(w): tf.convert_to_tensor(g) for w, g in zip(m.trainable_variables, gradients, strict=True)},
        ]
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for side, rows in (("user", USERS), ("item", ITEMS)):
        table = f"{side}_embedding"
        if model.embedding_kinds[side] == "dense":
            continue
        upstream = wanted[1].pop(table)
        cores = [c.numpy() for c in getattr(model, table).cores]
        for k, g in enumerate(oracles.tt_gradients(cores, np.arange(rows), upstream), start=1):
            np.testing.assert_allclose(found[1].pop(f"{table}/core_{k}"), g, rtol=1e-3, atol=1e-5 * np.abs(g).max())
    assert found[1].keys() == wanted[1].keys()
    for key, g in wanted[1].items():
        np.testing.assert_allclose(found[1][key], g, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_it_learns_and_is_saved(tmp_path, random, policy):
    keras.config.set_dtype_policy(policy)
    model = NeuMF(
        USERS, ITEMS, 4, (8, 8), dropout=0.0, user_embedding="tt", item_embedding="tt", embedding_ranks=6, dtype=policy
    )
    train = scipy.sparse.random(USERS, ITEMS, 0.2, format="csr", random_state=1, dtype=np.float32)
    sampler = PointwiseSampler(train, 100, 4)
    model.compile(keras.optimizers.Adam(0.02), sampler=sampler.batch)
    history = model.fit(sampler.steps(), epochs=12, verbose=0, shuffle=False).history["loss"]
    assert history[-1] < 0.9 * history[0]
    users, items = random.integers(USERS, size=5), random.integers(ITEMS, size=(5, 3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(model.scores(users, items), again.scores(users, items))


def test_a_split_output_layer_is_the_same_function(random):
    model = make()
    users, items = random.integers(USERS, size=5), random.integers(ITEMS, size=(5, 3))
    np.testing.assert_array_equal(model.with_split_final().scores(users, items), model.scores(users, items))


def test_compressed_and_at_full_rank_the_same(random):
    model = make("dense", "dense")
    users, items = random.integers(USERS, size=5), random.integers(ITEMS, size=(5, 3))
    small, errors = model.with_tt_embeddings(3)
    assert set(errors) == {"user", "item"}
    assert all(0 < e < 1 for e in errors.values())
    assert small.count_params() < model.count_params()
    same, errors = model.with_tt_embeddings(1_000, ("item",))
    assert errors["item"] < 1e-5
    assert same.embedding_kinds == {"user": "dense", "item": "tt"}
    np.testing.assert_allclose(same.scores(users, items), model.scores(users, items), rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="already"):
        same.with_tt_embeddings(3, ("item",))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("branch", ["neumf", "gmf"])
def test_all_items_are_scored_in_blocks(monkeypatch, graph, branch):
    model = make(branch=branch)
    users = np.array([3, 3, 39, 0])
    whole = model.scores(users, np.tile(np.arange(ITEMS), (4, 1)))
    looked_up = []
    lookup = model.item_embedding.call
    monkeypatch.setattr(model.item_embedding, "call", lambda ids: looked_up.append(ids.shape[0]) or lookup(ids))
    monkeypatch.setattr("tfrec.models.neumf_network.BLOCK_ITEMS", 7)  # 60 items: eight blocks and one of four
    found = (tf.function(model.scores) if graph else model.scores)(tf.constant(users))
    assert found.shape == (4, ITEMS)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    assert looked_up == ([None] if graph else [7] * 8 + [4])
    assert model.scores(users[:0]).shape == (0, ITEMS)


def test_a_group_of_one_is_a_low_rank_table():
    model = make("dense", "dense")
    table = model.item_embedding.numpy()
    left, values, right = np.linalg.svd(table, full_matrices=False)
    small, errors = model.with_tt_embeddings(3, ("item",), group=1)
    assert [c.shape for c in small.item_embedding.cores] == [(ITEMS, 1, 1, 3), (1, 3, 8, 1)]
    np.testing.assert_allclose(small.item_embedding.full_table(), left[:, :3] * values[:3] @ right[:3], atol=1e-5)
    assert errors["item"] == pytest.approx(np.sqrt((values[3:] ** 2).sum() / (values**2).sum()), rel=1e-4)
    again = NeuMF.from_config(small.get_config())
    assert again.item_embedding.shape == small.item_embedding.shape


def test_a_group_larger_than_the_table_is_the_table():
    assert make(embedding_group=1_000).item_embedding.shape.row_factors == (1, ITEMS)


def test_rejects():
    with pytest.raises(InputError, match="`embedding_group` must be at least 1"):
        make(embedding_group=0)
    with pytest.raises(InputError, match="`user_embedding` must be 'dense', 'tt' or 'sharded'"):
        make("sparse", "tt")
    with pytest.raises(InputError, match="`ranks` must be whole numbers from 1"):
        make(embedding_ranks=0)
    with pytest.raises(InputError, match="no rows to update lazily"):
        make().compile(Adam(), lazy_tables=["item_embedding"])


def test_carry_over_between_tensor_trains(random):
    old = make()
    users, items = np.arange(USERS), np.arange(ITEMS)
    new = NeuMF.from_config(old.get_config())
    new.carry_over(old, users, items)
    np.testing.assert_array_equal(new.scores(users), old.scores(users))
    for other in (users[::-1], np.where(users == 3, -1, users)):
        with pytest.raises(InputError, match=r"(.|\n)*user tables must be dense(.|\n)*old.with_dense_embeddings\(\)"):
            new.carry_over(old, other, items)
    # The way out that the message names.
    dense = NeuMF.from_config(
        {**old.get_config(), "num_users": USERS + 1, "user_embedding": "dense", "item_embedding": "dense"}
    )
    with pytest.raises(InputError, match="'dense' with .* 'tt' with"):
        dense.carry_over(old, np.append(users, -1), items)
    dense.carry_over(old.with_dense_embeddings(), np.append(users, -1), items)
    np.testing.assert_allclose(dense.scores(users), old.scores(users), rtol=1e-4, atol=1e-5)
