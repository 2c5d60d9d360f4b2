"""What happens around a training epoch: progress, validation, history, checkpoints, early stopping."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import keras
import tensorflow as tf
from tqdm import tqdm

from tfrec import distributed
from tfrec.errors import SharedError
from tfrec.evaluation import Report
from tfrec.runs.checkpoint import save_state
from tfrec.runs.folder import RunFolder
from tfrec.runs.history import write_csv


class Schedule(Protocol):
    """What a recorder needs of how a model is trained."""

    @property
    def epochs(self) -> int:
        """Passes over the training data, at most."""

    @property
    def validate_every(self) -> int:
        """Epochs between validations."""

    @property
    def checkpoint_every(self) -> int:
        """Epochs between checkpoints."""

    @property
    def patience(self) -> int | None:
        """Validations without a better one before training stops."""

    @property
    def threshold(self) -> float | None:
        """Training stops when the validation metric reaches this."""

    @property
    def learning_rate(self) -> float:
        """Its peak."""

    @property
    def precision(self) -> str:
        """Keras dtype policy."""


def check_loss(loss: float, epoch: int, training: Schedule) -> None:
    """Raise on every rank, which all have the same loss, when it is no number.

    Raises:
        SharedError: names the epoch and the learning rate.
    """
    if math.isfinite(loss):
        return
    half = f" mixed_float16 has a narrow range: try --training.precision float32, now {training.precision}."
    raise SharedError(
        f"The loss is {loss} in epoch {epoch}: training has diverged, and would not recover.\n"
        f"Received: --training.learning-rate {training.learning_rate:g}.\n"
        f"Try --training.learning-rate {training.learning_rate / 10:g}, --training.warmup-steps, or "
        "--training.clip-norm 1; start over with another --output-dir, or --no-resume."
        + (half if training.precision == "mixed_float16" else "")
    )


class Recorder(keras.callbacks.Callback):
    """Validates, remembers the best epoch, and leaves a folder from which a killed run resumes.

    Validation is the same number on every rank, so every rank decides the same; only rank 0 writes and prints.

    Args:
        folder: where to write.
        training: how often to validate and to save, and how long to wait for a better epoch.
        monitor: the validation metric that decides.
        validate: evaluates the model as it is, on every rank its share.
        samples: training users (or samples) in an epoch, over all ranks.
        unit: what they are, for the report: ``users`` or ``samples``.
        steps: steps in an epoch.
        progress: what an earlier start had reached (`progress`), or None.
    """

    def __init__(
        self,
        folder: RunFolder,
        training: Schedule,
        monitor: str,
        validate: Callable[[], Report],
        samples: int,
        unit: str,
        steps: int,
        progress: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.training, self.monitor = folder, training, monitor
        self.validate, self.samples, self.unit, self.steps = validate, samples, unit, steps
        self.rows: list[dict[str, Any]] = list(progress["rows"]) if progress else []
        self.best: dict[str, Any] | None = progress["best"] if progress else None
        # Of an epoch that was begun.
        self._carried = float(progress.get("seconds", 0.0)) if progress else 0.0
        self._start: float | None = None
        self._writer: Any = None
        self._bar: Any = None

    @property
    def progress(self) -> dict[str, Any]:
        """All that is needed to continue from here, as JSON values."""
        updates = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        return {"epoch": len(self.rows), "rows": self.rows, "best": self.best, "updates": updates}

    @property
    def seconds(self) -> float:
        """Of the epoch under way, without those that a lost worker has cost; between epochs 0."""
        return 0.0 if self._start is None else time.perf_counter() - self._start

    @property
    def done(self) -> bool:
        """Whether the threshold is reached, or too many validations have passed without a better one."""
        if self.best is None:
            return False
        if self.training.threshold is not None and self.best["value"] >= self.training.threshold:
            return True
        if self.training.patience is None:
            return False
        waited = (len(self.rows) - self.best["epoch"]) // self.training.validate_every
        return waited >= self.training.patience

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the TensorBoard log."""
        if distributed.rank() == 0:
            self._writer = tf.summary.create_file_writer(str(self.folder.logs))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock and, on a terminal, a bar."""
        self._start, self._carried = time.perf_counter() - self._carried, 0.0
        if distributed.rank() == 0 and sys.stderr.isatty():
            self._bar = tqdm(total=self.steps, desc=f"epoch {epoch + 1}", unit="step", leave=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar; ``batch`` is the last step done."""
        if self._bar is not None:
            self._bar.update(min(batch + 1, self.steps) - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, record, save, and stop when there is reason to."""
        seconds = self.seconds
        self._start = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        number = epoch + 1
        # Before anything is written: the checkpoint of the epoch before stays.
        check_loss(float((logs or {}).get("loss", 0.0)), number, self.training)
        row: dict[str, Any] = {"epoch": number, **{k: float(v) for k, v in (logs or {}).items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(seconds, 4)
        row[f"{self.unit}_per_second"] = round(self.samples / seconds, 1)
        self.rows.append(row)
        last = number == self.training.epochs
        if number % self.training.validate_every == 0 or last:
            report = self.validate()
            row |= {f"validation_{name}": value for name, value in report.metrics.items()}
            value = report.metrics[self.monitor]
            if self.best is None or value > self.best["value"]:
                self.best = {"epoch": number, "value": value}
                save_state(self.folder.best, self.model, self.progress, optimizer=False)
        if distributed.rank() == 0:
            self._write(number)
        if number % self.training.checkpoint_every == 0 or last or self.done:
            save_state(self.folder.last, self.model, self.progress, optimizer=True)
        if distributed.rank() == 0:
            self._say(number)
        if self.done:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the TensorBoard log."""
        self.close()

    def close(self) -> None:
        """Leave terminal and TensorBoard log in order, also when training was left in the middle of an epoch."""
        if self._writer is not None:
            self._writer.close()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, number: int) -> None:
        row = self.rows[-1]
        with self._writer.as_default(step=number):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name.replace("@", "_at_"), value)
        write_csv(self.folder.history, self.rows)

    def _say(self, number: int) -> None:
        row = self.rows[-1]
        rate = row[f"{self.unit}_per_second"]
        line = f"epoch {number}/{self.training.epochs}  loss {row['loss']:.4f}  {rate:,.0f} {self.unit}/s"
        key = f"validation_{self.monitor}"
        if key in row and self.best is not None:
            line += f"  validation {self.monitor} {row[key]:.4f}"
            line += (
                "  (best so far)"
                if self.best["epoch"] == number
                else f"  (best {self.best['value']:.4f} in epoch {self.best['epoch']})"
            )
        print(line, flush=True)
