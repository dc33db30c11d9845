"""Optimizers whose step is two native passes over memory; drop-ins for torch's.

Adafactor stays torch's own: its factored second moment is made of row and column means of the
whole squared gradient, and its update is limited by its own norm, so that no element can be updated
in the pass that reads it; it would take two passes more.
"""

from fasttrain.core.fused.adagrad import Adagrad
from fasttrain.core.fused.adam import Adam, AdamW
from fasttrain.core.fused.lamb import LAMB
from fasttrain.core.fused.lion import Lion
from fasttrain.core.fused.optimizer import FusedOptimizer
from fasttrain.core.fused.rmsprop import RMSprop
from fasttrain.core.fused.sgd import SGD

__all__ = ["LAMB", "SGD", "Adagrad", "Adam", "AdamW", "FusedOptimizer", "Lion", "RMSprop"]
