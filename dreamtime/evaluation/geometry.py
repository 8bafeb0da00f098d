"""A mesh against the exact shape behind its prompt: volumetric IoU after the best turn about the vertical axis, and colour."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamtime.toybox.world import Distance, Thing
from dreamtime.types import Mesh

EXTENT = 0.9  # scene units: the grid spans [-EXTENT, EXTENT]^3, more than any toy fills


def grid_axis(resolution: int) -> Float[Tensor, " R"]:
    """Cell centres along one axis, shifted by a hair so that no grid line meets a symmetric mesh's edges exactly."""
    return (torch.arange(resolution, dtype=torch.float64) + 0.5) * (2 * EXTENT / resolution) - EXTENT + 1.7e-5


def occupancy_of_mesh(mesh: Mesh, resolution: int) -> Bool[Tensor, "R R R"]:
    """Which cell centres lie inside a closed mesh, by the parity of surface crossings below them along z.

    Each triangle is met with the grid's vertical lines inside its bounding box in x and y.
    """
    axis = grid_axis(resolution)
    corners = mesh.vertices.double()[mesh.faces]  # [F, 3, 3]
    low = torch.searchsorted(axis, corners[..., :2].amin(dim=1).contiguous())  # [F, 2]
    high = torch.searchsorted(axis, corners[..., :2].amax(dim=1).contiguous())
    columns, rows = (high - low).unbind(-1)
    triangle = torch.repeat_interleave(columns * rows)  # [P], one entry per triangle and candidate line
    place = torch.arange(len(triangle)) - ((columns * rows).cumsum(0) - columns * rows)[triangle]
    x_index = low[triangle, 0] + place // rows[triangle]
    y_index = low[triangle, 1] + place % rows[triangle]
    hit, z = vertical_crossings(corners[triangle], axis[x_index], axis[y_index])
    below = torch.searchsorted(axis, z[hit].contiguous())
    flat = (x_index[hit] * resolution + y_index[hit]) * (resolution + 1) + below
    crossings = torch.bincount(flat, minlength=resolution**2 * (resolution + 1))
    parity = crossings.reshape(resolution, resolution, resolution + 1).cumsum(-1)[..., :-1] % 2
    return parity == 1


def vertical_crossings(
    triangles: Float[Tensor, "P 3 3"], x: Float[Tensor, " P"], y: Float[Tensor, " P"]
) -> tuple[Bool[Tensor, " P"], Float[Tensor, " P"]]:
    """Whether the vertical line at (x, y) meets its triangle, and at what height, by barycentric coordinates."""
    a, b, c = triangles.unbind(1)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    v = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (y - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
    w = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1) & (area != 0)
    return inside, a[:, 2] + v * (b[:, 2] - a[:, 2]) + w * (c[:, 2] - a[:, 2])


def turned(points: Float[Tensor, "N 3"], angle: float) -> Float[Tensor, "N 3"]:
    """Points rotated about the vertical axis by `angle` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.stack(
        [cosine * points[:, 0] - sine * points[:, 1], sine * points[:, 0] + cosine * points[:, 1], points[:, 2]], dim=-1
    )


def best_iou(inside: Bool[Tensor, "R R R"], distance: Distance, turns: int = 72) -> tuple[float, float]:
    """The largest intersection over union with the solid `distance` < 0 over turns about z, and that turn in radians."""
    axis = grid_axis(inside.shape[0])
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    flat = inside.reshape(-1)

    def iou(angle: float) -> float:
        true = distance(turned(points, angle)) < 0
        return ((flat & true).sum() / (flat | true).sum().clamp(min=1)).item()

    angles = [2 * math.pi * k / turns for k in range(turns)]
    best = max(angles, key=iou)
    return iou(best), best


def mean_color(mesh: Mesh) -> Float[Tensor, " 3"]:
    """The mesh's colour averaged over its area."""
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    return (area[:, None] * mesh.colors[mesh.faces].mean(dim=1)).sum(0) / area.sum()


def color_difference(a: Float[Tensor, " 3"], b: Float[Tensor, " 3"]) -> float:
    """CIEDE2000 between two sRGB colours in [0, 1]; about 2 is just noticeable, red to orange is about 30."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    return float(deltaE_ciede2000(rgb2lab(a.double().numpy()), rgb2lab(b.double().numpy())))


@dataclass(frozen=True)
class Score:
    """How close a mesh came to the thing its prompt asked for."""

    iou: float  # volumetric, in [0, 1], after the best turn about z
    color: float  # CIEDE2000 between the mean colour and the true one


def score(mesh: Mesh, thing: Thing, resolution: int = 64) -> Score:
    """Both measures; raises ValueError on a mesh with no faces."""
    if len(mesh.faces) == 0:
        raise ValueError("The mesh to score has no faces.")
    iou, _ = best_iou(occupancy_of_mesh(mesh, resolution), thing.distance)
    return Score(iou, color_difference(mean_color(mesh), thing.albedo))
