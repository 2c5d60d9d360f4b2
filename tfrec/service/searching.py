"""Items and users by a part of their names, as people type it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Names:
    """Finds names by their parts, without regard to capitals and accents.

    Args:
        names: of each row; a title, or an id.
        ids: of each row, as text; found too.
        weights: ``[N]``, what comes first among names that fit as well; None: the lower number.
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str], weights: np.ndarray | None = None) -> None:
        self._names, self._ids, self._weights = names, ids, weights

    @cached_property
    def _folded(self) -> pa.Array:
        return _fold(pa.array(self._names, pa.large_string()))

    @cached_property
    def _folded_ids(self) -> pa.Array:
        return _fold(pa.array(self._ids, pa.large_string()))

    def find(self, text: str, k: int) -> list[int]:
        """Numbers of up to k rows that have each word of ``text`` in their name, or it in their id.

        First come those that are ``text``, then those that begin with it, then the rest; an empty text fits all.
        """
        wanted = _fold(pa.array([text], pa.large_string()))[0].as_py().strip()
        fits = pc.match_substring(self._folded_ids, wanted)
        in_name = [pc.match_substring(self._folded, word) for word in wanted.split()]
        for word in in_name[1:]:
            in_name[0] = pc.and_(in_name[0], word)
        if in_name:
            fits = pc.or_(fits, in_name[0])
        rows = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
        if not len(rows):
            return []
        names, ids = self._folded.take(pa.array(rows)), self._folded_ids.take(pa.array(rows))
        same = pc.or_(pc.equal(names, wanted), pc.equal(ids, wanted))
        begins = pc.or_(pc.starts_with(names, wanted), pc.starts_with(ids, wanted))
        weights = np.zeros(len(rows)) if self._weights is None else self._weights[rows]
        fit = same.to_numpy(zero_copy_only=False).astype(int) + begins.to_numpy(zero_copy_only=False)
        found: list[int] = rows[np.lexsort((rows, -weights, -fit))[:k]].tolist()
        return found


def _fold(texts: pa.Array) -> pa.Array:
    plain = pc.replace_substring_regex(pc.utf8_normalize(texts, form="NFKD"), r"\p{Mn}", "")
    return pc.utf8_lower(plain)
