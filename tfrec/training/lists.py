"""Lists of items with scores as a tab-separated table, with the ids to join it by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfrec.data.files import atomic_write
from tfrec.printing import printable

_MUST_BE_QUOTED = frozenset('\t\r\n"')


def write_lists(
    path: Path,
    names: dict[str, np.ndarray],
    columns: dict[str, np.ndarray],
    ids: np.ndarray,
    scores: np.ndarray,
) -> None:
    """A header, then a line for each item of each list: its list's names, its rank from 1, its columns, its score.

    Text is written as it is. A field with a tab, a line break or a quote stands in quotes, as in RFC 4180, so that
    ``csv.reader(stream, delimiter="\\t")``, ``pandas.read_csv(path, sep="\\t")`` and spreadsheets read back what was
    meant. Nothing is put before a title that begins with ``=``, ``+``, ``-`` or ``@``, which a spreadsheet takes for a
    formula: import such a file with its columns as text.

    Args:
        path: the file, written whole or not at all.
        names: header -> ``[B]``, of the lists.
        columns: header -> ``[I]``, of the items.
        ids: item numbers ``[B, k]``; -1 are left out.
        scores: ``[B, k]``.

    Raises:
        InputError: the file cannot be written.
    """
    of_list = _joined(names)
    of_item = _joined(columns)
    lines = 0
    with atomic_write(path, "w") as stream:
        stream.write("\t".join([*names, "rank", *columns, "score"]) + "\n")
        for first, row, row_scores in zip(of_list, ids.tolist(), scores.tolist(), strict=True):
            rank = 0
            for item, score in zip(row, row_scores, strict=True):
                if item >= 0:
                    rank += 1
                    stream.write(f"{first}\t{rank}\t{of_item[item]}\t{score:.6g}\n")
            lines += rank
    print(f"Wrote {lines:,} lines to {printable(path)}")


def _joined(columns: dict[str, np.ndarray]) -> list[str]:
    """A row of fields for each entry."""
    return ["\t".join(row) for row in zip(*(map(_field, c.tolist()) for c in columns.values()), strict=True)]


def _field(value: object) -> str:
    text = str(value)
    return text if _MUST_BE_QUOTED.isdisjoint(text) else '"' + text.replace('"', '""') + '"'
