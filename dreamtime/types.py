"""The letters, conventions and shared shapes of the whole package, written once.

Letters
    B images of a batch, H W their pixels, N rays or points, S samples on all rays together (packed),
    C h w the space a diffusion model works in, L D tokens and width of a prompt embedding,
    V F vertices and faces, T training timesteps of the diffusion model, N also the optimisation steps of a run.
    x an image or its latent, z_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps its noised version, eps the noise.

Conventions
    Images are ``B H W 3`` in [0, 1] outside the priors and ``B C h w`` inside. World right-handed, z up, the object at the
    origin inside the cube [-1, 1]^3, its front towards +x (azimuth 0). Cameras are OpenGL: x right, y up, looking along -z.
    Radians inside, degrees only where people type. A timestep t is an index into ``alphas_cumprod``: 0 <= t < T.
    Guidance scale 1 means none. Whatever draws takes a ``torch.Generator`` that lives on the CPU; draws are then moved.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

Shading = Literal["albedo", "lambertian", "textureless"]


@dataclass(frozen=True)
class Cameras:
    """B pinhole cameras that share one resolution."""

    camera_to_world: Float[Tensor, "B 4 4"]
    fov_y: Float[Tensor, " B"]  # radians, full vertical angle
    height: int
    width: int

    @property
    def positions(self) -> Float[Tensor, "B 3"]:
        return self.camera_to_world[:, :3, 3]

    def __len__(self) -> int:
        return len(self.fov_y)

    def __getitem__(self, rows: slice) -> "Cameras":
        """Some of the cameras."""
        return Cameras(self.camera_to_world[rows], self.fov_y[rows], self.height, self.width)


@dataclass(frozen=True)
class Light:
    """One point light per image, with the ambient share of the illumination (DreamFusion, section 3.2)."""

    positions: Float[Tensor, "B 3"]
    ambient: Float[Tensor, " B"]  # l_a in [0, 1]; the diffuse share l_rho is 1 - l_a


@dataclass(frozen=True)
class Rays:
    origins: Float[Tensor, "N 3"]
    directions: Float[Tensor, "N 3"]  # unit length


@dataclass(frozen=True)
class RaySamples:
    """Intervals [t_starts, t_ends] along rays, packed: only what lies in occupied space, sorted by ray and by depth."""

    ray_indices: Int[Tensor, " S"]
    t_starts: Float[Tensor, " S"]  # scene units from the ray's origin
    t_ends: Float[Tensor, " S"]
    n_rays: int


@dataclass(frozen=True)
class VolumeSamples:
    """What a volume rendering leaves behind for the regularizers: one row per sample."""

    intervals: RaySamples
    weights: Float[Tensor, " S"]
    points: Float[Tensor, "S 3"]
    normals: Float[Tensor, "S 3"]  # unit or zero; zero where the sample is too faint to matter
    directions: Float[Tensor, "S 3"]  # of the sample's ray


@dataclass(frozen=True)
class Rendering:
    """Images of a scene and the accumulated quantities behind them."""

    image: Float[Tensor, "B H W 3"]  # in [0, 1], composited over the background
    opacity: Float[Tensor, "B H W 1"]  # sum of the weights, in [0, 1]
    depth: Float[Tensor, "B H W 1"]  # opacity-weighted distance, scene units
    normal: Float[Tensor, "B H W 3"]  # opacity-weighted world-space normal
    samples: VolumeSamples | None = None

    def __getitem__(self, rows: slice) -> "Rendering":
        """Some of the images, without the samples behind them."""
        return Rendering(self.image[rows], self.opacity[rows], self.depth[rows], self.normal[rows])


@dataclass(frozen=True)
class Step:
    """One optimisation step, as the loop yields it."""

    index: int  # i in 1..N
    t: int  # timestep the prior was asked at
    loss: float
    losses: dict[str, float]  # its terms by name, as they were added up
    cameras: Cameras
    rendering: Rendering  # detached


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world space with per-vertex colour; counter-clockwise faces seen from outside."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    colors: Float[Tensor, "V 3"]  # albedo, linear in the renderer's [0, 1] space


TimestepSchedule = Callable[[int, Generator], int]
"""Step i in 1..N and a generator to the timestep t of that step."""

Regularizer = Callable[[Rendering, float], Float[Tensor, ""]]
"""A rendering and the progress in [0, 1] to a penalty."""

CameraSampler = Callable[[float, Generator], Cameras]
"""The progress in [0, 1] and a generator to the cameras of a step."""

Renderer = Callable[[Cameras, float, Generator], Rendering]
"""Cameras, the progress in [0, 1] and a generator (for light, background, jitter) to a rendering."""

Objective = Callable[[Rendering, Cameras, int, float, Generator], Float[Tensor, ""]]
"""A rendering, its cameras, the timestep, the progress in [0, 1] and a generator (for the noise) to a loss."""

Text = Callable[[Cameras], Float[Tensor, "B L D"]]
"""Cameras to the embedding of one text as it reads from where each camera stands."""

Tell = Callable[[Float[Tensor, "B L D"], Cameras], Float[Tensor, "B M D"]]
"""A text's embeddings and the cameras to a prior's condition: what it is told of a camera besides the words."""

Condition = Callable[[Cameras], tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]]
"""Cameras to the prior's conditions (negative, positive), one row per image."""

NoisePredictor = Callable[[Float[Tensor, "B C h w"], int, Cameras], Float[Tensor, "B C h w"]]
"""z_t, its timestep and the cameras behind it to the noise in it; the texts and the guidance are inside. No gradient."""


@dataclass(frozen=True)
class ViewBlend:
    """What Perp-Neg asks a prior about each image: a text between two views, and K views that the image must not show."""

    unconditional: Float[Tensor, "B L D"]
    positive: Float[Tensor, "B L D"]
    negatives: Float[Tensor, "B K L D"]
    weights: Float[Tensor, "B K"]  # of the negatives, never positive


@runtime_checkable
class DiffusionPrior(Protocol):
    """A frozen denoiser: where it lives, and what it says of a noisy x. Timestep, noise and weight are never its business."""

    @property
    def alphas_cumprod(self) -> Float[Tensor, " T"]:
        """The noise levels abar it was trained with, by timestep."""
        ...

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Images to the space the model denoises in; differentiable."""
        ...

    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise in z_t under the condition, whatever the model was trained to output; no gradient."""
        ...


@runtime_checkable
class TellingPrior(DiffusionPrior, Protocol):
    """A prior that may know what a camera's pose means."""

    def tell(self, embedded: Float[Tensor, "B L D"], cameras: Cameras) -> Float[Tensor, "B M D"]:
        """Text embeddings with the poses they are asked about; as they were, if the prior knows words alone."""
        ...


@runtime_checkable
class DecodingPrior(DiffusionPrior, Protocol):
    """A prior that can also show what it means."""

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        """What lies in the space the model denoises in, as images in [0, 1] of the model's own size; no gradient."""
        ...


@runtime_checkable
class Representation(Protocol):
    """A differentiable scene: points in, density and albedo out."""

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Volume density per scene unit, never negative."""
        ...

    def density_and_albedo(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Density as above and albedo in [0, 1]."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


@runtime_checkable
class SurfaceRepresentation(Representation, Protocol):
    """A scene that knows how far its surface is: what a ray meets depends on where it goes, not on the points alone."""

    @property
    def surface_density(self) -> float:
        """The density where the surface is."""
        ...

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Signed distance to the surface in scene units, negative inside."""
        ...

    def optical_depths(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], lengths: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """-log of the share of light that passes the intervals of these lengths around the points, along unit directions."""
        ...
