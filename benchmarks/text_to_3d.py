"""Twelve prompts, uniform against time-prioritized timesteps at equal steps, scored against the true shapes.

    python -m benchmarks.text_to_3d --preset draft --seeds 1

Appends one row per run to `text_to_3d.csv` beside this file (a run that is there, of the same model, is not repeated), then
writes the summary `text_to_3d.md` of that model's rows and the picture sheet `text_to_3d.png`.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rows import completed, digest_of, measured_on, of_model
from benchmarks.scoring import scored
from dreamtime import presets, text_to_3d
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.world import Thing

HERE = Path(__file__).parent
THINGS = [
    Thing(kind, color)
    for kind, colors in {
        "sphere": ("purple", "orange"),
        "cube": ("red", "green"),
        "cylinder": ("brown", "cyan"),
        "cone": ("red", "pink"),
        "torus": ("blue", "red"),
        "pyramid": ("orange", "blue"),
    }.items()
    for color in colors
]
SCHEDULES = ("uniform", "time-prioritized")
FIELDS = ("prompt", "model", "schedule", "preset", "steps", "seed", "iou", "color", "seconds")


def one_run(settings: presets.Settings, thing: Thing, picture: Path) -> dict[str, str]:
    """Optimise, extract, score, and keep a strip of four views."""
    started = time.monotonic()
    dream = text_to_3d.text_to_3d(settings)
    for _ in dream.steps(0):
        pass
    seconds = time.monotonic() - started
    _, scores = scored(dream.scene.representation, settings, thing, picture)
    return {**scores, "seconds": f"{seconds:.1f}"}


def jobs(preset: str, seeds: int, steps: int | None) -> Iterator[tuple[Thing, presets.Settings]]:
    changes = {} if steps is None else {"steps": steps}
    for seed in range(seeds):
        for thing in THINGS:
            for schedule in SCHEDULES:
                yield thing, presets.preset(preset, "cpu", prompt=thing.caption, schedule=schedule, seed=seed, **changes)


def summary(rows: list[dict[str, str]], model: str) -> str:
    """A table of means per schedule, and one row per prompt, of the model's rows."""
    rows, about = of_model(rows, model)
    lines = [
        measured_on(),
        about,
        "",
        "| schedule | runs | mean IoU | worst IoU | mean colour error (CIEDE2000) | mean seconds |",
        "|---|---|---|---|---|---|",
    ]
    for schedule in SCHEDULES:
        of = [row for row in rows if row["schedule"] == schedule]
        iou, color, seconds = (np.array([float(row[key]) for row in of]) for key in ("iou", "color", "seconds"))
        lines.append(
            f"| {schedule} | {len(of)} | {iou.mean():.3f} | {iou.min():.3f} | {color.mean():.1f} | {seconds.mean():.1f} |"
        )
    lines += [
        "",
        "| prompt | " + " | ".join(f"IoU {s} | colour {s}" for s in SCHEDULES) + " |",
        "|---" * (1 + 2 * len(SCHEDULES)) + "|",
    ]
    for thing in THINGS:
        cells = []
        for schedule in SCHEDULES:
            of = [row for row in rows if row["schedule"] == schedule and row["prompt"] == thing.caption]
            cells += [f"{np.mean([float(row[key]) for row in of]):.{digits}f}" for key, digits in (("iou", 3), ("color", 1))]
        lines.append(f"| {thing.caption} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--output", type=Path, default=HERE / "text_to_3d")
    arguments = parser.parse_args()
    table, pictures = arguments.output.with_suffix(".csv"), Path(f"{arguments.output}-pictures")
    pictures.mkdir(exist_ok=True)
    model, todo = digest_of(WEIGHTS), []
    for thing, settings in jobs(arguments.preset, arguments.seeds, arguments.steps):
        key = {"prompt": thing.caption, "model": model, "schedule": settings.schedule, "preset": arguments.preset}
        key |= {"steps": str(settings.steps), "seed": str(settings.seed)}
        picture = pictures / f"{thing.color}-{thing.kind}-{settings.schedule}-{settings.seed}.png"
        todo.append((key, one_run, (settings, thing, picture)))
    rows = completed(table, FIELDS, todo, arguments.workers)
    arguments.output.with_suffix(".md").write_text(summary(rows, model), encoding="utf-8")
    strips = [
        np.concatenate([np.array(Image.open(pictures / f"{t.color}-{t.kind}-{s}-0.png")) for s in SCHEDULES], axis=1)
        for t in THINGS
    ]
    Image.fromarray(np.concatenate(strips)).save(arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
