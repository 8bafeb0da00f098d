import math

import pytest
import torch
from torch import Generator

from dreamtime.cameras import CameraRange, sample_cameras
from dreamtime.shading import headlight, lambertian, sample_light, shade

ALBEDO = torch.tensor([[0.2, 0.5, 0.9]])
UP = torch.tensor([[0.0, 0.0, 1.0]])


def towards(degrees: float) -> torch.Tensor:
    """A unit vector so many degrees off `UP`."""
    angle = math.radians(degrees)
    return torch.tensor([[math.sin(angle), 0.0, math.cos(angle)]])


@pytest.mark.parametrize(
    ("degrees", "factor"),
    [
        (0, 1.0),  # facing the light: the diffuse share adds up with the ambient one
        (60, 0.3 + 0.7 * 0.5),
        (90, 0.3),  # grazing
        (120, 0.3),  # behind
        (180, 0.3),
    ],
)
def test_brightness_follows_lamberts_cosine(degrees: float, factor: float):
    shaded = lambertian(ALBEDO, UP, towards(degrees), torch.tensor([0.3]))
    torch.testing.assert_close(shaded, factor * ALBEDO, atol=1e-6, rtol=0)


@pytest.mark.parametrize("degrees", [0, 45, 100])
def test_ambient_light_alone_shows_the_albedo(degrees: float):
    assert torch.equal(lambertian(ALBEDO, UP, towards(degrees), torch.ones(1)), ALBEDO)


def test_an_unknown_normal_is_lit_by_the_ambient_share_alone():
    torch.testing.assert_close(lambertian(ALBEDO, torch.zeros(1, 3), UP, torch.tensor([0.4])), 0.4 * ALBEDO)


def test_no_light_is_created():
    draw = Generator().manual_seed(0)
    albedo = torch.rand(500, 3, generator=draw)
    normals, to_light = (torch.nn.functional.normalize(torch.randn(500, 3, generator=draw), dim=-1) for _ in range(2))
    shaded = lambertian(albedo, normals, to_light, torch.rand(500, generator=draw))
    assert (shaded <= albedo + 1e-6).all()
    assert (shaded >= 0).all()


def test_each_shading_shows_what_its_name_says():
    to_light, ambient = towards(60), torch.tensor([0.3])
    assert torch.equal(shade("albedo", ALBEDO, UP, to_light, ambient), ALBEDO)
    torch.testing.assert_close(shade("lambertian", ALBEDO, UP, to_light, ambient), 0.65 * ALBEDO)
    torch.testing.assert_close(shade("textureless", ALBEDO, UP, to_light, ambient), torch.full((1, 3), 0.65))
    assert torch.equal(
        shade("textureless", ALBEDO, UP, to_light, ambient), shade("textureless", 1 - ALBEDO, UP, to_light, ambient)
    )


def test_gradients_are_finite_everywhere_and_zero_behind():
    normals = torch.cat([UP, UP, UP, torch.zeros(1, 3)]).requires_grad_()
    albedo = ALBEDO.repeat(4, 1).requires_grad_()
    to_light = torch.cat([towards(0), towards(90), towards(180), UP])
    lambertian(albedo, normals, to_light, torch.full((4,), 0.3)).sum().backward()
    assert normals.grad.isfinite().all()
    assert albedo.grad.isfinite().all()
    assert torch.equal(normals.grad[2], torch.zeros(3))
    torch.testing.assert_close(normals.grad[0], 0.7 * ALBEDO.sum() * UP[0])


def test_random_lights_surround_the_camera_with_the_given_spread():
    cameras = sample_cameras(5000, 4, CameraRange(), Generator().manual_seed(0))
    light = sample_light(cameras, Generator().manual_seed(1))
    offset = light.positions - cameras.positions
    assert abs(offset.std() - 0.8) < 0.02
    assert offset.mean(dim=0).abs().max() < 0.05
    assert 0.3 <= light.ambient.min() < 0.31
    assert 0.59 < light.ambient.max() <= 0.6


def test_the_same_seed_gives_the_same_light():
    cameras = sample_cameras(4, 4, CameraRange(), Generator().manual_seed(0))
    first, again, other = (sample_light(cameras, Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(first.ambient, again.ambient)
    assert not torch.equal(first.positions, other.positions)


def test_the_headlight_stands_at_the_camera():
    cameras = sample_cameras(4, 4, CameraRange(), Generator().manual_seed(0))
    light = headlight(cameras)
    assert torch.equal(light.positions, cameras.positions)
    assert torch.equal(light.ambient, torch.full((4,), 0.45))
