"""The picture that an image-to-3D run starts from: its camera, and how faithfully the scene shows it.

The first image of every step is rendered from where the picture was taken; the others are novel views.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamtime.cameras import CameraRange, orbit, sample_cameras
from dreamtime.types import Cameras, CameraSampler, Objective, Regularizer, Rendering

Picture = Float[Tensor, "H W c"]


def reference_camera(elevation: float, distance: float, fov_y: float, resolution: int) -> Cameras:
    """The one camera in front of the object, `elevation` radians above the horizon."""
    one = torch.ones(1)
    return orbit(elevation * one, 0 * one, distance * one, fov_y * one, resolution, resolution)


def together(first: Cameras, others: Cameras) -> Cameras:
    """Both in one batch; they share a resolution."""
    return Cameras(
        torch.cat([first.camera_to_world, others.camera_to_world]),
        torch.cat([first.fov_y, others.fov_y]),
        first.height,
        first.width,
    )


def growing(views: Sequence[int], resolution: int, progress: float) -> tuple[int, int]:
    """Views and pixels at a progress in [0, 1]; in equal parts, one per entry, the resolution doubles up to the last."""
    part = min(int(progress * len(views)), len(views) - 1)
    return views[part], resolution >> (len(views) - 1 - part)


def with_reference(
    reference: Callable[[int], Cameras], ranges: CameraRange, size: Callable[[float], tuple[int, int]]
) -> CameraSampler:
    """The reference camera, then random ones; how many, and how many pixels wide, is that of the progress."""

    def sample(progress: float, generator: Generator) -> Cameras:
        views, resolution = size(progress)
        return together(reference(resolution), sample_cameras(views, resolution, ranges, generator))

    return sample


def of_novel_views(objective: Objective) -> Objective:
    """The objective on all images but the first."""

    def loss(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        return objective(rendering[1:], cameras[1:], t, progress, generator)

    return loss


def sized(picture: Picture, like: Float[Tensor, "1 h w c"]) -> Float[Tensor, "1 h w c"]:
    """The picture at the size, and on the device, of an image."""
    small = F.interpolate(picture.permute(2, 0, 1)[None], like.shape[1:3], mode="area")
    return small.permute(0, 2, 3, 1).to(like)


def rgb_fidelity(image: Float[Tensor, "H W 3"]) -> Regularizer:
    """mean (c - c_ref)^2 of the reference view against the picture on its background."""
    return lambda rendering, progress: F.mse_loss(rendering.image[:1], sized(image, rendering.image[:1]))


def mask_fidelity(mask: Float[Tensor, "H W 1"]) -> Regularizer:
    """mean (o - m)^2 of the reference view's opacity against the object's share of each pixel."""
    return lambda rendering, progress: F.mse_loss(rendering.opacity[:1], sized(mask, rendering.opacity[:1]))


def psnr(image: Float[Tensor, "*B H W 3"], truth: Float[Tensor, "*B H W 3"]) -> float:
    """-10 log10 of the mean squared error, in decibel, of images in [0, 1]."""
    return -10 * math.log10(max(F.mse_loss(image, truth).item(), 1e-10))
