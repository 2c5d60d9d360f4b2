"""Recommenders as Keras models."""

from tfrec.models.popularity import Popularity
from tfrec.models.vae_cf import VAECF

__all__ = ["VAECF", "Popularity"]
