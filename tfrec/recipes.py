"""Recipes: a name -> a typed config, with its paper, its command and what it reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tfrec.configs import (
    ALSConfig,
    ALSDataConfig,
    ALSRun,
    CandidateConfig,
    DataConfig,
    EvaluationConfig,
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


def neumf_reference_ml1m() -> NeuMFRun:
    """NeuMF of NVIDIA's sizes on MovieLens-1M, ranked among 999 negatives: what the quantization study trains."""
    return NeuMFRun(
        data=LeaveOneOutConfig(name="ml-1m"),
        training=NeuMFTrainingConfig(epochs=7, learning_rate=0.003, schedule="cosine"),
        evaluation=CandidateConfig(negatives=999, ties="pessimistic"),
    )


def neumf_tt_10m() -> NeuMFRun:
    """NeuMF's GMF branch on ten million generated items, whose 128 factors each are a tensor train of 3.7 MiB."""
    return NeuMFRun(
        data=LeaveOneOutConfig(name="synthetic-catalog"),
        model=NeuMFConfig(
            mf_dim=128,
            branch="gmf",
            embedding_l2=0.002,
            gmf_weights="ones",
            item_embedding="tt",
            embedding_ranks=32,
        ),
        training=NeuMFTrainingConfig(epochs=3, global_batch_size=16_380, learning_rate=0.01, schedule="cosine"),
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


#: Precision first, as in the implicit package's study.
_TOP_10 = EvaluationConfig(
    metrics=("precision@10", "recall@20", "recall@50", "ndcg@100", "map@10", "hit_rate@10", "coverage@100"),
    monitor="precision@10",
)


def als() -> ALSRun:
    """ALS on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return ALSRun(
        model=ALSConfig(factors=32, frequency_exponent=1.0, unobserved_weight=0.1, regularization=0.02, iterations=10)
    )


def als_lastfm() -> ALSRun:
    """ALS on Last.fm-360k with BM25 weights, as in implicit's example; --data.name lastfm-2k for a small one."""
    return ALSRun(
        data=ALSDataConfig(name="lastfm-360k"),
        model=ALSConfig(factors=128, iterations=15, confidence="bm25", bm25_k1=100.0, bm25_b=0.8),
        evaluation=_TOP_10,
    )


def als_ml20m() -> ALSRun:
    """ALS on MovieLens-20M, 4 stars and more, with BM25 weights, as in the implicit package's benchmark."""
    return ALSRun(
        data=ALSDataConfig(name="ml-20m", min_rating=3.5),
        model=ALSConfig(factors=128, iterations=15, confidence="bm25", bm25_k1=100.0, bm25_b=0.9, alpha=5.0),
        evaluation=_TOP_10,
    )


def ials_ml1m() -> ALSRun:
    """iALS on MovieLens-1M, strong generalization with 600 + 600 held-out users, who are folded in."""
    return ALSRun(
        data=ALSDataConfig(name="ml-1m", split="users", heldout_users=600),
        model=ALSConfig(
            factors=256,
            regularization=0.01,
            unobserved_weight=1 / 6,
            frequency_exponent=1.0,
            iterations=10,
        ),
    )


def ials_ml20m() -> ALSRun:
    """iALS on MovieLens-20M with the settings of Rendle et al. (2022), with 1,024 of their 2,048 factors."""
    return ALSRun(
        data=ALSDataConfig(name="ml-20m", split="users", heldout_users=10_000),
        # Their alpha0 = .1 is a weight of .1 / 1.1 here; up to 1,024 factors.
        model=ALSConfig(
            factors=1024,
            regularization=0.003,
            unobserved_weight=0.1 / 1.1,
            frequency_exponent=1.0,
            iterations=16,
        ),
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
    "neumf-reference-ml1m": neumf_reference_ml1m,
    "neumf-tt-10m": neumf_tt_10m,
    "neumf-ml20m": neumf_ml20m,
    "als": als,
    "als-lastfm": als_lastfm,
    "als-ml20m": als_ml20m,
    "ials-ml1m": ials_ml1m,
    "ials-ml20m": ials_ml20m,
    "popularity": popularity,
}


def named(name: str) -> Run:
    """The config of a recipe."""
    return replace(RECIPES[name]())
