"""Pictures of one object from several places."""

import math

import torch
from torch import Generator

from dreamtime.priors.zero123 import relative_pose
from dreamtime.toybox import novel_views
from dreamtime.toybox.novel_views import Viewpoints
from dreamtime.toybox.train_zero123 import relative_poses
from dreamtime.toybox.world import Thing, held_out


def test_views_show_the_object_on_white_from_where_they_say():
    front, side = 0.0, math.pi / 2
    viewpoints = Viewpoints(torch.zeros(1, 2), torch.tensor([[front, side]]), torch.full((1, 2), 1.9))
    images, cover = novel_views.pictures_from([Thing("car", "red")], viewpoints, 32)
    assert images.shape == (1, 2, 32, 32, 3)
    assert torch.equal(images[cover[..., 0] == 0], torch.ones_like(images[cover[..., 0] == 0]))
    widths = (cover[0, ..., 0].sum(dim=1) > 0).sum(dim=1)
    assert widths[1] > 1.3 * widths[0]  # a car is longer than it is wide


def test_drawn_views_hold_nothing_that_is_held_out_and_come_again_with_the_seed():
    first, again = (novel_views.draw_novel_views(6, Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert first.images.shape == (6, novel_views.VIEWS_OF_EACH, 64, 64, 3)
    assert not any(held_out(what) for what in first.objects)
    assert (first.images < 250).flatten(2).any(dim=2).all()  # something stands in every picture


def test_training_tells_poses_as_the_prior_does():
    viewpoints = novel_views.random_viewpoints(5, 4, Generator().manual_seed(0))
    cameras = viewpoints.cameras()
    rows, seen, wanted = torch.tensor([0, 2, 4]), torch.tensor([1, 0, 3]), torch.tensor([2, 0, 1])
    told = relative_poses(viewpoints, rows, seen, wanted)
    for pose, row, here, there in zip(told, rows.tolist(), seen.tolist(), wanted.tolist(), strict=True):
        at, to = 4 * row + here, 4 * row + there
        assert torch.allclose(pose, relative_pose(cameras[to : to + 1], cameras[at : at + 1])[0], atol=1e-5)
    assert torch.allclose(told[1], torch.tensor([0.0, 0.0, 1.0, 0.0]))
