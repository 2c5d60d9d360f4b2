"""From a config to a run folder: data, training, checkpoints, report."""
