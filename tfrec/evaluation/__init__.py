"""Full-ranking evaluation of a scorer on held-out users."""

from tfrec.evaluation.full_ranking import Report, evaluate_full_ranking

__all__ = ["Report", "evaluate_full_ranking"]
