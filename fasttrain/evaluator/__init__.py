"""Metrics, and the evaluator that runs several of them."""

from fasttrain.evaluator.evaluator import Evaluator
from fasttrain.evaluator.metric import BaseMetric, DumpResults
from fasttrain.evaluator.utils import get_metric_value

__all__ = ["BaseMetric", "DumpResults", "Evaluator", "get_metric_value"]
