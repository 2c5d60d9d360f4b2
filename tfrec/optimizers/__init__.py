"""Optimizers whose update is one pass over memory."""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.optimizers.adam import Adam

__all__ = ["Adam"]
