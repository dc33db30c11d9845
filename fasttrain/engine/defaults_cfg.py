"""The config keys that the engine reads, with their defaults."""

from __future__ import annotations

from fasttrain.engine.config import CfgNode


def get_cfg() -> CfgNode:
    """A fresh copy of the default config."""
    return CfgNode(
        {
            "VERSION": 1,
            "OUTPUT_DIR": "./output",
            "SEED": -1,
            "CUDNN_BENCHMARK": True,
            "ENGINE": {"NAME": "DefaultTrainer"},
            "DATASETS": {"TRAIN": "", "VAL": "", "TEST": ""},
            "DATALOADER": {
                "TRAIN_BATCH_SIZE": 64,
                "TEST_BATCH_SIZE": 64,
                "NUM_WORKERS": 4,
                "SEQ_PER_SAMPLE": 5,
                "NEGATIVE_SIZE": -1,
                "INF_BATCH_SIZE": 200,
            },
            "MODEL": {
                "DEVICE": "cuda",
                "META_ARCHITECTURE": "",
                "WEIGHTS": "",
                "USE_EMA": False,
                "EMA_DECAY": 0.9999,
                "ENSEMBLE_WEIGHTS": [""],
            },
            "SOLVER": {
                "NAME": "Adam",
                "EPOCH": 10,
                "CHECKPOINT_PERIOD": 1,
                "CHECKPOINT_MAX_TO_KEEP": None,
                "EVAL_PERIOD": 1,
                "BASE_LR": 5e-4,
                "BIAS_LR_FACTOR": 1.0,
                "WEIGHT_DECAY": 0.0,
                "WEIGHT_DECAY_NORM": 0.0,
                "WEIGHT_DECAY_BIAS": 0.0,
                "GRAD_CLIP_TYPE": "norm",
                "GRAD_CLIP": 0.1,
                "NORM_TYPE": 2.0,
                "WRITE_PERIOD": 20,
                "GATHER_METRIC_PERIOD": 1,
                "ACCUMULATION": 1,
                "PRECISION": "fp32",
                "MOMENTUM": 0.9,
                "DAMPENING": 0.0,
                "NESTEROV": 0,
                "ALPHA": 0.99,
                "BETAS": [0.9, 0.999],
                "EPS": 1e-8,
                "AMSGRAD": False,
                "CENTERED": False,
                "LR_DECAY": 0.0,
                "INITIAL_ACCUMULATOR_VALUE": 0.0,
            },
            "LR_SCHEDULER": {
                "NAME": "StepLR",
                "STEP_SIZE": 3,
                "GAMMA": 0.1,
                "MODEL_SIZE": -1,
                "FACTOR": 1.0,
                "WARMUP": 0,
                "MIN_LR": 1e-5,
                "STEPS": (3,),
                "MILESTONES": (3,),
                "WARMUP_FACTOR": 0.0,
                "WARMUP_METHOD": "linear",
            },
            "SCHEDULED_SAMPLING": {
                "START_EPOCH": 0,
                "INC_EVERY_EPOCH": 5,
                "INC_PROB": 0.05,
                "MAX_PROB": 0.25,
            },
            "LOSSES": {
                "NAMES": [""],
                "LABELSMOOTHING": 0.1,
                "MARGIN": 0.2,
                "MAX_VIOLATION": True,
            },
            "SCORER": {
                "NAME": "",
                "TYPES": [""],
                "WEIGHTS": [1.0],
                "GT_PATH": "",
                "CIDER_CACHED": "",
                "EOS_ID": 0,
            },
            "INFERENCE": {
                "NAME": "",
                "ID_KEY": "image_id",
                "VALUE": "caption",
                "VAL_ANNFILE": "",
                "TEST_ANNFILE": "",
                "GENERATION_MODE": True,
                "VAL_EVAL_START": -1,
                "TEST_EVAL_START": -1,
            },
        }
    )
