"""What lies behind the scene: the colour of rays that nothing stops."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamtime.representations.nerf import PositionalEncoding, mlp

Background = Callable[[Float[Tensor, "B H W 3"], Generator | None], Float[Tensor, "B H W 3"]]
"""The directions of all rays and a generator (where chance is wanted) to the colours behind them."""


def flat_background(red: float, green: float, blue: float) -> Background:
    """Always the same colour."""

    def background(directions: Float[Tensor, "B H W 3"], generator: Generator | None) -> Float[Tensor, "B H W 3"]:
        return torch.tensor([red, green, blue]).to(directions).expand_as(directions)

    return background


WHITE = flat_background(1.0, 1.0, 1.0)


def random_grey(directions: Float[Tensor, "B H W 3"], generator: Generator | None) -> Float[Tensor, "B H W 3"]:
    """One random shade of grey behind each image."""
    return torch.rand(len(directions), 1, 1, 1, generator=generator).to(directions).expand_as(directions)


def random_color(directions: Float[Tensor, "B H W 3"], generator: Generator | None) -> Float[Tensor, "B H W 3"]:
    """One random colour behind each image."""
    return torch.rand(len(directions), 1, 1, 3, generator=generator).to(directions).expand_as(directions)


class EnvironmentMap(nn.Module):
    """A learned colour for every direction: a small network on the encoded ray (DreamFusion, section 3.2)."""

    def __init__(self, generator: Generator, frequencies: int = 4, hidden: int = 32) -> None:
        super().__init__()
        encoding = PositionalEncoding(frequencies)
        self.network = nn.Sequential(encoding, *mlp([encoding.width, hidden, 3], generator), nn.Sigmoid())

    def forward(self, directions: Float[Tensor, "B H W 3"], generator: Generator | None) -> Float[Tensor, "B H W 3"]:
        colors: Tensor = self.network(directions.reshape(-1, 3)).view(directions.shape)
        return colors
