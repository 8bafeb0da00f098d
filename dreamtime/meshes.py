"""From a scene to a textured mesh: find the surface, keep what matters of it, bring it to size, unwrap it and bake its colours.

Everything here is in world space (z up, front towards +x); the file formats turn it (`exports.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import fast_simplification
import numpy as np
import torch
import trimesh
import xatlas
from jaxtyping import Float, Int, UInt8
from scipy import ndimage
from torch import Tensor

from dreamtime import isosurface, surfaces
from dreamtime.rasterization import fragments
from dreamtime.renderers import device_of
from dreamtime.types import Mesh, Representation, SurfaceRepresentation
from dreamtime.volume_rendering import weights_from_dense_density

SURFACE_DENSITY = math.log(2) / 0.1
"""The density of a surface, where a scene has none of its own: a layer 0.1 of its 2 units thick halves the light."""

CHUNK = 2**18  # points that the scene is asked for at a time


class EmptyScene(ValueError):
    """A scene without any surface to extract."""


@dataclass(frozen=True)
class Extraction:
    """A closed mesh and what a person should know of how it came about."""

    mesh: Mesh
    level: float  # density at the surface, per scene unit
    notes: tuple[str, ...]  # whole sentences, empty when all went as usual


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh that carries its colours in an image; vertices are repeated along seams and creases."""

    positions: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    normals: Float[Tensor, "V 3"]  # unit
    uv: Float[Tensor, "V 2"]  # in [0, 1], the origin at the texture's first row and column as in glTF
    texture: UInt8[Tensor, "H W 3"]  # 255 times the albedo: the renderer's values are display values, and so sRGB-encoded


@dataclass(frozen=True)
class Statistics:
    """What a mesh is, once the vertices that seams and creases repeat are welded."""

    vertices: int
    faces: int
    components: int
    watertight: bool
    euler: int  # V - E + F: 2 for a sphere, 0 for a torus
    area: float  # square scene units
    volume: float  # cubic scene units
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]]  # lowest and highest corner


def in_chunks(function: Callable[..., Tensor], *points: Float[Tensor, "N 3"], size: int = CHUNK) -> Tensor:
    """A pointwise function of many points, so many at a time that memory stays small."""
    return torch.cat([function(*part) for part in zip(*(each.split(size) for each in points), strict=True)])


def visible_albedo(
    representation: Representation,
    points: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    samples: int = 8,
    outside: float = 0.02,
    inside: float = 0.14,
) -> Float[Tensor, "N 3"]:
    """The colour that the scene shows at its surface, seen along the normal: albedo under the weights of volume rendering.

    A scene is no hard shell: what its pictures show lies up to a tenth of a unit deep, and on the very surface, where nothing
    is ever seen alone, the albedo is hardly trained. From `outside` above it to `inside` below it, in scene units.
    """
    length = (outside + inside) / samples
    depths = (torch.arange(samples) + 0.5) * length - outside

    def seen(points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        along = points[:, None] - depths.to(points)[:, None] * normals[:, None]  # [n, S, 3]
        density, albedo = representation.density_and_albedo(along.view(-1, 3))
        weights = weights_from_dense_density(density.view(-1, samples), torch.full_like(along[..., 0], length))
        weights = weights + 1e-4  # where all is clear, the plain mean
        return torch.einsum("ns,nsc->nc", weights, albedo.view(-1, samples, 3)) / weights.sum(dim=-1, keepdim=True)

    device = device_of(representation)
    return in_chunks(seen, points.to(device), normals.to(device), size=CHUNK // samples).clamp(0, 1).to(points.device)


def surface_level(
    representation: Representation, density: Float[Tensor, " N"], level: float | None = None
) -> tuple[float, tuple[str, ...]]:
    """The density to draw a scene's surface at, given what it has at many points: `level`, or None for the scene's own.

    A scene that knows its surface has it wherever anything is inside. Any other's is taken at `SURFACE_DENSITY`, or half-way
    through its range where hardly anything reaches that. Raises `EmptyScene` where there is none to cross.
    """
    low, high = density.min().item(), density.max().item()
    if not math.isfinite(low + high):
        raise EmptyScene("The scene's density is not finite everywhere, so it has no surface: the run has diverged.")
    if high - low <= 1e-3 * max(high, 1.0):
        raise EmptyScene(f"The scene is empty: its density is {high:.3g} everywhere, so there is no surface to extract.")
    if level is None and isinstance(representation, SurfaceRepresentation) and low < representation.surface_density < high:
        return representation.surface_density, ()
    wanted = SURFACE_DENSITY if level is None else level
    if low < wanted < high / 2:
        return wanted, ()
    middle = (low + high) / 2
    adapted = (
        f"The density lies between {low:.3g} and {high:.3g}: the surface was taken at {middle:.3g} instead of {wanted:.3g}."
    )
    return middle, (adapted,)


def main_parts(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], smallest_part: float
) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"], tuple[str, ...]]:
    """The mesh without hollows and floaters: connected parts whose area is at least a share of the largest part's."""
    labels = trimesh.graph.connected_component_labels(surfaces.half_edges(faces).numpy(), node_count=len(vertices))
    part = torch.from_numpy(labels).long()[faces[:, 0]]
    sums = torch.zeros(2, int(part.max()) + 1, dtype=torch.double)
    points = vertices.double()
    area, volume = surfaces.area_vectors(points, faces).norm(dim=-1), surfaces.volumes(points, faces)
    area_of, volume_of = sums.index_add(1, part, torch.stack([area, volume]))
    hollow = (volume_of < 0) & (area_of > 0)  # a surface that looks inwards
    kept = (volume_of > 0) & (area_of >= smallest_part * area_of[volume_of > 0].max())
    floaters = int((~kept & (volume_of > 0)).sum())
    notes = []
    if floaters:
        notes.append(f"Left out {floaters} loose part(s) smaller than {smallest_part:.0%} of the largest.")
    if hollow.any():
        notes.append(f"Filled {int(hollow.sum())} hollow(s) inside the object.")
    used, index = torch.unique(faces[kept[part]], return_inverse=True)
    return vertices[used], index, tuple(notes)


def decimate(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], max_faces: int
) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "G 3"]]:
    """A closed mesh of about `max_faces` faces: quadric edge collapses (Garland and Heckbert 1997), pinched edges reopened."""
    for aggression in (4, 7):  # the first folds no triangles over; the second, for rough surfaces, always gets there
        if len(faces) > max_faces:
            points, triangles = fast_simplification.simplify(
                vertices.double().numpy(), faces.numpy(), target_count=max_faces, agg=aggression
            )
            vertices, faces = surfaces.unpinched(torch.from_numpy(points).float(), torch.from_numpy(triangles).long())
    return vertices, faces


@torch.no_grad()
def extract(
    representation: Representation,
    resolution: int = 96,
    level: float | None = None,
    bound: float = 1.0,
    max_faces: int = 8000,
    smoothing: int = 10,
    smallest_part: float = 0.05,
) -> Extraction:
    """The scene's surface inside [-bound, bound]^3 as one closed mesh, coloured at its vertices.

    The surface is where the density has the `level`, None for the scene's own. The density is sampled on resolution^3 cells;
    each crossing is then searched along its edge by asking the scene again.
    `smoothing` counts Taubin iterations. Raises `EmptyScene` where there is no surface.
    """
    axis = isosurface.cell_centres(resolution, bound).to(device_of(representation))
    grid = torch.cartesian_prod(axis, axis, axis)
    density = in_chunks(representation.density, grid)
    level, notes = surface_level(representation, density, level)

    def opacity(values: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Of a layer that halves the light at the level: bounded, and so nearer to linear between samples than the density."""
        return -torch.expm1(-values * (math.log(2) / level))

    def field(points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        return opacity(in_chunks(representation.density, points)) * (points.abs() <= bound).all(dim=-1)

    values = torch.nn.functional.pad(opacity(density).view((resolution,) * 3), (1,) * 6)
    edges, faces = isosurface.marching_tetrahedra(values > 0.5)
    ends = isosurface.edge_points(edges, resolution, bound)
    vertices = isosurface.crossing_points(*isosurface.bisect(field, 0.5, values.flatten()[edges], ends, steps=4), 0.5)

    vertices, faces, more = main_parts(vertices.cpu(), faces.cpu(), smallest_part)
    vertices, faces = decimate(surfaces.taubin_smooth(vertices, faces, smoothing), faces, max_faces)
    vertices, faces, _ = main_parts(vertices, faces, smallest_part)
    colors = visible_albedo(representation, vertices, surfaces.vertex_normals(vertices, faces))
    return Extraction(Mesh(vertices, faces, colors), level, notes + more)


def unwrap(
    mesh: Mesh, size: int, crease: float, padding: int = 4
) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"], Float[Tensor, "V 3"], Float[Tensor, "V 2"]]:
    """Positions, faces, normals and texture coordinates, islands `padding` texels apart; faces keep their order."""
    normals = surfaces.corner_normals(mesh.vertices, mesh.faces, crease)
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding = size, padding
    atlas.generate(pack_options=options)
    origin, corners, uv = atlas[0]
    # One vertex per place in the atlas and direction: a crease may run through an island.
    keys = torch.cat([torch.from_numpy(corners).view(-1, 1).float(), (normals.view(-1, 3) * 1000).round()], dim=-1)
    unique, faces = torch.unique(keys, dim=0, return_inverse=True)
    place, directions = unique[:, 0].long(), torch.empty(len(unique), 3)
    directions[faces] = normals.view(-1, 3)
    return mesh.vertices[torch.from_numpy(origin).long()[place]], faces.view(-1, 3), directions, torch.from_numpy(uv)[place]


@torch.no_grad()
def texture(representation: Representation, mesh: Mesh, size: int = 512, crease: float = math.radians(40)) -> TexturedMesh:
    """The mesh with the scene's visible albedo baked into a `size` x `size` image, asked at the surface point of every texel.

    Texels that no face covers copy the nearest one that is covered, so that filtering and mip maps show no seams.
    """
    positions, faces, normals, uv = unwrap(mesh, size, crease)
    found = fragments(uv[faces] * size, size, size)
    points, directions = found.interpolate(torch.cat([positions, normals], dim=-1), faces).split(3, dim=-1)
    albedo = visible_albedo(representation, points, torch.nn.functional.normalize(directions, dim=-1))
    image, covered = torch.zeros(size * size, 3), torch.zeros(size * size, dtype=torch.bool)
    image[found.pixels], covered[found.pixels] = albedo, True
    nearest = ndimage.distance_transform_edt(~covered.view(size, size).numpy(), return_distances=False, return_indices=True)
    row, column = torch.from_numpy(nearest).long()
    texels = (image.view(size, size, 3)[row, column] * 255).round().byte()
    return TexturedMesh(positions, faces, normals, uv, texels)


def texture_at(textured: TexturedMesh, uv: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """The texture's colour in [0, 1] at texture coordinates, between texels bilinearly."""
    image = textured.texture.permute(2, 0, 1)[None].float() / 255
    found = torch.nn.functional.grid_sample(image, uv[None, None] * 2 - 1, padding_mode="border", align_corners=False)
    return found[0, :, 0].T


def statistics(textured: TexturedMesh) -> Statistics:
    """What the interface tells of a mesh."""
    positions, faces = surfaces.welded(textured.positions, textured.faces)
    solid = trimesh.Trimesh(positions.numpy(), faces.numpy(), process=False)
    low, high = (tuple(corner) for corner in solid.bounds.tolist())
    return Statistics(
        len(positions), len(faces), solid.body_count, bool(solid.is_watertight), solid.euler_number,
        float(solid.area), float(solid.volume), (low, high),
    )  # fmt: skip
