"""A run as one HTML page: plain data in, text out. Knows neither family nor task, loads nothing and runs no script."""

from tfrec.reporting.facts import DataFacts, Example, RunFacts
from tfrec.reporting.page import draw

__all__ = ["DataFacts", "Example", "RunFacts", "draw"]
