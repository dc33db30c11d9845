"""Trainers whose steps or tests differ from DefaultTrainer's."""

from fasttrain.engine.trainers.retrieval import RetrievalTrainer
from fasttrain.engine.trainers.rl import RLBeamTrainer, RLMeanTrainer, RLTrainer
from fasttrain.engine.trainers.single_stream import (
    SingleStreamRetrievalTrainer,
    SingleStreamRetrievalTrainerHardNegatives,
)
from fasttrain.engine.trainers.tden import TDENPretrainer
from fasttrain.engine.trainers.vcr import VCRTrainer

__all__ = [
    "RLBeamTrainer",
    "RLMeanTrainer",
    "RLTrainer",
    "RetrievalTrainer",
    "SingleStreamRetrievalTrainer",
    "SingleStreamRetrievalTrainerHardNegatives",
    "TDENPretrainer",
    "VCRTrainer",
]
