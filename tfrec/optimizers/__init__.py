"""Optimizers whose update is one pass over memory."""

from tfrec.optimizers.adam import Adam

__all__ = ["Adam"]
