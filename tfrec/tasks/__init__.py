"""Ways to hold out: each splits the events, names its references, and how it is measured.

A new one is a module with a `Task`, a name in `tfrec.tasks.config.SplitName` and a line in `TASKS`. None imports a
model or a family.
"""

from tfrec.tasks.by_time import ByTime
from tfrec.tasks.config import DataConfig, EvaluationConfig
from tfrec.tasks.given import Given
from tfrec.tasks.held_out_users import HeldOutUsers
from tfrec.tasks.latest_item import LatestItem
from tfrec.tasks.random_pairs import RandomPairs
from tfrec.tasks.source import InMemory, Source, read_source, sizes_without_reading, source_checksum
from tfrec.tasks.split import Part, PartName, Split, TrainingSet
from tfrec.tasks.task import Task

#: Name -> task.
TASKS: dict[str, Task] = {task.name: task for task in (HeldOutUsers(), LatestItem(), RandomPairs(), ByTime(), Given())}

__all__ = [
    "TASKS",
    "DataConfig",
    "EvaluationConfig",
    "InMemory",
    "Part",
    "PartName",
    "Source",
    "Split",
    "Task",
    "TrainingSet",
    "read_source",
    "sizes_without_reading",
    "source_checksum",
]
