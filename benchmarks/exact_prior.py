"""What score distillation makes of a prior that is never wrong, and of the true pictures themselves: where the limits lie.

    python -m benchmarks.exact_prior

The exact denoiser of finitely many pictures is known in closed form (a mean weighted by distance), so pictures of one true
object from everywhere are a prior without any error of training; it is told which side it looks at, and no more (the embedded
one is told the camera as numbers, too). Beside it, the same steps on the true picture from each camera, which is told
everything. All else is the preset's. Appends one row per run to `exact_prior.csv` beside this file (a run that is there, with
the same embedded model, is not repeated) and writes `exact_prior.md` of that model's rows.
"""

import argparse
import math
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import mean

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from benchmarks.rows import completed, digest_of, measured_on, of_model
from dreamtime import assembly, meshes, presets, text_to_3d
from dreamtime.cameras import sample_cameras
from dreamtime.diffusion import alpha_sigma
from dreamtime.distillation import image_residual, inject_gradient
from dreamtime.evaluation.geometry import score
from dreamtime.generation import optimise
from dreamtime.presets import Settings
from dreamtime.prompts import VIEWS, views_of, with_view
from dreamtime.shading import sample_light
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.pictures import AT_ONCE, CPU, WORLD_CAMERAS, render
from dreamtime.toybox.world import Object, object_of
from dreamtime.types import Cameras, DecodingPrior, Light, Objective, Rendering

HERE = Path(__file__).parent
PROMPTS = ("a blue torus", "a red cube", "a yellow cone", "a green mushroom with a white stem")
PICTURES = 3000
FIELDS = ("prompt", "model", "asked", "between", "preset", "steps", "seed", "iou", "iou_scaled", "color")


@dataclass(frozen=True)
class ExactPrior:
    """The exact denoiser of pictures of one object: x0 = sum_k p_k x_k, p = softmax_k(-|z_t - alpha x_k|^2 / (2 sigma^2)).

    The condition's one number is the side that the pictures are of, an index into VIEWS, or -1, of which it knows nothing.
    """

    embedded: DecodingPrior  # whose latents these are
    seen: tuple[Float[Tensor, "K C h w"], ...]  # by side

    @property
    def alphas_cumprod(self) -> Float[Tensor, " T"]:
        return self.embedded.alphas_cumprod

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        return self.embedded.encode(images)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        return self.embedded.decode(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B 1 1"]
    ) -> Float[Tensor, "B C h w"]:
        alpha, sigma = alpha_sigma(self.alphas_cumprod, t)
        noise = torch.zeros_like(z_t)
        for row, side in enumerate(condition[:, 0, 0].int().tolist()):
            if side >= 0:
                pictures = self.seen[side].flatten(1)
                squares = (z_t[row].flatten() - alpha * pictures).square().sum(dim=1)
                x0 = torch.softmax(-squares / (2 * sigma**2), dim=0) @ pictures
                noise[row] = (z_t[row] - alpha * x0.view_as(z_t[row])) / sigma
        return noise


def embedded_prior() -> DecodingPrior:
    """The embedded prior, able to decode."""
    prior = assembly.load_prior("toybox", "cpu", presets.STANDARD.options)
    assert isinstance(prior, DecodingPrior)
    return prior


def embed(prompts: list[str]) -> Float[Tensor, "P 1 1"]:
    """The side that each prompt names."""
    sides = [next((side for side, view in enumerate(VIEWS) if prompt.endswith(with_view("", view))), -1) for prompt in prompts]
    return torch.tensor(sides, dtype=torch.float32)[:, None, None]


def true_pictures(what: Object, cameras: Cameras, light: Light, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B H W 3"]:
    """The object from each camera, so many traced together as stay in a cache."""
    images = []
    for first in range(0, len(cameras), AT_ONCE["cpu"]):
        part = slice(first, first + AT_ONCE["cpu"])
        lit = Light(light.positions[part], light.ambient[part])
        images.append(render([what] * len(cameras[part]), cameras[part], lit, background[part])[0])
    return torch.cat(images)


@lru_cache(maxsize=1)
def exact_prior(what: Object) -> ExactPrior:
    """Of random pictures of the object, as the embedded prior's training drew them."""
    chance = Generator().manual_seed(5)
    cameras = sample_cameras(PICTURES, 64, WORLD_CAMERAS, chance)
    grey = torch.rand(PICTURES, 1, generator=chance).expand(-1, 3)
    images = true_pictures(what, cameras, sample_light(cameras, chance), grey)
    prior = embedded_prior()
    with torch.no_grad():
        x = torch.cat([prior.encode(part) for part in images.split(64)])
    views = views_of(cameras)
    return ExactPrior(prior, tuple(x[[seen == view for seen in views]] for view in VIEWS))


def towards_the_truth(what: Object, prior: DecodingPrior, between: str, weight: float) -> Objective:
    """The distance to the true picture from the same camera, between images or between their latents."""

    def objective(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        everywhere = Light(cameras.positions, torch.ones(len(cameras)))
        behind = rendering.image[:, 0, 0].detach()  # a corner, which nothing reaches
        truth = true_pictures(what, cameras, everywhere, behind)
        if between == "images":
            return weight * image_residual(rendering.image, truth)
        x = prior.encode(rendering.image)
        with torch.no_grad():
            difference = x - prior.encode(truth)
        return inject_gradient(x, difference)

    return objective


def supervised(settings: Settings, what: Object, between: str) -> assembly.Scene:
    """The preset's scene and steps, with the truth in the place of a prior."""
    unlit = replace(settings, albedo_share=1.0)
    prior = embedded_prior()
    chance = Generator().manual_seed(settings.seed)
    scene = assembly.build_scene(unlit, CPU, chance)
    steps = optimise(
        lambda progress, generator: sample_cameras(settings.views, 64, assembly.camera_range(settings), generator),
        scene.render,
        assembly.timetable_of(settings, prior.alphas_cumprod),
        towards_the_truth(what, prior, between, weight=settings.image_residual or 1.0),
        assembly.regularizers_of(settings, scene.representation),
        assembly.adam(settings, scene),
        settings.steps,
        chance,
    )
    for _ in steps:
        pass
    return scene


def dreamt(dream: assembly.Dream) -> assembly.Scene:
    """Its scene, once all steps are done."""
    for _ in dream.steps(0):
        pass
    return dream.scene


def scene_of(asked: str, between: str, settings: Settings) -> assembly.Scene:
    """What comes of asking the truth, an exact prior, or the embedded one."""
    what = object_of(settings.prompt)
    assert what is not None
    if asked == "the truth":
        return supervised(settings, what, between)
    if asked == "an exact prior":
        unguided = replace(settings, guidance_scale=1.0)
        return dreamt(text_to_3d.compose(unguided, exact_prior(what), embed))
    return dreamt(text_to_3d.text_to_3d(settings))


def one_run(asked: str, between: str, settings: Settings) -> dict[str, str]:
    """Optimise, extract, score."""
    representation = scene_of(asked, between, settings).representation
    mesh = meshes.extract(representation, settings.mesh_resolution, max_faces=settings.faces).mesh
    what = object_of(settings.prompt)
    assert what is not None
    result = score(mesh, what)
    return {"iou": f"{result.iou:.4f}", "iou_scaled": f"{result.iou_scaled:.4f}", "color": f"{result.color:.2f}"}


def summary(rows: list[dict[str, str]], model: str) -> str:
    """IoU at the best size, a line per teacher and a column per prompt, of the model's rows."""
    rows, about = of_model(rows, model)
    latents, images = presets.BETWEEN_LATENTS["guidance_scale"], presets.EMBEDDED_GUIDANCE_SCALE
    lines = [
        measured_on(),
        about,
        "IoU at the best size, one run each. Between latents cameras stand at 1.5 to 2, between images at 1.8 to 2.2, and the",
        f"embedded prior is guided at {latents:g} and {images:g}, as in its presets; an exact prior is asked without guidance.",
        "",
        f"| asked | difference between | preset | {' | '.join(PROMPTS)} | mean | mean colour error (CIEDE2000) |",
        "|---" * (5 + len(PROMPTS)) + "|",
    ]

    def key_of(row: dict[str, str]) -> tuple[str, ...]:
        return row["asked"], row["between"], row["preset"]

    for key in dict.fromkeys(map(key_of, rows)):
        of = {row["prompt"]: row for row in rows if key_of(row) == key}
        scores = [float(of[prompt]["iou_scaled"]) if prompt in of else math.nan for prompt in PROMPTS]
        cells = [*key, *(f"{value:.2f}" for value in scores), f"{mean(scores):.3f}"]
        lines.append(f"| {' | '.join(cells)} | {mean(float(row['color']) for row in of.values()):.1f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    arguments = parser.parse_args()
    differences: dict[str, dict[str, float]] = {"images": {}, "latents": {"image_residual": 0.0}}
    model, todo = digest_of(WEIGHTS), []
    for asked in ("the truth", "an exact prior", "the embedded prior"):
        for between, change in differences.items():
            for prompt in PROMPTS:
                settings = presets.preset(arguments.preset, "cpu", prompt=prompt, **change)
                key = {"prompt": prompt, "model": model, "asked": asked, "between": between, "preset": arguments.preset}
                key |= {"steps": str(settings.steps), "seed": str(settings.seed)}
                todo.append((key, one_run, (asked, between, settings)))
    rows = completed(HERE / "exact_prior.csv", FIELDS, todo, arguments.workers)
    order = [key["asked"] for key, _, _ in todo]
    rows.sort(key=lambda row: order.index(row["asked"]))
    (HERE / "exact_prior.md").write_text(summary(rows, model), encoding="utf-8")


if __name__ == "__main__":
    main()
