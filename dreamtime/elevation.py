"""From how high a picture was taken: tried out with a prior that imagines the object's other sides.

Whatever the elevation, a prior of the kind of Zero-1-to-3 is only told of changes: asked to climb to the zenith by the wrong
angle it stops short of it or goes beyond. Only from the zenith are the views at four azimuths one picture, turned: the
elevation is the one for which they agree best.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime import distillation
from dreamtime.cameras import orbit
from dreamtime.diffusion import ddim_step
from dreamtime.references import together
from dreamtime.types import Cameras, Condition, DiffusionPrior, NoisePredictor

CANDIDATES = tuple(math.radians(degrees) for degrees in (-10, 0, 10, 20, 30, 40, 50))
OVERHEAD = math.radians(89)  # at 90 degrees a camera's azimuth would mean nothing
QUARTERS = 4  # views from above, a quarter of a turn apart


@dataclass(frozen=True)
class Estimate:
    """The elevation that was found, and how badly the views from above disagreed at each that was tried."""

    elevation: float  # radians
    disagreement: dict[float, float]  # by elevation in radians; 0: they are the same picture


def height_in_words(degrees: float) -> str:
    """From how high, as one says it."""
    return f"{abs(degrees):g} degrees {'below' if degrees < 0 else 'above'} the horizon"


def denoised(
    predict: NoisePredictor, noise: Float[Tensor, "B C h w"], cameras: Cameras, alphas_cumprod: Float[Tensor, " T"], steps: int
) -> Float[Tensor, "B C h w"]:
    """What a prior makes of noise in `steps` deterministic steps (DDIM, Song et al. 2021, Eq. 12 with sigma = 0)."""
    times = torch.linspace(len(alphas_cumprod) - 1, 0, steps + 1).round().long().tolist()
    z = noise
    for t, s in pairwise(times):
        z = ddim_step(z, predict(z, t, cameras), alphas_cumprod, t, s)
    return z


def from_above(resolution: int, distance: float, fov_y: float) -> Cameras:
    """Four cameras high above the object, a quarter of a turn apart, the first one's foot towards the front."""
    one = torch.ones(QUARTERS)
    azimuth = torch.arange(QUARTERS) * (math.pi / 2)
    return orbit(OVERHEAD * one, azimuth, distance * one, fov_y * one, resolution, resolution)


def disagreement(views: Float[Tensor, "4 C h w"]) -> float:
    """How far the views from above are from one picture, turned: the share of their variance that is not common to them.

    A camera that walks counter-clockwise by a quarter sees the object turn clockwise, which is undone here.
    """
    turned = torch.stack([view.rot90(quarter, (-2, -1)) for quarter, view in enumerate(views)])
    common = turned.mean(dim=0)
    return ((turned - common).square().mean() / (turned - turned.mean(dim=(-2, -1), keepdim=True)).square().mean()).item()


def estimate_elevation(
    prior: DiffusionPrior,
    condition_at: Callable[[float], Condition],
    overhead: Cameras,
    shape: tuple[int, int, int],
    guidance_scale: float,
    candidates: Sequence[float] = CANDIDATES,
    steps: int = 12,
) -> Estimate:
    """The candidate, in radians, for which the views from above agree best.

    `condition_at` gives what the prior knows of the picture if it was taken from an elevation; `shape` is that of a latent.
    """
    conditions = [condition_at(candidate)(overhead) for candidate in candidates]
    negative, positive = (torch.cat(rows) for rows in zip(*conditions, strict=True))
    cameras = overhead
    for _ in candidates[1:]:
        cameras = together(cameras, overhead)
    # The same noise for all candidates, turned as the views are turned: a camera's start prefers no elevation. And the same
    # for all runs, whatever their seeds: a picture has one elevation.
    noise = torch.randn(shape, generator=Generator().manual_seed(0))
    turned = torch.stack([noise.rot90(-quarter, (-2, -1)) for quarter in range(QUARTERS)])
    predict = distillation.classifier_free(prior, lambda cameras: (negative, positive), guidance_scale)
    z = turned.repeat(len(candidates), 1, 1, 1).to(positive)
    views = denoised(predict, z, cameras, prior.alphas_cumprod, steps).unflatten(0, (len(candidates), QUARTERS))
    found = {candidate: disagreement(of_one) for candidate, of_one in zip(candidates, views, strict=True)}
    return Estimate(min(found, key=lambda candidate: found[candidate]), found)
