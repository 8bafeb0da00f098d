"""Dense multi-resolution grids: the representation that is fastest on a CPU."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from dreamtime.representations.nerf import Blob, NeRF, solid_blob


def doubled(grid: Float[Tensor, "C z y x"]) -> Float[Tensor, "C Z Y X"]:
    """The same trilinear function on a grid of half the spacing: n nodes along each axis become 2 n - 1."""
    for axis in (1, 2, 3):
        low, high = grid.narrow(axis, 0, grid.shape[axis] - 1), grid.narrow(axis, 1, grid.shape[axis] - 1)
        between = torch.stack([low, (low + high) / 2], dim=axis + 1).flatten(axis, axis + 1)
        grid = torch.cat([between, grid.narrow(axis, grid.shape[axis] - 1, 1)], dim=axis)
    return grid


class FeatureGrid(nn.Module):
    """The sum over levels l of 2^-l times a trilinear grid over [-1, 1]^3, each of twice the resolution of the one before.

    The grids' nodes nest, so their sum is itself trilinear on the finest one: it is added up once per call, and a point costs
    one lookup however many levels there are. Adam moves the nodes of all levels at one pace; halving the amplitude with the
    size of the cells lets every level tilt a surface equally, where equal amplitudes would leave it rough.
    """

    def __init__(self, generator: Generator, channels: int, cells: Sequence[int], deviation: float) -> None:
        super().__init__()
        if any(fine != 2 * coarse for coarse, fine in pairwise(cells)):
            raise ValueError(f"Each level needs twice the cells of the one before, got {tuple(cells)}.")
        self.levels = nn.ParameterList(
            deviation * torch.randn(channels, n + 1, n + 1, n + 1, generator=generator) for n in cells
        )  # [C, z, y, x] each

    def volume(self) -> Float[Tensor, "C Z Y X"]:
        """All levels added up on the nodes of the finest."""
        total, *finer = self.levels
        for fineness, level in enumerate(finer, start=1):
            total = doubled(total) + level / 2**fineness
        return total

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        volume = self.volume()
        looked_up = F.grid_sample(volume[None], points.view(1, 1, 1, -1, 3), align_corners=True, padding_mode="border")
        return looked_up.view(len(volume), -1).T


def feature_grid_nerf(
    generator: Generator,
    device: torch.device | str = "cpu",
    cells: Sequence[int] = (8, 16, 32, 64),
    density_gain: float = 80.0,
    albedo_gain: float = 6.0,
    blob: Blob = solid_blob,
) -> NeRF:
    """Density and albedo read from grids of their own, without a network: the default on a CPU.

    At a learning rate of 0.02, a hundred steps make a surface opaque. Heads of 16 hidden units on four features instead of the
    plain sums fitted pictures no better and took three times as long.
    """
    density, albedo = (FeatureGrid(generator, channels, cells, deviation=0.005) for channels in (1, 3))
    return NeRF(nn.Identity(), density, albedo, density_gain, albedo_gain, blob).to(device)
