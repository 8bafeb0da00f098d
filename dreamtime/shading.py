"""How a surface point gets its colour from albedo, normal and light (DreamFusion, section 3.2)."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime.types import Cameras, Light, Shading


def lambertian(
    albedo: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    to_light: Float[Tensor, "N 3"],
    ambient: Float[Tensor, " N"],
) -> Float[Tensor, "N 3"]:
    """Diffuse colour: rho * (l_rho * max(0, n . l) + l_a) with l_rho = 1 - l_a (DreamFusion, Eq. 7).

    `to_light` has unit length. A zero normal (unknown surface) is lit by the ambient share alone.
    """
    diffuse = (normals * to_light).sum(-1).clamp(min=0)
    return albedo * (ambient + (1 - ambient) * diffuse)[:, None]


def shade(
    shading: Shading,
    albedo: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    to_light: Float[Tensor, "N 3"],
    ambient: Float[Tensor, " N"],
) -> Float[Tensor, "N 3"]:
    """Colour under one of the three shadings; `textureless` paints everything white to show the geometry alone."""
    if shading == "albedo":
        return albedo
    if shading == "lambertian":
        return lambertian(albedo, normals, to_light, ambient)
    return lambertian(torch.ones_like(albedo), normals, to_light, ambient)


def sample_light(
    cameras: Cameras, generator: Generator, spread: float = 0.8, ambient: tuple[float, float] = (0.3, 0.6)
) -> Light:
    """A point light per camera, centred on the camera and jittered by `spread` scene units."""
    count = len(cameras)
    jitter = spread * torch.randn(count, 3, generator=generator)
    low, high = ambient
    share = low + (high - low) * torch.rand(count, generator=generator)
    return Light(cameras.positions + jitter.to(cameras.positions), share.to(cameras.positions))


def headlight(cameras: Cameras, ambient: float = 0.45) -> Light:
    """The light without chance, at the camera itself: what previews and turntables use."""
    return Light(cameras.positions, torch.full_like(cameras.fov_y, ambient))
