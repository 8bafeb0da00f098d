"""The embedded Zero-1-to-3 on objects it never saw: novel views against the true ones, the kind by the scorer, elevations.

    python -m benchmarks.novel_views

For each held-out object one picture from a random place, and six places it is asked about, by 50 DDIM steps; any relative
pose occurs, as in training. The elevation is estimated as the product does it, from a picture of its own through the same door
as anybody's. Writes `novel_views.md`, a sheet of pairs (asked, true) and one of an azimuth sweep beside this file.
"""

import argparse
import math
from pathlib import Path
from statistics import mean, median

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Generator, Tensor

from benchmarks.image_to_3d import SOURCE_SIZE, picture_of
from benchmarks.rows import digest_of, measured_on
from dreamtime import distillation, image_to_3d, preprocess
from dreamtime.cameras import orbit
from dreamtime.elevation import denoised
from dreamtime.evaluation.scorers import Scorer, load_scorer
from dreamtime.priors import zero123
from dreamtime.priors.autoencoder import Autoencoder, read_autoencoder
from dreamtime.priors.hub import find
from dreamtime.references import psnr
from dreamtime.toybox.meanings import Description, answers, questions
from dreamtime.toybox.novel_views import FIELD_OF_VIEW, Viewpoints, pictures_from, random_viewpoints
from dreamtime.toybox.pictures import RESOLUTION, contact_sheet
from dreamtime.toybox.world import Object, held_out, held_out_objects, twin
from dreamtime.types import Cameras

HERE = Path(__file__).parent
ASKED = 6  # novel views of each object
SWEPT = ("car", "chair", "snowman")
DISTANCE = 1.9
CPU = torch.device("cpu")


class Model:
    """The prior, its VAE's decoder, and what looks at pictures for it."""

    def __init__(self, source: str) -> None:
        self.prior = zero123.load_prior(source, CPU, torch.float32)
        vae = read_autoencoder(find(source, ("vae",)).path, torch.float32)
        self.decode = Autoencoder(vae, self.prior.unet.config.sample_size, vae).decode
        self.look = zero123.load_image_encoder(source, CPU, torch.float32)

    @torch.no_grad()
    def imagined(self, picture: Tensor, seen_from: Cameras, cameras: Cameras, guidance: float, steps: int, seed: int) -> Tensor:
        """What it makes of the picture from other places: B H W 3 in [0, 1]."""
        predict = distillation.classifier_free(self.prior, self.look(picture, seen_from), guidance)
        channels, *sides = self.prior.encode(picture[None])[0].shape
        noise = torch.randn(len(cameras), channels, *sides, generator=Generator().manual_seed(seed))
        return self.decode(denoised(predict, noise, cameras, self.prior.alphas_cumprod, steps))


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


def elevation_error(source: str, what: Object, elevation: float, azimuth: float) -> float:
    """By how many degrees the product is wrong about a picture that was taken from there."""
    settings = image_to_3d.image_preset("standard", "cpu", source)
    picture = picture_of(what, elevation, azimuth)
    reference = preprocess.process(picture, SOURCE_SIZE, image_to_3d.foreground_ratio(settings.prior))
    return abs(math.degrees(image_to_3d.estimated_elevation(settings, reference).elevation) - elevation)


def sweep(model: Model, guidance: float, steps: int) -> UInt8[Tensor, "H W 3"]:
    """Once around some held-out objects that have a front, each from one picture of it: imagined above, true below."""
    turn = torch.arange(12) * (2 * math.pi / 12)
    above, ones = math.radians(20), torch.ones(12)
    around = orbit(above * ones, turn, DISTANCE * ones, FIELD_OF_VIEW * ones, RESOLUTION, RESOLUTION)
    rows = list[Tensor]()
    for what in (thing for thing in held_out_objects() if thing.things[0].kind in SWEPT):
        truth = pictures_from([what], places([above] * 12, turn.tolist()))[0][0]
        seen = places([above], [0.0])
        rows += [model.imagined(truth[0], seen.cameras(), around, guidance, steps, 0), truth]
    return contact_sheet(torch.cat(rows), 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=image_to_3d.EMBEDDED, help="a name or a folder (default: the embedded model)")
    parser.add_argument("--objects", type=int, default=40, help="of the held-out set, a multiple of ten (default %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps (default %(default)s)")
    parser.add_argument("--scorer", default="toybox", help="who judges, as for `evaluate`; or none (default %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "novel_views")
    arguments = parser.parse_args()
    model, generator = Model(arguments.model), Generator().manual_seed(0)
    scorer = None if arguments.scorer == "none" else load_scorer(arguments.scorer)
    decibels, alone, errors, rows = list[float](), list[float](), list[float](), list[Tensor]()
    kinds, true_kinds, constant = list[bool](), list[bool](), list[float]()
    for number, what in enumerate(held_out_objects(arguments.objects)):
        viewpoints = random_viewpoints(1, 1 + ASKED, generator)
        truth = pictures_from([what], viewpoints)[0][0]
        cameras = viewpoints.cameras()
        views = model.imagined(truth[0], cameras[:1], cameras[1:], arguments.guidance, arguments.steps, number)
        decibels += [psnr(view, true) for view, true in zip(views, truth[1:], strict=True)]
        alone += decibels[-ASKED:] if held_out(twin(what)) else []
        if scorer:
            kinds += kind_is_right(scorer, views, what)
            true_kinds += kind_is_right(scorer, truth[1:], what)
        draws = torch.rand(2, generator=generator)
        elevation = -10 + 55 * float(draws[0])
        errors.append(elevation_error(arguments.model, what, elevation, 360 * float(draws[1])))
        constant.append(abs(image_to_3d.ELEVATION - elevation))
        rows += [truth[0], *(each for pair in zip(views[:4], truth[1:5], strict=True) for each in pair)]
    lines = [
        measured_on(),
        f"Model {digest_of(find(arguments.model, ('unet',)).path)}.",
        f"Held-out objects: {arguments.objects}; novel views: {len(decibels)}; guidance {arguments.guidance:g};"
        f" {arguments.steps} DDIM steps.",
        "",
        "| measure | value |",
        "|---|---|",
        f"| PSNR, mean | {mean(decibels):.1f} dB |",
        f"| PSNR, median | {median(decibels):.1f} dB |",
        f"| PSNR, mean of the {len(alone)} views of objects that no training saw under another name | {mean(alone):.1f} dB |",
        f"| kind right, by the scorer | {f'{mean(kinds):.1%}' if kinds else 'not judged'} |",
        f"| of the true pictures | {f'{mean(true_kinds):.1%}' if kinds else 'not judged'} |",
        f"| error of the estimated elevation, median | {median(errors):.0f} degrees |",
        f"| estimated within 15 degrees | {mean(error <= 15 for error in errors):.0%} |",
        f"| error of {image_to_3d.ELEVATION:g} degrees for all, median | {median(constant):.0f} degrees |",
        f"| within 15 degrees | {mean(error <= 15 for error in constant):.0%} |",
    ]
    print("\n".join(lines))
    arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Image.fromarray(contact_sheet(torch.stack(rows), 9).numpy()).save(arguments.output.with_suffix(".png"))
    path = arguments.output.with_name(f"{arguments.output.name}-sweep.png")
    Image.fromarray(sweep(model, arguments.guidance, arguments.steps).numpy()).save(path)


if __name__ == "__main__":
    main()
