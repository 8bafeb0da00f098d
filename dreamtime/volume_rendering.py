"""Quadrature of the volume rendering integral along rays, and the normals of a density: pure functions, values and gradients.

Samples are packed (`RaySamples`): only the intervals worth evaluating, one after another, sorted by ray and by depth. A sum
along a ray is the difference of two running totals over all rays; float64 keeps that difference exact to float32.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamtime.types import Rays, RaySamples

Field = Callable[[Float[Tensor, "N 3"]], Float[Tensor, " N"]]
"""Points to a number at each: a density, or a signed distance."""

Normals = Callable[[Field, Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
"""A field that grows inwards and points to outward unit normals there, differentiable with respect to the scene."""


def near_far(
    rays: Rays, low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Distances, at least 0, at which rays enter and leave the box [low, high]; near >= far where a ray misses it.

    The ray is inside the box while it is between all three pairs of parallel planes (Kay and Kajiya, 1986).
    """
    # A component of zero would make 0 * inf = nan of an origin that lies on a plane.
    along = torch.where(rays.directions.abs() < 1e-12, 1e-12, rays.directions)
    to_low, to_high = (low - rays.origins) / along, (high - rays.origins) / along  # [N, 3]
    return torch.minimum(to_low, to_high).amax(-1).clamp(min=0), torch.maximum(to_low, to_high).amin(-1)


def jittered(near: Float[Tensor, " N"], step: float, generator: Generator) -> Float[Tensor, " N"]:
    """Each ray's beginning moved back by its own random fraction of a step, so that no depth is preferred."""
    return near + step * torch.rand(len(near), generator=generator).to(near)


def march(starts: Float[Tensor, " N"], far: Float[Tensor, " N"], step: float) -> RaySamples:
    """The intervals [start + k step, start + (k + 1) step], k = 0, 1, ..., whose midpoint lies before `far`."""
    counts = ((far - starts) / step - 0.5).ceil().clamp(min=0).long()
    ray_indices = torch.repeat_interleave(counts)  # [S]
    k = torch.arange(len(ray_indices), device=starts.device) - _firsts(counts)[ray_indices]
    t_starts = starts[ray_indices] + k * step
    return RaySamples(ray_indices, t_starts, t_starts + step, len(starts))


def select(samples: RaySamples, kept: Bool[Tensor, " S"]) -> RaySamples:
    """The kept samples, in the same order."""
    where = kept.nonzero()[:, 0]
    ray_indices, t_starts, t_ends = (x[where] for x in (samples.ray_indices, samples.t_starts, samples.t_ends))
    return RaySamples(ray_indices, t_starts, t_ends, samples.n_rays)


def midpoints(rays: Rays, samples: RaySamples) -> Float[Tensor, "S 3"]:
    """The points in the middle of the intervals, where the scene is evaluated."""
    t = (samples.t_starts + samples.t_ends) / 2
    # index_select copies whole rows; indexing with [...] gathers number by number and takes three times as long.
    origins, directions = (x.index_select(0, samples.ray_indices) for x in (rays.origins, rays.directions))
    return torch.addcmul(origins, directions, t[:, None])


def cell_indices(points: Float[Tensor, "S 3"], bound: float, resolution: int) -> Int[Tensor, " S"]:
    """The cell, counted x first, of a grid over the cube [-bound, bound]^3 that holds each point; the nearest one outside."""
    x, y, z = ((points + bound) * (resolution / (2 * bound))).int().clamp(0, resolution - 1).unbind(-1)
    return (x * resolution + y) * resolution + z


def _firsts(counts: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The place of each ray's first sample, given the number of samples on each ray."""
    return counts.cumsum(0) - counts


def exclusive_sum(values: Float[Tensor, " S"], samples: RaySamples) -> Float[Tensor, " S"]:
    """The sum of the values that come before each sample on its own ray: 1, 2, 4 on one ray give 0, 1, 3."""
    wide = values.double()
    before = wide.cumsum(0) - wide
    first = _firsts(samples.ray_indices.bincount(minlength=samples.n_rays))[samples.ray_indices]
    return (before - before.index_select(0, first)).to(values.dtype)


def weights_from_depths(depths: Float[Tensor, " S"], samples: RaySamples) -> Float[Tensor, " S"]:
    """w_i = T_i (1 - exp(-tau_i)) with T_i = exp(-sum_{j<i} tau_j) along each ray, of optical depths tau (NeRF, Eq. 3).

    Three intervals of depth ln 2 weigh 1/2, 1/4 and 1/8.
    """
    return torch.exp(-exclusive_sum(depths, samples)) * -torch.expm1(-depths)


def weights_from_density(densities: Float[Tensor, " S"], samples: RaySamples) -> Float[Tensor, " S"]:
    """The same weights of a density that is constant on each interval: tau_i = sigma_i delta_i."""
    return weights_from_depths(densities * (samples.t_ends - samples.t_starts), samples)


def weights_from_dense_density(densities: Float[Tensor, "N S"], lengths: Float[Tensor, "N S"]) -> Float[Tensor, "N S"]:
    """The same weights of rays with S intervals each: the plain definition beside the packed one."""
    depths = densities * lengths
    return torch.exp(depths - depths.cumsum(-1)) * -torch.expm1(-depths)


def optical_depths_from_distances(near: Float[Tensor, " S"], far: Float[Tensor, " S"], sharpness: float) -> Float[Tensor, " S"]:
    """tau_i = max(log Phi_s(f_i) - log Phi_s(f_{i+1}), 0) of the signed distances f where each interval begins and ends.

    Then 1 - exp(-tau_i) is NeuS's opacity max((Phi_s(f_i) - Phi_s(f_{i+1})) / Phi_s(f_i), 0) (Eq. 13), and while a ray comes
    nearer its light falls as Phi_s(f). Phi_s is the logistic function of s f, the sharpness s per scene unit.
    """
    return (F.logsigmoid(sharpness * near) - F.logsigmoid(sharpness * far)).clamp(min=0)


def accumulate(weights: Float[Tensor, " S"], values: Float[Tensor, "S C"], samples: RaySamples) -> Float[Tensor, "N C"]:
    """The weighted sum of the values along each ray; zero on a ray without samples."""
    sums = values.new_zeros(samples.n_rays, values.shape[1])
    return sums.index_add(0, samples.ray_indices, weights[:, None] * values)


def gradients_by_differences(field: Field, points: Float[Tensor, "N 3"], step: float = 0.02) -> Float[Tensor, "N 3"]:
    """The gradient of a field by central differences over `step` scene units.

    Needs no derivative of the scene's own with respect to the points, so what is made of a grid's gradient can be
    differentiated too. Six evaluations; the four corners of a tetrahedron do as well, but are off by terms of the first order
    in the step.
    """
    axes = step * torch.eye(3).to(points)
    taps = torch.cat([points[None] - axes[:, None], points[None] + axes[:, None]])  # [6, N, 3]
    behind, ahead = field(taps.reshape(-1, 3)).reshape(2, 3, -1)
    return (ahead - behind).T / (2 * step)


def normals_by_differences(density: Field, points: Float[Tensor, "N 3"], step: float = 0.02) -> Float[Tensor, "N 3"]:
    """Outward normals -grad sigma / |grad sigma| by central differences over `step` scene units; zero where density is flat."""
    return F.normalize(-gradients_by_differences(density, points, step), dim=-1)


def normals_by_autograd(density: Field, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """The same normals from the exact gradient, for scenes that can be differentiated twice."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(density(points).sum(), points, create_graph=True)
    return F.normalize(-gradient, dim=-1)
