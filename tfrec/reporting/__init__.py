"""A run as one HTML page: plain data in, text out. Independent of families and tasks; no script, nothing to load."""

from tfrec.reporting.facts import DataFacts, Example, RunFacts
from tfrec.reporting.page import draw

__all__ = ["DataFacts", "Example", "RunFacts", "draw"]
