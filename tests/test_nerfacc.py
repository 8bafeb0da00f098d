"""nerfacc's sampler and its packed weights agree with ours: its kernels on CUDA, and the same source compiled for the CPU."""

import sys
from types import ModuleType

import nerfacc
import nerfacc_on_cpu
import pytest
import torch
from fakes import SolidSphere
from torch import Generator

from dreamtime import renderers
from dreamtime.cameras import orbit, rays_from_cameras
from dreamtime.renderers import OccupancyGrid, VolumeRenderer, nerfacc_sampler
from dreamtime.representations import feature_grid_nerf, flat_background
from dreamtime.shading import headlight
from dreamtime.types import Cameras, RaySamples
from dreamtime.volume_rendering import weights_from_density

DEVICES = [pytest.param("cpu", marks=pytest.mark.compiler), pytest.param("cuda", marks=pytest.mark.nerfacc_cuda)]


@pytest.fixture(scope="module")
def kernels_for_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return nerfacc_on_cpu.backend(nerfacc_on_cpu.compiled(tmp_path_factory.mktemp("nerfacc")))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One on which nerfacc has its kernels."""
    if request.param == "cpu":
        monkeypatch.setitem(sys.modules, "nerfacc.cuda._backend", request.getfixturevalue("kernels_for_the_cpu"))
    return request.param


def around(device: str, views: int = 2) -> Cameras:
    """Cameras of 64 by 64 pixels around the scene."""
    ones = torch.ones(views, device=device)
    return orbit(0.2 * ones, torch.arange(views, device=device) * 1.0, 2 * ones, 0.9 * ones, 64, 64)


def occupied_by_a_ball(chance: Generator) -> OccupancyGrid:
    grid = OccupancyGrid()
    grid.look(SolidSphere().density, chance)
    return grid


def occupied_by_chance(chance: Generator) -> OccupancyGrid:
    """A third of all cells, with gaps along each ray."""
    grid = OccupancyGrid()
    grid.occupied.copy_(torch.rand(grid.occupied.shape, generator=chance) < 1 / 3)
    return grid


@pytest.mark.parametrize("occupied", [occupied_by_a_ball, occupied_by_chance])
@pytest.mark.parametrize("seed", [None, 1], ids=["from the near end", "jittered"])
def test_nerfacc_finds_the_same_intervals(generator, device, occupied, seed):
    """Up to the few intervals whose midpoint falls on the border of a cell, where rounding decides."""
    grid, rays = occupied(generator(1)).to(device), rays_from_cameras(around(device))
    ours, theirs = (sample(rays, seed and generator(seed)) for sample in (grid, nerfacc_sampler(grid)))
    starts, _ = grid.starts_and_far(rays, seed and generator(seed))

    def by_ray_and_step(samples: RaySamples) -> dict[tuple[int, int], tuple[float, float]]:
        steps = ((samples.t_starts - starts[samples.ray_indices]) / grid.step).round().long()
        keys = zip(samples.ray_indices.tolist(), steps.tolist(), strict=True)
        return dict(zip(keys, zip(samples.t_starts.tolist(), samples.t_ends.tolist(), strict=True), strict=True))

    mine, its = by_ray_and_step(ours), by_ray_and_step(theirs)
    assert len(mine) == len(ours.t_starts) > 10_000
    assert len(its) == len(theirs.t_starts)
    assert len(mine.keys() ^ its.keys()) < 0.0005 * len(mine)
    both = sorted(mine.keys() & its.keys())
    assert torch.allclose(torch.tensor([mine[key] for key in both]), torch.tensor([its[key] for key in both]), atol=5e-6)


def test_both_samplers_draw_the_same_picture_with_its_gradients(generator, device):
    scene, found = feature_grid_nerf(generator(1)).to(device), list[list[torch.Tensor]]()
    grid = OccupancyGrid().to(device)
    grid.look(scene.density, generator(2))
    cameras, background = around(device, views=1), flat_background(0.0, 0.0, 1.0)
    for sample in (grid, nerfacc_sampler(grid)):
        image = VolumeRenderer(scene, sample)(cameras, headlight(cameras), "lambertian", background).image
        upstream = torch.randn(image.shape, generator=generator(3)).to(device)
        found.append([image, *torch.autograd.grad(image, list(scene.parameters()), upstream, allow_unused=True)])
    pairs = [pair for pair in zip(*found, strict=True) if pair[0] is not None]
    assert len(pairs) > 2
    for ours, theirs in pairs:
        assert torch.allclose(theirs, ours, rtol=1e-3, atol=1e-4 * ours.abs().max().item())


def test_packed_weights_are_nerfaccs_with_their_gradients(generator, device):
    """nerfacc, too, takes rays of different lengths one after another; some are empty, some longer than a block of its scan."""
    counts = torch.tensor([3, 0, 50, 1, 100, 0, 32])
    rays, densities = (
        torch.arange(len(counts)).repeat_interleave(counts),
        3 * torch.rand(int(counts.sum()), generator=generator(5)),
    )
    lengths, upstream = (torch.rand(len(rays), generator=generator(seed)) for seed in (6, 7))
    ends = lengths.cumsum(0)
    starts, ends, rays, densities, upstream, counts = (
        x.to(device) for x in (ends - lengths, ends, rays, densities, upstream, counts)
    )
    packed = torch.stack([counts.cumsum(0) - counts, counts], dim=-1)
    samples = RaySamples(rays, starts, ends, len(counts))
    found = list[tuple[torch.Tensor, torch.Tensor]]()
    for render in (
        lambda values: weights_from_density(values, samples),
        lambda values: nerfacc.render_weight_from_density(starts, ends, values, packed_info=packed)[0],
    ):
        values = densities.clone().requires_grad_()
        weights = render(values)
        found.append((weights.detach(), torch.autograd.grad(weights, values, upstream)[0]))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("fault", [RuntimeError("Error building extension"), OSError("nvcc is of another version"), None])
def test_kernels_that_cannot_be_had_are_done_without(monkeypatch: pytest.MonkeyPatch, fault: Exception | None):
    """A compiler may be there and fail; without one, nerfacc has no kernels and says so itself."""

    class Backend(ModuleType):
        @property
        def _C(self) -> None:
            if fault:
                raise fault

    monkeypatch.setitem(sys.modules, "nerfacc.cuda._backend", Backend("backend"))
    assert not renderers.has_nerfacc_kernels.__wrapped__()


def test_kernels_that_are_there_are_used(monkeypatch: pytest.MonkeyPatch):
    backend = ModuleType("backend")
    backend._C = object()
    monkeypatch.setitem(sys.modules, "nerfacc.cuda._backend", backend)
    assert renderers.has_nerfacc_kernels.__wrapped__()
