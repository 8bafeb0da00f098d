"""Ray-traced pictures of the toybox, lit by the same light model as our own renders, and the captions under them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from dreamtime.cameras import CameraRange, rays_from_cameras, sample_cameras
from dreamtime.prompts import views_of, with_view
from dreamtime.shading import lambertian, sample_light
from dreamtime.toybox.world import BOUNDING_RADIUS, Distance, Thing, all_things, normals_from_distance, random_caption
from dreamtime.types import Cameras, Light, Rays

RESOLUTION = 64
SUPERSAMPLING = 2
ALBEDO_SHARE = 0.1  # of the pictures are lit by ambient light alone, as our albedo renders are

WORLD_CAMERAS = CameraRange()


def sphere_trace(distance: Distance, rays: Rays, steps: int = 64, tolerance: float = 1e-3) -> Float[Tensor, " N"]:
    """Depth of the first surface along each ray, inf where there is none.

    Marching starts at the bounding ball and drops rays as they hit or leave it, so empty pixels cost nothing.
    """
    along = (rays.origins * rays.directions).sum(-1)
    inside = along**2 - (rays.origins**2).sum(-1) + BOUNDING_RADIUS**2
    half_chord = inside.clamp(min=0).sqrt()
    near, far = (-along - half_chord).clamp(min=0), -along + half_chord
    depth = torch.full_like(near, torch.inf)
    active = ((inside > 0) & (far > 0)).nonzero()[:, 0]
    t = near[active]
    for _ in range(steps):
        gap = distance(rays.origins[active] + t[:, None] * rays.directions[active])
        hit = gap < tolerance
        depth[active[hit]] = t[hit]
        t = t + gap
        keep = ~hit & (t < far[active])
        active, t = active[keep], t[keep]
        if len(active) == 0:
            break
    return depth


def render(
    thing: Thing, cameras: Cameras, light: Light, background: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 1"]]:
    """Antialiased pictures of a thing and the share of each pixel that it covers."""
    fine = Cameras(cameras.camera_to_world, cameras.fov_y, cameras.height * SUPERSAMPLING, cameras.width * SUPERSAMPLING)
    rays = rays_from_cameras(fine)
    per_image = fine.height * fine.width
    depth = sphere_trace(thing.distance, rays)
    hit = depth.isfinite().nonzero()[:, 0]
    image_of = hit // per_image
    points = rays.origins[hit] + depth[hit, None] * rays.directions[hit]
    normals = normals_from_distance(thing.distance, points)
    to_light = torch.nn.functional.normalize(light.positions[image_of] - points, dim=-1)
    image = background.repeat_interleave(per_image, dim=0)
    image[hit] = lambertian(thing.albedo.to(points).expand_as(points), normals, to_light, light.ambient[image_of])
    cover = torch.zeros(len(depth), 1)
    cover[hit] = 1.0

    def pooled(values: Float[Tensor, "N c"]) -> Float[Tensor, "B H W c"]:
        blocks = values.reshape(len(cameras), cameras.height, SUPERSAMPLING, cameras.width, SUPERSAMPLING, -1)
        return blocks.mean(dim=(2, 4))

    return pooled(image), pooled(cover)


@dataclass(frozen=True)
class Pictures:
    """A labelled data set: images, their captions, and the index of the thing in `all_things()`."""

    images: UInt8[Tensor, "B H W 3"]
    captions: list[str]
    things: Int[Tensor, " B"]


def draw_pictures(count: int, generator: Generator, resolution: int = RESOLUTION) -> Pictures:
    """Pictures of things drawn uniformly, from random cameras, under random light, before a random shade of grey.

    Pictures of one shape are traced together: distances are evaluated for many rays at once.
    """
    things = all_things()
    drawn = torch.randint(len(things), (count,), generator=generator)
    images = torch.zeros(count, resolution, resolution, 3, dtype=torch.uint8)
    captions = [""] * count
    for index in drawn.unique().tolist():
        thing, where = things[index], (drawn == index).nonzero()[:, 0]
        for chunk in where.split(16):
            cameras = sample_cameras(len(chunk), resolution, WORLD_CAMERAS, generator)
            light = sample_light(cameras, generator)
            flat = torch.rand(len(chunk), generator=generator) < ALBEDO_SHARE
            light = Light(light.positions, torch.where(flat, torch.ones_like(light.ambient), light.ambient))
            background = torch.rand(len(chunk), 1, generator=generator).expand(-1, 3)
            pictures, _ = render(thing, cameras, light, background)
            images[chunk] = (pictures * 255 + 0.5).to(torch.uint8)
            for row, view in zip(chunk.tolist(), views_of(cameras), strict=True):
                captions[row] = with_view(random_caption(thing, generator), view)
    return Pictures(images, captions, drawn)


def contact_sheet(images: Float[Tensor, "B H W 3"], columns: int) -> UInt8[Tensor, "h w 3"]:
    """Images in rows of `columns`, last row padded with white."""
    rows = math.ceil(len(images) / columns)
    padded = torch.ones(rows * columns, *images.shape[1:])
    padded[: len(images)] = images.cpu()
    sheet = padded.reshape(rows, columns, *images.shape[1:]).permute(0, 2, 1, 3, 4)
    return (sheet.reshape(rows * images.shape[1], columns * images.shape[2], 3).clamp(0, 1) * 255 + 0.5).to(torch.uint8)
