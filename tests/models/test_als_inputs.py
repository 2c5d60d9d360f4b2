"""What ALS may be given: the same matrix in every form that SciPy has, and what is refused with which words."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models import ALS

RANDOM = np.random.default_rng(0)
#: 12 users, 9 items; whole numbers, so that integer types hold them; users 2 and 7 have nothing.
DENSE = (RANDOM.integers(1, 5, (12, 9)) * (RANDOM.random((12, 9)) < 0.4) * RANDOM.choice([1, 1, -1], (12, 9))).astype(
    np.float32
)
DENSE[[2, 7]] = 0
DENSE[3, [1, 4]] = 2, 1
MATRIX = scipy.sparse.csr_matrix(DENSE)


def with_zeros(kind=scipy.sparse.csr_array):
    """Every place is stored."""
    rows, columns = np.indices(DENSE.shape)
    return kind(scipy.sparse.coo_array((DENSE.ravel(), (rows.ravel(), columns.ravel())), shape=DENSE.shape))


def reversed_rows(flag):
    """Columns fall within each row; ``flag`` says what SciPy believes."""
    matrix = MATRIX.copy()
    for u in range(12):
        part = slice(matrix.indptr[u], matrix.indptr[u + 1])
        matrix.indices[part], matrix.data[part] = matrix.indices[part][::-1].copy(), matrix.data[part][::-1].copy()
    matrix.has_sorted_indices = flag
    return matrix


def int64_indices():
    matrix = scipy.sparse.csr_array(MATRIX)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


FORMS = {
    **{f"{f}_matrix": getattr(scipy.sparse, f"{f}_matrix")(MATRIX) for f in ("csr", "csc", "coo", "lil", "dok", "dia")},
    **{f"{f}_array": getattr(scipy.sparse, f"{f}_array")(MATRIX) for f in ("csr", "csc", "coo", "lil", "dok", "dia")},
    "bsr_matrix": scipy.sparse.bsr_matrix(MATRIX, blocksize=(3, 3)),
    "bsr_array": scipy.sparse.bsr_array(scipy.sparse.csr_array(MATRIX), blocksize=(4, 9)),
    **{str(t): scipy.sparse.csr_array(MATRIX).astype(t) for t in ("int8", "int64", "float64", "longdouble")},
    "int64 indices": int64_indices(),
    "unsorted": reversed_rows(False),
    "unsorted, and SciPy thinks otherwise": reversed_rows(True),
    "stored zeros": with_zeros(),
    "stored zeros by columns": with_zeros(scipy.sparse.csc_matrix),
    "tensor": tf.sparse.from_dense(DENSE),
    "tensor of float16": tf.sparse.from_dense(DENSE.astype(np.float16)),
    "tensor with zeros": tf.SparseTensor(np.argwhere(DENSE > -9), DENSE.ravel(), DENSE.shape),
}


def fitted(matrix=MATRIX, **options):
    model = ALS(**{"factors": 3, "iterations": 2, "seed": 1, **options})
    model.fit(matrix, verbose=0)
    return model


@pytest.fixture(scope="module")
def model():
    return fitted()


def rows_of(source, users):
    """Rows as a person takes them from such a matrix."""
    if isinstance(source, tf.SparseTensor):
        return tf.sparse.from_dense(tf.gather(tf.sparse.to_dense(tf.sparse.reorder(source)), users))
    return (source if source.format in ("csr", "csc", "lil", "dok") else source.tocsr())[users]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_matrix(model, form):
    source = FORMS[form]
    kept = source.copy() if scipy.sparse.issparse(source) else source
    other = fitted(source)
    np.testing.assert_array_equal(other.user_factors, model.user_factors)
    np.testing.assert_array_equal(other.item_factors, model.item_factors)
    assert other.training_loss(source) == model.training_loss(MATRIX)
    asked = other.recommend([3, 0], rows_of(source, [3, 0]), k=9)
    for found, wanted in zip(asked, model.recommend([3, 0], MATRIX[[3, 0]], k=9), strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(other.recalculate_users(source), model.recalculate_users(MATRIX))
    for found, wanted in zip(other.explain(source, 5, user=3), model.explain(MATRIX, 5, user=3), strict=True):
        np.testing.assert_array_equal(found, wanted)
    if scipy.sparse.issparse(source):
        # What was given is left as it was.
        assert source.nnz == kept.nnz
        np.testing.assert_array_equal(source.toarray(), kept.toarray())


def test_numbers_of_type_bool(model):
    liked = scipy.sparse.csr_array(DENSE > 0)
    ones = fitted(liked.astype(np.float32))
    np.testing.assert_array_equal(fitted(liked).item_factors, ones.item_factors)
    np.testing.assert_array_equal(ones.recommend(3, liked[3])[0], ones.recommend(3, liked.astype(int)[3])[0])


ROWS = {
    "csr_array": scipy.sparse.csr_array(MATRIX)[3],
    "int64 indices": int64_indices()[3],
    "coo_array": scipy.sparse.coo_array(DENSE[3]),
    "dok_array": scipy.sparse.dok_array(DENSE[3]),
    "stored zeros": with_zeros()[3],
    "int": scipy.sparse.csr_array(MATRIX)[3].astype(int),
    "a slice": scipy.sparse.csr_array(MATRIX)[3:4],
    "a list of one": scipy.sparse.csr_array(MATRIX)[[3]],
    "csr_matrix": MATRIX[3],
    "tensor": tf.sparse.from_dense(DENSE[3]),
    "tensor of two": tf.sparse.from_dense(DENSE[3:4]),
}


@pytest.mark.parametrize("form", ROWS)
def test_a_row_of_one_dimension_is_one_row(form):
    row, model = ROWS[form], fitted()
    for user in (3, np.int64(3), np.array(3), tf.constant(3)):
        for found, wanted in zip(model.recommend(user, row, k=4), model.recommend(3, MATRIX[3], k=4), strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert model.recommend([3], row, k=4)[0].shape == (1, 4)
    new = [model.recommend(50, r, recalculate=True)[0].tolist() for r in (row, MATRIX[3])]
    assert new[0] == new[1]
    assert model.explain(row, 5)[0] == model.explain(MATRIX, 5, user=3)[0]
    np.testing.assert_array_equal(model.recalculate_users(row), model.recalculate_users(MATRIX[3]))
    np.testing.assert_array_equal(
        model.similar_users(3, recalculate=True, user_items=row)[0],
        model.similar_users(3, recalculate=True, user_items=MATRIX[3])[0],
    )
    model.partial_fit_users([12], row)
    np.testing.assert_array_equal(model.user_factors[12], model.recalculate_users(MATRIX[3])[0])


def test_a_column_of_an_array_is_a_row_of_an_item(model):
    column = scipy.sparse.csc_array(MATRIX)[:, 4]
    assert column.ndim == 1
    np.testing.assert_array_equal(model.recalculate_items(column), model.recalculate_items(MATRIX[:, 4].T))


def test_one_user_in_one_dimension():
    model = fitted(scipy.sparse.csr_array(MATRIX)[3])
    assert (model.num_users, model.num_items) == (1, 9)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (DENSE, r"Received: <class 'numpy.ndarray'>.\nMake one of dense values by scipy.sparse.csr_array"),
        (DENSE[3], "must be a SciPy sparse matrix"),
        (np.asmatrix(DENSE), "must be a SciPy sparse matrix"),
        (DENSE[3].tolist(), "Received: <class 'list'>"),
        (tf.constant(DENSE), "must be a SciPy sparse matrix"),
        (None, "must be a SciPy sparse matrix"),
        (scipy.sparse.csr_array(DENSE.astype(complex)), "real numbers.\nReceived: values of type complex128"),
        (scipy.sparse.coo_array((2, 12, 9)), r"one dimension \(a row\) or two.\nReceived: shape \(2, 12, 9\)"),
        (tf.SparseTensor([[0, 0, 0]], [1.0], [2, 12, 9]), r"must have one dimension \(a row\) or two"),
        (tf.SparseTensor([[0, 0]], ["a"], [12, 9]), "values of type string"),
        (tf.SparseTensor([[0, 9]], [1.0], [12, 9]), "outside its shape"),
        (tf.SparseTensor([[-1, 0]], [1.0], [12, 9]), "outside its shape"),
        (scipy.sparse.csr_matrix(([1e300], [0], [0] * 12 + [1]), (12, 9)), "must be finite in float32"),
        (scipy.sparse.csc_array(([1.0, 2.0], [3, 3], [0, 2] + [2] * 8), (12, 9)), "occurs twice"),
        (scipy.sparse.csr_array((12, 9)), r"must have entries.\nReceived: an empty matrix of shape \(12, 9\)"),
        (with_zeros() * 0, "must have entries"),
        (scipy.sparse.csr_array((0, 9)), "must have entries"),
    ],
)  # fmt: skip
def test_rejected_matrices(matrix, message):
    with pytest.raises(InputError, match=message):
        fitted(matrix)


def test_columns_that_a_matrix_does_not_have():
    for column in (9, -1, 2**31 - 1):
        damaged = MATRIX.copy()
        damaged.indices[0] = column
        with pytest.raises(InputError, match="is no valid CSR matrix"):
            fitted(damaged)


@pytest.mark.parametrize("width", [0, 1, 8, 10, 12])
def test_both_widths_are_told(model, width):
    for rows in (scipy.sparse.csr_array((1, width)), scipy.sparse.csr_array((1, width))[0]):
        for ask in (
            lambda r: model.recommend(3, r),
            lambda r: model.recalculate_users(r),
            lambda r: model.explain(r, 2),
            lambda r: model.partial_fit_users([3], r),
            lambda r: model.similar_users(3, recalculate=True, user_items=r),
        ):
            with pytest.raises(InputError) as caught:
                ask(rows)
            assert ", 9)" in str(caught.value)
            assert f"Received: shape {rows.shape}" in str(caught.value)
    with pytest.raises(InputError, match=rf"must be of shape \('any', 12\).\nReceived: shape \(1, {width + 3}\)"):
        model.recalculate_items(scipy.sparse.csr_array((1, width + 3)) if width != 9 else None)


def test_rows_of_other_users_are_refused_with_what_to_give(model):
    with pytest.raises(InputError, match=r"Give a row for each: user_items=matrix\[numbers\]"):
        model.recommend([0, 3], MATRIX)
    with pytest.raises(InputError, match=r"must be of shape \(2, 9\)"):
        model.recommend([0, 3], scipy.sparse.csr_array(MATRIX)[0])


@pytest.mark.parametrize(
    ("k", "message"),
    [(0, "`k` must be at least 1"), (-3, "Received: k=-3"), (True, "whole number"), (2.0, "Received: k=2.0"),
     (float("nan"), "whole number"), (None, "whole number"), ("3", "whole number"), ([3], "whole number")],
)  # fmt: skip
def test_rejected_k(model, k, message):
    for ask in (
        lambda: model.recommend(3, MATRIX[3], k=k),
        lambda: model.similar_items(3, k=k),
        lambda: model.similar_users([3], k=k),
        lambda: model.explain(MATRIX, 3, k=k),
    ):
        with pytest.raises(InputError, match=message):
            ask()


@pytest.mark.parametrize("k", [9, 10, 300_000_000, 2**31, 2**63, 2**80, np.int64(2**62), np.array(50)])
def test_k_beyond_the_items_gives_all_items(model, k):
    all_ids, _ = model.recommend([0, 3, 7], MATRIX[[0, 3, 7]], k=9)
    ids, scores = model.recommend([0, 3, 7], MATRIX[[0, 3, 7]], k=k)
    assert ids.shape == scores.shape == (3, 9)
    np.testing.assert_array_equal(ids, all_ids)
    for row, user in zip(ids, (0, 3, 7), strict=True):
        left = set(np.flatnonzero(DENSE[user] == 0).tolist()) if user != 7 else set()
        assert set(row[: len(left)].tolist()) == left
        assert (row[len(left) :] == -1).all()
    assert (scores[ids < 0] == -np.inf).all()
    np.testing.assert_array_equal(model.recommend(3, MATRIX[3], k=k)[0], ids[1][ids[1] >= 0])
    assert model.similar_items([3, 4], k=k)[0].shape == (2, 9)
    assert model.similar_users([3, 4], k=k)[0].shape == (2, min(int(k), 12))
    assert len(model.explain(MATRIX, 3, k=k, user=3)[1]) == (DENSE[3] > 0).sum()


def test_nobody_is_asked_for(model):
    for nobody in ([], np.array([], int), ()):
        assert model.recommend(nobody, MATRIX[[]])[0].shape == (0, 9)
        assert model.recommend(nobody, filter_seen=False, k=3)[1].shape == (0, 3)
        assert model.similar_items(nobody, k=3)[0].shape == (0, 3)
    before = model.user_factors
    model.partial_fit_users([], MATRIX[[]])
    np.testing.assert_array_equal(model.user_factors, before)
    assert model.rank_items(3, [])[0].shape == (0,)


def test_what_to_choose_from(model):
    ids, scores = model.recommend([0, 3], filter_seen=False, items=[5, 1, 5], k=10)
    assert ids.shape == scores.shape == (2, 2)
    assert (np.sort(ids, axis=1) == [1, 5]).all()
    assert model.recommend([0, 3], MATRIX[[0, 3]], items=[], k=3)[0].shape == (2, 0)
    assert model.recommend(3, MATRIX[3], items=[])[0].shape == (0,)
    # Nothing to leave out is no contradiction.
    for nothing in ([], None, np.array([])):
        assert set(model.recommend(0, filter_seen=False, items=[1, 2], filter_items=nothing)[0].tolist()) == {1, 2}
    everything = model.recommend([0, 3], filter_seen=False, filter_items=range(9), k=3)
    np.testing.assert_array_equal(everything[0], np.full((2, 3), -1))
    assert (everything[1] == -np.inf).all()
    assert model.recommend(0, filter_seen=False, filter_items=range(9))[0].shape == (0,)
    assert 4 not in model.recommend(0, filter_seen=False, filter_items=4, k=9)[0]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([9], "must lie in 0 to 8.\nReceived: 9"),
        ([-1], "must lie in 0 to 8.\nReceived: -1"),
        (np.uint64(2**63 + 1), "Received: 9223372036854775809"),
        ([True, False], "must be a whole number or a list of them"),
        ([0.5], "must be a whole number or a list of them"),
        ("3", "must be a whole number or a list of them"),
        ({1, 2}, "must be a whole number or a list of them"),
        ([[1], [2, 3]], "must be a whole number or a list of them"),
        ([[1]], "must be a whole number or a list of them"),
        (2**80, "must be a whole number or a list of them"),
    ],
)
def test_rejected_numbers(model, numbers, message):
    for name, ask in (
        ("filter_items", lambda: model.recommend(0, filter_seen=False, filter_items=numbers)),
        ("items", lambda: model.recommend(0, filter_seen=False, items=numbers)),
        ("among", lambda: model.similar_items(0, among=numbers)),
        ("filter_items", lambda: model.similar_items(0, filter_items=numbers)),
        ("items", lambda: model.similar_items(numbers)),
    ):
        with pytest.raises(InputError, match=message) as caught:
            ask()
        assert str(caught.value).startswith(f"`{name}` must")


def test_rejected_questions(model):
    for ask, message in (
        (lambda: model.recommend([[0], [1, 2]], filter_seen=False), "`users` must be a whole number or a list of them"),
        (lambda: model.recommend(-5, MATRIX[0], recalculate=True), "`users` must be at least 0.\nReceived: -5"),
        (lambda: model.explain(MATRIX, [3]), "`item` must be one whole number"),
        (lambda: model.explain(MATRIX, 3, user=12), "`user` must lie in 0 to 11"),
        (lambda: model.explain(MATRIX, 3, user=True), "`user` must be a whole number"),
        (lambda: model.partial_fit_users([-1], MATRIX[0]), "`users` must be at least 0"),
        (lambda: model.partial_fit_users([2**40], MATRIX[0]), "numbers of rows end at 2,147,483,647"),
        (lambda: model(tf.constant(DENSE)), r"called with \(users, items\), or with sparse rows"),
        (lambda: model((np.array([0, 1]), np.array([[1], [2]]))), "must have the same shape"),
        (lambda: model(tf.sparse.from_dense(DENSE[:, :8])), r"Rows must have 9 columns.*\nReceived: shape \(12, 8\)"),
    ):
        with pytest.raises(InputError, match=message):
            ask()
    assert model.num_users == 12


def test_rejected_before_a_fit():
    for ask in (
        lambda m: m.recommend(0, MATRIX[0]),
        lambda m: m.partial_fit_users([0], MATRIX[0]),
        lambda m: m.partial_fit_items([0], MATRIX[:, 0].T),
        lambda m: m.explain(MATRIX, 0),
        lambda m: m.export("nowhere"),
        lambda m: m((np.array([0]), np.array([0]))),
    ):
        model = ALS(factors=2, iterations=1)
        with pytest.raises(InputError, match=r"Call fit\(user_items\) first"):
            ask(model)
        model.fit(MATRIX, verbose=0)  # nothing is in its way now
        assert model.num_users == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 5}, "Give both `num_users` and `num_items`, or neither"),
        ({"num_users": 5, "num_items": 2.5}, "`num_items` must be a whole number"),
        ({"num_users": 10**12, "num_items": 5}, "numbers of rows end at 2,147,483,647"),
        ({"iterations": 2.5}, "`iterations` must be a whole number"),
        ({"factors": True}, "`factors` must be a whole number"),
        ({"seed": True}, "`seed` must be a whole number"),
    ],
)
def test_rejected_settings(options, message):
    with pytest.raises(InputError, match=message):
        ALS(**options)


def test_raw_ids_in_place_of_numbers():
    """A table of a million million rows is refused before it is made, and the model can still be fitted."""
    model = ALS(factors=2, iterations=1)
    far = scipy.sparse.coo_array(([1.0], ([0], [10**12])), shape=(1, 10**12 + 1))
    with pytest.raises(InputError, match="Number users and items from 0 on without gaps"):
        model.fit(far, verbose=0)
    model.fit(MATRIX, verbose=0)
    assert model.num_items == 9


@pytest.mark.parametrize("solver", ["cg", "cholesky", "block"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_large_weights_are_right(solver, dtype):
    """8 factors hold 9 items nearly as they are: what is liked has a score near 1, what is disliked near 0."""
    for alpha in (1e2, 1e4):
        options = {"factors": 8, "regularization": 1.0, "iterations": 15, "alpha": alpha}
        model = fitted(solver=solver, factor_dtype=dtype, **options)
        scores = model.user_factors.astype(np.float64) @ model.item_factors.astype(np.float64).T
        np.testing.assert_allclose(scores[DENSE != 0], DENSE[DENSE != 0] > 0, atol=0.1)


@pytest.mark.parametrize("solver", ["cg", "cholesky", "block"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("power", [9, 10, 12, 12.5, 13, 14, 20, 30, 37, 300])
def test_weights_too_large_are_refused(solver, dtype, power):
    """Near the end of float32's range conjugate gradients would stay where they began, for some of the rows."""
    with pytest.raises(InputError, match="may reach 1e.09.*\nReceived: up to .*\nLower `alpha`"):
        fitted(abs(MATRIX), alpha=10.0**power, solver=solver, factor_dtype=dtype)


def test_weights_too_large_beside_the_unobserved_ones():
    with pytest.raises(InputError, match="with unobserved_weight=1e-07"):
        fitted(abs(MATRIX), alpha=1e3, unobserved_weight=1e-7)
    model = fitted(abs(MATRIX), unobserved_weight=0.0)
    with pytest.raises(InputError, match="up to 4e\\+12 in `user_items`"):
        model.recalculate_users(abs(MATRIX) * 1e12)
