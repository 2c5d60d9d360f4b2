"""A run's folder: what is in it, who may write it, and how a run is resumed. Knows neither family nor task."""
