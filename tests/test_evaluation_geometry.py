"""The ruler itself: occupancy by parity against the signed distance, IoU of known overlaps, colour differences."""

import math

import pytest
import torch

from dreamtime.evaluation import geometry
from dreamtime.toybox.world import COLORS, SHAPES, Thing, cube, ground_truth_mesh, sphere
from dreamtime.types import Mesh


@pytest.mark.parametrize("shape", SHAPES)
def test_the_true_mesh_scores_one(shape: str) -> None:
    thing = Thing(shape, "red")
    result = geometry.score(ground_truth_mesh(thing, 80), thing, resolution=48)
    assert result.iou > 0.985
    assert result.color < 0.01


def test_parity_agrees_with_the_signed_distance() -> None:
    inside = geometry.occupancy_of_mesh(ground_truth_mesh(Thing("sphere", "red"), 96), 40)
    axis = (torch.arange(40) + 0.5) * (1.8 / 40) - 0.9
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1)
    assert inside[radius < 0.495].all()
    assert not inside[radius > 0.505].any()


def test_a_turned_cube_is_turned_back() -> None:
    mesh = ground_truth_mesh(Thing("cube", "red"), 64)
    angle = math.radians(30)
    turned = Mesh(geometry.turned(mesh.vertices, angle), mesh.faces, mesh.colors)
    iou, found = geometry.best_iou(geometry.occupancy_of_mesh(turned, 48), cube)
    assert iou > 0.97
    assert math.remainder(found + angle, math.pi / 2) == pytest.approx(0, abs=math.radians(5))


def test_iou_of_balls_is_the_ratio_of_their_volumes() -> None:
    mesh = ground_truth_mesh(Thing("sphere", "red"), 96)
    small = Mesh(mesh.vertices * 0.8, mesh.faces, mesh.colors)
    iou, _ = geometry.best_iou(geometry.occupancy_of_mesh(small, 64), sphere, turns=1)
    assert iou == pytest.approx(0.8**3, abs=0.01)


def test_color_difference_is_zero_only_for_equal_colours() -> None:
    red, orange = torch.tensor(COLORS["red"]), torch.tensor(COLORS["orange"])
    assert geometry.color_difference(red, red) == 0
    assert geometry.color_difference(red, orange) > 20


def test_mean_colour_weighs_by_area() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [3, 0, 0], [0, 1, 0]])
    colors = torch.tensor([[1.0, 0, 0]] * 3 + [[0.0, 0, 1]] * 3)
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), colors)
    torch.testing.assert_close(geometry.mean_color(mesh), torch.tensor([0.25, 0.0, 0.75]))


def test_an_empty_mesh_is_refused() -> None:
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="no faces"):
        geometry.score(empty, Thing("cube", "red"))
