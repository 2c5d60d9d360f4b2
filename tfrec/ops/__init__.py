"""Native operations and their pure-TensorFlow twins.

Importing this package loads ``libtfrec_ops.so``, which a process must do before it reads a SavedModel that holds one of
the operations.
"""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.ops.als import Entries, Sweep, gramian, half_sweep, half_sweep_in_place, losses
from tfrec.ops.dot_top_k import dot_top_k
from tfrec.ops.int8_dot_top_k import int8_dot_top_k
from tfrec.ops.int8_score import int8_score
from tfrec.ops.native import library, library_path
from tfrec.ops.tt_embedding import TTShape, tt_gradients, tt_lookup, tt_lookup_reference, tt_update

__all__ = [
    "Entries",
    "Sweep",
    "TTShape",
    "dot_top_k",
    "gramian",
    "half_sweep",
    "half_sweep_in_place",
    "int8_dot_top_k",
    "int8_score",
    "library",
    "library_path",
    "losses",
    "tt_gradients",
    "tt_lookup",
    "tt_lookup_reference",
    "tt_update",
]

library()
