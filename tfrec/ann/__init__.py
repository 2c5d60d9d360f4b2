"""Approximate nearest neighbours: the best items of large catalogues without scoring all of them."""

from tfrec.ann.files import read_index, remove_index, write_index
from tfrec.ann.index import DTYPES, KINDS, AnnIndex, IndexReport

__all__ = ["DTYPES", "KINDS", "AnnIndex", "IndexReport", "read_index", "remove_index", "write_index"]
