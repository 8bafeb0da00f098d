"""Quantities of closed triangle meshes and the operations on them that keep them closed."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamtime.rasterization import ranges


def area_vectors(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Each face's normal, as long as the face is large: (b - a) x (c - a) / 2."""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a) / 2


def volumes(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, " F"]:
    """The signed volume between the origin and each face, a . (b x c) / 6; their sum is what a closed mesh encloses."""
    a, b, c = vertices[faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1) / 6


def half_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    """The directed edges of all faces, E = 3F: first those from corner 0 to 1, then 1 to 2, then 2 to 0."""
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def welded(positions: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "F 3"]]:
    """The same surface with one vertex per position."""
    unique, index = torch.unique(positions, dim=0, return_inverse=True)
    return unique, index[faces]


def corner_angles(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """The inner angle at each corner, in radians."""
    corners = vertices[faces]
    forward = torch.nn.functional.normalize(corners.roll(-1, 1) - corners, dim=-1)
    return torch.acos((-forward * forward.roll(1, 1)).sum(dim=-1).clamp(-1, 1))


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Unit normals: the faces around each vertex, weighted by area and by their angle at it (Thurmer and Wuthrich 1998)."""
    weighted = area_vectors(vertices, faces)[:, None] * corner_angles(vertices, faces)[..., None]  # [F, 3, 3]
    sums = torch.zeros_like(vertices).index_add_(0, faces.flatten(), weighted.reshape(-1, 3))
    return torch.nn.functional.normalize(sums, dim=-1)


def corner_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], crease: float) -> Float[Tensor, "F 3 3"]:
    """Unit shading normals at faces' corners: as `vertex_normals`, but over faces that turn less than `crease` radians alone.

    Thus round surfaces shade smoothly and sharp edges stay sharp. Slivers, which point anywhere, take the normals of their
    vertices, as does whatever else makes up less than a tenth of what is around a vertex.
    """
    areas = area_vectors(vertices, faces)
    directions = torch.nn.functional.normalize(areas, dim=-1)
    weighted = (areas[:, None] * corner_angles(vertices, faces)[..., None]).view(-1, 3)  # [3F, 3], corner c on face c // 3
    # All pairs of corners at one vertex: sorted by vertex they form groups of n, and each of the n meets all n.
    corners = faces.flatten()
    by_vertex = corners.argsort(stable=True)
    sizes = corners.bincount(minlength=len(vertices))
    first, rank = ranges((sizes.cumsum(0) - sizes)[corners], sizes[corners])
    second = by_vertex[rank]
    smooth = (directions[first // 3] * directions[second // 3]).sum(dim=-1) > math.cos(crease)
    normals = torch.zeros_like(weighted).index_add_(0, first[smooth], weighted[second[smooth]])
    around = torch.zeros(len(vertices)).to(vertices).index_add_(0, corners, weighted.norm(dim=-1))[corners]
    minor = normals.norm(dim=-1) < 0.1 * around
    normals = torch.where(minor[:, None], vertex_normals(vertices, faces)[corners], normals)
    return torch.nn.functional.normalize(normals, dim=-1).view(-1, 3, 3)


def taubin_smooth(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], iterations: int, shrink: float = 0.5, inflate: float = 0.53
) -> Float[Tensor, "V 3"]:
    """Positions without roughness at the scale of edges: a step to the neighbours' mean, a larger one away (Taubin 1995)."""
    start, end = half_edges(faces).unbind(-1)
    degree = start.bincount(minlength=len(vertices)).clamp(min=1)[:, None]
    for step in (shrink, -inflate) * iterations:
        mean = torch.zeros_like(vertices).index_add_(0, start, vertices[end]) / degree
        vertices = vertices + step * (mean - vertices)
    return vertices


def without_flaps(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "G 3"]:
    """The faces less every pair that lies back to back on the same three vertices and so encloses nothing."""
    _, group = torch.unique(faces.sort(dim=-1).values, dim=0, return_inverse=True)
    turn = torch.where((faces < faces.roll(-1, dims=1)).sum(dim=-1) == 2, 1, -1)  # +1 where the indices ascend cyclically
    balance = torch.zeros(int(group.max()) + 1, dtype=torch.long).index_add_(0, group, turn)
    kept = torch.full_like(balance, -1)
    rows = (turn == balance[group].sign()).nonzero()[:, 0]
    kept[group[rows]] = rows
    return faces[kept[kept >= 0]]


def unpinched(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"]]:
    """A closed mesh in which exactly two faces meet at every edge, from one in which some edges are shared by four or more.

    Such an edge is what is left of a handle or a hole that an edge collapse drew shut. Its faces are paired off, so that each
    pair bounds one wedge of the solid, and each pair gets a midpoint of its own, drawn slightly into its wedge.
    """
    faces = without_flaps(faces)
    edges, count = torch.unique(half_edges(faces).sort(dim=-1).values, dim=0, return_counts=True)
    for u, v in edges[count > 2]:
        start, axis = vertices[u], vertices[v] - vertices[u]
        rows = ((faces == u).any(dim=-1) & (faces == v).any(dim=-1)).nonzero()[:, 0]
        apexes = faces[rows].sum(dim=-1) - u - v
        across = torch.linalg.cross(axis.expand(len(rows), 3), vertices[apexes] - start)
        angles = torch.atan2(torch.linalg.cross(across[:1], across) @ axis / axis.norm(), across @ across[0])
        # A face runs along the edge where its corner after u is v. Counter-clockwise about the axis, the solid begins at
        # a face that runs against it and ends at the next that runs along it.
        along = ((faces[rows] == u) & (faces[rows].roll(-1, dims=1) == v)).any(dim=-1)
        order = angles.argsort()
        order = order.roll(-int((~along[order]).byte().argmax()))
        for pair in zip(rows[order][~along[order]], rows[order][along[order]], strict=False):
            rows_of_pair = torch.stack(pair)
            apex = vertices[faces[rows_of_pair].sum(dim=-1) - u - v].mean(dim=0)
            vertices = torch.cat([vertices, torch.lerp(start + axis / 2, apex, 0.02)[None]])
            halves = faces[rows_of_pair]
            faces[rows_of_pair] = torch.where(halves == v, len(vertices) - 1, halves)
            faces = torch.cat([faces, torch.where(halves == u, len(vertices) - 1, halves)])
    return vertices, faces
