"""Evaluation of a scorer: held-out users against the whole catalogue, or a held-out item against candidates."""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.evaluation.callback import RankingCallback
from tfrec.evaluation.candidates import Candidates, CandidateScorer, Protocol, evaluate_candidates
from tfrec.evaluation.details import Details
from tfrec.evaluation.full_ranking import Report, evaluate_full_ranking

__all__ = [
    "CandidateScorer",
    "Candidates",
    "Details",
    "Protocol",
    "RankingCallback",
    "Report",
    "evaluate_candidates",
    "evaluate_full_ranking",
]
