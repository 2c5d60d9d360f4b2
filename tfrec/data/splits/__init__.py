"""Ways to hold out interactions, one module each, the same bits on every machine."""

from tfrec.data.splits.by_time import ByTime, by_time
from tfrec.data.splits.given import Given, given
from tfrec.data.splits.leave_one_out import LeaveOneOut, leave_one_out
from tfrec.data.splits.random_holdout import RandomHoldout, random_holdout
from tfrec.data.splits.strong_generalization import StrongGeneralization, strong_generalization

__all__ = [
    "ByTime",
    "Given",
    "LeaveOneOut",
    "RandomHoldout",
    "StrongGeneralization",
    "by_time",
    "given",
    "leave_one_out",
    "random_holdout",
    "strong_generalization",
]
