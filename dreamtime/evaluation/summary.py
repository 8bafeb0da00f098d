"""What the tables come to: means with intervals, by sort of prompt, and one schedule against the others."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from torch import Generator

from dreamtime.evaluation import TARGETS
from dreamtime.evaluation.convergence import Curves, Interval, common_end, mean_interval, speedup, steps_ratio, steps_to
from dreamtime.evaluation.prompt_sets import GROUPS

REFERENCE = "time-prioritized"


@dataclass(frozen=True)
class Measure:
    """A column of the tables as people read it."""

    label: str
    better: str  # "higher", "lower" or "" where neither is
    percent: bool = False
    digits: int = 2


MEASURES: dict[str, Measure] = {
    "r_color": Measure("R-Precision, colour", "higher", percent=True),
    "r_geometry": Measure("R-Precision, geometry", "higher", percent=True),
    "r_geometry_prompts": Measure("R-Precision, geometry by the whole prompts", "higher", percent=True),
    "iou": Measure("IoU", "higher", digits=3),
    "iou_scaled": Measure("IoU, best size", "higher", digits=3),
    "chamfer": Measure("Chamfer distance", "lower", digits=4),
    "normal_consistency": Measure("normal consistency", "higher", digits=3),
    "color": Measure("colour error, CIEDE2000", "lower", digits=1),
    "kind_right": Measure("kind right", "higher", percent=True),
    "color_right": Measure("colour right", "higher", percent=True),
    "accent_right": Measure("second colour right", "higher", percent=True),
    "relation_right": Measure("relation right", "higher", percent=True),
    "no_janus": Measure("no second face", "higher", percent=True),
    "front_views": Measure("views like the front, of 8 (2 is right)", ""),
    "watertight": Measure("watertight", "higher", percent=True),
    "components": Measure("components", ""),
    "seen_diversity": Measure("diversity of looks, cosine distance", "", digits=3),
    "shape_diversity": Measure("diversity of shapes, 1 - IoU", "", digits=3),
    "seconds": Measure("seconds", "lower", digits=1),
    "cpu_seconds": Measure("processor seconds", "lower", digits=1),
    "peak_mb": Measure("peak memory, MB", "lower", digits=0),
}
SCORES = {"iou": "IoU", "r_precision": "R-Precision, colour"}
"""What is followed along a run."""


def reference_of(schedules: Sequence[str]) -> str:
    """The schedule that the others are compared with: DreamTime's, if it is among them."""
    return REFERENCE if REFERENCE in schedules else schedules[0]


def by_prompt(table: pd.DataFrame, column: str) -> pd.Series:
    """One value per prompt: the mean over its seeds; prompts without any are left out."""
    return table.groupby("prompt", sort=False)[column].mean().dropna()


def interval_of(values: pd.Series) -> Interval:
    return mean_interval(torch.tensor(values.to_numpy(dtype=float)), Generator().manual_seed(0))


def of(table: pd.DataFrame, schedule: str, steps: int) -> pd.DataFrame:
    return table[(table.schedule == schedule) & (table.steps == steps)]


def pairs_of(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Every schedule with every number of steps, in the order they were asked for."""
    return list(dict.fromkeys(zip(table.schedule, table.steps.astype(int), strict=True)))


def intervals(tables: Sequence[pd.DataFrame]) -> dict[str, Interval]:
    """All measures that the tables have values for."""
    found = {}
    for name in MEASURES:
        for table in tables:
            if name in table and len(values := by_prompt(table, name)):
                found[name] = interval_of(values)
    return found


def differences(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, Interval]:
    """The mean of a - b over the prompts that both have, measure by measure."""
    found = {}
    for name in MEASURES:
        if name in a and len(values := (by_prompt(a, name) - by_prompt(b, name)).dropna()):
            found[name] = interval_of(values)
    return found


def curves_of(table: pd.DataFrame, score: str, prompts: Sequence[str]) -> Curves:
    """The curves of one schedule's runs of one length."""
    wide = table.pivot_table(index="prompt", columns="step", values=score, aggfunc="mean").loc[list(prompts)]
    return Curves(torch.tensor(wide.columns.to_numpy(dtype=int)), torch.tensor(wide.to_numpy(dtype=float)))


def curves_by_schedule(curves: pd.DataFrame, score: str) -> dict[str, list[Curves]]:
    """Of each schedule the curves of its runs of each length, over the prompts that all of them have."""
    curves = curves.dropna(subset=[score])
    pairs = pairs_of(curves)
    complete = [set(of(curves, *pair).prompt) for pair in pairs]
    prompts = [prompt for prompt in dict.fromkeys(curves.prompt) if all(prompt in each for each in complete)]
    found: dict[str, list[Curves]] = {}
    for pair in pairs if prompts else []:
        found.setdefault(pair[0], []).append(curves_of(of(curves, *pair), score, prompts))
    return found


def rivals_of(known: Mapping[str, list[Curves]]) -> tuple[str, list[str]]:
    """The schedule that the others are compared with, and those others; none of neither."""
    reference = reference_of(list(known)) if known else ""
    return reference, sorted(known.keys() - {reference})


def ratios(curves: pd.DataFrame, score: str) -> list[dict[str, Any]]:
    """How many times as many steps each other schedule needs to reach what the reference ends with, for each of its lengths."""
    known, found = curves_by_schedule(curves, score), []
    reference, others = rivals_of(known)
    for own in known.get(reference, []):
        for other in others:
            interval = steps_ratio(own, known[other], Generator().manual_seed(0))
            row = {
                "score": score,
                "reference": reference,
                "steps": int(own.steps[-1]),
                "target": own.scores.mean(dim=0)[-1].item(),
            }
            found.append({**row, "schedule": other, **asdict(interval)})
    return found


def speedups(curves: pd.DataFrame, score: str, targets: Sequence[float] = ()) -> list[dict[str, Any]]:
    """How many times as many steps each other schedule needs as the reference to the same quality, and how many either does.

    The same quality is each of the targets, and the most that both end with, if it is more than nothing. A schedule that does
    not come to a target within its longest run, which is told as well, needs infinitely many steps.
    """
    known, found = curves_by_schedule(curves, score), []
    reference, others = rivals_of(known)
    for other in others:
        rivals = (known[reference], known[other])
        everyone = torch.arange(len(rivals[0][0].scores))[None]
        most = common_end(*rivals, everyone)
        for target in (*targets, *([None] if most > 0 else [])):
            quality = most if target is None else torch.full_like(most, target)
            row = {"score": score, "target": quality.item(), "most": target is None, "reference": reference, "schedule": other}
            for who, runs in zip(("reference", "schedule"), rivals, strict=True):
                row[f"{who}_steps"] = steps_to(runs, everyone, quality).item()
                row[f"{who}_within"] = max(int(run.steps[-1]) for run in runs)
            found.append({**row, **asdict(speedup(*rivals, Generator().manual_seed(0), target))})
    return found


def summarised(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    diversity: pd.DataFrame,
    truth: pd.DataFrame,
    targets: Sequence[float] = TARGETS,
) -> dict[str, Any]:
    """Everything that the report says, as plain values; `targets` are values of IoU."""
    pairs = pairs_of(results)
    reference = reference_of([schedule for schedule, _ in pairs])
    rows, versus, groups = [], [], []
    for schedule, steps in pairs:
        table = of(results, schedule, steps)
        row = {"schedule": schedule, "steps": steps}
        counts = {"runs": len(table), "failed": int((table.failure != "").sum())}
        rows.append({**row, **counts, "measures": plain(intervals([table, of(diversity, schedule, steps)]))})
        if schedule != reference and (reference, steps) in pairs:
            versus.append({**row, "reference": reference, "measures": plain(differences(of(results, reference, steps), table))})
        for group in GROUPS:
            if len(part := table[table.group == group]):
                groups.append({**row, "group": group, "prompts": part.prompt.nunique(), "measures": means(part)})
    ceiling = means(truth) if len(truth) else {}
    found = {"rows": rows, "versus": versus, "groups": groups, "truth": ceiling, "reference": reference}
    found["ratios"] = [ratio for score in SCORES for ratio in ratios(curves, score)]
    return {**found, "speedups": speedups(curves, "iou", targets) + speedups(curves, "r_precision")}


def means(table: pd.DataFrame) -> dict[str, float]:
    """The mean over the prompts of all measures that there are."""
    values = {name: by_prompt(table, name) for name in MEASURES if name in table}
    return {name: float(value.mean()) for name, value in values.items() if len(value)}


def plain(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: asdict(interval) for name, interval in found.items()}


def shown(measure: Measure, value: float, signed: bool = False) -> str:
    """A value as people read it."""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} %" if measure.percent else f"{value:{sign}.{measure.digits}f}"
