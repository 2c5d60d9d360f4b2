"""Kinds of models: each with its typed settings, its recipes, and how it is fitted.

A new one is a module here, with its model in `tfrec.models`, and a line in `FAMILIES`. The command line is made from
them. Nothing here loads TensorFlow before something is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfrec.errors import InputError
from tfrec.families.als import ALSFamily
from tfrec.families.config import RunConfig, identity
from tfrec.families.derivation import CompressSettings, Derivation, Finished, Made, QuantizeSettings
from tfrec.families.ease import EASEFamily
from tfrec.families.family import Family, Outcome, Trainer
from tfrec.families.memory import Memory, Sizes, check_fits
from tfrec.families.neumf import NeuMFFamily
from tfrec.families.popularity import PopularityFamily
from tfrec.families.vae_cf import VAECFFamily

#: Name -> family.
FAMILIES: dict[str, Family[Any]] = {
    family.name: family for family in (VAECFFamily(), NeuMFFamily(), ALSFamily(), EASEFamily(), PopularityFamily())
}
#: Recipe -> what makes its settings.
RECIPES: dict[str, Callable[[], Any]] = {
    name: make for family in FAMILIES.values() for name, make in family.recipes.items()
}
#: The recipe when none is named.
DEFAULT_RECIPE = "vae-cf"


def family_of(config: RunConfig) -> Family[Any]:
    """The family whose settings these are.

    Raises:
        InputError: there is none.
    """
    for family in FAMILIES.values():
        if family.config is type(config):
            return family
    raise InputError(
        f"The settings must be those of a family.\nReceived: {type(config).__name__}.\nFamilies: {', '.join(FAMILIES)}."
    )


def family_named(name: str) -> Family[Any]:
    """The family of this name.

    Raises:
        InputError: there is none.
    """
    if name not in FAMILIES:
        raise InputError(
            f"The family must be one of those that exist.\nReceived: {name}.\nFamilies: {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]


def quantizing(family: Family[Any], settings: QuantizeSettings) -> Derivation:
    """How runs of a family become runs of integers.

    Raises:
        InputError: they cannot, or settings out of range.
    """
    can = [name for name, other in FAMILIES.items() if type(other).quantizing is not Family.quantizing]
    return _known(family, family.quantizing(settings), "quantized", can)


def compressing(family: Family[Any], settings: CompressSettings) -> Derivation:
    """How the tables of a family's runs become smaller.

    Raises:
        InputError: they cannot, or settings out of range.
    """
    can = [name for name, other in FAMILIES.items() if type(other).compressing is not Family.compressing]
    return _known(family, family.compressing(settings), "compressed", can)


def _known(family: Family[Any], found: Derivation | None, what: str, can: list[str]) -> Derivation:
    if found is None:
        raise InputError(
            f"Models of this family cannot be {what}.\nReceived: a run of {family.name}.\nThese can: {', '.join(can)}."
        )
    return found


__all__ = [
    "DEFAULT_RECIPE",
    "FAMILIES",
    "RECIPES",
    "CompressSettings",
    "Derivation",
    "Family",
    "Finished",
    "Made",
    "Memory",
    "Outcome",
    "QuantizeSettings",
    "RunConfig",
    "Sizes",
    "Trainer",
    "check_fits",
    "compressing",
    "family_named",
    "family_of",
    "identity",
    "quantizing",
]
