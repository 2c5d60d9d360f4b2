"""Trained models as SavedModels that need TensorFlow alone."""

from tfrec.serving.export import Recommender, export
from tfrec.serving.user_items import UserItemRecommender

__all__ = ["Recommender", "UserItemRecommender", "export"]
