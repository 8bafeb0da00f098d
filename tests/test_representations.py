"""One suite for every representation, then what each alone promises."""

import math
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from dreamtime.representations import (
    EnvironmentMap,
    NeRF,
    NeuS,
    feature_grid_nerf,
    feature_grid_neus,
    flat_background,
    frequency_nerf,
    hash_grid_nerf,
    parameter_groups,
    random_color,
    random_grey,
)
from dreamtime.representations.feature_grids import FeatureGrid, doubled
from dreamtime.representations.hash_grid import HashGrid, TinyCudaHashGrid, corner_indices, quickest
from dreamtime.representations.nerf import PositionalEncoding, conical_blob, solid_blob
from dreamtime.types import Representation, SurfaceRepresentation
from dreamtime.volume_rendering import optical_depths_from_distances

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]

BUILDERS: dict[str, Callable[[torch.Generator], NeRF | NeuS]] = {
    "feature grid": lambda generator: feature_grid_nerf(generator, cells=(4, 8)),
    "hash grid": lambda generator: hash_grid_nerf(generator, levels=3, log2_entries=8, base_resolution=4, finest_resolution=16),
    "frequency": lambda generator: frequency_nerf(generator, frequencies=4, blocks=2, width=16),
    "neus": lambda generator: feature_grid_neus(generator, cells=(4, 8)),
}

every_representation = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
every_device = pytest.mark.parametrize("device", DEVICES)


def some_points(generator: torch.Generator, count: int = 200, device: str = "cpu") -> torch.Tensor:
    return (2 * torch.rand(count, 3, generator=generator) - 1).to(device)


@every_representation
@every_device
@pytest.mark.parametrize("count", [0, 1, 200])
def test_shapes_dtype_device_and_range(build, device, count, generator):
    scene = build(generator(1)).to(device)
    points = some_points(generator(2), count, device)
    density, albedo = scene.density_and_albedo(points)
    assert isinstance(scene, Representation)
    assert (density.shape, albedo.shape) == ((count,), (count, 3))
    assert density.dtype == albedo.dtype == torch.float32
    assert density.device == albedo.device == points.device
    assert bool((density >= 0).all())
    assert bool(((albedo >= 0) & (albedo <= 1)).all())
    assert torch.equal(scene.density(points), density)


@every_representation
def test_the_generator_alone_decides(build, generator):
    points, before = some_points(generator(2)), torch.get_rng_state()
    first, again, other = (build(generator(seed)).density_and_albedo(points) for seed in (1, 1, 5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(torch.get_rng_state(), before)


@every_representation
@every_device
def test_gradients_reach_every_parameter(build, device, generator):
    scene = build(generator(1)).to(device)
    density, albedo = scene.density_and_albedo(some_points(generator(2), device=device))
    (density.sum() + albedo[:, 0].sum()).backward()
    for name, parameter in scene.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@every_representation
def test_density_leaves_the_albedo_alone(build, generator):
    scene = build(generator(1))
    scene.density(some_points(generator(2))).sum().backward()
    assert all(parameter.grad is None for parameter in scene.albedo_head.parameters())


@every_representation
def test_far_outside_everything_is_finite_and_empty(build, generator):
    density, albedo = build(generator(1)).density_and_albedo(torch.tensor([[50.0, 0.0, 0.0], [-50.0, 50.0, -50.0]]))
    assert torch.isfinite(albedo).all()
    assert bool((density < 1e-6).all())


@every_representation
def test_state_dict_round_trip(build, generator):
    scene, other, points = build(generator(1)), build(generator(5)), some_points(generator(2))
    other.load_state_dict(scene.state_dict())
    assert torch.equal(other.density_and_albedo(points)[0], scene.density_and_albedo(points)[0])
    assert torch.equal(other.density_and_albedo(points)[1], scene.density_and_albedo(points)[1])


@every_representation
def test_it_starts_as_a_blob_in_the_middle(build, generator):
    scene = build(generator(1))
    centre, rim = scene.density(torch.zeros(1, 3)), scene.density(F.normalize(some_points(generator(2)), dim=-1))
    assert centre.item() > 4
    assert rim.mean().item() < 0.02


def test_only_neus_knows_how_far_its_surface_is(generator):
    found = {name for name, build in BUILDERS.items() if isinstance(build(generator(1)), SurfaceRepresentation)}
    assert found == {"neus"}


def test_neus_starts_as_a_ball_whose_surface_has_half_the_density(generator):
    scene = feature_grid_neus(generator(1), radius=0.4, sharpness=60.0)
    rays = F.normalize(some_points(generator(2)), dim=-1)
    for radius in (0.2, 0.4, 0.7):
        distances = scene.distance(radius * rays)
        assert torch.allclose(distances, torch.full_like(distances, radius - 0.4), atol=0.02)
    scene.distance_gain = 0.0
    assert scene.surface_density == 30
    assert torch.allclose(scene.density(0.4 * rays), torch.tensor(30.0), atol=1e-3)
    assert torch.allclose(scene.density(0.1 * rays), torch.tensor(60.0), atol=1e-3)


def test_the_optical_depths_of_neus_are_those_between_the_ends_of_its_intervals(generator):
    scene, points = feature_grid_neus(generator(1)), 0.5 * some_points(generator(2))
    directions = F.normalize(some_points(generator(3)), dim=-1)
    lengths = 0.01 + 0.1 * torch.rand(len(points), generator=generator(4))
    begin, end = (points + side * lengths[:, None] / 2 * directions for side in (-1, 1))
    expected = optical_depths_from_distances(scene.distance(begin), scene.distance(end), scene.sharpness)
    assert torch.equal(scene.optical_depths(points, directions, lengths), expected)
    assert 0.2 < (expected > 0).float().mean().item() < 0.8, "some go in, some come out"


def test_head_on_the_optical_depth_of_neus_is_its_density_times_a_short_way(generator):
    """Eq. 13 of a short interval is Eq. 10: s (1 - Phi_s(f)) where the distance falls as fast as the ray goes."""
    scene = feature_grid_neus(generator(1), radius=0.4, sharpness=20.0)
    scene.distance_gain = 0.0
    outwards = F.normalize(some_points(generator(2)), dim=-1)
    points = torch.linspace(0.3, 0.5, len(outwards))[:, None] * outwards
    depths = scene.optical_depths(points, -outwards, torch.full((len(points),), 0.002))
    assert torch.allclose(depths / 0.002, scene.density(points), rtol=0.02)


def test_the_blob_is_a_cone():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.0, 0.0], [0.0, 0.3, 0.4], [1.0, 0.0, 0.0]])
    assert torch.allclose(conical_blob(points), torch.tensor([10.0, 5.0, 0.0, -10.0]), atol=1e-5)


def test_the_solid_blob_is_opaque_inside_and_clear_outside():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.252, 0.0], [0.42, 0.0, 0.0], [0.0, 0.0, 0.588]])
    heights = 40 * torch.tensor([math.tanh(4), math.tanh(1.6), 0.0, math.tanh(-1.6)])
    assert torch.allclose(solid_blob(points), heights, atol=1e-4)
    # Of the light through the middle of the ball less than e^-25 comes out again.
    depth = torch.linspace(-1, 1, 401)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    assert F.softplus(solid_blob(depth)).mean() * 2 > 25


def test_doubled_is_the_same_function(generator):
    coarse = torch.randn(2, 3, 4, 5, generator=generator(1))
    expected = F.interpolate(coarse[None], size=(5, 7, 9), mode="trilinear", align_corners=True)[0]
    assert torch.allclose(doubled(coarse), expected, atol=1e-6)


def test_a_feature_grid_is_the_sum_of_its_levels(generator):
    grid, points = FeatureGrid(generator(1), 2, (2, 4, 8), deviation=1.0), some_points(generator(2))
    expected = sum(
        F.grid_sample(level[None] / scale, points.view(1, 1, 1, -1, 3), align_corners=True).view(2, -1).T
        for level, scale in zip(grid.levels, (1, 2, 4), strict=True)
    )
    assert torch.allclose(grid(points), expected, atol=1e-5)


def test_a_feature_grid_is_read_at_x_y_z(generator):
    """Nodes are stored z first: the one at x = 1, y = 0, z = -1 of a 3 x 3 x 3 grid is [0, 1, 2]."""
    grid = FeatureGrid(generator(1), 1, (2,), deviation=1.0)
    assert grid(torch.tensor([[1.0, 0.0, -1.0]])).item() == pytest.approx(grid.levels[0][0, 0, 1, 2].item())


def test_levels_must_nest(generator):
    with pytest.raises(ValueError, match=r"twice the cells.*\(8, 12\)"):
        feature_grid_nerf(generator(1), cells=(8, 12))


def test_dense_corners_have_entries_of_their_own():
    cells = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(3))
    entries = corner_indices(cells, 4, 64)
    assert sorted(set(entries.flatten().tolist())) == list(range(64))
    assert entries[0].tolist() == [0, 16, 4, 20, 1, 17, 5, 21]  # z fastest among the corners, x fastest in the table


def test_hashed_corners_follow_equation_4():
    x, y, z = 1000, 77, 4000
    expected = [
        ((x + i) ^ ((y + j) * 2654435761 % 2**32) ^ ((z + k) * 805459861 % 2**32)) % 2**10
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    ]
    assert corner_indices(torch.tensor([[x, y, z]]), 5000, 2**10)[0].tolist() == expected


def test_a_dense_hash_level_interpolates_linearly(generator):
    """Where nothing collides, a table that holds each vertex's x coordinate returns the coordinate itself."""
    grid = HashGrid(generator(1), levels=2, features=1, log2_entries=12, base_resolution=4, finest_resolution=8)
    with torch.no_grad():
        first = 0
        for scale, resolution, entries in grid.sizes():
            vertex = torch.arange(entries) % resolution
            grid.table[first : first + entries, 0] = (vertex - 0.5) / scale
            first += entries
    points = 0.6 * some_points(generator(2))
    assert torch.allclose(grid(points), ((points[:, :1] + 1) / 2).expand(-1, 2), atol=1e-5)


def test_a_hash_grid_keeps_little_for_the_way_back_and_loses_nothing(generator):
    grid = HashGrid(generator(1), levels=4, features=2, log2_entries=10, base_resolution=4, finest_resolution=32)
    points = some_points(generator(2)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        encoded = grid(points)
    assert sum(kept) <= 4 * len(points) * (3 + 2), "not 8 corners, indices and weights per point and level"
    encoded.square().sum().backward()
    again = points.detach().requires_grad_()
    size = next(grid.sizes())
    grid.level(again, *size, 0).square().sum().backward()
    for column in range(2, 8, 2):
        first = sum(entries for _, _, entries in list(grid.sizes())[: column // 2])
        grid.level(again, *list(grid.sizes())[column // 2], first).square().sum().backward()
    assert torch.allclose(points.grad, again.grad)


def test_a_hash_grid_needs_levels(generator):
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        hash_grid_nerf(generator(1), levels=1)


@pytest.mark.tinycudann
def test_tinycudann_computes_the_plain_encoding(generator):
    plain = HashGrid(generator(1), 6, 2, 12, 8, 100)
    with torch.no_grad():
        plain.table.mul_(1e4)
    quick, plain = TinyCudaHashGrid(plain), plain.cuda()
    points, upstream = some_points(generator(2), 1000, "cuda"), torch.randn(1000, 12, generator=generator(3)).cuda()
    assert torch.allclose(quick(points), plain(points), atol=1e-4)
    (expected,) = torch.autograd.grad(plain(points), plain.table, upstream)
    (gradient,) = torch.autograd.grad(quick(points), quick.table, upstream)
    assert torch.allclose(gradient, expected, atol=1e-3)


class Kernels(torch.nn.Module):
    """What tinycudann's encoding looks like from outside, computing half of the sum of its parameters for every point."""

    def __init__(self, dimensions: int, config: dict, dtype: torch.dtype) -> None:
        super().__init__()
        self.params = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.params.sum().expand(len(x), 1) / 2


def test_tinycudann_works_on_the_plain_table_and_keeps_nothing_else(generator, monkeypatch):
    """So its checkpoints are delivered on a machine without it, and go on there."""
    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(Encoding=Kernels))
    plain = HashGrid(generator(1), 3, 2, 8, 4, 16)
    quick = TinyCudaHashGrid(plain)
    assert quick.state_dict().keys() == plain.state_dict().keys() == {"table"}
    encoded = quick(some_points(generator(2), 7))
    assert torch.allclose(encoded, (plain.table.sum() / 2).expand(7, 1))
    encoded.sum().backward()
    assert torch.allclose(plain.table.grad, torch.full_like(plain.table, 3.5))


def test_a_tinycudann_that_does_not_work_is_done_without(generator, monkeypatch, caplog):
    """Built for another card, it raises as soon as it is imported or asked."""

    class Broken(ModuleType):
        @property
        def Encoding(self) -> None:
            raise OSError("Unknown compute capability")

    broken = Broken("tinycudann")
    broken.__spec__ = ModuleSpec("tinycudann", None)
    monkeypatch.setitem(sys.modules, "tinycudann", broken)
    plain = HashGrid(generator(1), 3, 2, 8, 4, 16)
    assert quickest(plain, torch.device("cuda")) is plain
    assert "tinycudann is installed but does not work here" in caplog.text
    assert quickest(plain, torch.device("cpu")) is plain


def test_the_rate_of_a_weight_is_divided_by_the_inputs_of_its_layer(generator):
    """By the number of numbers at each rate: nothing is left out, nothing twice."""
    scenes = {
        "grid": feature_grid_nerf(generator(1), cells=(4,)),
        "hash": hash_grid_nerf(generator(1), levels=2, log2_entries=4, hidden=8),
        "network": frequency_nerf(generator(1), frequencies=2, blocks=1, width=8),
        "behind": EnvironmentMap(generator(1), frequencies=1, hidden=4),
    }
    counts = {
        name: {1 / group["lr"]: sum(x.numel() for x in group["params"]) for group in parameter_groups(scene, 1.0)}
        for name, scene in scenes.items()
    }
    assert counts == {
        "grid": {1: 4 * 5**3},
        "hash": {1: 2 * 16 * 2 + 8 + 1 + 8 + 3, 4: 2 * 4 * 8, 8: 8 * 1 + 8 * 3},
        "network": {1: 5 * 8 + 2 * 8 + 1 + 3, 15: 15 * 8, 8: 2 * 8 * 8 + 8 * 1 + 8 * 3},
        "behind": {1: 4 + 3, 9: 9 * 4, 4: 4 * 3},
    }


@every_representation
def test_one_step_of_adam_moves_every_scene_by_a_similar_amount(build, generator):
    """At one rate for all: an albedo's logit by hundredths to tenths, so that a menu can offer them without a rate for each."""
    scene, points = build(generator(1)), some_points(generator(2))
    before = scene.density_and_albedo(points)[1].detach()
    optimizer = torch.optim.Adam(parameter_groups(scene, 0.02), eps=1e-15)
    scene.density_and_albedo(points)[1].logit().sum().backward()
    optimizer.step()
    moved = (scene.density_and_albedo(points)[1].detach().logit() - before.logit()).abs().mean()
    assert 0.01 < moved < 0.3


def test_positional_encoding_in_full():
    x = torch.tensor([[0.5, -1.0, 0.25]])
    expected = torch.cat([x, torch.sin(x), torch.sin(2 * x), torch.cos(x), torch.cos(2 * x)], dim=-1)
    assert torch.allclose(PositionalEncoding(2)(x), expected)


def test_backgrounds(generator):
    directions = F.normalize(torch.randn(3, 4, 5, 3, generator=generator(1)), dim=-1)
    flat, grey, color = (b(directions, generator(2)) for b in (flat_background(1.0, 0.5, 0.0), random_grey, random_color))
    assert torch.equal(flat, torch.tensor([1.0, 0.5, 0.0]).expand(3, 4, 5, 3))
    assert torch.equal(grey, grey[:, :1, :1, :1].expand_as(grey))
    assert torch.equal(color, color[:, :1, :1].expand_as(color))
    assert len(set(grey[:, 0, 0, 0].tolist())) == 3
    assert torch.equal(random_color(directions, generator(2)), color)


def test_an_environment_map_depends_on_the_direction_and_learns(generator):
    environment = EnvironmentMap(generator(1))
    directions = F.normalize(torch.randn(2, 3, 3, 3, generator=generator(2)), dim=-1)
    colors = environment(directions, None)
    assert colors.shape == directions.shape
    assert bool(((colors > 0) & (colors < 1)).all())
    assert torch.allclose(environment(directions.flip(0), None), colors.flip(0))
    colors.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in environment.parameters())
