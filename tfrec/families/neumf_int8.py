"""NeuMF in integers of 2 to 8 bits: calibrated on its training data, fine-tuned if asked for."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec.errors import InputError
from tfrec.families.derivation import Derivation, Finished, Made, QuantizeSettings, check_fine_tuning
from tfrec.families.family import liked

if TYPE_CHECKING:
    import scipy.sparse

    from tfrec.models import NeuMF
    from tfrec.quantization import Statistics

#: Samples of a fine-tuning step.
_BATCH = 16_380


class NeuMFInt8(Derivation):
    """Statistics of the activations, then integers.

    Args:
        settings: how.

    Raises:
        InputError: settings out of range, or a damaged file of statistics.
    """

    name = "quantization"

    def __init__(self, settings: QuantizeSettings) -> None:
        from tfrec.quantization import PRESETS, Statistics

        self._settings = settings
        self._config = replace(PRESETS[settings.preset], weights=settings.bits, activations=settings.bits)
        self._config.check()
        check_fine_tuning(settings.fine_tune, settings.fine_tune_rate)
        if not 0 < settings.fraction <= 1:
            raise InputError(f"`fraction` must lie in (0, 1].\nReceived: --fraction {settings.fraction}.")
        self._given = Statistics.load(settings.statistics) if settings.statistics is not None else None

    def check_model(self, model: Any, run: Path) -> None:
        """Raise InputError for integers."""
        from tfrec.models import NeuMF

        if not isinstance(model, NeuMF):
            raise InputError(f"The model of {run} is quantized already.\nQuantize the run it was made from.")

    def make(self, run: Finished) -> Made:
        """Calibrate, fine-tune if asked for, and round."""
        from tfrec.families.neumf_int8_ranges import draw_ranges
        from tfrec.families.neumf_int8_report import distinct_scores, layers, speed
        from tfrec.quantization import quantize

        settings, statistics, model = self._settings, self._given, run.model
        train = liked(run.fitted.matrix)
        if settings.fine_tune:
            model, statistics = self._fine_tune(model, train, statistics or self._calibrate(model, train)), None
        statistics = statistics or self._calibrate(model, train)
        made = quantize(model, statistics, self._config)
        users = run.split.test.users
        assert users is not None  # NeuMF knows no others
        distinct = {n: distinct_scores(m, users, run.candidates) for n, m in (("float", model), ("quantized", made))}
        fast = speed(run.model, made, users, run.candidates)
        report = {
            "preset": settings.preset,
            "quantization": asdict(self._config),
            "calibration": {"fraction": settings.fraction, "seed": settings.seed, "pairs": statistics.samples},
            "fine_tuning": {"epochs": settings.fine_tune, "learning_rate": settings.fine_tune_rate}
            if settings.fine_tune
            else None,
            "layers": layers(model, made, statistics, train),
            "distinct_scores_per_user": distinct,
            "speed": fast,
        }

        def write(folder: Path) -> None:
            statistics.save(folder / "statistics.yaml")
            draw_ranges(folder / "ranges.png", statistics)

        simulated = "" if fast["native"] else " (a simulation: this form has no native operation)"
        return Made(
            made,
            report,
            write=write,
            lines=(
                f"Different scores among a user's candidates: {distinct['float']:.1f} in float, "
                f"{distinct['quantized']:.1f} quantized. Scoring {fast['quantized_over_float']:.2f} times as fast"
                f"{simulated}.",
            ),
        )

    def _calibrate(self, model: NeuMF, train: scipy.sparse.csr_matrix) -> Statistics:
        """Statistics over training data, with a progress bar on a terminal."""
        from tqdm import tqdm

        from tfrec.quantization import calibrate

        with tqdm(desc="calibrating", unit="batch", leave=False, disable=not sys.stderr.isatty()) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return calibrate(model, train, self._settings.fraction, seed=self._settings.seed, progress=progress)

    def _fine_tune(self, model: NeuMF, train: scipy.sparse.csr_matrix, statistics: Statistics) -> NeuMF:
        """The float model after some epochs with rounding in the loop, a line per epoch."""
        import keras

        from tfrec.data.pointwise import PointwiseSampler
        from tfrec.optimizers import Adam
        from tfrec.quantization import aware

        epochs = self._settings.fine_tune
        sampler = PointwiseSampler(train, min(_BATCH, train.nnz * 5), 4, seed=self._settings.seed)
        tuned = aware(model, statistics, self._config)
        tuned.compile(Adam(self._settings.fine_tune_rate), sampler=sampler.batch)

        def show(epoch: int, logs: dict[str, float]) -> None:
            print(f"fine-tuning, epoch {epoch + 1}/{epochs}: loss {logs['loss']:.4f}", flush=True)

        shown = keras.callbacks.LambdaCallback(on_epoch_end=show)
        tuned.fit(sampler.steps(), epochs=epochs, shuffle=False, verbose=0, callbacks=[shown])
        return tuned.float_model()
