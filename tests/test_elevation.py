"""The elevation of a picture, found with a prior that knows the object exactly."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from dreamtime.cameras import angles_from_position
from dreamtime.elevation import disagreement, estimate_elevation, from_above, height_in_words
from dreamtime.toybox.novel_views import FIELD_OF_VIEW, Viewpoints, pictures_from
from dreamtime.toybox.world import Thing
from dreamtime.types import Cameras
from tests.fakes import stable_diffusion_alphas_cumprod

DISTANCE, SIDE = 1.9, 24
TEAPOT = Thing("teapot", "red")


def seen(elevations: torch.Tensor, azimuths: torch.Tensor) -> torch.Tensor:
    """True pictures of the teapot, B C H W in [-1, 1]."""
    viewpoints = Viewpoints(elevations[None], azimuths[None], torch.full_like(elevations, DISTANCE)[None])
    return 2 * pictures_from([TEAPOT], viewpoints, SIDE)[0][0].permute(0, 3, 1, 2) - 1


def from_four_sides(elevation: float) -> torch.Tensor:
    return seen(torch.full((4,), elevation), torch.arange(4) * (math.pi / 2))


def test_views_from_the_zenith_are_one_picture_turned():
    above, aside = from_four_sides(math.radians(89)), from_four_sides(math.radians(40))
    assert disagreement(above) < 0.02
    assert disagreement(aside) > 10 * disagreement(above)
    assert disagreement(above.flip(0)) > 2 * disagreement(above)  # turned the wrong way


@dataclass
class Oracle:
    """The exact denoiser of a teapot seen from the angles in the condition."""

    alphas_cumprod: torch.Tensor = field(default_factory=stable_diffusion_alphas_cumprod)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def predict_noise(self, z_t: torch.Tensor, t: int, condition: torch.Tensor) -> torch.Tensor:
        x = seen(condition[:, 0, 0], condition[:, 0, 1])
        abar = self.alphas_cumprod[t].item()
        return (z_t - math.sqrt(abar) * x) / math.sqrt(1 - abar)


@pytest.mark.parametrize("degrees", [3, 20, 27])
def test_finds_the_elevation_that_the_picture_was_taken_from(degrees):
    truth = math.radians(degrees)

    def condition_at(assumed):
        def condition(cameras: Cameras):
            elevation, azimuth, _ = angles_from_position(cameras.positions)
            angles = torch.stack([truth + elevation - assumed, azimuth], dim=-1)[:, None]
            return angles, angles

        return condition

    candidates = [math.radians(each) for each in range(-10, 45, 5)]
    overhead = from_above(SIDE, DISTANCE, FIELD_OF_VIEW)
    found = estimate_elevation(Oracle(), condition_at, overhead, (3, SIDE, SIDE), 1.0, candidates, steps=2)
    assert abs(math.degrees(found.elevation) - degrees) <= 5
    assert list(found.disagreement) == candidates


@pytest.mark.parametrize(
    ("degrees", "words"), [(12.5, "12.5 degrees above"), (-10.0, "10 degrees below"), (0.0, "0 degrees above")]
)
def test_a_height_is_said_as_people_say_it(degrees: float, words: str) -> None:
    assert height_in_words(degrees) == f"{words} the horizon"
