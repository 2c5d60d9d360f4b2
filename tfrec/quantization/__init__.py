"""Post-training quantization: calibration, an integer NeuMF, fine-tuning, and item vectors in int8."""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.quantization.affine import Affine, Mode, limits, weight_affine
from tfrec.quantization.als_queries import ALSQueries
from tfrec.quantization.aware import QuantizationAwareNeuMF, aware
from tfrec.quantization.calibrate import activations, calibrate
from tfrec.quantization.clipping import Clipping, clip_range
from tfrec.quantization.config import PRESETS, STUDY_SPLIT, QuantizationConfig
from tfrec.quantization.items import QuantizedItems
from tfrec.quantization.neumf import QuantizedNeuMF
from tfrec.quantization.neumf_making import quantize
from tfrec.quantization.rows import Int8Rows
from tfrec.quantization.statistics import Statistics, TensorStatistics, fingerprint
from tfrec.quantization.vae_cf_queries import VAECFQueries

__all__ = [
    "PRESETS",
    "STUDY_SPLIT",
    "ALSQueries",
    "Affine",
    "Clipping",
    "Int8Rows",
    "Mode",
    "QuantizationAwareNeuMF",
    "QuantizationConfig",
    "QuantizedItems",
    "QuantizedNeuMF",
    "Statistics",
    "TensorStatistics",
    "VAECFQueries",
    "activations",
    "aware",
    "calibrate",
    "clip_range",
    "fingerprint",
    "limits",
    "quantize",
    "weight_affine",
]
