"""A scene as its run delivers it: the mesh, its scores against the truth, and a picture of it."""

from pathlib import Path

import torch
from PIL import Image

from benchmarks.rows import Row
from dreamtime import meshes
from dreamtime.cameras import turntable
from dreamtime.evaluation.geometry import score
from dreamtime.presets import Settings
from dreamtime.toybox.world import Thing
from dreamtime.turntable import render_textured
from dreamtime.types import Mesh, Representation


def scored(representation: Representation, settings: Settings, thing: Thing, picture: Path) -> tuple[Mesh, Row]:
    """The mesh and the cells of a row about it; a strip of four views is kept."""
    mesh = meshes.extract(representation, settings.mesh_resolution, max_faces=settings.faces).mesh
    result = score(mesh, thing)
    views = render_textured(meshes.texture(representation, mesh, settings.texture_size), turntable(4, 96)).image
    Image.fromarray((torch.cat(list(views), dim=1).clamp(0, 1) * 255).byte().numpy()).save(picture)
    return mesh, {"iou": f"{result.iou:.4f}", "color": f"{result.color:.2f}"}
