"""Where the timesteps' order matters: uniform against time-prioritized timesteps under changes of the recipe.

    python -m benchmarks.schedules --preset draft

Objects of the training set, equal steps. Appends one row per run to `schedules.csv` beside this file (a run that is there, of
the same model, is not repeated), then writes the summary `schedules.md` of that model's rows.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from benchmarks.rows import Row, completed, digest_of, measured_on, of_model
from dreamtime import meshes, presets, text_to_3d
from dreamtime.evaluation.convergence import mean_interval
from dreamtime.evaluation.geometry import score
from dreamtime.priors.folders import CAMERA_EMBEDDING
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.world import Thing

HERE = Path(__file__).parent
THINGS = [
    Thing("cube", "red"),
    Thing("torus", "blue"),
    Thing("car", "red"),
    Thing("chair", "blue"),
    Thing("mushroom", "orange"),
    Thing("snowman", "green"),
]
UNTOLD = "the prior is told no camera, guidance 2.5"
VARIANTS: dict[str, dict[str, Any]] = {
    "the preset": {},
    "guidance 5": {"guidance_scale": 5.0},
    "guidance 10, opacity term 130": {"guidance_scale": 10.0, "opacity": 130.0},
    UNTOLD: {"guidance_scale": 2.5},
    "between latents, guidance 1.5, cameras nearer": {"image_residual": 0.0},
    "half the learning rate": {},
    "twice the learning rate": {},
    "no opacity term": {"opacity": 0.0},
}
RATES = {"half the learning rate": 0.5, "twice the learning rate": 2.0}
SCHEDULES = ("uniform", "time-prioritized")
FIELDS = ("prompt", "model", "variant", "schedule", "preset", "seed", "iou", "iou_scaled", "color", "seconds")


def recipe(preset: str, thing: Thing, variant: str, schedule: str, seed: int) -> presets.Settings:
    """The preset with the variant's changes."""
    made = presets.preset(preset, "cpu", prompt=thing.caption, schedule=schedule, seed=seed, **VARIANTS[variant])
    return replace(made, learning_rate=made.learning_rate * RATES.get(variant, 1.0))


def without_cameras(folder: Path) -> Path:
    """A copy of the embedded model that is told nothing of cameras but the caption's view."""
    return shutil.copytree(WEIGHTS, folder / "untold", ignore=shutil.ignore_patterns(CAMERA_EMBEDDING))


def one_run(settings: presets.Settings, thing: Thing, untold: bool) -> Row:
    """Optimise, extract and score."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        asked = replace(settings, prior=str(without_cameras(Path(folder)))) if untold else settings
        dream = text_to_3d.text_to_3d(asked)
    for _ in dream.steps(0):
        pass
    seconds = time.monotonic() - started
    mesh = meshes.extract(dream.scene.representation, settings.mesh_resolution, max_faces=settings.faces).mesh
    found = score(mesh, thing)
    measures = {"iou": f"{found.iou:.4f}", "iou_scaled": f"{found.iou_scaled:.4f}", "color": f"{found.color:.2f}"}
    return {**measures, "seconds": f"{seconds:.1f}"}


def column(rows: list[Row], variant: str, schedule: str, name: str) -> torch.Tensor:
    """One value per object, in the order of `THINGS`: the mean over its seeds."""
    of = [row for row in rows if row["variant"] == variant and row["schedule"] == schedule]
    values = [[float(row[name]) for row in of if row["prompt"] == thing.caption] for thing in THINGS]
    return torch.tensor([sum(each) / len(each) for each in values])


def summary(rows: list[Row], model: str, preset: str) -> str:
    """A line per variant: both schedules' IoU, and what one has more than the other with its interval over the objects."""
    rows, about = of_model([row for row in rows if row["preset"] == preset], model)
    seeds = len({row["seed"] for row in rows})
    lines = [
        measured_on(),
        about,
        f"Preset {preset}, {len(THINGS)} objects of the training set, {seeds} seed{'s' * (seeds > 1)} each; in brackets 95 %"
        " bootstrap intervals over the objects.",
        "",
        "| recipe | IoU uniform | IoU time-prioritized | difference | at the best size | colour error, difference |",
        "|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        cells = [f"{column(rows, variant, schedule, 'iou').mean():.3f}" for schedule in SCHEDULES]
        for name, digits in (("iou", 3), ("iou_scaled", 3), ("color", 1)):
            uniform, prioritized = (column(rows, variant, schedule, name) for schedule in SCHEDULES)
            found = mean_interval(prioritized - uniform, Generator().manual_seed(0))
            cells.append(f"{found.value:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="draft", help="(default %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="of each (default %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--output", type=Path, default=HERE / "schedules")
    arguments = parser.parse_args()
    model, todo = digest_of(WEIGHTS), []
    for seed, variant, thing, schedule in product(range(arguments.seeds), VARIANTS, THINGS, SCHEDULES):
        key = {"prompt": thing.caption, "model": model, "variant": variant, "schedule": schedule}
        key |= {"preset": arguments.preset, "seed": str(seed)}
        settings = recipe(arguments.preset, thing, variant, schedule, seed)
        todo.append((key, one_run, (settings, thing, variant == UNTOLD)))
    rows = completed(arguments.output.with_suffix(".csv"), FIELDS, todo, arguments.workers)
    arguments.output.with_suffix(".md").write_text(summary(rows, model, arguments.preset), encoding="utf-8")


if __name__ == "__main__":
    main()
