"""Recipes: a name -> a typed config, with its paper, its command and what it reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tfrec.configs import (
    CandidateConfig,
    DataConfig,
    LeaveOneOutConfig,
    NeuMFConfig,
    NeuMFRun,
    NeuMFTrainingConfig,
    PopularityRun,
    Run,
    TrainingConfig,
    VAECFConfig,
    VAECFRun,
)

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


def neumf() -> NeuMFRun:
    """NeuMF on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return NeuMFRun(
        model=NeuMFConfig(mf_dim=32, layer_dims=(64, 32, 16), dropout=0.5, embedding_l2=0.005),
        training=NeuMFTrainingConfig(epochs=20, patience=3),
    )


def neumf_ml1m() -> NeuMFRun:
    """NeuMF on MovieLens-1M, the latest item of each user held out, 99 different unseen negatives."""
    return replace(neumf_ncf_ml1m(), data=LeaveOneOutConfig(name="ml-1m"))


def neumf_ncf_ml1m() -> NeuMFRun:
    """NeuMF on MovieLens-1M with the NCF paper's held-out items and negatives (He et al., 2017)."""
    return NeuMFRun(
        data=LeaveOneOutConfig(name="ncf-ml-1m"),
        model=NeuMFConfig(
            mf_dim=192,
            layer_dims=(32, 16, 8),
            dropout=0.5,
            embedding_l2=0.005,
            mlp_embedding_l2=0.2,
            gmf_weights="ones",
        ),
        training=NeuMFTrainingConfig(
            epochs=8,
            negatives=8,
            global_batch_size=16_380,
            learning_rate=0.006,
            schedule="cosine",
            embedding_update="dense",
            refit=True,
        ),
        evaluation=CandidateConfig(monitor="ndcg@10"),
    )


def neumf_ml20m() -> NeuMFRun:
    """NeuMF on MovieLens-20M with the sizes, batch and Adam of NVIDIA's NCF; stops at its HR@10 of .9562."""
    return NeuMFRun(
        data=LeaveOneOutConfig(name="ml-20m"),
        training=NeuMFTrainingConfig(
            epochs=30,
            global_batch_size=1 << 20,
            sampling="approximate",
            learning_rate=0.0045,
            beta_1=0.25,
            beta_2=0.5,
            threshold=0.9562,
        ),
        evaluation=CandidateConfig(protocol="nvidia", negatives=100, ties="pessimistic"),
    )


def popularity() -> PopularityRun:
    """The popularity baseline on any data set."""
    return PopularityRun()


RECIPES: dict[str, Callable[[], Run]] = {
    "vae-cf": vae_cf,
    "vae-cf-ml1m": vae_cf_ml1m,
    "vae-cf-ml20m": vae_cf_ml20m,
    "neumf": neumf,
    "neumf-ml1m": neumf_ml1m,
    "neumf-ncf-ml1m": neumf_ncf_ml1m,
    "neumf-ml20m": neumf_ml20m,
    "popularity": popularity,
}


def named(name: str) -> Run:
    """The config of a recipe."""
    return replace(RECIPES[name]())
