import keras
import numpy as np
import pytest
import scipy.sparse

from tfrec.data.csr import to_sparse_tensor
from tfrec.errors import InputError
from tfrec.models import Popularity


def test_counts_users(tmp_path):
    matrix = scipy.sparse.csr_matrix(np.array([[5.0, 0, 1], [2, 0, 0], [0, 0, 0]]))
    model = Popularity(3)
    model.adapt(matrix)
    x = to_sparse_tensor(matrix)
    assert model(x).numpy().tolist() == [[2, 0, 1]] * 3
    np.testing.assert_allclose(model.link(model.scores(x), model.scores(x))[0], [2 / 3, 0, 1 / 3])
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras")(x).numpy().tolist() == [[2, 0, 1]] * 3


def test_an_entry_of_zero_is_nobody():
    matrix = scipy.sparse.csr_matrix(([1.0, 0.0, 2.0], ([0, 1, 1], [0, 0, 2])), shape=(2, 3))
    assert matrix.nnz == 3
    model = Popularity(3)
    model.adapt(matrix)
    assert model.counts.numpy().tolist() == [1, 0, 1]


def test_rejects():
    with pytest.raises(InputError, match="3 columns"):
        Popularity(3).adapt(scipy.sparse.csr_matrix((2, 4)))
    with pytest.raises(InputError, match="at least 1"):
        Popularity(0)
