"""Ray-traced pictures of the toybox, lit by the same light model as our own renders, and the captions under them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from dreamtime.cameras import CameraRange, angles_from_position, cameras_to, orbit, rays_from_cameras, sample_cameras
from dreamtime.shading import lambertian, sample_light
from dreamtime.toybox.distances import Distance
from dreamtime.toybox.kinds import BOUNDING_RADIUS
from dreamtime.toybox.meanings import Description, wording
from dreamtime.toybox.symmetry import turned_about_z
from dreamtime.toybox.world import Object, normals_from_distance, random_caption, random_object
from dreamtime.types import Cameras, Light, Rays

RESOLUTION = 64
SUPERSAMPLING = 2
ALBEDO_SHARE = 0.1  # of the pictures are lit by ambient light alone, as our albedo renders are
PLASTER_SHARE = 0.06  # of the pictures show shape and light alone, as our textureless renders do; their captions no colour

WORLD_CAMERAS = CameraRange(distance=(1.5, 2.2))

CPU = torch.device("cpu")
AT_ONCE = {"cpu": 16, "cuda": 256}  # pictures that are traced together: what stays in a cache, and what fills a GPU


def sphere_trace(distance: Distance, rays: Rays, steps: int = 96, tolerance: float = 1e-3) -> Float[Tensor, " N"]:
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


@dataclass(frozen=True)
class Plaster:
    """An object without its colours: white all over."""

    what: Object

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        return self.what.distance(points)

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return torch.ones_like(points)


def render(
    objects: Sequence[Object | Plaster], cameras: Cameras, light: Light, background: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 1"]]:
    """Antialiased pictures of objects of one shape, one per camera, and the share of each pixel that they cover."""
    distance = objects[0].distance
    fine = Cameras(cameras.camera_to_world, cameras.fov_y, cameras.height * SUPERSAMPLING, cameras.width * SUPERSAMPLING)
    rays = rays_from_cameras(fine)
    per_image = fine.height * fine.width
    depth = sphere_trace(distance, rays)
    hit = depth.isfinite().nonzero()[:, 0]
    image_of = hit // per_image
    points = rays.origins[hit] + depth[hit, None] * rays.directions[hit]
    normals = normals_from_distance(distance, points)
    to_light = torch.nn.functional.normalize(light.positions[image_of] - points, dim=-1)
    of_each = points.split(image_of.bincount(minlength=len(objects)).tolist())
    albedo = torch.cat([what.albedo(part) for what, part in zip(objects, of_each, strict=True)])
    image = background.repeat_interleave(per_image, dim=0)
    image[hit] = lambertian(albedo, normals, to_light, light.ambient[image_of])
    cover = torch.zeros_like(depth)[:, None]
    cover[hit] = 1.0

    def pooled(values: Float[Tensor, "N c"]) -> Float[Tensor, "B H W c"]:
        blocks = values.reshape(len(cameras), cameras.height, SUPERSAMPLING, cameras.width, SUPERSAMPLING, -1)
        return blocks.mean(dim=(2, 4))

    return pooled(image), pooled(cover)


@dataclass(frozen=True)
class Pictures:
    """A labelled data set: images, a wording of what each shows, the objects themselves, and the cameras."""

    images: UInt8[Tensor, "B H W 3"]
    captions: list[str]
    objects: list[Object]
    cameras: Cameras


def of_one_shape(objects: Sequence[Object], most: int) -> Iterator[Int[Tensor, " R"]]:
    """The rows of all objects, those of one shape together whatever their colours, at most so many at a time.

    They can be traced together: distances are evaluated for many rays at once.
    """
    rows_of_shape: dict[tuple[str, ...], list[int]] = {}
    for row, what in enumerate(objects):
        rows_of_shape.setdefault(what.shape, []).append(row)
    for rows in rows_of_shape.values():
        yield from torch.tensor(rows).split(most)


def setting(
    cameras: Cameras, light: Light, background: Float[Tensor, "B 3"], rows: Int[Tensor, " R"], device: torch.device
) -> tuple[Cameras, Light, Float[Tensor, "R 3"]]:
    """Some of the cameras, with their lights and backgrounds, on a device."""
    some = Cameras(cameras.camera_to_world[rows], cameras.fov_y[rows], cameras.height, cameras.width)
    lit = Light(light.positions[rows].to(device), light.ambient[rows].to(device))
    return cameras_to(some, device), lit, background[rows].to(device)


def walked_round(cameras: Cameras, light: Light, angles: Float[Tensor, " B"]) -> tuple[Cameras, Light]:
    """Cameras that look at the origin, and their lights, turned about the vertical axis by angles in radians."""
    elevation, azimuth, distance = angles_from_position(cameras.positions)
    turned = orbit(elevation, azimuth + angles, distance, cameras.fov_y, cameras.height, cameras.width)
    return turned, Light(turned_about_z(light.positions, angles), light.ambient)


def draw_pictures(
    count: int, generator: Generator, resolution: int = RESOLUTION, device: torch.device = CPU, sides: int = 1
) -> Pictures:
    """Pictures of random objects, from random cameras, under random light, before a random shade of grey; on that device.

    `sides` pictures in succession show one object before one grey and differ in the azimuth alone, of camera and light
    together, and in their wordings. Raises ValueError if `count` is no multiple of it.
    """
    if count % sides:
        raise ValueError(f"The pictures of an object come {sides} at a time, expected a multiple of that, got {count}.")
    different = count // sides
    objects = [random_object(generator) for _ in range(different)]
    cameras = sample_cameras(different, resolution, WORLD_CAMERAS, generator)
    light = sample_light(cameras, generator)
    flat = torch.rand(different, generator=generator) < ALBEDO_SHARE
    light = Light(light.positions, torch.where(flat, torch.ones_like(light.ambient), light.ambient))
    grey = torch.rand(different, 1, generator=generator).expand(-1, 3)
    white = (torch.rand(different, generator=generator) < PLASTER_SHARE).tolist()
    if sides > 1:
        every = torch.arange(different).repeat_interleave(sides)
        objects, white, grey = [objects[row] for row in every], [white[row] for row in every], grey[every]
        angles = 2 * math.pi * torch.rand(different, sides, generator=generator)
        angles[:, 0] = 0
        cameras = Cameras(cameras.camera_to_world[every], cameras.fov_y[every], resolution, resolution)
        cameras, light = walked_round(cameras, Light(light.positions[every], light.ambient[every]), angles.flatten())
    captions, looks = list[str](), list[Object | Plaster]()
    for what, bare in zip(objects, white, strict=True):
        captions.append(wording(Description(what, colored=False), generator) if bare else random_caption(what, generator))
        looks.append(Plaster(what) if bare else what)
    images = torch.zeros(count, resolution, resolution, 3, dtype=torch.uint8, device=device)
    for rows in of_one_shape(objects, AT_ONCE[device.type]):
        pictures, _ = render([looks[row] for row in rows.tolist()], *setting(cameras, light, grey, rows, device))
        images[rows.to(device)] = (pictures * 255 + 0.5).to(torch.uint8)
    return Pictures(images, captions, objects, cameras)


def contact_sheet(images: Float[Tensor, "B H W 3"], columns: int) -> UInt8[Tensor, "h w 3"]:
    """Images in rows of `columns`, last row padded with white."""
    rows = math.ceil(len(images) / columns)
    padded = torch.ones(rows * columns, *images.shape[1:])
    padded[: len(images)] = images.cpu()
    sheet = padded.reshape(rows, columns, *images.shape[1:]).permute(0, 2, 1, 3, 4)
    return (sheet.reshape(rows * images.shape[1], columns * images.shape[2], 3).clamp(0, 1) * 255 + 0.5).to(torch.uint8)
