"""Every objective on the embedded prior, at equal UNet work or for equally many steps, scored against the true shapes.

    python -m benchmarks.objectives --preset draft --passes 120 --objects 1
    python -m benchmarks.objectives --preset draft --steps 60 --objects 1 --output benchmarks/objectives-equal-steps

Work is counted in passes of one view through the UNet; a pass that learns counts three times, for its way back. SDS between
latents takes two passes a step, so 120 are the 60 steps of a draft; an objective that takes more gets fewer steps.
The first row is no objective but the ball that every run begins with, so that one sees how near it already is to each shape.
Appends one row per run to `objectives.csv` beside this file, or to what `--output` names (a run that is there, of the same
model, is not repeated), then writes the summary `.md` and the picture sheet `.png`, whose rows are those of the summary.
"""

import argparse
import os
import time
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import completed, digest_of, measured_on, of_model
from benchmarks.scoring import scored
from dreamtime import assembly, presets, text_to_3d
from dreamtime.evaluation.geometry import score
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.world import Thing
from dreamtime.types import Mesh

HERE = Path(__file__).parent
THINGS = [Thing("cube", "red"), Thing("torus", "blue"), Thing("cone", "red")]
START = "the start"  # no objective: the scene before its first step
VARIANTS: dict[str, dict[str, Any]] = {
    START: {},
    "SDS, between images": {},
    "SDS": {"image_residual": 0.0},
    "SDS, CFG rescale": {"image_residual": 0.0, "guidance": "rescaled"},
    "SDS, Perp-Neg": {"image_residual": 0.0, "guidance": "perp-neg"},
    "SJC": {"objective": "sjc"},
    "TP-VSD": {"objective": "vsd"},
    "VSD, uniform t": {"objective": "vsd", "schedule": "uniform"},
    "CSD": {"objective": "csd"},
    "NFSD": {"objective": "nfsd"},
    "ASD": {"objective": "asd"},
    "SDI": {"objective": "sdi"},
    "ISM": {"objective": "ism"},
    "SDS-Bridge": {"objective": "bridge"},
}
FIELDS = ("prompt", "model", "variant", "budget", "seed", "guidance_scale", "steps", "passes_taken")
FIELDS += ("iou", "likest", "color", "seconds")
TRIAL_STEPS = 12
WAY_BACK = 3  # the work of a pass forwards and backwards, in passes forwards


def meter(unet: torch.nn.Module) -> Callable[[], int]:
    """How many images a UNet, and what is copied from it afterwards, has seen since."""
    seen = 0

    def count(unet: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        seen += len(inputs[0]) * (WAY_BACK if torch.is_grad_enabled() else 1)

    unet.register_forward_pre_hook(count)
    return lambda: seen


def optimised(settings: presets.Settings, steps: int | None = None) -> tuple[assembly.Scene, float]:
    """The scene after so many steps or its last, and the passes that each of a step's views took through the UNet."""
    prior = assembly.load_prior(settings.source, settings.device, settings.options)
    seen = meter(prior.unet)
    dream = text_to_3d.compose(settings, prior, assembly.load_embed(settings))
    for _ in islice(dream.steps(0), steps):
        pass
    return dream.scene, seen() / settings.views


def recipe(preset: str, thing: Thing, variant: str, seed: int, steps: int) -> presets.Settings:
    """The preset for so many steps of a variant."""
    return presets.preset(preset, "cpu", prompt=thing.caption, seed=seed, steps=steps, **VARIANTS[variant])


def steps_within(passes: int, preset: str, thing: Thing, variant: str, seed: int) -> int:
    """As many steps as the passes allow, found by a short trial."""
    _, trial = optimised(recipe(preset, thing, variant, seed, TRIAL_STEPS))
    return max(round(passes * TRIAL_STEPS / trial), 1)


def likest_solid(mesh: Mesh, color: str) -> str:
    """Of all solids of the toybox, the one that it overlaps most after the best turn and scale."""
    return max(SOLIDS, key=lambda kind: score(mesh, Thing(kind, color)).iou_scaled)


def one_run(
    preset: str, thing: Thing, variant: str, seed: int, passes: int | None, steps: int, picture: Path
) -> dict[str, str]:
    """Optimise for the steps, or for those within the passes, extract, score, and keep a strip of four views."""
    about = (preset, thing, variant, seed)
    if variant == START:
        row, settings = {"guidance_scale": "none", "steps": "0"}, recipe(*about, 1)
    else:
        settings = recipe(*about, steps if passes is None else steps_within(passes, *about))
        row = {"guidance_scale": f"{settings.guidance_scale:g}", "steps": str(settings.steps)}
    started = time.process_time()
    scene, taken = optimised(settings, 0 if variant == START else None)
    row |= {"passes_taken": f"{taken:.0f}", "seconds": f"{time.process_time() - started:.1f}"}
    mesh, scores = scored(scene.representation, settings, thing, picture)
    return row | scores | {"likest": likest_solid(mesh, thing.color)}


def summary(rows: list[dict[str, str]], model: str, things: list[Thing], budget: str) -> str:
    """A table of means per variant, of the model's rows."""
    rows, about = of_model([row for row in rows if row["budget"] == budget], model)
    lines = [
        measured_on(),
        about,
        f"Preset {budget} a run, {', '.join(thing.caption for thing in things)}.",
        "",
        "Of the eight solids of the toybox, a result is likest the one that it overlaps most after the best turn and scale.",
        "",
        "| objective | guidance scale | steps | runs | mean IoU | worst IoU | likest | mean colour error (CIEDE2000) | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        of = [row for row in rows if row["variant"] == name]
        of.sort(key=lambda row: ([thing.caption for thing in things].index(row["prompt"]), row["seed"]))
        iou, color, seconds, steps = (np.array([float(row[key]) for row in of]) for key in ("iou", "color", "seconds", "steps"))
        lines.append(
            f"| {name} | {of[0]['guidance_scale']} | {steps.mean():.0f} | {len(of)} | {iou.mean():.3f} | {iou.min():.3f} |"
            f" {', '.join(row['likest'] for row in of)} | {color.mean():.1f} | {seconds.mean():.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="standard", help="(default %(default)s)")
    parser.add_argument("--passes", type=int, default=250, help="of each view of a step through the UNet, in a whole run")
    parser.add_argument("--steps", type=int, help="so many for every objective, whatever work they are")
    parser.add_argument("--objects", type=int, default=len(THINGS), help="the first so many (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--output", type=Path, default=HERE / "objectives")
    arguments = parser.parse_args()
    table, pictures = arguments.output.with_suffix(".csv"), Path(f"{arguments.output}-pictures")
    pictures.mkdir(exist_ok=True)
    things = THINGS[: arguments.objects]
    passes, steps = (None, arguments.steps) if arguments.steps else (arguments.passes, 0)
    budget = f"{arguments.preset}, " + (f"{passes} UNet passes per view" if passes else f"{steps} steps")
    model, todo = digest_of(WEIGHTS), []
    for seed, thing, name in product(range(arguments.seeds), things, VARIANTS):
        key = {"prompt": thing.caption, "model": model, "variant": name, "budget": budget, "seed": str(seed)}
        picture = pictures / f"{picture_name(thing, name, seed)}.png"
        todo.append((key, one_run, (arguments.preset, thing, name, seed, passes, steps, picture)))
    rows = completed(table, FIELDS, todo, arguments.workers)
    arguments.output.with_suffix(".md").write_text(summary(rows, model, things, budget), encoding="utf-8")
    strips = [
        np.concatenate([np.array(Image.open(pictures / f"{picture_name(thing, name, 0)}.png")) for thing in things], axis=1)
        for name in VARIANTS
    ]
    Image.fromarray(np.concatenate(strips)).save(arguments.output.with_suffix(".png"))


def picture_name(thing: Thing, variant: str, seed: int) -> str:
    return f"{thing.color}-{thing.kind}-{variant.lower().replace(', ', '-').replace(' ', '-')}-{seed}"


if __name__ == "__main__":
    main()
