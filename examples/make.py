"""What the page shows before its first run: pictures of the example prompts, and pictures to start from with their results.

    python -m examples.make [prompts] [pictures] [results]

`prompts`: what the embedded model makes of each line of `prompts.txt`, at draft quality, one small picture each, and all
together for the README.
`pictures`: `pictures/*`, eight objects of the toybox, cut out, and one as a photograph would show it.
`results`: `results/*.glb` and `*.webp`, what the embedded Zero-1-to-3 makes of each of those, at standard quality.
Run it again whenever the embedded models have changed; what runs were made with stands in the GLB's extras.
"""

import math
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from dreamtime import image_to_3d, preprocess, presets, runs
from dreamtime.cameras import orbit
from dreamtime.runs import Result, Run
from dreamtime.shading import headlight
from dreamtime.toybox.novel_views import FIELD_OF_VIEW
from dreamtime.toybox.pictures import render
from dreamtime.toybox.world import Object, Thing
from dreamtime.ui.picture_layout import example_pictures
from dreamtime.ui.text_layout import EXAMPLES, example_prompts

SIDE = 256  # pixels
ELEVATION = 20.0  # degrees
PICTURES, RESULTS = EXAMPLES / "pictures", EXAMPLES / "results"
TEASER = EXAMPLES.parent / "docs" / "teaser.png"
SHOWN: dict[str, tuple[Object, float]] = {  # by file name: the object, and the azimuth it is seen from, degrees
    "mushroom": (Thing("mushroom", "red", "white"), 0),
    "car": (Thing("car", "blue"), 50),
    "house": (Thing("house", "yellow"), 30),
    "duck": (Thing("duck", "yellow"), 60),
    "chair": (Thing("chair", "brown"), 40),
    "mug": (Thing("mug", "green"), 60),
    "rocket": (Thing("rocket", "white"), 20),
    "torus": (Thing("torus", "purple"), 0),
}
PHOTOGRAPHED = ("photo-of-a-teapot", Thing("teapot", "orange", "red"), 65.0)


def finished(run: Run) -> Result:
    """The run, to its end."""
    for _ in runs.work(run, pictures=False):
        pass
    return runs.deliver(run)


def small(picture: Path, target: Path) -> None:
    with Image.open(picture) as image:
        image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(target, quality=85)


def seen(what: Object, azimuth: float, size: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """The object before black, and the share of each pixel that it covers."""
    angles = (math.radians(ELEVATION), math.radians(azimuth), 1.9, FIELD_OF_VIEW)
    cameras = orbit(*(torch.tensor([angle]) for angle in angles), size, size)
    image, cover = render([what], cameras, headlight(cameras), torch.zeros(1, 3))
    return image[0].numpy(), cover[0].numpy()


def as_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def photographed(what: Object, azimuth: float) -> Image.Image:
    """The object on a wooden table before a wall, with a shadow, the lens' falloff and the sensor's noise."""
    size, chance = 512, np.random.default_rng(7)
    image, cover = seen(what, azimuth, size)
    y, x = np.mgrid[0:size, 0:size] / size
    grain = ndimage.gaussian_filter(chance.normal(size=(size, size)), (1, 40))
    table = np.array([0.80, 0.70, 0.58]) * (1 + 0.12 * (grain / grain.std()))[..., None] * (0.8 + 0.25 * y[..., None])
    wall = np.array([0.42, 0.58, 0.66]) * (0.9 + 0.1 * x[..., None])
    edge = 1 / (1 + np.exp(-(y - 0.56) * 120))[..., None]
    shadow = ndimage.gaussian_filter(np.roll(cover, (size // 16, size // 10), axis=(0, 1)), (14, 20, 0)) * edge
    composed = image + (1 - cover) * (edge * table + (1 - edge) * wall) * (1 - 0.3 * shadow)
    falloff = 1 - 0.25 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)[..., None]
    return as_picture(composed * falloff + chance.normal(0, 0.012, composed.shape))


def make_prompts() -> None:
    for prompt in tqdm(example_prompts(), unit="prompt"):
        with TemporaryDirectory() as folder:
            run = runs.create_run(Path(folder), presets.preset("draft", "cpu", prompt=prompt))
            small(finished(run).files["picture"], EXAMPLES / f"{runs.file_name(prompt)}.webp")

    pictures = [EXAMPLES / f"{runs.file_name(prompt)}.webp" for prompt in example_prompts()]
    together(pictures, columns=4).save(TEASER, optimize=True)


def together(pictures: list[Path], columns: int) -> Image.Image:
    """Small pictures on one white sheet, row by row."""
    sheet = Image.new("RGB", (columns * SIDE, -(-len(pictures) // columns) * SIDE), "white")
    for place, path in enumerate(pictures):
        with Image.open(path) as picture:
            cut = picture.convert("RGBA")
        sheet.paste(cut, (place % columns * SIDE, place // columns * SIDE), cut)
    return sheet


def make_pictures() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name, (what, azimuth) in SHOWN.items():
        image, cover = seen(what, azimuth)
        colors = image / cover.clip(1 / 255)  # straight alpha: the colours are those of what is covered
        as_picture(np.concatenate([colors, cover], axis=-1)).save(PICTURES / f"{name}.png", optimize=True)
    name, what, azimuth = PHOTOGRAPHED
    photographed(what, azimuth).save(PICTURES / f"{name}.jpg", quality=88)


def make_results() -> None:
    RESULTS.mkdir(exist_ok=True)
    for picture in tqdm(list(map(Path, example_pictures())), unit="picture"):
        settings = image_to_3d.image_preset("standard", "cpu", elevation=ELEVATION, faces=4000, texture_size=256)
        reference = preprocess.process(picture, SIDE, image_to_3d.foreground_ratio(settings.prior))
        with TemporaryDirectory() as folder:
            made = finished(runs.create_run(Path(folder), settings, reference))
            small(made.files["picture"], RESULTS / f"{picture.stem}.webp")
            shutil.copyfile(made.files["glb"], RESULTS / f"{picture.stem}.glb")


MAKERS = {"prompts": make_prompts, "pictures": make_pictures, "results": make_results}


def main() -> None:
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()


if __name__ == "__main__":
    main()
