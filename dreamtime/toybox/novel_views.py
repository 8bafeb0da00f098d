"""Several pictures of one object from known places: what the embedded Zero123 learns from, and is measured on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from dreamtime.cameras import cameras_to, orbit
from dreamtime.shading import headlight
from dreamtime.toybox.pictures import AT_ONCE, CPU, RESOLUTION, of_one_shape, render
from dreamtime.toybox.world import Object, random_object
from dreamtime.types import Cameras

FIELD_OF_VIEW = math.radians(49.1)  # Zero-1-to-3's own
NEAREST, FARTHEST = 1.6, 2.2  # scene units
LOWEST, HIGHEST = math.radians(-10), math.radians(80)
USUAL = math.radians(45)  # most cameras stand lower than this
HIGH_SHARE = 0.2  # of the cameras stand above USUAL
VIEWS_OF_EACH = 4


@dataclass(frozen=True)
class Viewpoints:
    """Where the cameras of N objects stand, K each: radians and scene units."""

    elevation: Float[Tensor, "N K"]
    azimuth: Float[Tensor, "N K"]
    distance: Float[Tensor, "N K"]

    def of(self, rows: list[int] | Int[Tensor, " R"]) -> "Viewpoints":
        """Those of some of the objects alone."""
        return Viewpoints(self.elevation[rows], self.azimuth[rows], self.distance[rows])

    def cameras(self, resolution: int = RESOLUTION) -> Cameras:
        """All of them in one row, those of an object side by side."""
        count = self.elevation.numel()
        angles = (self.elevation.reshape(-1), self.azimuth.reshape(-1), self.distance.reshape(-1))
        return orbit(*angles, torch.full((count,), FIELD_OF_VIEW), resolution, resolution)


@dataclass(frozen=True)
class NovelViews:
    """Pictures before white, with the places they were taken from."""

    images: UInt8[Tensor, "N K H W 3"]
    viewpoints: Viewpoints
    objects: list[Object]

    def of(self, rows: list[int]) -> "NovelViews":
        """The same of some of the objects alone."""
        return NovelViews(self.images[rows], self.viewpoints.of(rows), [self.objects[row] for row in rows])


def random_viewpoints(count: int, views: int, generator: Generator) -> Viewpoints:
    """All places independent of one another, so that every relative pose occurs."""

    def uniform(low: float, high: float) -> Float[Tensor, "N K"]:
        return low + (high - low) * torch.rand(count, views, generator=generator)

    high = torch.rand(count, views, generator=generator) < HIGH_SHARE
    elevation = torch.where(high, uniform(USUAL, HIGHEST), uniform(LOWEST, USUAL))
    return Viewpoints(elevation, uniform(0.0, 2 * math.pi), uniform(NEAREST, FARTHEST))


def pictures_from(
    objects: Sequence[Object], viewpoints: Viewpoints, resolution: int = RESOLUTION, device: torch.device = CPU
) -> tuple[Float[Tensor, "N K H W 3"], Float[Tensor, "N K H W 1"]]:
    """Pictures of objects of one shape, lit from the camera, before white, and what of each pixel they cover."""
    count, views = viewpoints.elevation.shape
    cameras = cameras_to(viewpoints.cameras(resolution), device)
    repeated = [what for what in objects for _ in range(views)]
    images, cover = render(repeated, cameras, headlight(cameras), torch.ones(len(repeated), 3, device=device))
    return images.unflatten(0, (count, views)), cover.unflatten(0, (count, views))


def random_objects(count: int, generator: Generator) -> list[Object]:
    """Objects that are not held out: the first that a training set's generator is asked for."""
    return [random_object(generator) for _ in range(count)]


def draw_novel_views(count: int, generator: Generator, device: torch.device = CPU) -> NovelViews:
    """Random objects from `VIEWS_OF_EACH` random places each; the pictures are on the device."""
    objects = random_objects(count, generator)
    viewpoints = random_viewpoints(count, VIEWS_OF_EACH, generator)
    images = torch.zeros(count, VIEWS_OF_EACH, RESOLUTION, RESOLUTION, 3, dtype=torch.uint8, device=device)
    for rows in of_one_shape(objects, AT_ONCE[device.type] // VIEWS_OF_EACH):
        pictures, _ = pictures_from([objects[row] for row in rows.tolist()], viewpoints.of(rows), device=device)
        images[rows.to(device)] = (pictures * 255 + 0.5).to(torch.uint8)
    return NovelViews(images, viewpoints, objects)
