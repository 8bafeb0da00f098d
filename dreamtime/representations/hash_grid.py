"""The hash encoding of Instant-NGP: in plain torch, which defines it, and by tinycudann's kernels, which are quick on CUDA."""

import logging
import math
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from dreamtime.representations.nerf import Blob, NeRF, conical_blob, mlp

log = logging.getLogger(__name__)

PRIMES = (1, 2654435761, 805459861)


def corner_indices(cells: Int[Tensor, "N 3"], resolution: int, entries: int) -> Int[Tensor, "N 8"]:
    """The table entries of each cell's corners: their own where the level fits its table, else shared by hash (Eq. 4)."""
    dense = resolution**3 <= entries
    factors = (1, resolution, resolution**2) if dense else PRIMES
    x, y, z = ((cells[:, None] + cells.new_tensor([[0], [1]])) * cells.new_tensor(factors)).unbind(-1)  # [N, 2] each
    combine = torch.add if dense else torch.bitwise_xor
    return (combine(combine(x[:, :, None, None], y[:, None, :, None]), z[:, None, None, :]) % entries).flatten(1)


def corner_weights(fractions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 8"]:
    """The trilinear weights of each cell's corners."""
    x, y, z = torch.stack([1 - fractions, fractions], dim=1).unbind(-1)  # [N, 2] each
    return (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).flatten(1)


class HashGrid(nn.Module):
    """Levels of growing resolution over [-1, 1]^3, each trilinear in features looked up by hash (Instant-NGP, section 3).

    Counts, scales and the layout of the table are tinycudann's, so that both can share their parameters.
    """

    def __init__(
        self, generator: Generator, levels: int, features: int, log2_entries: int, base_resolution: int, finest_resolution: int
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"A hash grid needs at least 2 levels, got {levels}.")
        self.levels, self.features, self.log2_entries, self.base_resolution = levels, features, log2_entries, base_resolution
        self.growth = math.exp(math.log(finest_resolution / base_resolution) / (levels - 1))
        count = sum(entries for _, _, entries in self.sizes())
        self.table = nn.Parameter(torch.empty(count, features).uniform_(-1e-4, 1e-4, generator=generator))

    def sizes(self) -> Iterator[tuple[float, int, int]]:
        """Scale, vertices along an axis and table entries of each level."""
        # In float32, as tinycudann computes them: the next integer up must be the same one.
        growth = torch.exp2(torch.arange(self.levels) * torch.tensor(self.growth).log2())
        for scale in (self.base_resolution * growth - 1).tolist():
            resolution = math.ceil(scale) + 1
            yield scale, resolution, min(8 * math.ceil(resolution**3 / 8), 2**self.log2_entries)

    def level(
        self, points: Float[Tensor, "N 3"], scale: float, resolution: int, entries: int, first: int
    ) -> Float[Tensor, "N F"]:
        """The features of one level, whose entries begin at `first`."""
        positions = (points + 1) / 2 * scale + 0.5
        cells = positions.floor()
        indices = first + corner_indices(cells.long(), resolution, entries)
        # index_select, since the backward pass of an embedding is ten times as slow on a CPU.
        corners = self.table.index_select(0, indices.flatten()).view(len(points), 8, self.features)
        return (corner_weights(positions - cells)[:, None] @ corners)[:, 0]

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """The features of all levels side by side.

        Each level is computed again on the way back, since 8 corners, indices and weights per point and level would be most of
        what a run keeps in memory.
        """
        encoded, first = [], 0
        for size in self.sizes():
            encoded.append(checkpoint(self.level, points, *size, first, use_reentrant=False, preserve_rng_state=False))
            first += size[-1]
        return torch.cat(encoded, dim=-1)


class TinyCudaHashGrid(nn.Module):
    """The same encoding computed by tinycudann from the plain one's table, so that a checkpoint fits both; CUDA only."""

    def __init__(self, plain: HashGrid) -> None:
        super().__init__()
        import tinycudann

        config = {
            "otype": "HashGrid",
            "n_levels": plain.levels,
            "n_features_per_level": plain.features,
            "log2_hashmap_size": plain.log2_entries,
            "base_resolution": plain.base_resolution,
            "per_level_scale": plain.growth,
        }
        kernels = tinycudann.Encoding(3, config, dtype=torch.float32)
        # A function and no child: parameters of the kernels' own would end up in checkpoints and optimisers.
        self.encode = lambda table, points: functional_call(kernels, {"params": table.flatten()}, (points,))
        self.table = plain.table

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        encoded: Tensor = self.encode(self.table, (points + 1) / 2)
        return encoded


def quickest(plain: HashGrid, device: torch.device) -> nn.Module:
    """The encoding by tinycudann where that works, else the plain one; why it does not goes to the log."""
    if device.type != "cuda" or find_spec("tinycudann") is None:
        return plain
    try:
        return TinyCudaHashGrid(plain)
    except Exception:  # built for another card, or against another torch
        log.warning("tinycudann is installed but does not work here; the plain hash grid stands in", exc_info=True)
        return plain


def hash_grid_nerf(
    generator: Generator,
    device: torch.device | str = "cpu",
    levels: int = 8,
    features: int = 2,
    log2_entries: int = 15,
    base_resolution: int = 8,
    finest_resolution: int = 128,
    hidden: int = 32,
    density_gain: float = 10.0,
    albedo_gain: float = 1.0,
    blob: Blob = conical_blob,
) -> NeRF:
    """Two small networks read density and albedo from one hash encoding (Instant-NGP); on CUDA with tinycudann where installed.

    The defaults suit a CPU; threestudio's are 16 levels, 2^19 entries, resolutions 16 to 4096 and 64 hidden units.
    """
    plain = HashGrid(generator, levels, features, log2_entries, base_resolution, finest_resolution)
    density_head = mlp([levels * features, hidden, 1], generator)
    albedo_head = mlp([levels * features, hidden, 3], generator)
    return NeRF(quickest(plain, torch.device(device)), density_head, albedo_head, density_gain, albedo_gain, blob).to(device)
