"""Finding one value among the results of an evaluation."""

from __future__ import annotations

from typing import Any


def get_metric_value(indicator: str, metrics: dict) -> Any:
    """The value that `indicator` names, with its prefix ('coco/bbox_mAP') or without it."""
    if "/" in indicator:
        if indicator in metrics:
            return metrics[indicator]
        raise ValueError(f'The indicator "{indicator}" can not match any metric in {list(metrics)}')
    matched = [name for name in metrics if name.split("/")[-1] == indicator]
    if not matched:
        raise ValueError(f"The indicator {indicator} can not match any metric in {list(metrics)}")
    if len(matched) > 1:
        raise ValueError(f'The indicator "{indicator}" matches multiple metrics {matched}')
    return metrics[matched[0]]
