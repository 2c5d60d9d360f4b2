"""Trained models as SavedModels that need TensorFlow alone."""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.serving.export import export
from tfrec.serving.histories import ServedHistories
from tfrec.serving.users import ServedUsers

__all__ = ["ServedHistories", "ServedUsers", "export"]
