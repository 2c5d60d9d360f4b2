"""Approximate nearest neighbours: the best items of large catalogues without scoring all of them."""

from tfrec.ann.files import read_index, remove_index, write_index
from tfrec.ann.index import DTYPES, KINDS, AnnIndex, IndexReport
from tfrec.ann.lists import IndexedLists, exclusions

__all__ = [
    "DTYPES",
    "KINDS",
    "AnnIndex",
    "IndexReport",
    "IndexedLists",
    "exclusions",
    "read_index",
    "remove_index",
    "write_index",
]
