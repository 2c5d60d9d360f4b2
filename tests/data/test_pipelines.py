import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfrec.data.csr import ResidentMatrix, to_sparse_tensor
from tfrec.data.pipelines import sparse_batches, steps_per_epoch, user_batches
from tfrec.errors import InputError
from tfrec.ranks import Ranks


@pytest.fixture
def matrix(random):
    dense = random.integers(1, 5, (23, 11)) * (random.random((23, 11)) < 0.3)
    dense[4] = 0  # a user without items
    return scipy.sparse.csr_matrix(dense.astype(np.float32))


def epoch_of(batches, steps):
    return [b.numpy().tolist() for b in batches.take(steps)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 4, 7, 23, 100])
def test_every_user_once_and_equal_steps(size, batch):
    steps = steps_per_epoch(23, batch)
    ranks = [epoch_of(user_batches(23, batch, seed=1, ranks=Ranks(r, size)), steps + 1) for r in range(size)]
    assert {len(r) for r in ranks} == {steps}
    assert sorted(u for r in ranks for b in r for u in b) == list(range(23))
    # Step for step the ranks share the batch that one rank would have.
    alone = epoch_of(user_batches(23, batch, seed=1), steps)
    for step in range(steps):
        assert [u for r in ranks for u in r[step]] == alone[step]
        sizes = [len(r[step]) for r in ranks]
        assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_alone():
    steps = steps_per_epoch(23, 5)
    two = epoch_of(user_batches(23, 5, seed=3, epochs=2), 2 * steps)
    assert two[:steps] != two[steps:]
    assert epoch_of(user_batches(23, 5, seed=3, first_epoch=1), steps) == two[steps:]
    assert epoch_of(user_batches(23, 5, seed=3, epochs=None), 2 * steps) == two
    assert epoch_of(user_batches(23, 5, seed=4), steps) != two[:steps]
    assert [u for b in epoch_of(user_batches(23, 5, shuffle=False), steps) for u in b] == list(range(23))


def test_resident_matrix_gathers_rows(matrix):
    resident = ResidentMatrix(matrix)
    for users in ([], [4], [4, 4], [3, 4, 3, 22, 0], list(range(23))):
        rows = resident.gather(tf.constant(users, tf.int64))
        assert rows.dense_shape.numpy().tolist() == [len(users), 11]
        np.testing.assert_array_equal(tf.sparse.to_dense(rows), matrix.toarray()[users].reshape(-1, 11))
    only_ones = matrix.copy()
    only_ones.data[:] = 1
    rows = ResidentMatrix(only_ones).gather(tf.constant([1, 2], tf.int64))
    np.testing.assert_array_equal(tf.sparse.to_dense(rows), only_ones.toarray()[[1, 2]])


def test_sparse_batches(matrix):
    batches = list(sparse_batches(matrix, 6, seed=2))
    users = epoch_of(user_batches(23, 6, seed=2), 4)
    assert len(batches) == 4
    for batch, wanted in zip(batches, users, strict=True):
        np.testing.assert_array_equal(tf.sparse.to_dense(batch), matrix.toarray()[wanted])


def test_to_sparse_tensor(matrix):
    np.testing.assert_array_equal(tf.sparse.to_dense(to_sparse_tensor(matrix)), matrix.toarray())


def test_rejects():
    with pytest.raises(InputError, match="num_users"):
        user_batches(0, 5)
    with pytest.raises(InputError, match="global_batch_size"):
        user_batches(5, 0)
    with pytest.raises(InputError, match="rank"):
        user_batches(5, 5, ranks=Ranks(2, 2))
