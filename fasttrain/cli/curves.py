"""Read what a run wrote into `scalars.json`, over all its starts, as series to draw."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttrain.cli.errors import UsageError

Series = tuple[list[int], list[float]]
NOT_METRICS = frozenset({"time", "data_time", "step", "epoch", "iter", "memory", "eta"})


@dataclass
class Curves:
    """Name -> (steps, values) of each kind of curve; steps ascend."""

    losses: dict[str, Series] = field(default_factory=dict)
    rates: dict[str, Series] = field(default_factory=dict)
    metrics: dict[str, Series] = field(default_factory=dict)
    metric_axis: str = "iteration"  # or "epoch"


def read_curves(work_dir: Path) -> Curves:
    """Read every `scalars.json` below a work folder.

    A run that was resumed has one file per start; where they overlap, the later start counts.

    Raises:
        UsageError: there is no such folder, no such file, or nothing in it.
    """
    if not work_dir.is_dir():
        raise UsageError(f"no such work folder: {work_dir}")
    files = sorted(work_dir.glob("**/scalars.json"), key=lambda path: path.parts)
    if not files:
        raise UsageError(
            f"{work_dir} holds no scalars.json; it is written by LocalVisBackend, so the config's "
            f"visualizer needs vis_backends=[dict(type='LocalVisBackend')]"
        )
    train: list[dict[str, Any]] = []
    val: list[dict[str, Any]] = []
    for path in files:
        records = read_records(path)
        train = append_start(train, [record for record in records if "iter" in record])
        val = append_start(val, [record for record in records if "iter" not in record])
    if not train and not val:
        raise UsageError(f"the scalars.json below {work_dir} hold no records yet")
    return sort_out(train, val)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of one file, one JSON object per line; a last line cut off midway is left out."""
    records = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break  # the run was killed while it wrote
            raise UsageError(f"{path}, line {number}: not a JSON record: {error}") from error
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def append_start(
    records: list[dict[str, Any]], newer: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Records with those of a later start, which replace what lies at or after its first step."""
    if not newer:
        return records
    first = newer[0]["step"]
    return [record for record in records if record["step"] < first] + newer


def sort_out(train: list[dict[str, Any]], val: list[dict[str, Any]]) -> Curves:
    """Sort the entries of the records by what they are."""
    curves = Curves()
    for record in train:
        for name, value in record.items():
            if name in NOT_METRICS or not isinstance(value, int | float):
                continue
            if "loss" in name:
                add(curves.losses, name, record["step"], value)
            elif name == "lr" or name.endswith((".lr", "/lr")):
                add(curves.rates, name, record["step"], value)
    for record in val:
        for name, value in record.items():
            if name not in NOT_METRICS and isinstance(value, int | float):
                add(curves.metrics, name, record["step"], value)
    epochs = [record["epoch"] for record in train if "epoch" in record]
    if epochs and val and val[-1]["step"] <= max(epochs):
        curves.metric_axis = "epoch"
    return curves


def add(series: dict[str, Series], name: str, step: int, value: float) -> None:
    """Append one point to the series of a name."""
    steps, values = series.setdefault(name, ([], []))
    steps.append(int(step))
    values.append(float(value))
