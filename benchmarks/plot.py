"""Draws CPU time per request: a field per work, a bar per peer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLUMNS = 3
_OURS = "#c8442e"
_OURS_GENERAL = "#e3a294"
_THEIRS = "#8a94a0"


def draw(path: Path, fields: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Writes the PNG. ``fields``: title, and microseconds by peer; each field has a scale of its own."""
    rows = math.ceil(len(fields) / _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(13, 2.1 * rows + 0.7), squeeze=False, layout="constrained")
    axes = list(grid.flat)
    for axis, (title, bars) in zip(axes, fields, strict=False):
        _draw_field(axis, title, bars)
    for axis in axes[len(fields) :]:
        axis.set_visible(False)
    figure.suptitle("CPU microseconds per request, all processes of the proxy; shorter is better", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_field(axis: Axes, title: str, bars: Mapping[str, float]) -> None:
    drawn = axis.barh(list(bars), list(bars.values()), color=[_colour(label) for label in bars], height=0.7)
    axis.bar_label(drawn, labels=[f"{value:,.0f}" for value in bars.values()], padding=3, fontsize=8)
    axis.set_title(title, fontsize=10, loc="left")
    axis.invert_yaxis()
    axis.set_xticks([])
    axis.margins(x=0.15)
    axis.tick_params(axis="y", labelsize=8, length=0)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _colour(label: str) -> str:
    if label.startswith("minato"):
        return _OURS if label == "minato" else _OURS_GENERAL
    return _THEIRS
