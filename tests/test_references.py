"""The reference view: where it stands, what it is compared with, and that novel views are judged without it."""

import math

import pytest
import torch
from torch import Generator

from dreamtime import references
from dreamtime.cameras import CameraRange, angles_from_position
from dreamtime.types import Cameras, Rendering


def rendering(image: torch.Tensor, opacity: torch.Tensor) -> Rendering:
    return Rendering(image, opacity, opacity, image)


def test_the_reference_comes_first_and_stands_in_front():
    def camera(resolution: int) -> Cameras:
        return references.reference_camera(math.radians(30), 1.9, math.radians(49.1), resolution)

    sample = references.with_reference(camera, CameraRange(), lambda progress: (3, 16) if progress < 0.5 else (5, 32))
    cameras = sample(0.1, Generator().manual_seed(0))
    assert (len(cameras), cameras.height, cameras.width) == (4, 16, 16)
    last = sample(0.9, Generator().manual_seed(0))
    assert (len(last), last.height) == (6, 32)
    elevation, azimuth, distance = angles_from_position(cameras.positions[:1])
    assert (elevation.item(), azimuth.item(), distance.item()) == pytest.approx((math.radians(30), 0, 1.9), abs=1e-6)
    assert cameras.fov_y[0].item() == pytest.approx(math.radians(49.1))


@pytest.mark.parametrize(
    ("views", "sizes"),
    [
        ((4,), [(4, 64), (4, 64), (4, 64), (4, 64)]),
        ((2, 2), [(2, 32), (2, 32), (2, 64), (2, 64)]),
        ((12, 4, 2), [(12, 16), (12, 16), (4, 32), (2, 64)]),
    ],
)
def test_resolution_doubles_in_equal_parts_of_the_run_as_views_become_fewer(views, sizes):
    assert [references.growing(views, 64, progress) for progress in (0.1, 0.3, 0.6, 1.0)] == sizes


def test_an_objective_of_novel_views_never_sees_the_reference():
    image = torch.arange(3.0)[:, None, None, None].expand(3, 4, 4, 3).clone().requires_grad_()
    cameras = references.together(references.reference_camera(0.0, 2.0, 0.8, 4), references.reference_camera(0.5, 2.0, 0.8, 4))
    cameras = references.together(cameras, references.reference_camera(1.0, 2.0, 0.8, 4))

    def total(shown, seen, t, progress, generator):
        assert len(seen) == len(shown.image) == 2
        assert angles_from_position(seen.positions)[0].tolist() == pytest.approx([0.5, 1.0])
        return shown.image.sum()

    loss = references.of_novel_views(total)(rendering(image, image[..., :1]), cameras, 500, 0.5, Generator())
    loss.backward()
    assert image.grad is not None
    assert image.grad.flatten(1).abs().sum(1).tolist() == [0, 48, 48]


def test_fidelity_is_the_mean_squared_error_of_the_first_image_at_its_own_size():
    truth = torch.rand(8, 8, 3, generator=Generator().manual_seed(0))
    halved = truth.reshape(4, 2, 4, 2, 3).mean(dim=(1, 3))
    image = torch.stack([halved + 0.5, torch.full_like(halved, 9.0)])
    shown = rendering(image, image[..., :1])
    assert references.rgb_fidelity(truth)(shown, 0.0).item() == pytest.approx(0.25)
    assert references.mask_fidelity(truth[..., :1])(shown, 0.0).item() == pytest.approx(0.25)


def test_psnr_of_a_known_error():
    assert references.psnr(torch.zeros(4, 4, 3), torch.full((4, 4, 3), 0.1)) == pytest.approx(20)
