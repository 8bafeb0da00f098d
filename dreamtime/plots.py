"""Pictures of a schedule for files and papers; the browser draws its own (`ui.charts`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dreamtime.timesteps import Timetable, diffusion_weight, prior_weight, time_prioritized_weight

STAGE_COLORS = {"coarse": "#5b5bd6", "content": "#12a594", "detail": "#e5890a"}
INK = "#1c2024"


def shade_stages(axes: Axes, T: int, m: float, s: float, named: bool) -> None:
    """Colour the bands of t that DreamTime's Fig. 5 calls coarse, content and detail."""
    edges = {"detail": (0.0, m - s), "content": (m - s, m + s), "coarse": (m + s, float(T))}
    for stage, (low, high) in edges.items():
        low, high = max(low, 0.0), min(high, float(T))
        if low < high:
            axes.axhspan(low, high, color=STAGE_COLORS[stage], alpha=0.10, linewidth=0)
            if named:
                across = axes.get_yaxis_transform()
                axes.text(0.97, (low + high) / 2, stage, transform=across, ha="right", va="center", color=STAGE_COLORS[stage])


def draw_weights(axes: Axes, alphas_cumprod: Float[Tensor, " T"], m: float, s: float) -> None:
    """W, W_d and W_p along the timestep axis, each divided by its largest value on [0.02 T, 0.98 T]."""
    T = len(alphas_cumprod)
    t = torch.arange(round(0.02 * T), round(0.98 * T) + 1)
    curves = {
        "$W$": (time_prioritized_weight(alphas_cumprod, m, s), "-"),
        "$W_d$": (diffusion_weight(alphas_cumprod), "--"),
        "$W_p$": (prior_weight(T, m, s), ":"),
    }
    for label, (weight, line) in curves.items():
        axes.plot((weight[t] / weight[t].max()).tolist(), t.tolist(), line, label=label, color=INK)
    axes.set(xlabel="weight, largest = 1", ylabel="timestep t", xlim=(0, 1.05))
    axes.legend(loc="lower right", frameon=False)


def schedule_figure(
    alphas_cumprod: Float[Tensor, " T"], table: Timetable, drawn: Sequence[int], name: str, m: float, s: float
) -> Figure:
    """The weights over t beside t(i), on one timestep axis, with the three stages (DreamTime, Fig. 5)."""
    T, steps = len(alphas_cumprod), range(1, len(table) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 2))
    draw_weights(left, alphas_cumprod, m, s)
    if table.random:
        right.fill_between(steps, table.low.tolist(), table.high.tolist(), color=INK, alpha=0.12, linewidth=0)
        right.plot(steps, drawn, ".", color=INK, markersize=2)
    else:
        right.plot(steps, drawn, color=INK)
    shade_stages(left, T, m, s, named=False)
    shade_stages(right, T, m, s, named=True)
    right.set(xlabel="optimisation step i", ylim=(0, T), xlim=(1, max(len(table), 2)), title=f"{name}, {len(table)} steps")
    return figure


def schedule_png(
    target: Path | IO[bytes],
    alphas_cumprod: Float[Tensor, " T"],
    table: Timetable,
    drawn: list[int],
    name: str,
    m: float,
    s: float,
) -> None:
    """Write `schedule_figure` as PNG; `drawn` are the t of the steps, which a random schedule has chosen already."""
    schedule_figure(alphas_cumprod, table, drawn, name, m, s).savefig(target, dpi=150, format="png")
