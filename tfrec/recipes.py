"""Recipes: a name -> a typed config, with its paper, its command and what it reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tfrec.configs import DataConfig, PopularityRun, Run, TrainingConfig, VAECFConfig, VAECFRun

#: The recipe when none is named.
DEFAULT = "vae-cf"


def vae_cf() -> VAECFRun:
    """VAE-CF on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return VAECFRun(training=TrainingConfig(epochs=60, patience=6))


def vae_cf_ml1m() -> VAECFRun:
    """VAE-CF on MovieLens-1M, strong generalization with 600 + 600 held-out users."""
    return VAECFRun(
        data=DataConfig(name="ml-1m", heldout_users=600),
        model=VAECFConfig(hidden_dims=(), latent_dim=200, dropout=0.5, kl_cap=0.1, l2=3e-4),
        training=TrainingConfig(epochs=80, global_batch_size=100, validate_every=2, patience=10),
    )


def vae_cf_ml20m() -> VAECFRun:
    """VAE-CF on MovieLens-20M, the split of Liang et al. (2018): 10,000 + 10,000 held-out users."""
    return VAECFRun(
        data=DataConfig(name="ml-20m", heldout_users=10_000),
        model=VAECFConfig(kl_cap=0.2, kl_anneal_steps=20_000),
        training=TrainingConfig(epochs=100, patience=20),
    )


def popularity() -> PopularityRun:
    """The popularity baseline on any data set."""
    return PopularityRun()


RECIPES: dict[str, Callable[[], Run]] = {
    "vae-cf": vae_cf,
    "vae-cf-ml1m": vae_cf_ml1m,
    "vae-cf-ml20m": vae_cf_ml20m,
    "popularity": popularity,
}


def named(name: str) -> Run:
    """The config of a recipe."""
    return replace(RECIPES[name]())
