"""What a scorer's similarities say: is the true caption found, from how many sides is there a face, how alike are pictures.

Similarities are cosines; a tie with a wrong caption is a miss, and so is what is no number.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

Item = TypeVar("Item")


def retrieved(similarity: Float[Tensor, "B P"], truth: Int[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Whether the caption most similar to each picture is its own, out of P (Dream Fields, section 4.1)."""
    own = similarity.gather(1, truth[:, None])
    others = similarity.scatter(1, truth[:, None], -torch.inf).amax(dim=1)
    return own[:, 0] > others


def arc_of(views: Bool[Tensor, " V"]) -> float:
    """Degrees of the smallest arc that holds all chosen views, of V evenly around an object; 0 where one or none is chosen."""
    chosen = views.nonzero()[:, 0].tolist()
    if len(chosen) < 2:
        return 0.0
    gaps = [after - before for before, after in pairwise([*chosen, chosen[0] + len(views)])]
    return 360.0 - 360.0 * max(gaps) / len(views)


def is_janus(looks_like_front: Bool[Tensor, " V"]) -> bool:
    """Whether an object has a second face: the views that look like its front do not fit into less than half a turn."""
    return arc_of(looks_like_front) >= 180


def cosine_distance(a: Float[Tensor, " D"], b: Float[Tensor, " D"]) -> float:
    """1 - cos of the angle between two vectors: 0 for the same direction."""
    return 1 - cosine_similarity(a, b, dim=0).item()


def mean_pairwise(distance: Callable[[Item, Item], float], items: Sequence[Item]) -> float:
    """The mean distance over all pairs of items, which is how diverse they are; NaN for fewer than two."""
    distances = [distance(a, b) for a, b in combinations(items, 2)]
    return sum(distances) / len(distances) if distances else math.nan
