"""ALS with its tables spread over ranks, here on one: blocks, pieces of long rows, and what is rejected."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse

from tests.models.test_als import random_matrix
from tfrec.data.sharded_files import read_share
from tfrec.data.sharded_matrix import ShardedMatrix
from tfrec.errors import InputError
from tfrec.models import ALS
from tfrec.models.als_blocks import Blocks
from tfrec.models.als_sharded import ShardedALS
from tfrec.ranks import ALONE, Ranks


def with_empty_rows(random):
    matrix = random_matrix(random)
    matrix.data[matrix.indptr[7] : matrix.indptr[9]] = 0  # two rows, and below the last one
    matrix.data[matrix.indptr[59] :] = 0
    matrix.eliminate_zeros()
    return matrix


@pytest.mark.parametrize("most", [1, 3, 8, 40, 1_000])
def test_blocks_hold_every_entry_once_and_need_few_rows(random, most):
    matrix = with_empty_rows(random)
    before = matrix.copy()
    blocks = Blocks(matrix, most, Ranks(0, 3))
    assert blocks.own[0].begin == 0
    assert blocks.own[-1].end == matrix.nnz
    for block, after in zip(blocks.own, [*blocks.own[1:], None], strict=True):
        assert after is None or (after.begin == block.end and after.first in (block.last, block.first))
        assert len(block.needed) == block.counts.sum() <= most
        assert (np.diff(block.needed % 3) >= 0).all()
        wanted = before.indices[block.begin : block.end]
        np.testing.assert_array_equal(block.needed[matrix.indices[block.begin : block.end]], wanted)
        assert set(block.needed.tolist()) == set(wanted.tolist())
        row_ends = before.indptr[block.first], before.indptr[block.last]
        assert block.piece == ((block.begin, block.end) != row_ends)
    assert {row for b in blocks.own for row in range(b.first, b.last)} == set(range(60))
    blocks.close()
    np.testing.assert_array_equal(matrix.indices, before.indices)


@pytest.mark.parametrize("options", [{"solver": "cg"}, {"solver": "cholesky"}, {"solver": "block", "block_size": 3}])
@pytest.mark.parametrize("most", [5, 1_000])
def test_blocks_and_pieces_give_the_factors_of_the_whole_table(random, monkeypatch, options, most):
    """Rows longer than a block among them; the regularization counts all rows of the other side."""
    monkeypatch.setattr(ShardedALS, "block_rows", most)
    matrix = with_empty_rows(random)
    assert np.diff(matrix.indptr).max() > 5
    settings = {"iterations": 3, "frequency_exponent": 0.5, "unobserved_weight": 0.3, "seed": 4, **options}
    whole, sharded = ALS(6, 0.2, **settings), ShardedALS(ALS(6, 0.2, **settings), ALONE)
    history = whole.fit(matrix, verbose=0, calculate_training_loss=True).history
    losses = sharded.fit(ShardedMatrix.of_matrix(matrix), calculate_training_loss=True)
    found = sharded.gathered()
    for side in ("user_factors", "item_factors"):
        wanted = getattr(whole, side)
        np.testing.assert_allclose(getattr(found, side), wanted, atol=1e-5 * np.abs(wanted).max(), err_msg=side)
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-5)
    assert not found.user_factors[[7, 8, 59]].any()
    assert found.fitted_shape == whole.fitted_shape


def test_fit_leaves_the_matrix_as_it_was(random):
    matrix = random_matrix(random)
    mine = ShardedMatrix.of_matrix(matrix)
    ShardedALS(ALS(4, iterations=1), ALONE).fit(mine)
    assert abs(mine.by_user - matrix).max() == 0
    assert abs(mine.by_item - matrix.T).max() == 0


def test_entries_become_rows_in_both_directions(random):
    matrix = random_matrix(random)
    entries = matrix.tocoo()
    order = random.permutation(matrix.nnz)
    given = entries.row[order], entries.col[order], entries.data[order]
    found = ShardedMatrix.of_entries(*given, matrix.shape)
    assert abs(found.by_user - matrix).max() == 0
    assert abs(found.by_item - matrix.T).max() == 0
    assert found.num_entries == matrix.nnz
    twice = [np.concatenate([part, part[:1]]) for part in given]
    with pytest.raises(InputError, match="1 entries occur twice"):
        ShardedMatrix.of_entries(*twice, matrix.shape)
    added = ShardedMatrix.of_entries(*twice, matrix.shape, add_repeated=True)
    assert added.by_user[given[0][0], given[1][0]] == 2 * given[2][0]


@pytest.mark.parametrize(
    ("users", "values", "message"),
    [([0, 3], [1, 1], "users from 0 to 3"), ([0, 1], [1, np.nan], "NaN"), ([0, 1], [1, 1e39], "infinite in float32")],
)
def test_entries_that_are_rejected(users, values, message):
    with pytest.raises(InputError, match=message):
        ShardedMatrix.of_entries(np.array(users), np.array([0, 1]), np.array(values), (3, 2))


def test_rejects(random):
    with pytest.raises(InputError, match="without tables"):
        ShardedALS(ALS(2, num_users=3, num_items=3), ALONE)
    with pytest.raises(InputError, match="block_mib"):
        ShardedALS(ALS(2), ALONE, block_mib=0)
    model = ShardedALS(ALS(2), ALONE)
    model.prepare(3, 3)
    with pytest.raises(InputError, match=r"of the model's shape, \(3, 3\)"):
        model.fit(ShardedMatrix.of_matrix(random_matrix(random)))
    with pytest.raises(InputError, match="must have entries"):
        model.fit(ShardedMatrix.of_matrix(scipy.sparse.csr_matrix((3, 3), dtype=np.float32)))


def test_each_rank_reads_its_share_of_the_files(random, tmp_path):
    """Row groups of two files, dealt: all of them once; a rank too many reads nothing."""
    matrix = random_matrix(random)
    entries = matrix.tocoo()
    table = pa.table({"u": entries.row, "i": entries.col.astype(np.int64), "plays": entries.data})
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pa.parquet.write_table(table[:50], paths[0], row_group_size=20)
    pa.parquet.write_table(table[50:], paths[1], row_group_size=1_000)
    columns = {"user": "u", "item": "i", "value": "plays"}
    shares = [read_share(paths, columns, rank, 5) for rank in range(5)]
    assert [len(users) for users, _, _ in shares] == [20, 20, 10, matrix.nnz - 50, 0]
    users, items, values = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    assert abs(scipy.sparse.coo_matrix((values, (users, items)), matrix.shape) - matrix).max() == 0
    found = ShardedMatrix.of_parquet(paths, matrix.shape, user="u", item="i", value=None)
    assert abs(found.by_user - (matrix != 0)).max() == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [0.5], "item": [0]}, "Column `user` of .* must hold whole numbers without gaps"),
        ({"user": [0], "item": [None]}, "whole numbers without gaps.\nReceived: null, 1 of them missing"),
        ({"user": [2**31], "item": [0]}, "numbers from 0 to 2,147,483,647"),
        ({"user": [0], "thing": [0]}, "item"),
        (None, "must be a Parquet file"),
    ],
)
def test_files_that_are_rejected(tmp_path, columns, message):
    path = tmp_path / "plays.parquet"
    path.write_bytes(b"no") if columns is None else pa.parquet.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=message):
        ShardedMatrix.of_parquet([path], (3, 2), value=None)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_own_their_rows_of_a_matrix_that_all_have(random, size):
    matrix = random_matrix(random)
    for rank in range(size):
        found = ShardedMatrix.of_matrix(matrix, Ranks(rank, size))
        for rows, expected in ((found.by_user, matrix), (found.by_item, matrix.T.tocsr())):
            assert abs(rows - expected[rank::size]).max() == 0
            assert rows.has_sorted_indices
            assert not np.shares_memory(rows.indices, matrix.indices)
