"""From a trained model to something that answers requests."""

from tfrec.serving.export import Recommender, export

__all__ = ["Recommender", "export"]
