"""The shapes against descriptions written another way: who is inside, how large, and where the surface is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import trimesh
from torch import Generator, Tensor

from dreamtime.toybox.world import (
    BOUNDING_RADIUS,
    COLORS,
    SHAPES,
    SYNONYMS,
    Thing,
    all_things,
    ground_truth_mesh,
    normals_from_distance,
    random_caption,
    thing_of,
)


@dataclass(frozen=True)
class Solid:
    """What a shape should be: membership of a point, volume, Euler characteristic, whether its distance is exact."""

    inside: Callable[[Tensor, Tensor, Tensor], Tensor]
    volume: float
    euler: int = 2
    exact: bool = True


SOLIDS = {
    "sphere": Solid(lambda x, y, z: x**2 + y**2 + z**2 < 0.5**2, 4 / 3 * math.pi * 0.5**3),
    "cube": Solid(lambda x, y, z: (x.abs() < 0.38) & (y.abs() < 0.38) & (z.abs() < 0.38), 0.76**3),
    "cylinder": Solid(lambda x, y, z: (x**2 + y**2 < 0.33**2) & (z.abs() < 0.48), math.pi * 0.33**2 * 0.96),
    "cone": Solid(lambda x, y, z: (z > -0.46) & (torch.hypot(x, y) < 0.48 * (0.54 - z)), math.pi * 0.48**2 / 3),
    "torus": Solid(lambda x, y, z: (torch.hypot(x, y) - 0.42) ** 2 + z**2 < 0.17**2, 2 * math.pi**2 * 0.42 * 0.17**2, euler=0),
    "pyramid": Solid(
        lambda x, y, z: (z > -0.36) & (torch.maximum(x.abs(), y.abs()) < 0.42 * (0.46 - z) / 0.82),
        0.84**2 * 0.82 / 3,
        exact=False,
    ),
}

each_shape = pytest.mark.parametrize("shape", SHAPES)


def points(count: int, seed: int = 0, reach: float = 1.0) -> Tensor:
    return reach * (2 * torch.rand(count, 3, generator=Generator().manual_seed(seed), dtype=torch.float64) - 1)


def inside(shape: str, p: Tensor) -> Tensor:
    return SOLIDS[shape].inside(*p.unbind(-1))


def surface_points(shape: str, count: int) -> Tensor:
    """Points on the surface by bisection between points inside and outside, from membership alone."""
    cloud = points(60 * count, seed=1, reach=0.75)
    member = inside(shape, cloud)
    within, without = cloud[member][:count], cloud[~member][:count]
    for _ in range(50):
        middle = (within + without) / 2
        member = inside(shape, middle)[:, None]
        within, without = torch.where(member, middle, within), torch.where(member, without, middle)
    return within


def test_every_shape_of_the_world_is_described_here():
    assert SOLIDS.keys() == SHAPES.keys() == SYNONYMS.keys()
    assert len(SHAPES) >= 6
    assert len(COLORS) >= 8


@each_shape
def test_distance_is_negative_exactly_inside(shape: str):
    p = points(50_000)
    assert torch.equal(SHAPES[shape](p) < 0, inside(shape, p))


@each_shape
def test_distance_vanishes_on_the_surface(shape: str):
    assert SHAPES[shape](surface_points(shape, 2000)).abs().max() < 1e-6


@each_shape
def test_distance_never_overestimates(shape: str):
    """A ray that steps by the distance cannot pass through the surface: no point of it lies nearer."""
    p, surface = points(500), surface_points(shape, 5000)
    assert (SHAPES[shape](p).abs() <= torch.cdist(p, surface).amin(dim=1) + 1e-6).all()


@pytest.mark.parametrize("shape", [shape for shape, solid in SOLIDS.items() if solid.exact])
def test_distance_is_the_distance_to_the_nearest_surface_point(shape: str):
    p, surface = points(300), surface_points(shape, 20_000)
    # The cloud of surface points leaves gaps of about 0.02, so a nearest one is up to that much too far along the surface.
    assert (torch.cdist(p, surface).amin(dim=1) - SHAPES[shape](p).abs()).max() < 0.03


@each_shape
def test_distance_is_lipschitz(shape: str):
    p = points(20_000)
    for scale in (1e-3, 0.1, 1.0):
        q = p + scale * points(20_000, seed=2)
        assert ((SHAPES[shape](p) - SHAPES[shape](q)).abs() <= (p - q).norm(dim=-1) * (1 + 1e-9) + 1e-12).all()


@each_shape
def test_shapes_stay_inside_the_bounding_ball(shape: str):
    p = points(50_000)
    assert (p[inside(shape, p)].norm(dim=-1) <= BOUNDING_RADIUS).all()
    rim = BOUNDING_RADIUS * torch.nn.functional.normalize(p, dim=-1)
    assert (SHAPES[shape](rim) > 0).all()


@each_shape
def test_normals_are_the_distances_gradient(shape: str):
    p = points(2000).requires_grad_()
    (gradient,) = torch.autograd.grad(SHAPES[shape](p).sum(), p)
    gradient = torch.nn.functional.normalize(gradient, dim=-1)
    normals = normals_from_distance(SHAPES[shape], p.detach())
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(2000, dtype=torch.float64))
    # Where two faces are equally near, the difference quotient mixes them: that is a thin set.
    assert ((normals * gradient).sum(-1) > 0.999).float().mean() > 0.98


@each_shape
def test_the_ground_truth_mesh_is_the_solid(shape: str):
    mesh = ground_truth_mesh(Thing(shape, "blue"))
    solid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    # A signed volume is positive when the faces are counter-clockwise seen from outside.
    assert math.isclose(solid.volume, SOLIDS[shape].volume, rel_tol=0.01)
    assert solid.euler_number == SOLIDS[shape].euler
    assert SHAPES[shape](mesh.vertices.double()).abs().max() < 1e-4
    assert torch.equal(mesh.colors, torch.tensor(COLORS["blue"]).expand_as(mesh.vertices))


def test_every_thing_is_named_by_its_caption():
    things = all_things()
    assert len(set(things)) == len(SHAPES) * len(COLORS)
    assert [thing_of(thing.caption) for thing in things] == things


@pytest.mark.parametrize(
    ("caption", "thing"),
    [
        ("a red ball", Thing("sphere", "red")),
        ("A photo of a Blue box, side view", Thing("cube", "blue")),
        ("green donut.", Thing("torus", "green")),
        ("a 3d model of a white ring, overhead view", Thing("torus", "white")),
        ("a cube", None),
        ("something red", None),
        ("a reddish cubes", None),
        ("", None),
    ],
)
def test_captions_are_read_word_by_word(caption: str, thing: Thing | None):
    assert thing_of(caption) == thing


def test_random_captions_name_the_thing_or_leave_its_colour_open(generator: Callable[[int], Generator]):
    draw, thing = generator(0), Thing("torus", "pink")
    captions = [random_caption(thing, draw) for _ in range(600)]
    named = [caption for caption in captions if thing_of(caption) is not None]
    assert {thing_of(caption) for caption in named} == {thing}
    open_colour = [caption for caption in captions if thing_of(caption) is None]
    assert all(thing_of(f"pink {caption}") == thing for caption in open_colour)
    assert 0.02 < len(open_colour) / len(captions) < 0.09
    assert 0.48 < captions.count("a pink torus") / len(captions) < 0.64
    # Every template with every synonym, with the colour and without.
    assert len(set(named)) == 4 * 3


def test_the_same_seed_gives_the_same_captions(generator: Callable[[int], Generator]):
    def ten(seed: int) -> list[str]:
        draw = generator(seed)
        return [random_caption(Thing("sphere", "red"), draw) for _ in range(10)]

    assert ten(1) == ten(1) != ten(2)
