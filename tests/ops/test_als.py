"""The half-sweep against one dense float64 solve per row, on the native kernels and on their TensorFlow twin."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrec import ops
from tfrec.errors import InputError
from tfrec.ops import als

#: What the fixture `kernels` makes forget the native library.
WRAPPER = als

OBJECTIVES = [
    {},
    {"alpha": 2.5, "regularization": 0.1, "unobserved_weight": 0.3},
    {"regularization": 0.003, "unobserved_weight": 0.1, "frequency_exponent": 1.0},
    {"alpha": 0.5, "regularization": 0.5, "unobserved_weight": 1.0, "frequency_exponent": 0.5},
]


def problem(random, factors, dtype, rows=60, fixed=150):
    """Rows of many lengths, with empty ones and one that has everything; a fifth of the values are dislikes."""
    matrix = scipy.sparse.random(
        rows, fixed, 0.1, format="lil", random_state=np.random.RandomState(0), dtype=np.float32
    )
    matrix[3] = 0
    matrix[7] = random.random(fixed) + 0.1
    matrix = scipy.sparse.csr_matrix(matrix)
    matrix.data = ((random.random(matrix.nnz) * 4 + 0.1) * np.where(random.random(matrix.nnz) < 0.2, -1, 1)).astype(
        np.float32
    )
    matrix.sort_indices()
    table = random.normal(size=(fixed, factors)).astype(dtype)
    start = random.normal(size=(rows, factors)).astype(dtype)
    return matrix, table, start


def solve(matrix, table, start, **options):
    entries = ops.Entries(matrix)
    fixed = tf.constant(table)
    solved, bad, _ = ops.half_sweep(
        entries, fixed, ops.gramian(fixed), tf.constant(start), ops.Sweep(**options), 0, matrix.shape[0]
    )
    assert bad == -1
    return solved.numpy().astype(np.float64)


def expected(matrix, table, options):
    full = {"alpha": 1.0, "regularization": 0.01, "unobserved_weight": 1.0, "frequency_exponent": 0.0, **options}
    return oracles.als_rows(matrix.indptr, matrix.indices, matrix.data, table, **full)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("factors", [1, 7, 16, 40, 64, 100])
def test_cholesky_is_the_exact_solution(random, kernels, factors, objective):
    matrix, table, start = problem(random, factors, np.float32)
    wanted = expected(matrix, table, objective)
    found = solve(matrix, table, start, solver="cholesky", **objective)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    assert not found[3].any()


@pytest.mark.parametrize("solver", als.SOLVERS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_float16_storage_costs_its_rounding(random, kernels, solver, objective):
    matrix, table, start = problem(random, 24, np.float16)
    wanted = expected(matrix, table.astype(np.float64), objective)
    found = solve(matrix, table, start, solver=solver, cg_steps=80, block_size=24, **objective)
    # Half a unit in the last place of float16, 2^-11 of the value, and float32's error.
    np.testing.assert_allclose(found, wanted, rtol=2**-11, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_cg_converges_to_the_exact_solution(random, kernels, objective):
    matrix, table, start = problem(random, 20, np.float32)
    wanted = expected(matrix, table, objective)
    found = solve(matrix, table, start, solver="cg", cg_steps=60, **objective)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("options", [{"solver": s, "block_size": 5} for s in als.SOLVERS])
def test_rows_with_dislikes_only_become_zero(random, kernels, options, dtype):
    """Their right-hand side is zero. An iterative solver that begins elsewhere would leave what it rounds."""
    matrix, table, start = problem(random, 24, dtype)
    for row in (0, 7, 11, 59):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        matrix.data[part] = -np.abs(matrix.data[part])
    disliked = [u for u in range(60) if (matrix[[u]].data < 0).all() and matrix[[u]].nnz]
    assert set(disliked) >= {0, 7, 11, 59}
    found = solve(matrix, table, start, **options)
    np.testing.assert_array_equal(found[disliked], 0)
    assert found[[u for u in range(60) if (matrix[[u]].data > 0).any()]].any(axis=1).all()
    # In place, and a part of the rows only.
    entries, fixed, variable = ops.Entries(matrix, 5, 60), tf.constant(table), tf.Variable(start)
    sweep = ops.Sweep(**options)
    bad, _ = ops.half_sweep_in_place(entries, fixed, ops.gramian(fixed), variable, 5, sweep, 0, 55)
    assert bad == -1
    np.testing.assert_array_equal(variable.numpy()[[u for u in disliked if u >= 5]], 0)
    np.testing.assert_array_equal(variable.numpy()[:5], start[:5])
    np.testing.assert_allclose(variable.numpy()[5:], found[5:], atol=2e-3 * np.abs(found).max())


def penalties(matrix, options):
    """lambda (n_u + w0 M)^nu of each row."""
    full = {"regularization": 0.01, "unobserved_weight": 1.0, "frequency_exponent": 0.0, **options}
    size = np.diff(matrix.indptr) + full["unobserved_weight"] * matrix.shape[1]
    return full["regularization"] * size ** full["frequency_exponent"]


def dense_systems(matrix, table, options):
    """The matrix and the right-hand side of each row that has entries, float64."""
    alpha, w0 = options.get("alpha", 1.0), options.get("unobserved_weight", 1.0)
    table = table.astype(np.float64)
    penalty = penalties(matrix, options)
    for u in np.flatnonzero(np.diff(matrix.indptr)):
        part = slice(matrix.indptr[u], matrix.indptr[u + 1])
        y, v = table[matrix.indices[part]], matrix.data[part].astype(np.float64)
        c = alpha * np.abs(v)
        yield u, w0 * table.T @ table + (y.T * (c - w0)) @ y + penalty[u] * np.eye(table.shape[1]), y.T @ (c * (v > 0))


def test_the_preconditioner_leaves_eigenvalues_up_to_the_largest_confidence(random):
    options = {"alpha": 3.0, "unobserved_weight": 0.25, "regularization": 0.05}
    matrix, table, _ = problem(random, 40, np.float32)
    # Directions of very different sizes, as learned factors have them; all confidences at least w0.
    table *= np.geomspace(1, 1e-2, 40, dtype=np.float32)
    gram = tf.constant(table.T @ table)
    inverse, shift = als.preconditioner(ops.Entries(matrix), gram, ops.Sweep(**options))
    assert shift == np.float32(0.05)
    plain, left = [], []
    for _, system, _ in dense_systems(matrix, table, options):
        plain.append(np.linalg.cond(system))
        left.append(np.linalg.eigvals(inverse.astype(np.float64) @ system).real)
    assert min(map(np.min, left)) > 0.99
    assert max(map(np.max, left)) < 1.01 * 3.0 * np.abs(matrix.data).max() / 0.25
    assert max(np.max(e) / np.min(e) for e in left) < max(plain) / 20


def test_cg_is_as_good_as_the_theory_of_its_condition(random, kernels):
    """|x_k - x|_A <= 2 ((sqrt(K) - 1) / (sqrt(K) + 1))^k |x_0 - x|_A, with K = max c / w0."""
    options = {"unobserved_weight": 1.0, "regularization": 0.05}
    matrix, table, start = problem(random, 40, np.float32)
    matrix.data = np.abs(matrix.data) + np.float32(1.0)
    root = np.sqrt(matrix.data.max())
    table *= np.geomspace(1, 1e-2, 40, dtype=np.float32)
    for steps in (1, 3, 6):
        found = solve(matrix, table, start, solver="cg", cg_steps=steps, **options)
        for u, system, right in dense_systems(matrix, table, options):
            exact = np.linalg.solve(system, right)
            before, after = (e @ system @ e for e in (start[u] - exact, found[u] - exact))
            # The square of the bound, and what float32 leaves.
            assert after <= (4 * ((root - 1) / (root + 1)) ** (2 * steps) + 1e-6) * before


@pytest.mark.parametrize("options", [{"regularization": 0.0}, {"regularization": 0.0, "unobserved_weight": 0.0}, {}])
def test_the_preconditioner_of_a_table_without_full_rank(random, options):
    """Five fixed rows, or none, for twelve factors."""
    for table in (random.normal(size=(5, 12)).astype(np.float32), np.zeros([5, 12], np.float32)):
        entries = ops.Entries(scipy.sparse.csr_matrix(np.ones([2, 5], np.float32)))
        inverse, shift = als.preconditioner(entries, tf.constant(table.T @ table), ops.Sweep(**options))
        sizes = np.linalg.eigvalsh(inverse.astype(np.float64))
        if options.get("regularization") == 0 and options.get("unobserved_weight") != 0 and table.any():
            # CG must not leave the five directions that the table has.
            assert shift == 0
            assert (np.abs(sizes[:7]) < 1e-6 * sizes[-1]).all()
            assert (sizes[7:] > 1e-4 * sizes[-1]).all()
        else:
            assert shift > 0
            assert (sizes > 0).all()


def objective_of_rows(matrix, table, rows, options):
    """Dense and in float64: every pair of a row counts, its stored ones with their confidence."""
    alpha, w0 = options.get("alpha", 1.0), options.get("unobserved_weight", 1.0)
    values = matrix.toarray().astype(np.float64)
    weight = np.where(values != 0, alpha * np.abs(values), w0)
    missed = (values > 0) - rows.astype(np.float64) @ table.astype(np.float64).T
    return (weight * missed**2).sum(axis=1) + penalties(matrix, options) * (rows.astype(np.float64) ** 2).sum(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_are_the_objective_without_its_penalty(random, kernels, objective, dtype):
    matrix, table, rows = problem(random, 17, dtype)
    entries, fixed = ops.Entries(matrix), tf.constant(table)
    found = ops.losses(entries, fixed, ops.gramian(fixed), tf.constant(rows), ops.Sweep(**objective))
    wanted = objective_of_rows(matrix, table, rows, {**objective, "regularization": 0.0})
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    penalty = als.row_regularization(ops.Sweep(**objective), np.diff(matrix.indptr), matrix.shape[1])
    np.testing.assert_allclose(penalty, penalties(matrix, objective))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("options"), [{"solver": "cg", "cg_steps": 2}, {"solver": "block", "block_size": 5}, {"solver": "block"}]
)
def test_no_row_gets_worse(random, kernels, objective, options):
    matrix, table, start = problem(random, 40, np.float32)
    before = objective_of_rows(matrix, table, np.where(np.diff(matrix.indptr)[:, None] > 0, start, 0), objective)
    found = solve(matrix, table, start, **options, **objective)
    after = objective_of_rows(matrix, table, found, objective)
    best = objective_of_rows(matrix, table, expected(matrix, table, objective), objective)
    assert (after <= before * (1 + 1e-5) + 1e-4).all()
    assert (after >= best - 1e-4 * np.abs(best) - 1e-3).all()


def test_a_block_as_wide_as_the_factors_is_exact(random, kernels):
    matrix, table, start = problem(random, 33, np.float32)
    wanted = expected(matrix, table, {})
    found = solve(matrix, table, start, solver="block", block_size=33)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("options", [{"solver": s, "block_size": b} for s in als.SOLVERS for b in (5, 16)])
@pytest.mark.parametrize("factors", [5, 48])
def test_native_and_twin_take_the_same_steps(random, monkeypatch, dtype, options, factors):
    matrix, table, start = problem(random, factors, dtype)
    native = solve(matrix, table, start, **options)
    monkeypatch.setattr(als, "library", lambda: None)
    twin = solve(matrix, table, start, **options)
    tolerance = 2e-3 if dtype == np.float16 else 2e-4
    np.testing.assert_allclose(native, twin, atol=tolerance * np.abs(twin).max())


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
@pytest.mark.parametrize("solver", als.SOLVERS)
def test_rows_that_threads_share(random, solver):
    """One row holds nearly all the work: its entries go through all threads."""
    long = scipy.sparse.csr_matrix(random.random((1, 5_000)).astype(np.float32) + 0.5)
    short = scipy.sparse.csr_matrix((np.ones(30, np.float32), (np.arange(30), np.arange(30))), shape=(30, 5_000))
    matrix = scipy.sparse.csr_matrix(scipy.sparse.vstack([short, long]))
    table = random.normal(size=(5_000, 24)).astype(np.float32) * 0.3
    start = np.zeros((31, 24), np.float32)
    found = solve(matrix, table, start, solver=solver, cg_steps=40, block_size=24)
    wanted = expected(matrix, table, {})
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@given(
    st.integers(0, 30),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0, 1),
    st.sampled_from(als.SOLVERS),
    st.integers(1, 50),
    st.sampled_from([np.float32, np.float16]),
)
@settings(max_examples=60, deadline=None)
def test_any_shape(rows, fixed, factors, density, solver, block_size, dtype):
    random = np.random.default_rng(rows * 41 + fixed)
    matrix = scipy.sparse.random(rows, fixed, density, format="csr", random_state=random, dtype=np.float32)
    matrix.sort_indices()
    table = random.normal(size=(fixed, factors)).astype(dtype)
    start = np.zeros((rows, factors), dtype)
    options = {"regularization": 0.5, "unobserved_weight": 0.5}
    found = solve(matrix, table, start, solver=solver, cg_steps=60, block_size=block_size, **options)
    assert found.shape == (rows, factors)
    assert np.isfinite(found).all()
    if solver == "cholesky" and rows:
        wanted = expected(matrix, table, options)
        np.testing.assert_allclose(found, wanted, atol=2e-3 * max(np.abs(wanted).max(), 1e-3))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gramian(random, kernels, dtype):
    table = random.normal(size=(1_000, 37)).astype(dtype)
    found = ops.gramian(tf.constant(table)).numpy()
    wanted = table.astype(np.float64).T @ table.astype(np.float64)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert found.dtype == np.float32
    if kernels == "native":
        np.testing.assert_array_equal(found, found.T)


def test_solutions_beyond_float16_are_reported_with_their_row(random, kernels):
    matrix, table, start = problem(random, 4, np.float16)
    table = np.zeros_like(table)
    table[:, 0] = 1e-4  # x = about 1 / 1e-4 = 1e4; with 1e-7 it would be 1e7
    table[matrix.indices[matrix.indptr[5]]] = 0
    entries, fixed = ops.Entries(abs(matrix)), tf.constant(np.full_like(table, 6e-8))
    _, bad, _ = ops.half_sweep(
        entries,
        fixed,
        ops.gramian(fixed),
        tf.constant(start),
        ops.Sweep(solver="cholesky", regularization=1e-12, unobserved_weight=0.0),
        0,
        matrix.shape[0],
    )
    assert bad == 0


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": [0, 9]}, "`columns` must lie in 0 to 3, the rows of `fixed`. Received: 9"),
        ({"columns": [0, -1]}, "`columns` must lie in 0 to 3, the rows of `fixed`. Received: -1"),
        ({"row_offsets": [0, 1, 5]}, "`row_offsets` must lie in 0 to 2"),
        ({"row_offsets": [0, 2, 1]}, "`row_offsets` must not fall. Received: 2 then 1 at row 1"),
        ({"row_offsets": [0, 1]}, "`row_offsets` must be [num_rows + 1]"),
        ({"row_order": [0, 2]}, "`row_order` must hold each row once"),
        ({"row_order": [1, 1]}, "`row_order` must hold each row once, 0 to 1. Received: 1 at position 1"),
        ({"row_order": [0]}, "`row_order` must be [num_rows], here [2]"),
        ({"values": [1.0]}, "`values` must be of the shape of `columns`"),
        ({"gramian": [[1.0]]}, "`gramian` must be [factors, factors]"),
        ({"inverse": [[1.0]]}, "`inverse` must be of the shape of `gramian`"),
        ({"shift": -0.1}, "`shift` must be a finite number >= 0"),
        ({"start": [[1.0]]}, "`start` must be [num_rows, factors of fixed]"),
        ({"alpha": float("nan")}, "`alpha` must be a finite number >= 0"),
        ({"regularization": -1.0}, "`regularization` must be a finite number >= 0"),
        ({"fixed": np.ones([4, 1025])}, "`fixed` must have 1 to 1024 factors. Received: 1025"),
        ({"alpha": [1.0]}, "`alpha` must be a scalar. Received shape: [1]"),
        ({"shift": []}, "`shift` must be a scalar. Received shape: [0]"),
        ({"num_long": [0, 1]}, "`num_long` must be a scalar. Received shape: [2]"),
        ({"num_long": 3}, "`num_long` must be 0 to 2"),
        ({"num_long": -1}, "`num_long` must be 0 to 2"),
        ({"row_offsets": [0, 2**63 - 1, 2]}, "`row_offsets` must not fall"),
        ({"row_offsets": [-(2**63), 1, 2]}, "`row_offsets` must lie in 0 to 2"),
    ],
)
def test_the_native_operation_rejects(change, message):
    arguments = {
        "row_offsets": [0, 1, 2],
        "columns": [0, 1],
        "values": [1.0, 1.0],
        "row_order": [0, 1],
        "fixed": np.ones([4, 2]),
        "gramian": np.ones([2, 2]),
        "start": np.zeros([2, 2]),
        "alpha": 1.0,
        "regularization": 0.1,
        "unobserved_weight": 1.0,
        "frequency_exponent": 0.0,
        "num_long": 0,
        "inverse": np.eye(2),
        "shift": 0.1,
        **change,
    }
    integers = {"row_offsets": np.int64, "columns": np.int32, "row_order": np.int64, "num_long": np.int64}
    given = {name: np.asarray(value, integers.get(name, np.float32)) for name, value in arguments.items()}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.library().tfrec_als_half_sweep(**given, solver="cg")
    assert message in caught.value.message


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_row": 2**63 - 1}, "`first_row` and the 2 rows of `row_offsets` must lie in the 3 rows of `table`"),
        ({"first_row": 2**63 - 2}, "Received: first_row=9223372036854775806"),
        ({"first_row": -(2**63)}, "`first_row` and the 2 rows"),
        ({"first_row": 2}, "`first_row` and the 2 rows"),
        ({"first_row": [1]}, "`first_row` must be a scalar"),
        ({"first_row": []}, "`first_row` must be a scalar"),
        ({"row_offsets": []}, "`row_offsets` must be [num_rows + 1]"),
        ({"row_offsets": [[0, 1, 2]]}, "`row_offsets` must be [num_rows + 1]"),
        ({"table": "handles"}, "`table` must be a variable. Received handles of shape: [1]"),
        ({"table": "vector"}, "`table` must be a matrix of the type of `fixed`"),
        ({"table": "half"}, "`table` must be a matrix of the type of `fixed`"),
        ({"cg_steps": 2**31 - 1}, "`cg_steps` must be 1 to 65536. Received: 2147483647"),
        ({"cg_steps": 0}, "at least minimum 1"),
        ({"block_size": 2**31}, "out of range for an int32"),
    ],
    ids=str,
)
def test_the_native_operation_in_place_rejects(change, message):
    tables = {
        "vector": tf.Variable(tf.zeros([6])),
        "half": tf.Variable(tf.zeros([3, 2], tf.float16)),
        None: tf.Variable(tf.reshape(tf.range(6.0), [3, 2])),
    }
    table = tables.get(change.get("table"), tables[None])
    before = table.numpy()
    arguments = {
        "row_offsets": np.array(change.get("row_offsets", [0, 1, 2]), np.int64),
        "columns": np.array([0, 1], np.int32),
        "values": np.ones(2, np.float32),
        "row_order": np.array([0, 1], np.int64),
        "fixed": np.ones([4, 2], np.float32),
        "gramian": np.eye(2, dtype=np.float32),
        "table": tf.reshape(table.handle, [1]) if change.get("table") == "handles" else table.handle,
        "alpha": 1.0,
        "regularization": 0.1,
        "unobserved_weight": 1.0,
        "frequency_exponent": 0.0,
        "first_row": np.array(change.get("first_row", 0), np.int64),
        "inverse": np.eye(2, dtype=np.float32),
        "shift": 0.1,
        "solver": "cg",
        "cg_steps": change.get("cg_steps", 3),
        "block_size": change.get("block_size", 8),
    }
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.library().tfrec_als_half_sweep_in_place(**arguments)
    assert message in caught.value.message
    np.testing.assert_array_equal(table.numpy(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "`alpha` must be above 0"),
        ({"regularization": -0.1}, "`regularization` must be at least 0"),
        ({"regularization": float("nan")}, "`regularization` must be at least 0"),
        ({"unobserved_weight": -1.0}, "`unobserved_weight` must be at least 0"),
        ({"frequency_exponent": float("inf")}, "`frequency_exponent` must be at least 0"),
        ({"solver": "lu"}, "`solver` must be one of cg, cholesky, block"),
        ({"cg_steps": 0}, "`cg_steps` must be at least 1"),
        ({"cg_steps": 65_537}, "`cg_steps` must be at most 65536"),
        ({"block_size": 0}, "`block_size` must be at least 1"),
        ({"alpha": "2"}, "`alpha` must be a number.\nReceived: alpha='2'"),
        ({"regularization": None}, "`regularization` must be a number"),
        ({"unobserved_weight": True}, "`unobserved_weight` must be a number"),
        ({"cg_steps": 2.5}, "`cg_steps` must be a whole number.\nReceived: cg_steps=2.5"),
        ({"block_size": True}, "`block_size` must be a whole number"),
    ],
)
def test_a_sweep_rejects(options, message):
    with pytest.raises(InputError, match=message):
        ops.Sweep(**options)


CHILD = """
import os, sys
import numpy as np
from tfrec import commands
commands.quiet_tensorflow()
from tests.ops.test_als import expected, problem, solve
random = np.random.default_rng(0)
for factors in (5, 48):
    for dtype, tolerance in ((np.float32, 1e-4), (np.float16, 1e-3)):
        matrix, table, start = problem(random, factors, dtype)
        wanted = expected(matrix, table.astype(np.float64), {})
        found = solve(matrix, table, start, solver="cholesky")
        assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()
from tests.ops.test_dot_top_k import check
check(np.random.default_rng(1), 37, 200, 24, 5, np.float16)
print("good")
"""


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
@pytest.mark.parametrize("kernels", ["baseline", "avx2"])
def test_kernels_of_smaller_processors(kernels):
    """The copies for other instruction sets, which this machine would not choose. Not AVX-512 unless it has it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env={**os.environ, "TFREC_CPU_KERNELS": kernels}, capture_output=True, text=True
    )
    assert done.stdout.endswith("good\n"), done.stderr


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
def test_kernels_are_registered():
    from tensorflow.python.framework import kernels

    def devices(name):
        found = kernels.get_registered_kernels_for_op(name).kernel
        return {(k.device_type, t) for k in found for c in k.constraint for t in c.allowed_values.list.type}

    types = (tf.half.as_datatype_enum, tf.float32.as_datatype_enum)
    everywhere = ("TfrecAlsHalfSweep", "TfrecAlsGramian")
    for name in (*everywhere, "TfrecAlsHalfSweepInPlace", "TfrecAlsLosses", "TfrecDotTopK"):
        assert devices(name) >= {("CPU", t) for t in types}
    if not any(device == "GPU" for device, _ in devices(everywhere[0])):
        pytest.skip("the library was built without CUDA: no nvcc, or TFREC_CUDA=0")
    for name in everywhere:
        assert devices(name) == {(d, t) for d in ("CPU", "GPU") for t in types}


@pytest.mark.gpu
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("solver", als.SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_gpu_takes_the_same_steps(random, dtype, solver, objective):
    matrix, table, start = problem(random, 48, dtype)
    found = []
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device):
            found.append(solve(matrix, table, start, solver=solver, **objective))
    tolerance = 2e-3 if dtype == np.float16 else 2e-4
    np.testing.assert_allclose(found[1], found[0], atol=tolerance * np.abs(found[0]).max())
