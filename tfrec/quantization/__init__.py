"""Post-training quantization: calibration, an integer model, fine-tuning, and int8 tables."""

from tfrec.quantization.affine import Affine, Mode, limits, weight_affine
from tfrec.quantization.aware import QuantizationAwareNeuMF, aware
from tfrec.quantization.calibrate import activations, calibrate
from tfrec.quantization.clipping import Clipping, clip_range
from tfrec.quantization.config import STUDY_SPLIT, QuantizationConfig
from tfrec.quantization.neumf import QuantizedNeuMF, quantize
from tfrec.quantization.rows import Int8Rows
from tfrec.quantization.statistics import Statistics, TensorStatistics, fingerprint

__all__ = [
    "STUDY_SPLIT",
    "Affine",
    "Clipping",
    "Int8Rows",
    "Mode",
    "QuantizationAwareNeuMF",
    "QuantizationConfig",
    "QuantizedNeuMF",
    "Statistics",
    "TensorStatistics",
    "activations",
    "aware",
    "calibrate",
    "clip_range",
    "fingerprint",
    "limits",
    "quantize",
    "weight_affine",
]
