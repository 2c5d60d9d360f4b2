"""Interactions in: data sets, tables, splits and input pipelines.

``pipelines`` and ``csr`` need TensorFlow and are imported as modules of their own; the rest does not load it.
"""

from tfrec.data.datasets import NAMES, DataSetName, load, load_source, load_table
from tfrec.data.interactions import Interactions
from tfrec.data.registry import Loaded
from tfrec.data.report import Report
from tfrec.data.splits import (
    ByTime,
    Given,
    LeaveOneOut,
    RandomHoldout,
    StrongGeneralization,
    by_time,
    given,
    leave_one_out,
    random_holdout,
    strong_generalization,
)
from tfrec.data.synthetic import Synthetic
from tfrec.data.synthetic_catalog import SyntheticCatalog
from tfrec.data.user_lists import read_user_lists

__all__ = [
    "NAMES",
    "ByTime",
    "DataSetName",
    "Given",
    "Interactions",
    "LeaveOneOut",
    "Loaded",
    "RandomHoldout",
    "Report",
    "StrongGeneralization",
    "Synthetic",
    "SyntheticCatalog",
    "by_time",
    "given",
    "leave_one_out",
    "load",
    "load_source",
    "load_table",
    "random_holdout",
    "read_user_lists",
    "strong_generalization",
]
