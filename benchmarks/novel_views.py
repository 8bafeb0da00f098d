"""The embedded Zero-1-to-3 on objects it never saw: novel views against the true ones, the kind by the scorer, elevations.

    python -m benchmarks.novel_views

For each held-out object one picture from a random place, and six places it is asked about, by 50 DDIM steps. Writes
`novel_views.md`, a sheet of pairs (asked, true) and one of an azimuth sweep beside this file.
"""

import argparse
import math
from pathlib import Path
from statistics import mean, median

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Generator, Tensor

from dreamtime import distillation
from dreamtime.cameras import orbit
from dreamtime.elevation import denoised, estimate_elevation, from_above
from dreamtime.evaluation.scorers import Scorer, load_scorer
from dreamtime.priors import zero123
from dreamtime.references import psnr, reference_camera
from dreamtime.toybox import ZERO123
from dreamtime.toybox.meanings import Description, answers, questions
from dreamtime.toybox.novel_views import FIELD_OF_VIEW, Viewpoints, pictures_from
from dreamtime.toybox.pictures import RESOLUTION, contact_sheet
from dreamtime.toybox.world import Object, held_out_objects
from dreamtime.types import Cameras

HERE = Path(__file__).parent
ASKED = 6  # novel views of each object
DISTANCE = 1.9
CPU = torch.device("cpu")


class Model:
    """The prior, what looks at pictures for it, and the decoder that neither keeps."""

    def __init__(self, source: str) -> None:
        self.prior = zero123.load_prior(source, CPU, torch.float32)
        self.look = zero123.load_image_encoder(source, CPU, torch.float32)
        self.vae = AutoencoderKL.from_pretrained(source, subfolder="vae", torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def imagined(self, picture: Tensor, seen_from: Cameras, cameras: Cameras, guidance: float, steps: int, seed: int) -> Tensor:
        """What it makes of the picture from other places: B H W 3 in [0, 1]."""
        predict = distillation.classifier_free(self.prior, self.look(picture, seen_from), guidance)
        side = self.prior.vae.resolution // 4
        noise = torch.randn(len(cameras), 4, side, side, generator=Generator().manual_seed(seed))
        z = denoised(predict, noise, cameras, self.prior.alphas_cumprod, steps)
        images = self.vae.decode(z / self.vae.config.scaling_factor).sample
        return (images.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)


def places(elevations: list[float], azimuths: list[float]) -> Viewpoints:
    """Places of one object, all at the same distance."""
    elevation, azimuth = torch.tensor([elevations]), torch.tensor([azimuths])
    return Viewpoints(elevation, azimuth, torch.full_like(elevation, DISTANCE))


def kind_is_right(scorer: Scorer, images: Tensor, what: Object) -> list[bool]:
    """Whether each picture shows the object's kind more than any other."""
    shown = Description(what, None)
    captions = list(dict.fromkeys(text for options in questions(shown).values() for text in options))
    vectors = dict(zip(captions, scorer.texts(captions), strict=True))
    return [answers(picture, shown, vectors)["kind"] for picture in scorer.images(images)]


def estimated(model: Model, picture: Tensor, guidance: float) -> float:
    """The elevation found for a picture, radians."""
    side = model.prior.vae.resolution // 4
    return estimate_elevation(
        model.prior,
        lambda elevation: model.look(picture, reference_camera(elevation, DISTANCE, FIELD_OF_VIEW, RESOLUTION)),
        from_above(RESOLUTION, DISTANCE, FIELD_OF_VIEW),
        (4, side, side),
        guidance,
    ).elevation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ZERO123), help="a folder (default: the embedded model)")
    parser.add_argument("--objects", type=int, default=40, help="of the held-out set, a multiple of ten (default %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps (default %(default)s)")
    parser.add_argument("--scorer", default="toybox", help="who judges, as for `evaluate`; or none (default %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "novel_views")
    arguments = parser.parse_args()
    model, generator = Model(arguments.model), Generator().manual_seed(0)
    scorer = None if arguments.scorer == "none" else load_scorer(arguments.scorer)
    decibels, kinds, errors, rows = list[float](), list[bool](), list[float](), list[Tensor]()
    for number, what in enumerate(held_out_objects(arguments.objects)):
        draws = torch.rand(2, 1 + ASKED, generator=generator)
        elevations = [math.radians(-10 + 55 * float(draw)) for draw in draws[0]]
        viewpoints = places(elevations, [2 * math.pi * float(draw) for draw in draws[1]])
        truth = pictures_from([what], viewpoints)[0][0]
        cameras = viewpoints.cameras()
        views = model.imagined(truth[0], cameras[:1], cameras[1:], arguments.guidance, arguments.steps, number)
        decibels += [psnr(view, true) for view, true in zip(views, truth[1:], strict=True)]
        kinds += kind_is_right(scorer, views, what) if scorer else []
        errors.append(abs(math.degrees(estimated(model, truth[0], arguments.guidance) - elevations[0])))
        rows += [truth[0], *(each for pair in zip(views[:4], truth[1:5], strict=True) for each in pair)]
    lines = [
        f"Held-out objects: {arguments.objects}; novel views: {len(decibels)}; guidance {arguments.guidance:g};"
        f" {arguments.steps} DDIM steps.",
        "",
        "| measure | value |",
        "|---|---|",
        f"| PSNR, mean | {mean(decibels):.1f} dB |",
        f"| PSNR, median | {median(decibels):.1f} dB |",
        f"| kind right, by the scorer | {f'{mean(kinds):.1%}' if kinds else 'not judged'} |",
        f"| error of the estimated elevation, median | {median(errors):.0f} degrees |",
        f"| estimated within 15 degrees | {mean(error <= 15 for error in errors):.0%} |",
    ]
    print("\n".join(lines))
    arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Image.fromarray(contact_sheet(torch.stack(rows), 9).numpy()).save(arguments.output.with_suffix(".png"))

    what = held_out_objects(arguments.objects)[min(10, arguments.objects - 1)]
    seen = places([math.radians(20)], [0.0])
    picture = pictures_from([what], seen)[0][0, 0]
    turn = torch.arange(12) * (2 * math.pi / 12)
    ones = torch.ones(12)
    around = orbit(math.radians(20) * ones, turn, DISTANCE * ones, FIELD_OF_VIEW * ones, RESOLUTION, RESOLUTION)
    sweep = model.imagined(picture, seen.cameras(), around, arguments.guidance, arguments.steps, 0)
    true = pictures_from([what], places([math.radians(20)] * 12, turn.tolist()))[0][0]
    path = arguments.output.with_name(f"{arguments.output.name}-sweep.png")
    Image.fromarray(contact_sheet(torch.cat([sweep, true]), 12).numpy()).save(path)


if __name__ == "__main__":
    main()
