"""Keras models. They import neither data nor distribution."""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.models.als import ALS
from tfrec.models.ease import EASE
from tfrec.models.neumf import NeuMF
from tfrec.models.popularity import Popularity
from tfrec.models.vae_cf import VAECF

__all__ = ["ALS", "EASE", "VAECF", "NeuMF", "Popularity"]
