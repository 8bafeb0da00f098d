"""Differentiable scenes, all behind the protocol `dreamtime.types.Representation`, and what can lie behind them."""

from dreamtime.representations.background import WHITE, Background, EnvironmentMap, flat_background, random_color, random_grey
from dreamtime.representations.feature_grids import feature_grid_nerf
from dreamtime.representations.hash_grid import hash_grid_nerf
from dreamtime.representations.nerf import NeRF, frequency_nerf, parameter_groups
from dreamtime.representations.neus import NeuS, feature_grid_neus

__all__ = [
    "WHITE",
    "Background",
    "EnvironmentMap",
    "NeRF",
    "NeuS",
    "feature_grid_nerf",
    "feature_grid_neus",
    "flat_background",
    "frequency_nerf",
    "hash_grid_nerf",
    "parameter_groups",
    "random_color",
    "random_grey",
]
