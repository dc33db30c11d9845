"""`fasttrain plot WORK_DIR`: loss, learning rate and metrics of a run as one picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.cli.curves import Curves, read_curves
from fasttrain.cli.errors import UsageError, user_input

FILE_NAME = "curves.png"
COLOURS = ("#2f6fb3", "#d1662c", "#3a8f5c", "#8b5fb0", "#b8860b", "#6b7280")
FAINT = 0.25
MAX_LOSSES = 6
LOWER_IS_BETTER = ("loss", "error", "perplexity", "mae", "mse", "rmse", "fid", "wer", "cer")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `plot` to the command line."""
    parser = commands.add_parser("plot", parents=[common], help="draw the curves of a run")
    parser.add_argument("work_dir", metavar="WORK_DIR", type=Path, help="a work folder")
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"default: WORK_DIR/{FILE_NAME}")
    parser.set_defaults(run=run_plot)


def run_plot(options: argparse.Namespace) -> int:
    """Draw the picture and print its path."""
    print(f"curves: {draw_curves(options.work_dir, options.out)}")
    return 0


def draw_curves(work_dir: Path, out: Path | None = None) -> Path:
    """Draw the curves of all runs in a work folder; returns the picture's path."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'fasttrain[plot]'") from error
    curves = read_curves(work_dir)
    groups = metric_groups(curves)
    num_panels = bool(curves.losses) + bool(curves.rates) + len(groups)
    figure = Figure(figsize=(8.0, 1.0 + 2.4 * num_panels), dpi=150, layout="constrained")
    panels = iter(figure.subplots(num_panels, 1, squeeze=False)[:, 0])
    if curves.losses:
        draw_losses(next(panels), curves)
    if curves.rates:
        draw_rates(next(panels), curves)
    for names in groups:
        panel = next(panels)
        draw_metrics(panel, curves, names)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in figure.axes:
        panel.grid(True, color="#e5e7eb", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.01)
    figure.suptitle(work_dir.resolve().name, fontsize=13, fontweight="bold")
    path = work_dir / FILE_NAME if out is None else out
    with user_input(f"cannot write {path}"):
        figure.savefig(path)
    return path


def draw_losses(panel: Any, curves: Curves) -> None:
    """The total loss raw and smoothed, its parts smoothed."""
    names = sorted(curves.losses, key=lambda name: (name != "loss", name))[:MAX_LOSSES]
    smallest = float("inf")
    for name, colour in zip(names, COLOURS, strict=False):
        steps, values = curves.losses[name]
        smallest = min([smallest, *values])
        smooth = smoothed(values)
        if name == names[0]:
            panel.plot(steps, values, color=colour, alpha=FAINT, linewidth=1.0)
        panel.plot(
            steps, smooth, color=colour, linewidth=1.8 if name == names[0] else 1.2,
            label=f"{name} (smoothed), last {smooth[-1]:.4g}",
        )  # fmt: skip
    largest = max(max(curves.losses[name][1]) for name in names)
    if smallest > 0 and largest / smallest > 100:
        panel.set_yscale("log")
    panel.set_ylabel("training loss")
    panel.set_xlabel("iteration")
    panel.legend(frameon=False, loc="upper right")


def draw_rates(panel: Any, curves: Curves) -> None:
    """The learning rates."""
    for (name, (steps, values)), colour in zip(curves.rates.items(), COLOURS, strict=False):
        panel.plot(steps, values, color=colour, linewidth=1.8, label=name)
    panel.set_ylabel("learning rate")
    panel.set_xlabel("iteration")
    panel.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if len(curves.rates) > 1:
        panel.legend(frameon=False, loc="upper right")


def draw_metrics(panel: Any, curves: Curves, names: list[str]) -> None:
    """Validation metrics, each with its best value marked."""
    for name, colour in zip(names, COLOURS, strict=False):
        steps, values = curves.metrics[name]
        pick = min if lower_is_better(name) else max
        best = values.index(pick(values))
        panel.plot(
            steps, values, color=colour, linewidth=1.8, marker="o", markersize=3,
            label=f"{name}, best {values[best]:.4g} at {curves.metric_axis} {steps[best]}",
        )  # fmt: skip
        panel.plot(
            steps[best], values[best], marker="o", markersize=9, markerfacecolor="none",
            markeredgecolor=colour, markeredgewidth=1.8,
        )  # fmt: skip
    panel.set_ylabel("validation")
    panel.set_xlabel(curves.metric_axis)
    panel.legend(frameon=False, loc="best")


def lower_is_better(name: str) -> bool:
    """Whether a metric of this name is best when smallest."""
    return any(word in name.lower() for word in LOWER_IS_BETTER)


def metric_groups(curves: Curves) -> list[list[str]]:
    """Metrics that share a panel: those within 0..1 together, each other one alone."""
    shares = [n for n, (_, values) in curves.metrics.items() if min(values) >= 0 >= max(values) - 1]
    others = [[name] for name in curves.metrics if name not in shares]
    shared = [shares[i : i + len(COLOURS)] for i in range(0, len(shares), len(COLOURS))]
    return shared + others


def smoothed(values: list[float]) -> list[float]:
    """Gaussian average around each point, about a twentieth of the curve wide; NaNs are left out.

    The window is centred, so the smoothed curve does not lag behind the raw one.
    """
    sigma = max(1.0, len(values) / 60.0)
    offsets = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    raw = np.asarray(values, dtype=np.float64)
    known = np.isfinite(raw)
    middle = slice(len(offsets) // 2, len(offsets) // 2 + len(raw))
    total = np.convolve(np.where(known, raw, 0.0), kernel)[middle]
    weight = np.convolve(known.astype(np.float64), kernel)[middle]
    smooth: list[float] = np.divide(total, weight, out=raw.copy(), where=weight > 0).tolist()
    return smooth
