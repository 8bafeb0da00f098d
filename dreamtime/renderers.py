"""From a scene and cameras to pictures: where to sample, how to shade, what lies behind."""

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from dreamtime.cameras import cameras_to, rays_from_cameras
from dreamtime.representations.background import WHITE, Background, random_grey
from dreamtime.shading import headlight, sample_light, shade
from dreamtime.types import (
    Cameras,
    Light,
    Rays,
    RaySamples,
    Renderer,
    Rendering,
    Representation,
    Shading,
    SurfaceRepresentation,
    VolumeSamples,
)
from dreamtime.volume_rendering import (
    Field,
    Normals,
    accumulate,
    cell_indices,
    jittered,
    march,
    midpoints,
    near_far,
    normals_by_differences,
    select,
    weights_from_density,
    weights_from_depths,
)

log = logging.getLogger(__name__)

Sampler = Callable[[Rays, Generator | None], RaySamples]
"""Rays to the intervals worth evaluating; without a generator, always the same ones."""


class OccupancyGrid(nn.Module):
    """A sampler that skips empty space: cells of [-1, 1]^3 remember the density lately seen there (Instant-NGP, section 5.2).

    A cell is occupied while it, or a neighbour, holds more than a `threshold` of density. Only cells of the ball of radius 1
    ever are: nothing grows in the corners, where cameras may stand. The state belongs into checkpoints.
    """

    peak: Tensor  # float [x, y, z]: the highest density seen, decaying from look to look
    occupied: Tensor  # bool [x, y, z]
    low: Tensor  # corners of the box around all occupied cells
    high: Tensor
    calls: Tensor
    corners: Tensor  # [R^3, 3], the lowest of each cell

    def __init__(
        self, step: float = 2 / 48, resolution: int = 32, threshold: float = 0.08, decay: float = 0.8, every: int = 4
    ) -> None:
        """Intervals are `step` scene units long; the scene is looked at on every `every`-th call of `refresh`."""
        super().__init__()
        self.step, self.resolution, self.threshold, self.decay, self.every = step, resolution, threshold, decay, every
        axis = torch.arange(resolution) * (2 / resolution) - 1
        self.register_buffer("corners", torch.cartesian_prod(axis, axis, axis), persistent=False)
        self.register_buffer("peak", torch.zeros((resolution,) * 3))
        self.register_buffer("occupied", self.in_ball())
        self.register_buffer("low", torch.full((3,), -1.0))
        self.register_buffer("high", torch.full((3,), 1.0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def in_ball(self) -> Bool[Tensor, "R R R"]:
        """Which cells have their centre in the ball."""
        return ((self.corners + 1 / self.resolution).norm(dim=-1) <= 1).view((self.resolution,) * 3)

    def refresh(self, density: Field, generator: Generator) -> None:
        """Look at the scene again on every `every`-th call."""
        if self.calls % self.every == 0:
            self.look(density, generator)
        self.calls += 1

    @torch.no_grad()
    def look(self, density: Field, generator: Generator) -> None:
        """Bring the cells up to date with the density at one random point in each."""
        cell = 2 / self.resolution
        points = self.corners + cell * torch.rand(self.corners.shape, generator=generator).to(self.corners)
        self.peak.copy_(torch.maximum(self.decay * self.peak, density(points).view_as(self.peak)))
        nearby = F.max_pool3d(self.peak[None], 3, stride=1, padding=1)[0]
        self.occupied.copy_((nearby > self.threshold) & self.in_ball())
        mine = self.occupied.view(-1, 1)
        self.low.copy_(torch.where(mine, self.corners, 1.0).amin(0))
        self.high.copy_(torch.where(mine, self.corners + cell, -1.0).amax(0))

    def starts_and_far(self, rays: Rays, generator: Generator | None) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Where each ray's first interval begins and its last one ends at the latest."""
        near, far = near_far(rays, self.low, self.high)
        return near if generator is None else jittered(near, self.step, generator), far

    def forward(self, rays: Rays, generator: Generator | None) -> RaySamples:
        """The intervals whose midpoint lies in an occupied cell."""
        samples = march(*self.starts_and_far(rays, generator), self.step)
        cells = cell_indices(midpoints(rays, samples), 1.0, self.resolution)
        return select(samples, self.occupied.view(-1)[cells])


def nerfacc_sampler(grid: OccupancyGrid) -> Sampler:
    """The same intervals as `grid` gives itself, found by nerfacc's CUDA kernel."""
    from nerfacc import OccGridEstimator

    estimator = OccGridEstimator([-1, -1, -1, 1, 1, 1], grid.resolution).to(grid.occupied.device)

    def sample(rays: Rays, generator: Generator | None) -> RaySamples:
        starts, far = grid.starts_and_far(rays, generator)
        estimator.binaries = grid.occupied[None]
        ray_indices, t_starts, t_ends = estimator.sampling(
            rays.origins, rays.directions, t_min=starts, t_max=far, render_step_size=grid.step
        )
        return RaySamples(ray_indices, t_starts, t_ends, len(starts))

    return sample


@lru_cache(maxsize=1)
def has_nerfacc_kernels() -> bool:
    """Whether nerfacc's CUDA kernels are there; it compiles them now where it can. Why they are not goes to the log."""
    try:
        with redirect_stdout(sys.stderr):  # where it tells what it is about
            from nerfacc.cuda._backend import _C
    except Exception:  # a compiler may fail in any way
        log.info("nerfacc's kernels are not to be had", exc_info=True)
        return False
    return _C is not None


def sampler_of(grid: OccupancyGrid) -> Sampler:
    """nerfacc's kernel where the grid is on CUDA and the kernel is to be had; else the grid itself."""
    return nerfacc_sampler(grid) if grid.occupied.is_cuda and has_nerfacc_kernels() else grid


def inwards(scene: Representation) -> Field:
    """What grows on the way into a scene, for its normals: its density, or its signed distance's negative."""
    if isinstance(scene, SurfaceRepresentation):
        surface = scene
        return lambda points: -surface.distance(points)
    return scene.density


@dataclass(frozen=True)
class VolumeRenderer:
    """Draws a scene of density and albedo: sample, evaluate, shade, accumulate, composite."""

    scene: Representation
    sample: Sampler
    normals: Normals = normals_by_differences
    faintest: float = 0.12  # weight per scene unit; what weighs less is left out

    def weights(
        self, rays: Rays, samples: RaySamples, points: Float[Tensor, "S 3"], densities: Float[Tensor, " S"] | None = None
    ) -> Float[Tensor, " S"]:
        """How much of its pixel each sample makes up; a scene of surfaces is asked where the ray goes, not for its density."""
        if isinstance(self.scene, SurfaceRepresentation):
            directions = rays.directions.index_select(0, samples.ray_indices)
            lengths = samples.t_ends - samples.t_starts
            return weights_from_depths(self.scene.optical_depths(points, directions, lengths), samples)
        return weights_from_density(self.scene.density(points) if densities is None else densities, samples)

    @torch.no_grad()
    def visible(self, rays: Rays, generator: Generator | None) -> RaySamples:
        """The samples that matter to the picture, found without gradients at a fraction of the cost of the others.

        Little is lost: through a density that is a softplus, a sample passes back at most its weight times a difference of
        colours. (Of a surface, what a ray grazes would pass back more.) What lies behind a surface is skipped as well as thin
        air.
        """
        samples = self.sample(rays, generator)
        weights = self.weights(rays, samples, midpoints(rays, samples))
        return select(samples, weights > self.faintest * (samples.t_ends - samples.t_starts))

    def __call__(
        self, cameras: Cameras, light: Light, shading: Shading, background: Background, generator: Generator | None = None
    ) -> Rendering:
        """Images of the scene; chance (where intervals begin, what lies behind) comes from the generator, if there is one."""
        rays = rays_from_cameras(cameras)
        samples = self.visible(rays, generator)
        points = midpoints(rays, samples)
        densities, albedo = self.scene.density_and_albedo(points)
        normals = self.normals(inwards(self.scene), points)
        weights = self.weights(rays, samples, points, densities)

        image_of = samples.ray_indices // (cameras.height * cameras.width)
        to_light = F.normalize(light.positions.index_select(0, image_of) - points, dim=-1)
        colors = shade(shading, albedo, normals, to_light, light.ambient.index_select(0, image_of))

        distances = ((samples.t_starts + samples.t_ends) / 2)[:, None]
        sums = accumulate(weights, torch.cat([colors, normals, distances, torch.ones_like(distances)], dim=-1), samples)
        sums = sums.view(len(cameras), cameras.height, cameras.width, -1)
        color, normal, depth, opacity = sums.split([3, 3, 1, 1], dim=-1)
        behind = background(rays.directions.view_as(color), generator)
        directions = rays.directions.index_select(0, samples.ray_indices)
        kept = VolumeSamples(samples, weights, points, normals, directions)
        return Rendering(color + (1 - opacity) * behind, opacity, depth, normal, kept)


def device_of(scene: Representation) -> torch.device:
    """Where the scene lives."""
    return next(iter(scene.parameters())).device


def training_renderer(
    volume: VolumeRenderer,
    occupancy: OccupancyGrid,
    shadings: Mapping[Shading, float],
    background: Background = random_grey,
    light: Callable[[Cameras, Generator], Light] = sample_light,
) -> Renderer:
    """Renders as a training step does: shading drawn by its probability, light and background by theirs, samples jittered.

    Keeps the occupancy grid up to date on the way.
    """
    if not shadings or min(shadings.values()) < 0 or sum(shadings.values()) <= 0:
        raise ValueError(f"The probabilities of the shadings must not be negative nor all zero, got {dict(shadings)}.")
    names, probabilities = list(shadings), torch.tensor(list(shadings.values()))

    def render(cameras: Cameras, progress: float, generator: Generator) -> Rendering:
        occupancy.refresh(volume.scene.density, generator)
        cameras = cameras_to(cameras, device_of(volume.scene))
        shading = names[int(probabilities.multinomial(1, generator=generator))]
        return volume(cameras, light(cameras, generator), shading, background, generator)

    return render


def preview(
    volume: VolumeRenderer, shading: Shading = "lambertian", background: Background = WHITE
) -> Callable[[Cameras], Rendering]:
    """Renders without chance or gradients: light at the camera, the same background, intervals in the same places."""

    @torch.no_grad()
    def render(cameras: Cameras) -> Rendering:
        cameras = cameras_to(cameras, device_of(volume.scene))
        return volume(cameras, headlight(cameras), shading, background)

    return render
