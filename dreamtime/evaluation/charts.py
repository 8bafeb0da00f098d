"""Pictures of an evaluation's tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamtime.evaluation.convergence import first_step_at
from dreamtime.evaluation.summary import MEASURES, SCORES, by_prompt, of, pairs_of, reference_of

COLORS = ("#5b5bd6", "#e5890a", "#12a594", "#ca244d", "#8d8d86", "#0d74ce", "#a35829", "#2b9a66")
LINES = ("-", "--", ":", "-.")
SHOWN = ("r_color", "r_geometry", "iou", "iou_scaled", "color", "kind_right", "color_right", "no_janus")


def style_of(pairs: Sequence[tuple[str, int]], schedule: str, steps: int) -> dict[str, Any]:
    """A colour per schedule, a line per number of steps."""
    schedules, lengths = list(dict.fromkeys(s for s, _ in pairs)), sorted({n for _, n in pairs})
    color, line = COLORS[schedules.index(schedule) % len(COLORS)], LINES[lengths.index(steps) % len(LINES)]
    return {"color": color, "linestyle": line, "label": f"{schedule}, {steps} steps"}


def draw_curves(axes: Axes, curves: pd.DataFrame, score: str) -> None:
    """The mean quality along the runs of each schedule and length (DreamTime, Fig. 6 and 7)."""
    pairs = pairs_of(curves)
    for schedule, steps in pairs:
        mean = of(curves, schedule, steps).groupby("step")[score].mean()
        axes.plot(mean.index, mean.to_numpy(), **style_of(pairs, schedule, steps))
    axes.set(xlabel="optimisation step", ylabel=SCORES[score], ylim=(0, None))


def draw_steps_to(axes: Axes, curves: pd.DataFrame, score: str) -> None:
    """The step at which each schedule's mean first reaches a quality, by whichever of its runs gets there first."""
    curves = curves.dropna(subset=[score])
    pairs = pairs_of(curves)
    for schedule in dict.fromkeys(schedule for schedule, _ in pairs):
        means = [of(curves, *pair).groupby("step")[score].mean() for pair in pairs if pair[0] == schedule]
        targets = torch.linspace(0, max(mean.max() for mean in means), 60, dtype=torch.double)
        reached = [
            first_step_at(torch.tensor(mean.index), torch.tensor(mean.to_numpy()).expand(60, -1), targets) for mean in means
        ]
        color = style_of(pairs, schedule, pairs[0][1])["color"]
        axes.plot(targets, torch.stack(reached).amin(dim=0), color=color, label=schedule)
    axes.set(xlabel=SCORES[score], ylabel="steps needed", ylim=(0, None))


def figure_of_scores(curves: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame, str], None]) -> Figure | None:
    """One panel for each score that there is; None without any."""
    scores = [score for score in SCORES if curves[score].notna().any()]
    if not scores:
        return None
    figure = Figure(figsize=(5 * len(scores), 3.8), layout="constrained")
    for axes, score in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        draw(axes, curves, score)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def draw_measure(axes: Axes, summary: Mapping[str, Any], name: str) -> None:
    """One measure of each schedule and length, with its interval; the dotted line is what the truth scores."""
    measure, rows = MEASURES[name], summary["rows"]
    pairs = [(row["schedule"], row["steps"]) for row in rows]
    for place, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        found = row["measures"][name]
        error = [[found["value"] - found["low"]], [found["high"] - found["value"]]] if math.isfinite(found["low"]) else None
        color = style_of(pairs, *pair)["color"]
        axes.errorbar([place], [found["value"]], yerr=error, fmt="o", color=color, capsize=3, label=pair[0])
    if name in summary["truth"]:
        axes.axhline(summary["truth"][name], color="#8d8d86", linestyle=":", linewidth=1)
    if measure.percent or name.startswith("iou"):
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(measure.label, fontsize=9)
    axes.set_xticks(range(len(pairs)), [str(steps) for _, steps in pairs], fontsize=8)
    axes.set(xlim=(-0.5, len(pairs) - 0.5), xlabel="steps")


def measures_figure(summary: Mapping[str, Any]) -> Figure | None:
    """The main measures of each schedule and length; None without any."""
    names = [name for name in SHOWN if all(name in row["measures"] for row in summary["rows"])]
    if not names:
        return None
    columns = min(4, len(names))
    height = -(-len(names) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.7 * height + 0.4), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        draw_measure(axes, summary, name)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    schedules = dict(zip(labels, handles, strict=True))
    figure.legend(schedules.values(), schedules.keys(), loc="outside lower center", ncols=len(schedules), frameon=False)
    return figure


def prompts_figure(results: pd.DataFrame) -> Figure | None:
    """Each prompt's overlap under the reference schedule against the next one, at equal steps; None with a single schedule."""
    schedules = list(dict.fromkeys(results.schedule))
    reference = reference_of(schedules)
    others = [schedule for schedule in schedules if schedule != reference]
    if not others or results.iou.isna().all():
        return None
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    for steps, marker in zip(sorted(set(results.steps)), "os^Dv", strict=False):
        x, y = (by_prompt(of(results, schedule, steps), "iou") for schedule in (others[0], reference))
        both = x.index.intersection(y.index)
        axes.plot(x[both], y[both], marker, color=COLORS[0], alpha=0.6, markersize=4, label=f"{steps} steps")
    axes.plot([0, 1], [0, 1], color="#8d8d86", linewidth=1)
    axes.set(xlabel=f"IoU, {others[0]}", ylabel=f"IoU, {reference}", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, fontsize=8)
    return figure


def write_figures(folder: Path, results: pd.DataFrame, curves: pd.DataFrame, summary: Mapping[str, Any]) -> dict[str, Path]:
    """All pictures as PNG files, by name."""
    figures = {
        "measures": measures_figure(summary),
        "curves": figure_of_scores(curves, draw_curves),
        "steps": figure_of_scores(curves, draw_steps_to),
        "prompts": prompts_figure(results),
    }
    folder.mkdir(exist_ok=True)
    written = {}
    for name, figure in figures.items():
        if figure is not None:
            written[name] = folder / f"{name}.png"
            figure.savefig(written[name], dpi=110, format="png")
    return written
