"""Closed whatever the values are, exact where the geometry is known, differentiable."""

import math
from collections.abc import Callable

import pytest
import torch
import trimesh
from torch import Generator, Tensor

from dreamtime import isosurface


def as_trimesh(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices.detach().numpy(), faces.numpy(), process=False)


def grid(resolution: int, bound: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and z at the centres of the cells, written out."""
    axis = torch.tensor([-bound + (2 * i + 1) * bound / resolution for i in range(resolution)])
    return torch.meshgrid(axis, axis, axis, indexing="ij")


def ball(resolution: int, radius: float) -> Tensor:
    x, y, z = grid(resolution)
    return radius - (x * x + y * y + z * z).sqrt()


def test_a_sphere_is_closed_and_has_its_volume():
    solid = as_trimesh(*isosurface.isosurface(ball(40, 0.6), 0.0, 1.0))
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.euler_number == 2
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)
    radii = (solid.vertices**2).sum(axis=1) ** 0.5
    assert abs(radii - 0.6).max() < 2e-3


def test_a_torus_has_one_hole():
    x, y, z = grid(40)
    tube = 0.2 - torch.hypot(torch.hypot(x, y) - 0.5, z)
    solid = as_trimesh(*isosurface.isosurface(tube, 0.0, 1.0))
    assert solid.is_watertight
    assert solid.euler_number == 0
    assert solid.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.2**2, rel=0.02)


@pytest.mark.cuda
def test_cuda_finds_the_same_surface():
    inside = ball(16, 0.5) > 0
    for ours, theirs in zip(isosurface.marching_tetrahedra(inside), isosurface.marching_tetrahedra(inside.cuda()), strict=True):
        assert torch.equal(theirs.cpu(), ours)


def test_axes_are_x_y_z_and_scale_with_the_bound():
    x, y, z = grid(30, bound=2.0)
    box = torch.stack([0.3 - (x - 0.5).abs(), 0.6 - (y + 0.4).abs(), 1.1 - (z - 0.2).abs()]).amin(dim=0)
    solid = as_trimesh(*isosurface.isosurface(box, 0.0, 2.0))
    assert solid.bounds.flatten().tolist() == pytest.approx([0.2, -1.0, -0.9, 0.8, 0.2, 1.3], abs=2e-4)


def test_what_the_border_cuts_closes_on_it():
    """All inside: the surface is the cube itself, whose corners and edges alone are bevelled."""
    solid = as_trimesh(*isosurface.isosurface(torch.ones(10, 10, 10), 0.0, 1.0))
    assert solid.is_watertight
    assert solid.bounds.flatten().tolist() == pytest.approx([-1, -1, -1, 1, 1, 1])
    assert 7.8 < solid.volume < 8


@pytest.mark.parametrize("seed", range(8))
def test_any_values_give_a_closed_mesh(generator: Callable[[int], Generator], seed: int):
    """Noise, half of it with values that equal the level exactly."""
    values = torch.randn(9, 9, 9, generator=generator(seed))
    solid = as_trimesh(*isosurface.isosurface(values.round() if seed % 2 else values, 0.0, 1.0))
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume > 0


def test_inside_and_outside_swapped_turn_the_surface_round():
    inside = ball(12, 0.6) > 0
    edges, faces = isosurface.marching_tetrahedra(inside)
    other_edges, other_faces = isosurface.marching_tetrahedra(~inside)
    flat = inside.flatten()
    assert flat[edges[:, 0]].all()
    assert not flat[edges[:, 1]].any()
    sides = {tuple(edge): tuple(edge[::-1]) for edge in edges.tolist()}
    assert set(sides.values()) == {tuple(edge) for edge in other_edges.tolist()}

    def cycles(edges: Tensor, faces: Tensor, flip: bool) -> set[tuple[tuple[int, ...], ...]]:
        """Faces as rings of grid edges, each started at its smallest."""
        found = set()
        for face in edges.sort(dim=-1).values[faces].tolist():
            ring = [tuple(edge) for edge in (face[::-1] if flip else face)]
            start = ring.index(min(ring))
            found.add(tuple(ring[start:] + ring[:start]))
        return found

    mine, theirs = cycles(edges, faces, False), cycles(other_edges, other_faces, True)
    # A quadrilateral may be cut along its other diagonal.
    assert len(faces) == len(other_faces)
    assert len(mine & theirs) > 0.3 * len(mine)


def test_crossing_points_solve_a_linear_field_and_have_its_gradient():
    values = torch.tensor([[3.0, -1.0], [1.0, 0.0]], dtype=torch.double, requires_grad=True)
    points = torch.tensor([[[0.0, 0, 0], [4, 0, 0]], [[0, 0, 0], [0, 2, 0]]], dtype=torch.double, requires_grad=True)
    found = isosurface.crossing_points(values, points, 0.5)
    assert found.tolist() == [[2.5, 0, 0], [0, 1, 0]]
    assert torch.autograd.gradcheck(lambda v, p: isosurface.crossing_points(v, p, 0.5), (values, points))


def test_the_volume_follows_the_values():
    """d volume / d radius of a ball is its surface, through the whole of `isosurface`."""
    radius = torch.tensor(0.6, dtype=torch.double, requires_grad=True)
    vertices, faces = isosurface.isosurface(ball(24, 0.0).double() + radius, 0.0, 1.0)
    a, b, c = vertices[faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    volume.backward()
    assert radius.grad is not None
    assert radius.grad.item() == pytest.approx(4 * math.pi * 0.6**2, rel=0.02)


def test_bisection_closes_in_on_the_crossing():
    values = torch.tensor([[1.0, -1.0]])
    points = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]])
    _, ends = isosurface.bisect(lambda p: 1 - (p[:, 0] / 0.7) ** 5, 0.0, values, points, steps=6)
    (low, _, _), (high, _, _) = ends[0].tolist()
    assert low < 0.7 <= high
    assert high - low == pytest.approx(2**-6)
