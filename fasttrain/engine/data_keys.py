"""The keys under which trainers, models, losses and evaluators hand data to each other."""

IDS = "IDS"
OUTPUT = "OUTPUT"
ATT_FEATS = "ATT_FEATS"
ATT_FEATS_LOC = "ATT_FEATS_LOC"
ATT_MASKS = "ATT_MASKS"
ATT_FEATS_MASKS = ATT_MASKS
GLOBAL_FEATS = "GLOBAL_FEATS"

U_TOKENS_IDS = "U_TOKENS_IDS"
U_TOKENS_TYPE = "U_TOKENS_TYPE"
U_TARGET_IDS = "U_TARGET_IDS"
U_LOGITS = "U_LOGITS"
G_TOKENS_IDS = "G_TOKENS_IDS"
G_TOKENS_TYPE = "G_TOKENS_TYPE"
G_TARGET_IDS = "G_TARGET_IDS"
G_LOGITS = "G_LOGITS"
G_LOGP = "G_LOGP"
G_SENTS_IDS = "G_SENTS_IDS"
TOKENS_MASKS = "TOKENS_MASKS"

REWARDS = "REWARDS"
DECODE_BY_SAMPLE = "DECODE_BY_SAMPLE"
OUT_SIZE = "OUT_SIZE"
SAMPLE_PER_SAMPLE = "SAMPLE_PER_SAMPLE"
SS_PROB = "SS_PROB"
"""Scheduled-sampling probability of the running step."""
SIMILARITY = "SIMILARITY"
"""Whether a pre-training pass also learns which image and text belong together."""
V_TARGET = "V_TARGET"
V_TARGET_MASK = "V_TARGET_MASK"


class MissingKeyError(KeyError):
    """A batch or a model's output lacks a key that the trainer's contract asks for."""

    def __init__(self, key: str, where: str, present: object) -> None:
        super().__init__(key)
        self.message = (
            f"{where} must hold the key {key!r}, got {sorted(map(str, present))}; "  # type: ignore[call-overload]
            "see the trainer's docstring for what it asks of model and loader"
        )

    def __str__(self) -> str:
        return self.message


def need(data: dict, where: str, *keys: str) -> list:
    """The values of `keys` in `data`.

    Raises:
        MissingKeyError: names the first key that is not there.
    """
    for key in keys:
        if key not in data:
            raise MissingKeyError(key, where, data)
    return [data[key] for key in keys]
