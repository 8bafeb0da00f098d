"""What an object looks like in a mirror, and from other sides: read from the exact shapes, not from a list."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime.toybox.kinds import KINDS
from dreamtime.toybox.world import RELATIONS, Thing, kinds_named


def turned_about_z(points: Float[Tensor, "N 3"], angle: Float[Tensor, " N"]) -> Float[Tensor, "N 3"]:
    """Points turned about the vertical axis, counter-clockwise seen from above; radians."""
    (x, y, z), cos, sin = points.unbind(-1), angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)


def stays_the_same(kind: str, move: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]) -> bool:
    """Whether a movement of space takes a kind to itself, its shape and (but for hairlines) its colours."""
    points = 0.6 * torch.randn(4000, 3, generator=Generator().manual_seed(0))
    moved, thing = move(points), Thing(kind, "red")
    same = (thing.distance(points) - thing.distance(moved)).abs() < 1e-3
    return bool(same.all() and ((thing.albedo(points) - thing.albedo(moved)).abs() < 1e-3).float().mean() > 0.99)


@lru_cache(maxsize=len(KINDS))
def left_is_right(kind: str) -> bool:
    """Whether a kind is its own mirror image, as a mug with its handle on one side is not."""
    return stays_the_same(kind, lambda points: points * torch.tensor([1.0, -1.0, 1.0]))


@lru_cache(maxsize=len(KINDS))
def is_round(kind: str) -> bool:
    """Whether a kind looks the same from every azimuth."""
    return stays_the_same(kind, lambda points: turned_about_z(points, torch.full((len(points),), math.radians(50))))


def neighbours(caption: str) -> bool:
    """Whether what the caption names stands side by side: who is on the left changes with the side, and in a mirror."""
    return any(word in caption for word in ("next to", *RELATIONS["next to"]))


def one_sided(caption: str) -> bool:
    """Whether what the caption names is another object in a mirror: neighbours are, and some kinds."""
    return neighbours(caption) or not all(map(left_is_right, kinds_named(caption)))


def has_sides(caption: str) -> bool:
    """Whether what the caption names looks different from other azimuths."""
    return neighbours(caption) or not all(map(is_round, kinds_named(caption)))
