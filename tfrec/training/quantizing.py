"""From a finished NeuMF run to its quantized run."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfrec.configs import ALSRun, NeuMFRun, VAECFRun
from tfrec.data.files import atomic_folder
from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.evaluation import Candidates, Report
from tfrec.models import NeuMF
from tfrec.optimizers import Adam
from tfrec.printing import printable
from tfrec.quantization import QuantizationConfig, QuantizedNeuMF, Statistics, aware, calibrate, quantize
from tfrec.quantization.calibrate import activations
from tfrec.training.environment import hardware, versions
from tfrec.training.finish import save_model
from tfrec.training.load_run import check_sizes, load_config, load_known_model, load_vocabulary
from tfrec.training.prepare_items import PreparedItems, prepare_items
from tfrec.training.quantizing_items import quantize_items
from tfrec.training.report import table, write_json
from tfrec.training.report_items import make_candidates, measure_all_items, measure_items
from tfrec.training.run_folder import RunFolder


def quantize_run(
    run: Path,
    out: Path,
    config: QuantizationConfig,
    *,
    fraction: float = 0.1,
    seed: int = 0,
    statistics_file: Path | None = None,
    fine_tune: int = 0,
    fine_tune_rate: float = 1e-4,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Calibrate, quantize, measure before and after, and write ``out``, whole or not at all.

    Arguments as those of the command `tfrec.quantize`.

    Returns:
        The content of quantization.json.

    Raises:
        InputError: what the command was given cannot be used, or ``out`` is there already.
    """
    folder = RunFolder.existing(run)
    run_config = load_config(folder, data_dir)
    if isinstance(run_config, ALSRun | VAECFRun):
        if config != QuantizationConfig() or statistics_file is not None or fine_tune:
            raise InputError(
                "Of ALS and VAE-CF the item vectors are quantized, to 8 bits with a scale per row, uncalibrated.\n"
                f"Received: {run} and options that are NeuMF's. Leave them out."
            )
        with atomic_folder(out) as temporary:
            result = quantize_items(folder, temporary, run_config)
        print(f"items.int8.npz, vocabulary.npz and quantization.json are in {printable(out)}", flush=True)
        return result
    if not isinstance(run_config, NeuMFRun):
        raise InputError(f"Popularity has nothing to quantize.\nReceived: {run}.")
    statistics = Statistics.load(statistics_file) if statistics_file is not None else None
    with atomic_folder(out) as temporary:
        result = _quantize(
            folder, out, temporary, run_config, config, fraction, seed, statistics, fine_tune, fine_tune_rate
        )
    _print(out, result)
    return result


def _quantize(
    folder: RunFolder,
    out: Path,
    temporary: Path,
    run_config: NeuMFRun,
    config: QuantizationConfig,
    fraction: float,
    seed: int,
    statistics: Statistics | None,
    fine_tune: int,
    fine_tune_rate: float,
) -> dict[str, Any]:
    """Everything is written to ``temporary``, which is going to be ``out``."""
    metrics = folder.read_metrics()
    model = load_known_model(folder, load_vocabulary(folder))
    if isinstance(model, QuantizedNeuMF):
        raise InputError(f"The model of {folder.path} is quantized already.\nQuantize the run it was made from.")
    data = prepare_items(run_config.data)
    folder.check_data(data.sha256)
    check_sizes(folder, model, *data.train.shape, folder.config)
    candidates = make_candidates(data, "test", run_config.evaluation)

    source = model
    if fine_tune:
        start = statistics or _calibrate(model, data, fraction, seed)
        model, statistics = _fine_tune(model, data, start, config, fine_tune, fine_tune_rate, seed), None
    if statistics is None:
        statistics = _calibrate(model, data, fraction, seed)
    made = quantize(model, statistics, config)
    before = measure_all_items(source, data, candidates, run_config.evaluation)
    after = measure_items(made.scores, candidates, run_config.evaluation)
    result = {
        "quantization": asdict(config),
        "calibration": {"fraction": fraction, "seed": seed, "pairs": statistics.samples},
        "fine_tuning": {"epochs": fine_tune, "learning_rate": fine_tune_rate} if fine_tune else None,
        "test": {
            "float": before["model"].to_json(),
            "quantized": after.to_json(),
            "popularity": before["popularity"].to_json(),
        },
        "layers": layers(model, made, statistics, data),
        "distinct_scores_per_user": {
            name: distinct_scores(m, candidates) for name, m in (("float", model), ("quantized", made))
        },
        "speed": speed(source, made, candidates),
        "versions": versions(),
        "hardware": hardware(1),
    }
    _write(folder, out, temporary, made, statistics, result, metrics, before, after)
    return result


def _calibrate(model: NeuMF, data: PreparedItems, fraction: float, seed: int) -> Statistics:
    """Statistics over training data, with a bar where somebody watches."""
    with tqdm(desc="calibrating", unit="batch", leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return calibrate(model, data.train, fraction, seed=seed, progress=progress)


def _fine_tune(
    model: NeuMF,
    data: PreparedItems,
    statistics: Statistics,
    config: QuantizationConfig,
    epochs: int,
    rate: float,
    seed: int,
) -> NeuMF:
    """The float model after some epochs with rounding in the loop, a line per epoch."""
    sampler = PointwiseSampler(data.train, min(16_380, data.train.nnz * 5), 4, seed=seed)
    tuned = aware(model, statistics, config)
    tuned.compile(Adam(rate), sampler=sampler.batch)

    def show(epoch: int, logs: dict[str, float]) -> None:
        print(f"fine-tuning, epoch {epoch + 1}/{epochs}: loss {logs['loss']:.4f}", flush=True)

    shown = keras.callbacks.LambdaCallback(on_epoch_end=show)
    tuned.fit(sampler.steps(), epochs=epochs, shuffle=False, verbose=0, callbacks=[shown])
    return tuned.float_model()


def layers(model: NeuMF, made: QuantizedNeuMF, statistics: Statistics, data: PreparedItems) -> dict[str, Any]:
    """Of each activation and weight: its values' range, what the integers cover, the step, and the ratio of signal to
    noise in decibels (over a few thousand training pairs)."""
    rows = np.flatnonzero(np.diff(data.train.indptr))[:512]
    first = data.train.indices[data.train.indptr[rows]]
    items = np.stack([first, np.random.default_rng(0).integers(0, model.num_items, len(first))], axis=1)
    exact = {n: v.numpy() for n, v in activations(model, tf.constant(rows), tf.constant(items)).items()}
    found: dict[str, Any] = {}
    for name, integers in made.integers(rows, items).items():
        if name == "logit":
            target = exact["logit"] if "logit" in exact else next(v for n, v in exact.items() if n.endswith("_logit"))
            found["logit"] = {"signal_to_noise_db": _decibels(target.ravel(), integers.ravel())}
            continue
        name = name.removesuffix("_integer")
        affine = made.affine(name)
        entry = _range(affine.low, affine.high, affine) | {
            "signal_to_noise_db": _decibels(exact[name], affine.dequantize(integers.astype(np.int32)))
        }
        found[name] = {"min": statistics[name].min, "max": statistics[name].max, **entry}
    for name in ("gmf_logit", "mlp_logit"):
        if name in statistics.tensors and name not in found:
            found[name] = {"min": statistics[name].min, "max": statistics[name].max}
    values = {v.path.split("/")[-1]: v.numpy() for v in model.weights}
    for name, value in values.items():
        if name.startswith("kernel_"):
            stored = getattr(made, f"_{name}").numpy().astype(np.int32)
            found[name] = {
                "min": float(value.min()),
                "max": float(value.max()),
                "signal_to_noise_db": _decibels(value, made.affine(name).dequantize(stored)),
            }
        if name.endswith("_embedding"):
            side = name.removesuffix("_embedding")
            parts = [f"{side}_{p}" for p in ("gmf", "mlp") if hasattr(made, f"_{side}_{p}")]
            stored = [made.affine(p).dequantize(getattr(made, f"_{p}").numpy().astype(np.int32)) for p in parts]
            found[name] = {
                "min": float(value.min()),
                "max": float(value.max()),
                "signal_to_noise_db": _decibels(value, np.concatenate(stored, axis=1)),
            }
    return found


def _range(low: int, high: int, affine: Any) -> dict[str, float]:
    ends = affine.dequantize(np.array([low, high]))
    return {"integers_from": float(ends[0]), "integers_to": float(ends[1]), "step": float(affine.scale)}


def _decibels(exact: np.ndarray, rounded: np.ndarray) -> float | None:
    noise = np.square(exact.astype(np.float64) - rounded).sum()
    signal = np.square(exact.astype(np.float64)).sum()
    return None if noise == 0 or signal == 0 else round(float(10 * np.log10(signal / noise)), 2)


def distinct_scores(model: Any, candidates: Candidates) -> float:
    """Mean number of different scores among a user's candidates: fewer than candidates means ties."""
    if candidates.protocol == "all":
        users, items = candidates.users[:64], None
    else:
        users = candidates.users[:256]
        items = candidates.block(tf.constant(users))
    scores = model.scores(tf.constant(users), items).numpy()
    return float(np.mean([len(np.unique(row)) for row in scores]))


def speed(model: Any, made: QuantizedNeuMF, candidates: Candidates) -> dict[str, Any]:
    """Pairs per second of both in turns: medians of five, after one to warm up."""
    users = candidates.users[:256]
    items = None if candidates.protocol == "all" else candidates.block(tf.constant(users))
    pairs = len(users) * (model.num_items if items is None else int(items.shape[1]))
    ways = {n: tf.function(m.scores) for n, m in (("float", model), ("quantized", made))}
    seconds: dict[str, list[float]] = {n: [] for n in ways}
    for turn in range(6):
        for name, way in ways.items():
            start = time.perf_counter()
            way(tf.constant(users), items).numpy()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    medians = {n: float(np.median(s)) for n, s in seconds.items()}
    return {
        **{f"{n}_pairs_per_second": round(pairs / s) for n, s in medians.items()},
        "quantized_over_float": round(float(np.median(np.array(seconds["float"]) / seconds["quantized"])), 3),
        "native": made.runs_natively,
    }


def _write(
    source: RunFolder,
    out: Path,
    temporary: Path,
    made: QuantizedNeuMF,
    statistics: Statistics,
    result: dict[str, Any],
    metrics: dict[str, Any],
    before: dict[str, Report],
    after: Report,
) -> None:
    """Write all files into ``temporary``."""
    folder = RunFolder(temporary)
    save_model(made, folder.model)
    shutil.copyfile(source.config, folder.config)
    shutil.copyfile(source.vocabulary, folder.vocabulary)
    statistics.save(temporary / "statistics.yaml")
    sizes = {"float": source.model.stat().st_size, "quantized": folder.model.stat().st_size}
    result["model_bytes"] = {**sizes, "ratio": round(sizes["quantized"] / sizes["float"], 4)}
    write_json(temporary / "quantization.json", result)
    metrics["test"] = {"model": after.to_json(), "popularity": before["popularity"].to_json()}
    metrics.pop("validation", None)
    metrics["quantized_from"] = str(source.path.absolute())
    metrics["config"]["output_dir"] = str(out)
    write_json(folder.metrics, metrics)
    _write_ranges(temporary / "ranges.png", statistics)


def _write_ranges(path: Path, statistics: Statistics) -> None:
    """The distributions of what the final layer takes and gives, per branch: why one range for both loses so much."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    last = max((n for n in statistics.tensors if n.startswith("hidden_") and not n.endswith("_linear")), default=None)
    rows: list[tuple[str, list[str | None]]] = [
        ("input of the final layer", ["product", last]),
        ("logits", ["gmf_logit", "mlp_logit", "logit"]),
    ]
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(len(rows), 1), rows, strict=True):
        for name in names:
            if name is None or name not in statistics.tensors:
                continue
            s = statistics[name]
            counts = np.asarray(s.histogram, np.float64)
            if not counts.sum():
                continue
            width = max(s.max - s.min, 1e-30) / len(counts)
            centers = s.min + width * (np.arange(len(counts)) + 0.5)
            axes.plot(centers, counts / counts.sum() / width, label=f"{name}: {s.min:.3g} to {s.max:.3g}")
        axes.set(title=title, ylabel="density", yscale="log")
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)


def _print(out: Path, result: dict[str, Any]) -> None:
    test, bytes_, fast = result["test"], result["model_bytes"], result["speed"]
    metrics = [name for name in test["float"] if isinstance(test["float"][name], float)]
    print(f"\nTest, {test['float']['users']:,} held-out users, ties {test['float']['ties']}:")
    print(table(test, metrics))
    distinct = result["distinct_scores_per_user"]
    print(
        f"Different scores among a user's candidates: {distinct['float']:.1f} in float, {distinct['quantized']:.1f} "
        f"quantized. Size {bytes_['ratio']:.3f} of {bytes_['float'] / 2**20:.1f} MiB. Scoring "
        f"{fast['quantized_over_float']:.2f} times as fast"
        f"{'' if fast['native'] else ' (a simulation: this form has no native operation)'}."
    )
    print(f"Model, statistics.yaml, quantization.json and ranges.png are in {printable(out)}", flush=True)
