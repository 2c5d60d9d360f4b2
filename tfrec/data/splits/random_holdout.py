"""Hold out a random share of the user-item pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from tfrec.data.interactions import Interactions
from tfrec.data.report import Report
from tfrec.data.splits.numbering import DISLIKED
from tfrec.errors import InputError


@dataclass(frozen=True)
class RandomHoldout:
    """Random pairs held out. The three matrices are disjoint, float32 ``[U, I]`` over all users and items.

    Args:
        train: values of the pairs that were not held out, dislikes among them.
        validation: values of positive pairs, each above 0; empty unless asked for.
        test: the same.
        report: what became of the source's rows; kept are the pairs of all three.
    """

    train: scipy.sparse.csr_matrix
    validation: scipy.sparse.csr_matrix
    test: scipy.sparse.csr_matrix
    report: Report = field(default_factory=lambda: Report(0, 0))


def random_holdout(
    interactions: Interactions, *, validation_share: float = 0.0, target_share: float = 0.2, seed: int = 0
) -> RandomHoldout:
    """Hold out random shares of the user-item pairs; with one share as implicit's ``train_test_split`` does.

    Of the pairs held out only those with a value above 0 are targets, so only these are in the test or validation set;
    a disliked one that is held out is in none of them, and is counted.

    Each pair has one draw of PCG64's raw output, as a number in [0, 1): below ``target_share`` it is for test, in the
    next ``validation_share`` for validation. So the split is the same on every machine and for every version of NumPy,
    and asking for validation leaves the test set as it is.

    Args:
        interactions: the events; those of one pair are merged first, see `tfrec.data.Interactions.merge`. A pair of
            value 0 has no meaning and is left out.
        validation_share: in [0, 1); 0: no validation set.
        target_share: of the test set, in (0, 1); the two together below 1.
        seed: from 0.

    Raises:
        InputError: a share out of range, or one of the sets is empty.

    Example:
        >>> from tfrec.data import load
        >>> split = random_holdout(load("synthetic", num_users=50, num_items=40), validation_share=0.1, seed=7)
        >>> split.report.kept == split.train.nnz + split.validation.nnz + split.test.nnz
        True
    """
    if not 0 < target_share < 1:
        raise InputError(f"`target_share` must lie between 0 and 1.\nReceived: {target_share}.")
    if not (validation_share >= 0 and target_share + validation_share < 1):
        raise InputError(
            "`validation_share` must be from 0, and leave some for training besides `target_share`.\n"
            f"Received: validation_share={validation_share}, target_share={target_share}.\nTheir sum must be below 1."
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"`seed` must lie in [0, 2^63).\nReceived: {seed}.")
    matrix = interactions.to_csr()
    matrix.eliminate_zeros()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    raw = np.asarray(np.random.PCG64(seed).random_raw(matrix.nnz), np.uint64)
    is_test = raw < np.uint64(target_share * 2.0**64)
    is_held_out = raw < np.uint64((target_share + validation_share) * 2.0**64)
    is_target = matrix.data > 0
    is_validation = is_held_out & ~is_test
    enough = (is_test & is_target).any() and (validation_share == 0 or (is_validation & is_target).any())
    if is_held_out.all() or not enough:
        shares = f"{target_share}" + (f" and one of {validation_share}" if validation_share else "")
        raise InputError(f"Too few interactions to hold out a share of {shares}.\nReceived: {matrix.nnz} pairs.")

    def part(mask: np.ndarray) -> scipy.sparse.csr_matrix:
        return scipy.sparse.csr_matrix((matrix.data[mask], (row[mask], matrix.indices[mask])), shape=matrix.shape)

    report = interactions.report.drop(f"of 0 ({interactions.kind})", interactions.num_pairs - matrix.nnz)
    return RandomHoldout(
        train=part(~is_held_out),
        validation=part(is_validation & is_target),
        test=part(is_test & is_target),
        report=report.drop(DISLIKED, int(np.count_nonzero(is_held_out & ~is_target))),
    )
