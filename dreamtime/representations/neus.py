"""Signed distances drawn as volumes: a scene whose surface is a level set from the first step on (NeuS, Wang et al. 2021)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamtime.representations.feature_grids import FeatureGrid
from dreamtime.volume_rendering import optical_depths_from_distances


class NeuS(nn.Module):
    """The scene of signed distance |x| - radius + gain head and albedo sigmoid(gain head), both heads reading an encoded point.

    Distances are negative inside. The sharpness s is that of the logistic distribution around the surface, whose standard
    deviation is 1.8 / s scene units. The paper learns s, from photographs that tell how sharp an edge is; what a prior says of
    a noisy picture does not, so here it is given.
    """

    def __init__(
        self,
        encoding: nn.Module,
        distance_head: nn.Module,
        albedo_head: nn.Module,
        distance_gain: float,
        albedo_gain: float,
        radius: float,
        sharpness: float,
    ) -> None:
        super().__init__()
        self.encoding, self.distance_head, self.albedo_head = encoding, distance_head, albedo_head
        self.distance_gain, self.albedo_gain, self.radius, self.sharpness = distance_gain, albedo_gain, radius, sharpness

    def _distance(self, points: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
        return points.norm(dim=-1) - self.radius + self.distance_gain * self.distance_head(encoded)[:, 0]

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Signed distance to the surface in scene units, negative inside; exact only where its gradient has unit length."""
        return self._distance(points, self.encoding(points))

    def _density(self, distances: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        return self.sharpness * torch.sigmoid(-self.sharpness * distances)

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """s (1 - Phi_s(f)): the opaque density of rays that meet the surface head on (NeuS, Eq. 10), per scene unit."""
        return self._density(self.distance(points))

    def density_and_albedo(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Density as above and albedo in [0, 1]."""
        encoded = self.encoding(points)
        albedo = torch.sigmoid(self.albedo_gain * self.albedo_head(encoded))
        return self._density(self._distance(points, encoded)), albedo

    def optical_depths(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], lengths: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Of intervals around the points, along unit directions: from the distances at both ends (NeuS, Eq. 13)."""
        half = lengths[:, None] / 2 * directions
        near, far = self.distance(torch.cat([points - half, points + half])).chunk(2)
        return optical_depths_from_distances(near, far, self.sharpness)

    @property
    def surface_density(self) -> float:
        """The density at distance zero."""
        return self.sharpness / 2


def feature_grid_neus(
    generator: Generator,
    device: torch.device | str = "cpu",
    cells: Sequence[int] = (8, 16, 32, 64),
    distance_gain: float = 0.4,
    albedo_gain: float = 6.0,
    radius: float = 0.42,
    sharpness: float = 60.0,
) -> NeuS:
    """Distance and albedo read from grids of their own, without a network, as in `feature_grid_nerf`."""
    distance, albedo = (FeatureGrid(generator, channels, cells, deviation=0.005) for channels in (1, 3))
    return NeuS(nn.Identity(), distance, albedo, distance_gain, albedo_gain, radius, sharpness).to(device)
