"""From a grid of values to the closed triangle mesh of a level set: marching tetrahedra (Doi and Koide 1991; DMTet, 3.1.3).

Topology and geometry are apart: which edges of the grid the surface crosses depends on the signs alone (`marching_tetrahedra`);
where along them, on the values, by interpolation (`crossing_points`, differentiable) or by asking the field again (`bisect`).

Every cube is cut into the six tetrahedra of Kuhn's subdivision, one per order of the three axes. Neighbours then agree on each
face they share, so the mesh is a closed manifold for any values at all, which the tables of marching cubes do not promise.
"""

from collections.abc import Callable
from functools import cache
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CORNERS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]])


def _is_even(order: tuple[int, ...]) -> bool:
    return sum(a > b for i, b in enumerate(order) for a in order[:i]) % 2 == 0


@cache
def _tetrahedra() -> Int[Tensor, "6 4"]:
    """Kuhn's subdivision: the corners met on a walk from 000 to 111, one axis after another, ordered to positive volume."""
    walks = []
    for order in permutations(range(3)):
        first, second = 4 >> order[0], 4 >> order[0] | 4 >> order[1]
        walks.append((0, first, second, 7) if _is_even(order) else (0, second, first, 7))
    return torch.tensor(walks)


@cache
def _triangles() -> tuple[Int[Tensor, "16 2 3 2"], Int[Tensor, " 16"]]:
    """For each set of inside corners (bit k for corner k) the triangles, as edges (inside, outside), and how many there are.

    In a tetrahedron a, b, c, d of positive volume, counter-clockwise as seen from outside: the triangle that cuts off a;
    its reverse when a alone is outside; and the quadrilateral that separates a and b from c and d.
    """
    table, count = torch.zeros(16, 2, 3, 2, dtype=torch.long), torch.zeros(16, dtype=torch.long)
    for a, b, c, d in filter(_is_even, permutations(range(4))):
        table[1 << a, 0], count[1 << a] = torch.tensor([(a, b), (a, c), (a, d)]), 1
        table[15 - (1 << a), 0], count[15 - (1 << a)] = torch.tensor([(d, a), (c, a), (b, a)]), 1
        table[1 << a | 1 << b] = torch.tensor([[(a, c), (a, d), (b, d)], [(a, c), (b, d), (b, c)]])
        count[1 << a | 1 << b] = 2
    return table, count


def marching_tetrahedra(inside: Bool[Tensor, "X Y Z"]) -> tuple[Int[Tensor, "V 2"], Int[Tensor, "F 3"]]:
    """The oriented surface between inside and outside samples, closed unless samples at the border are inside.

    Every vertex lies on an edge of the grid and is given by that edge's two ends as flat indices, the inside one first.
    """
    device = inside.device
    strides = torch.tensor([inside.shape[1] * inside.shape[2], inside.shape[2], 1], device=device)
    x, y, z = (size - 1 for size in inside.shape)
    views = torch.stack([inside[i : x + i, j : y + j, k : z + k] for i, j, k in CORNERS.tolist()])
    # CUDA has no matrix product of integers.
    cells = ((views.any(dim=0) & ~views.all(dim=0)).nonzero() * strides).sum(dim=-1)
    tetrahedra = (CORNERS.to(device) * strides).sum(dim=-1)[_tetrahedra().to(device)]
    corners = (cells[:, None, None] + tetrahedra).reshape(-1, 4)
    case = (inside.flatten()[corners] * torch.tensor([1, 2, 4, 8], device=device)).sum(dim=-1)
    crossed = (case > 0) & (case < 15)
    corners, case = corners[crossed], case[crossed]
    table, triangles = (part.to(device) for part in _triangles())
    edges = corners.gather(1, table[case].reshape(-1, 12)).reshape(-1, 2, 3, 2)
    edges = edges[torch.arange(2, device=device) < triangles[case][:, None]]  # [F, 3, 2]
    keys, faces = torch.unique(edges[..., 0] * inside.numel() + edges[..., 1], return_inverse=True)
    return torch.stack([keys // inside.numel(), keys % inside.numel()], dim=-1), faces


def crossing_points(values: Float[Tensor, "V 2"], points: Float[Tensor, "V 2 3"], level: float) -> Float[Tensor, "V 3"]:
    """Where a field linear along each edge meets the level: p = p0 + (level - v0) / (v1 - v0) (p1 - p0)."""
    share = (level - values[:, 0]) / (values[:, 1] - values[:, 0])
    # Where a sample equals the level all its vertices would coincide there and the surface would touch itself.
    share = share.clamp(1e-3, 1 - 1e-3)
    return torch.lerp(points[:, 0], points[:, 1], share[:, None])


def bisect(
    field: Callable[[Float[Tensor, "V 3"]], Float[Tensor, " V"]],
    level: float,
    values: Float[Tensor, "V 2"],
    points: Float[Tensor, "V 2 3"],
    steps: int,
) -> tuple[Float[Tensor, "V 2"], Float[Tensor, "V 2 3"]]:
    """Edges 2^steps times as short on which the field still crosses the level, the inside end first."""
    for _ in range(steps):
        middle = points.mean(dim=1)
        value = field(middle)
        end = torch.stack([value > level, value <= level], dim=-1)  # the end that the middle replaces
        values = torch.where(end, value[:, None], values)
        points = torch.where(end[..., None], middle[:, None], points)
    return values, points


def cell_centres(resolution: int, bound: float) -> Float[Tensor, " R"]:
    """The centres of `resolution` equal cells of [-bound, bound]."""
    return ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * bound


def padded(values: Float[Tensor, "X Y Z"], level: float) -> Float[Tensor, "X+2 Y+2 Z+2"]:
    """The grid with one more layer all round, wholly outside: a surface that the border cuts closes half a cell beyond it."""
    rim = torch.nn.functional.pad(values[None, None], (1,) * 6, mode="replicate")[0, 0]
    rim = torch.minimum(rim, 2 * level - rim)
    rim[1:-1, 1:-1, 1:-1] = values
    return rim


def isosurface(values: Float[Tensor, "R R R"], level: float, bound: float) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    """The closed surface around all that exceeds the level, from samples at the `cell_centres` of [-bound, bound]^3."""
    grid = padded(values, level)
    edges, faces = marching_tetrahedra(grid > level)
    return crossing_points(grid.flatten()[edges], edge_points(edges, len(values), bound).to(values), level), faces


def edge_points(edges: Int[Tensor, "V 2"], resolution: int, bound: float) -> Float[Tensor, "V 2 3"]:
    """The ends of edges of the padded grid in scene units."""
    side = resolution + 2
    # torch.unravel_index would import a computer algebra system first, which takes half a second.
    index = torch.stack([edges // side**2, edges // side % side, edges % side], dim=-1)
    return ((index - 0.5) / resolution * 2 - 1) * bound
