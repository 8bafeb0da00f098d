"""The object is told from its background: against renderings whose true mask is known."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Generator

from dreamtime.cameras import orbit
from dreamtime.matting import object_mask
from dreamtime.shading import sample_light
from dreamtime.toybox.pictures import render
from dreamtime.toybox.world import random_object


def scene(seed: int, kind: str, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A toybox object before a background, with a soft shadow: the picture and the true mask."""
    generator, chance = Generator().manual_seed(seed), np.random.default_rng(seed)
    angles = (chance.uniform(0.1, 0.8), chance.uniform(0, 6.28), chance.uniform(1.9, 2.4), math.radians(45))
    cameras = orbit(*(torch.tensor([angle], dtype=torch.float32) for angle in angles), size, size)
    what = random_object(generator)
    image, cover = (part[0].numpy() for part in render([what], cameras, sample_light(cameras, generator), torch.zeros(1, 3)))
    background = np.broadcast_to(chance.uniform(0.4, 0.95, 3), image.shape)
    y, x = np.mgrid[0:size, 0:size, 0:1][:2] / size
    if kind == "gradient":
        background = background * (0.65 + 0.35 * x) - 0.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    if kind == "noisy":
        background = background + chance.normal(0, 0.05, image.shape)
    if kind == "textured":
        texture = sum(
            sigma * ndimage.gaussian_filter(chance.normal(size=(size, size, 1)), (sigma, sigma, 0)) for sigma in (1, 4)
        )
        background = background * (1 + 0.1 * texture / texture.std())
    shadow = ndimage.gaussian_filter(np.roll(cover, (size // 20, size // 12), axis=(0, 1)), (4, 4, 0))
    composed = image + (1 - cover) * background * (1 - 0.35 * shadow)
    return (composed.clip(0, 1) * 255 + 0.5).astype(np.uint8), cover[..., 0] > 0.5


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def test_the_object_is_found_before_many_backgrounds():
    kinds = ("plain", "gradient", "noisy", "textured")
    ious = list[float]()
    for seed, kind in enumerate(kinds * 2):
        picture, truth = scene(seed, kind)
        ious.append(overlap(object_mask(picture.astype(np.float32) / 255) > 0.5, truth))
    assert np.mean(ious) > 0.95, ious
    assert min(ious) > 0.88, ious


def drawn(*ellipses: tuple[tuple[int, int, int, int], str], size: int = 200, ground: str = "white") -> np.ndarray:
    image = Image.new("RGB", (size, size), ground)
    for box, color in ellipses:
        ImageDraw.Draw(image).ellipse(box, fill=color)
    return np.asarray(image, dtype=np.float32) / 255


def test_an_object_that_the_frame_cuts_is_found():
    for box in ((0, 0, 199, 199), (80, 50, 260, 160), (60, 90, 140, 290), (50, -60, 150, 120)):
        picture = drawn((box, "crimson"))
        truth = picture[..., 1] < 0.5
        assert overlap(object_mask(picture) > 0.5, truth) > 0.95, box


def test_what_holds_a_corner_is_background():
    picture = drawn(((70, 60, 130, 150), "crimson"))
    picture[120:] = np.where(picture[120:] == 1, np.float32([0.5, 0.35, 0.2]), picture[120:])
    assert overlap(object_mask(picture) > 0.5, picture[..., 1] < 0.3) > 0.9
    picture = np.ones_like(picture)
    picture[120:] = [0.5, 0.35, 0.2]
    assert object_mask(picture).max() == 0, "a table before a wall is no object"


def test_what_reaches_in_beside_an_object_is_left_out():
    picture = drawn(((60, 50, 140, 130), "crimson"), ((120, 120, 300, 180), "peru"))
    found = object_mask(picture) > 0.5
    assert found[90, 100]
    assert not found[150, 185:].any()


def test_a_hole_that_shows_the_background_stays_open():
    grey = np.linspace(150, 220, 192)[:, None, None].repeat(192, 1).repeat(3, 2)
    image = Image.fromarray(grey.astype(np.uint8))
    ImageDraw.Draw(image).ellipse((48, 48, 144, 144), fill=(200, 30, 20))
    ImageDraw.Draw(image).ellipse((76, 76, 116, 116), fill=(185, 185, 185))
    mask = object_mask(np.asarray(image, dtype=np.float32) / 255)
    assert mask[90:102, 90:102].max() < 0.1
    assert mask[60, 96] > 0.9
