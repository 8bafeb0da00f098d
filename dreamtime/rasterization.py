"""Triangles to pixels: which face covers a pixel, and where on the face the pixel lies. One core for pictures and textures.

Pixel coordinates are (u right, v down) with centres at half integers, as in `cameras.project`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamtime.cameras import project
from dreamtime.types import Cameras


@dataclass(frozen=True)
class Fragments:
    """K pairs of a pixel and a face that covers its centre."""

    pixels: Int[Tensor, " K"]  # row-major; of several images one after the other
    faces: Int[Tensor, " K"]
    barycentric: Float[Tensor, "K 3"]  # weights of the face's corners, never negative, of sum 1

    def __getitem__(self, keep: Tensor) -> "Fragments":
        return Fragments(self.pixels[keep], self.faces[keep], self.barycentric[keep])

    def interpolate(self, values: Float[Tensor, "V C"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "K C"]:
        """A quantity given at the vertices, at each fragment."""
        corners = values[faces].index_select(0, self.faces)  # [K, 3, C]
        return torch.einsum("ki,kic->kc", self.barycentric, corners)


def ranges(first: Int[Tensor, " R"], count: Int[Tensor, " R"]) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
    """The ranges first, first + 1, ... of `count` members each, one after another: whose range it is and its number."""
    owner = torch.repeat_interleave(count)
    return owner, (first - count.cumsum(0) + count)[owner] + torch.arange(len(owner), device=count.device)


def fragments(triangles: Float[Tensor, "F 3 2"], height: int, width: int) -> Fragments:
    """Every pixel centre inside or on every triangle, whichever way it winds, row by row; a corner's weight falls linearly to 0
    at the opposite edge. A triangle without area covers nothing.
    """
    a, b, c = triangles.unbind(1)
    (bx, by), (cx, cy) = (b - a).unbind(-1), (c - a).unbind(-1)
    area = bx * cy - by * cx
    slope_u = torch.stack([by - cy, cy, -by], dim=-1) / area[:, None]
    slope_v = torch.stack([cx - bx, -cx, bx], dim=-1) / area[:, None]

    top = (triangles[..., 1].amin(dim=1) - 0.5).ceil().clamp(min=0).long()
    bottom = (triangles[..., 1].amax(dim=1) - 0.5).floor().clamp(max=height - 1).long()
    face, v = ranges(top, (bottom - top + 1).clamp(min=0) * (area != 0))
    # Along a row the weights run from `start`, at the first corner's u: near the triangle, where nothing cancels.
    start = slope_v[face] * (v + 0.5 - a[face, 1])[:, None]
    start[:, 0] += 1
    slope = slope_u[face]
    # A centre on an edge that two triangles share must not be lost to rounding by both.
    zero = -(start + 1e-5) / slope
    never = torch.where((slope == 0) & (start < -1e-5), torch.inf, -torch.inf)
    left = torch.where(slope > 0, zero, never).amax(dim=-1) + a[face, 0]
    right = torch.where(slope < 0, zero, torch.inf).amin(dim=-1) + a[face, 0]
    first = (left - 0.5).ceil().clamp(0, width).long()
    last = (right - 0.5).floor().clamp(-1, width - 1).long()
    row, u = ranges(first, (last - first + 1).clamp(min=0))

    barycentric = (start[row] + slope[row] * (u + 0.5 - a[face[row], 0])[:, None]).clamp(min=0)
    return Fragments(v[row] * width + u, face[row], barycentric / barycentric.sum(dim=-1, keepdim=True))


def rasterize(camera: Cameras, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], near: float = 1e-2) -> Fragments:
    """The nearest front face at every pixel of one camera's image, with weights that hold in space, not on the screen.

    Back faces are not drawn, nor are faces that reach closer to the camera's plane than `near`. Weights in space follow from
    those on the screen by w_i = (b_i / z_i) / sum_j (b_j / z_j), for 1 / z is linear on the screen.
    """
    if len(camera) != 1:
        raise ValueError(f"One camera at a time is rasterized, got {len(camera)}.")
    pixels, depth = (part[0] for part in project(camera, vertices[None]))
    a, b, c = pixels[faces].unbind(1)
    # Counter-clockwise in space is clockwise in pixel coordinates, whose v runs down.
    facing = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    drawn = (facing & (depth[faces] > near).all(dim=-1)).nonzero()[:, 0]
    found = fragments(pixels[faces[drawn]], camera.height, camera.width)
    owners = drawn[found.faces]
    weights = found.barycentric / depth[faces[owners]]
    closeness = weights.sum(dim=-1)  # 1 / z
    found = Fragments(found.pixels, owners, weights / closeness[:, None])
    nearest = torch.zeros(camera.height * camera.width).to(depth).scatter_reduce(0, found.pixels, closeness, "amax")
    found = found[closeness == nearest[found.pixels]]
    # Where two faces share the nearest point, on their common edge, either will do; the last one written stays.
    number = torch.arange(len(found.pixels), device=depth.device)
    last = torch.zeros_like(nearest, dtype=torch.long)
    last[found.pixels] = number
    return found[last[found.pixels] == number]
