"""The toybox: coloured solids given by signed distance, so that every picture and caption has an exact shape behind it.

To add a shape, write one function from points to signed distance and name it in `SHAPES`. Solids are centred on the origin,
stand upright along z, face +x, and stay inside a ball of radius `BOUNDING_RADIUS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime.types import Mesh

Distance = Callable[[Float[Tensor, "N 3"]], Float[Tensor, " N"]]

BOUNDING_RADIUS = 0.7  # scene units


def box(p: Float[Tensor, "N 3"], half: tuple[float, float, float]) -> Float[Tensor, " N"]:
    """Exact distance to an axis-aligned box of the given half extents."""
    q = p.abs() - torch.tensor(half).to(p)
    return q.clamp(min=0).norm(dim=-1) + q.amax(dim=-1).clamp(max=0)


def of_revolution(p: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Radius from the z axis and height: the plane in which a solid of revolution is drawn."""
    return p[:, :2].norm(dim=-1), p[:, 2]


def convex_polygon(r: Float[Tensor, " N"], z: Float[Tensor, " N"], corners: list[tuple[float, float]]) -> Float[Tensor, " N"]:
    """Exact distance in the plane to a polygon given counter-clockwise (Quilez's winding form)."""
    distance = torch.full_like(r, torch.inf)
    inside = torch.ones_like(r, dtype=torch.bool)
    for (ar, az), (br, bz) in zip(corners, corners[1:] + corners[:1], strict=True):
        er, ez, wr, wz = br - ar, bz - az, r - ar, z - az
        along = ((wr * er + wz * ez) / (er * er + ez * ez)).clamp(0, 1)
        distance = torch.minimum(distance, torch.hypot(wr - er * along, wz - ez * along))
        inside &= er * wz - ez * wr >= 0
    return torch.where(inside, -distance, distance)


def sphere(p: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    return p.norm(dim=-1) - 0.5


def cube(p: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    return box(p, (0.38, 0.38, 0.38))


def cylinder(p: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    r, z = of_revolution(p)
    # The profile reaches past the axis, so that the axis itself is no edge of the solid.
    return convex_polygon(r, z, [(-0.33, -0.48), (0.33, -0.48), (0.33, 0.48), (-0.33, 0.48)])


def cone(p: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    r, z = of_revolution(p)
    return convex_polygon(r, z, [(-0.48, -0.46), (0.48, -0.46), (0.0, 0.54)])


def torus(p: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    r, z = of_revolution(p)
    return torch.hypot(r - 0.42, z) - 0.17


def pyramid(p: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Square base, apex above its centre; exact inside, a lower bound outside (distance to the nearest face's plane)."""
    half, low, high = 0.42, -0.36, 0.46
    slope = torch.tensor([high - low, half]).to(p)
    slope = slope / slope.norm()
    side = p[:, :2].abs().amax(dim=-1)
    return torch.maximum(low - p[:, 2], (side - half) * slope[0] + (p[:, 2] - low) * slope[1])


SHAPES: dict[str, Distance] = {
    "sphere": sphere,
    "cube": cube,
    "cylinder": cylinder,
    "cone": cone,
    "torus": torus,
    "pyramid": pyramid,
}

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.86, 0.12),
    "green": (0.12, 0.65, 0.18),
    "cyan": (0.10, 0.78, 0.82),
    "blue": (0.12, 0.22, 0.85),
    "purple": (0.50, 0.15, 0.72),
    "pink": (0.97, 0.52, 0.70),
    "brown": (0.45, 0.26, 0.12),
    "white": (0.93, 0.93, 0.93),
}

SYNONYMS: dict[str, tuple[str, ...]] = {
    "sphere": ("sphere", "ball"),
    "cube": ("cube", "box"),
    "cylinder": ("cylinder",),
    "cone": ("cone",),
    "torus": ("torus", "ring", "donut"),
    "pyramid": ("pyramid",),
}

TEMPLATES = ("{a} {thing}", "{thing}", "a photo of {a} {thing}", "a 3d model of {a} {thing}")


def article(noun: str) -> str:
    """The indefinite article that fits: "an orange cube"."""
    return "an" if noun[0] in "aeiou" else "a"


@dataclass(frozen=True)
class Thing:
    """One object of the world, fully described by its caption."""

    shape: str
    color: str

    @property
    def caption(self) -> str:
        return f"{article(self.color)} {self.color} {self.shape}"

    @property
    def distance(self) -> Distance:
        return SHAPES[self.shape]

    @property
    def albedo(self) -> Float[Tensor, " 3"]:
        return torch.tensor(COLORS[self.color])


def all_things() -> list[Thing]:
    """Every object of the world."""
    return [Thing(shape, color) for shape in SHAPES for color in COLORS]


def thing_of(caption: str) -> Thing | None:
    """The object that a caption names, or None when it names no shape and colour of this world."""
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    shape = next((shape for shape, names in SYNONYMS.items() if any(name in words for name in names)), None)
    color = next((color for color in COLORS if color in words), None)
    return Thing(shape, color) if shape and color else None


def random_caption(thing: Thing, generator: Generator) -> str:
    """One of the wordings of a thing, the plain one half of the time; every twentieth leaves the colour open."""

    def choose(options: tuple[str, ...]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    color = "" if torch.rand((), generator=generator) < 0.05 else thing.color + " "
    plain = torch.rand((), generator=generator) < 0.5
    template, noun = ("{a} {thing}", thing.shape) if plain else (choose(TEMPLATES), choose(SYNONYMS[thing.shape]))
    return template.format(a=article(color + noun), thing=color + noun)


def normals_from_distance(distance: Distance, points: Float[Tensor, "N 3"], step: float = 1e-3) -> Float[Tensor, "N 3"]:
    """Unit outward normals by differences over a tetrahedron's corners."""
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]).to(points)
    samples = distance((points[None] + step * corners[:, None]).reshape(-1, 3)).reshape(4, -1)
    return torch.nn.functional.normalize(torch.einsum("ci,cn->ni", corners, samples), dim=-1)


def ground_truth_mesh(thing: Thing, resolution: int = 96) -> Mesh:
    """The thing's surface as a closed mesh whose vertices lie on it: marching cubes, then Newton steps along the normal."""
    from skimage.measure import marching_cubes

    axis = torch.linspace(-BOUNDING_RADIUS, BOUNDING_RADIUS, resolution)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    values = thing.distance(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(
        values.numpy(), 0.0, spacing=(float(axis[1] - axis[0]),) * 3, gradient_direction="descent"
    )
    points = torch.from_numpy(vertices.astype("float32")) - BOUNDING_RADIUS
    for _ in range(4):
        points = points - thing.distance(points)[:, None] * normals_from_distance(thing.distance, points)
    return Mesh(points, torch.from_numpy(faces.astype("int64")), thing.albedo.expand_as(points).clone())
