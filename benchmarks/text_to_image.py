"""The embedded model's pictures of the published test set, judged by the scorer: is the kind, the colour, the view right?

    python -m benchmarks.text_to_image

Every held-out object from front, side, back and above with 50 DDIM steps: by the library's own pipeline, which tells the view
in words alone, and as a run asks, which tells the camera, too. Writes `text_to_image.md` and a sheet of the best ones beside
this file.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Generator, Tensor

from benchmarks.rows import digest_of, measured_on
from dreamtime.cameras import orbit
from dreamtime.distillation import classifier_free
from dreamtime.elevation import denoised
from dreamtime.evaluation.scorers import Scorer, load_scorer
from dreamtime.priors import stable_diffusion
from dreamtime.priors.autoencoder import Autoencoder, read_autoencoder
from dreamtime.prompts import VIEWS, View, view_condition
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.meanings import ATTRIBUTES, Description, answers, questions
from dreamtime.toybox.pictures import RESOLUTION, contact_sheet
from dreamtime.toybox.world import Object, held_out_objects

HERE = Path(__file__).parent
CPU = torch.device("cpu")
DISTANCE, FIELD_OF_VIEW = 1.9, math.radians(55)


def sampled(pipeline: StableDiffusionPipeline, prompts: list[str], guidance: float, steps: int, seed: int) -> Tensor:
    """One picture per prompt, B H W 3, each from a seed of its own."""
    images = []
    for start in range(0, len(prompts), 16):
        part = prompts[start : start + 16]
        draws = [Generator().manual_seed(seed + start + row) for row in range(len(part))]
        out = pipeline(part, num_inference_steps=steps, guidance_scale=guidance, generator=draws, output_type="pt")
        images.append(out.images.permute(0, 2, 3, 1))
    return torch.cat(images)


def camera_of(view: View) -> tuple[float, float]:
    """Elevation and azimuth, in degrees, from which a picture of that view is asked for."""
    return {"front": (15.0, 0.0), "side": (15.0, 90.0), "back": (15.0, 180.0), "overhead": (65.0, 0.0)}[view]


@torch.no_grad()
def sampled_as_told(model: str, objects: list[Object], guidance: float, steps: int, seed: int) -> Tensor:
    """One picture of each object from each view, B H W 3, of a model that is told the camera."""
    prior = stable_diffusion.load_prior(model, CPU, torch.float32)
    vae = read_autoencoder(Path(model), torch.float32)
    decode = Autoencoder(vae, prior.unet.config.sample_size, vae).decode
    embed = stable_diffusion.load_text_encoder(model, CPU, torch.float32)
    elevation, azimuth = torch.tensor([camera_of(view) for view in VIEWS]).deg2rad().T
    one = torch.ones(len(VIEWS))
    cameras = orbit(elevation, azimuth, DISTANCE * one, FIELD_OF_VIEW * one, RESOLUTION, RESOLUTION)
    shape, images = (len(VIEWS), prior.unet.config.in_channels, *[prior.unet.config.sample_size] * 2), []
    for number, what in enumerate(objects):
        condition = view_condition(embed, what.caption, tell=prior.tell)
        noise = torch.randn(shape, generator=Generator().manual_seed(seed + number))
        predict = classifier_free(prior, condition, guidance)
        images.append(decode(denoised(predict, noise, cameras, prior.alphas_cumprod, steps)))
    return torch.cat(images)


def rates(images: Tensor, shown: list[Description], scorer: Scorer) -> dict[str, tuple[float, int]]:
    """The share of pictures that are right, and of how many, by attribute."""
    captions = list(dict.fromkeys(text for each in shown for options in questions(each).values() for text in options))
    vectors = dict(zip(captions, scorer.texts(captions), strict=True))
    right = defaultdict[str, list[bool]](list)
    for picture, each in zip(scorer.images(images), shown, strict=True):
        found = answers(picture, each, vectors)
        for name, answer in {**found, "everything": all(found.values())}.items():
            right[name].append(answer)
    return {name: (sum(values) / len(values), len(values)) for name, values in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(WEIGHTS), help="a pipeline's folder (default: the embedded model)")
    parser.add_argument("--objects", type=int, default=40, help="of the held-out set (default %(default)s)")
    parser.add_argument("--guidance", default="2,3,5", metavar="X,...", help="guidance scales (default %(default)s)")
    parser.add_argument(
        "--told-guidance", default="1,2", metavar="X,...", help="the same, told the camera (default %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scorer", default="toybox", help="who judges, as for `evaluate` (default %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "text_to_image")
    arguments = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    objects = held_out_objects(arguments.objects)
    shown = [Description(what, view) for what in objects for view in VIEWS]
    prompts, scorer = [each.caption for each in shown], load_scorer(arguments.scorer)
    names = (*ATTRIBUTES, "everything")
    head = "| told | guidance | " + " | ".join(names) + " |"
    lines = [measured_on(), f"Model {digest_of(Path(arguments.model))}.", "", head, "|---" * (2 + len(names)) + "|"]
    best, sheet = -1.0, torch.empty(0)
    ways = {
        "words": (arguments.guidance, lambda scale: sampled(pipeline, prompts, scale, arguments.steps, arguments.seed)),
        "the camera, too": (
            arguments.told_guidance,
            lambda scale: sampled_as_told(arguments.model, objects, scale, arguments.steps, arguments.seed),
        ),
    }
    for told, (scales, draw) in ways.items():
        for guidance in map(float, scales.split(",")):
            images = draw(guidance)
            found = rates(images, shown, scorer)
            values = " | ".join("{:.1%} of {}".format(*found[name]) for name in names)
            lines.append(f"| {told} | {guidance:g} | {values} |")
            print(lines[-1], flush=True)
            if found["everything"][0] > best:
                best, sheet = found["everything"][0], images
    arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Image.fromarray(contact_sheet(sheet, 16).numpy()).save(arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
