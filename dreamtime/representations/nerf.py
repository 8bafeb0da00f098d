"""Radiance fields: an encoding of points, two heads that read density and albedo from it, and a blob to start from."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

Blob = Callable[[Float[Tensor, "N 3"]], Float[Tensor, " N"]]


def conical_blob(points: Float[Tensor, "N 3"], height: float = 10.0, radius: float = 0.5) -> Float[Tensor, " N"]:
    """height (1 - |x| / radius), before the softplus: a ball to start from (Magic3D, section 4.1, with its values)."""
    return height * (1 - points.norm(dim=-1) / radius)


def solid_blob(
    points: Float[Tensor, "N 3"], height: float = 40.0, radius: float = 0.42, sharpness: float = 4.0
) -> Float[Tensor, " N"]:
    """height tanh(sharpness (1 - |x| / radius)), before the softplus: a ball that is opaque from the first step on.

    What is hidden gets no gradient, so an interior that lets light through never fills: the surface becomes a thin shell, and
    through its holes the far wall, lit from the camera, looks just like the front that is missing. Where light cannot pass at
    all, though, no hole can open: a torus stays a disc if the ball is much denser.
    """
    return height * torch.tanh(sharpness * (1 - points.norm(dim=-1) / radius))


class NeRF(nn.Module):
    """The scene of density softplus(gain head + blob) and albedo sigmoid(gain head), both heads reading one encoded point.

    What only the albedo needs belongs into its head: the density, asked for several times as often, never pays for it.
    The gains say how far one step of Adam reaches: a density must come to tens or hundreds, an albedo's logit to ones.
    """

    def __init__(
        self,
        encoding: nn.Module,
        density_head: nn.Module,
        albedo_head: nn.Module,
        density_gain: float,
        albedo_gain: float,
        blob: Blob,
    ) -> None:
        super().__init__()
        self.encoding, self.density_head, self.albedo_head = encoding, density_head, albedo_head
        self.density_gain, self.albedo_gain, self.blob = density_gain, albedo_gain, blob

    def _density(self, points: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
        return F.softplus(self.density_gain * self.density_head(encoded)[:, 0] + self.blob(points))

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Volume density per scene unit."""
        return self._density(points, self.encoding(points))

    def density_and_albedo(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Density as above and albedo in [0, 1]."""
        encoded = self.encoding(points)
        return self._density(points, encoded), torch.sigmoid(self.albedo_gain * self.albedo_head(encoded))


def linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    """A layer of weights drawn from U(-1/sqrt(inputs), 1/sqrt(inputs)), torch's own range, and no bias yet."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.uniform_(layer.weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(widths: Sequence[int], generator: Generator) -> nn.Sequential:
    """Linear layers through the given widths, with swish between them."""
    first, *others = (linear(inputs, outputs, generator) for inputs, outputs in pairwise(widths))
    return nn.Sequential(first, *(module for layer in others for module in (nn.SiLU(), layer)))


def parameter_groups(module: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """What Adam steps: entries of grids at the given rate, weights of a layer at that rate over the number of its inputs.

    Then one step moves what a layer puts out about as far as what a grid puts out, however wide the layer (the rule for Adam
    of Tensor Programs V). At the rate of grids a network would fill the whole ball within a dozen steps.
    """
    inputs = {layer.weight: layer.in_features for layer in module.modules() if isinstance(layer, nn.Linear)}
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in module.parameters():
        groups.setdefault(inputs.get(parameter, 1), []).append(parameter)
    return [{"params": parameters, "lr": learning_rate / count} for count, parameters in groups.items()]


class PositionalEncoding(nn.Module):
    """sin and cos of 2^0 x, ..., 2^(L-1) x, after x itself (NeRF, Eq. 4; frequencies as in DreamFusion)."""

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies

    @property
    def width(self) -> int:
        """Numbers per encoded point."""
        return 3 + 6 * self.frequencies

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        angles = (points[:, None] * 2.0 ** torch.arange(self.frequencies).to(points)[:, None]).flatten(1)  # [N, 3 L]
        return torch.cat([points, angles.sin(), angles.cos()], dim=-1)


class ResidualBlock(nn.Module):
    """x + W2 swish(W1 norm(x))."""

    def __init__(self, width: int, generator: Generator) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), *mlp([width, width, width], generator))

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return x + self.branch(x)


def frequency_nerf(
    generator: Generator,
    device: torch.device | str = "cpu",
    frequencies: int = 8,
    blocks: int = 5,
    width: int = 128,
    density_gain: float = 0.3,
    albedo_gain: float = 1.0,
    blob: Blob = conical_blob,
) -> NeRF:
    """DreamFusion's network (appendix A.2): positional encoding, residual blocks with swish and layer norm, linear heads.

    Smooth everywhere, so `normals_by_autograd` apply; a hundred times the arithmetic of a feature grid.
    """
    encoding = PositionalEncoding(frequencies)
    residual = [ResidualBlock(width, generator) for _ in range(blocks)]
    trunk = nn.Sequential(encoding, linear(encoding.width, width, generator), *residual, nn.LayerNorm(width))
    heads = linear(width, 1, generator), linear(width, 3, generator)
    return NeRF(trunk, *heads, density_gain, albedo_gain, blob).to(device)
