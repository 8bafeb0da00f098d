"""The object turning once around, as two looping videos: its colours and its normals."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dreamtime import cameras as viewpoints
from dreamtime.checkpoints import write_atomically
from dreamtime.meshes import TexturedMesh, texture_at
from dreamtime.rasterization import rasterize
from dreamtime.shading import headlight, lambertian
from dreamtime.types import Cameras, Rendering


@dataclass(frozen=True)
class Turntable:
    """Two H.264 videos of the same views."""

    color: Path
    normal: Path


def one_by_one(cameras: Cameras) -> Iterator[Cameras]:
    """Each camera on its own."""
    for matrix, fov_y in zip(cameras.camera_to_world.split(1), cameras.fov_y.split(1), strict=True):
        yield Cameras(matrix, fov_y, cameras.height, cameras.width)


def _draw(textured: TexturedMesh, camera: Cameras, background: float) -> Float[Tensor, "H W 8"]:
    """Colour, opacity, distance and normal of one image without antialiasing."""
    surface = rasterize(camera, textured.positions, textured.faces)
    attributes = torch.cat([textured.positions, textured.normals, textured.uv], dim=-1)
    points, normals, uv = surface.interpolate(attributes, textured.faces).split([3, 3, 2], dim=-1)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    light = headlight(camera)
    to_light = torch.nn.functional.normalize(light.positions - points, dim=-1)
    color = lambertian(texture_at(textured, uv), normals, to_light, light.ambient.expand(len(points)))
    distance = (points - camera.positions).norm(dim=-1, keepdim=True)
    image = torch.tensor([background] * 3 + [0.0] * 5).repeat(camera.height * camera.width, 1)
    image[surface.pixels] = torch.cat([color, torch.ones_like(distance), distance, normals], dim=-1)
    return image.view(camera.height, camera.width, 8)


@torch.no_grad()
def render_textured(textured: TexturedMesh, cameras: Cameras, background: float = 1.0, supersampling: int = 2) -> Rendering:
    """Pictures of a mesh as it is exported, lit from the camera; each pixel is the mean of `supersampling`^2 samples."""
    fine = Cameras(cameras.camera_to_world, cameras.fov_y, cameras.height * supersampling, cameras.width * supersampling)
    blocks = (cameras.height, supersampling, cameras.width, supersampling, 8)
    images = [_draw(textured, camera, background).view(blocks).mean(dim=1).mean(dim=2) for camera in one_by_one(fine)]
    return Rendering(*torch.stack(images).split([3, 1, 1, 3], dim=-1))


def normal_image(rendering: Rendering, background: float = 1.0) -> Float[Tensor, "B H W 3"]:
    """The world-space normals as colours, (n + 1) / 2, over a background."""
    return (rendering.normal + rendering.opacity) / 2 + (1 - rendering.opacity) * background


def as_bytes(images: Float[Tensor, "B H W 3"]) -> UInt8[Tensor, "B H W 3"]:
    """Images in [0, 1] as bytes."""
    return (images.clamp(0, 1) * 255).round().byte()


def write_video(path: Path, frames: Sequence[UInt8[Tensor, "H W 3"]], fps: int) -> None:
    """An MP4 that every browser plays and starts before it is loaded: H.264, 4:2:0, Rec. 709, its index at the front."""
    images = torch.stack(tuple(frames))
    height, width = images.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"A video's height and width must be even, got {height} and {width}.")
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    colors = "scale=out_color_matrix=bt709:out_range=tv,setparams=color_primaries=bt709:color_trc=iec61966-2-1"
    coding = ["-vf", colors, "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source, *coding]

    def encode(temporary: Path) -> None:
        done = subprocess.run(
            [*ffmpeg, str(temporary.absolute())], input=images.numpy().tobytes(), capture_output=True, check=False
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            if os.strerror(errno.ENOSPC) in said:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            why = "; ".join(said.replace(str(temporary), path.name).splitlines())
            raise OSError(f"The video {path.name} could not be written: {why}.")

    write_atomically(path, encode)


def turntable(
    render: Callable[[Cameras], Rendering],
    folder: Path,
    name: str = "turntable",
    views: int = 60,
    resolution: int = 256,
    fps: int = 30,
    distance: float = 1.9,
) -> Turntable:
    """One turn around the object as `name`.mp4 and `name`-normals.mp4; the last view leads on to the first, so both loop."""
    colors, normals = [], []
    for camera in one_by_one(viewpoints.turntable(views, resolution, distance=distance)):
        rendering = render(camera)
        colors.append(as_bytes(rendering.image)[0])
        normals.append(as_bytes(normal_image(rendering))[0])
    result = Turntable(folder / f"{name}.mp4", folder / f"{name}-normals.mp4")
    write_video(result.color, colors, fps)
    write_video(result.normal, normals, fps)
    return result
