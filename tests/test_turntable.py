"""The asset as it is exported, seen from all sides; videos that every browser plays."""

import errno
import math
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh

from dreamtime import cameras, turntable
from dreamtime.meshes import TexturedMesh
from dreamtime.types import Cameras, Rendering


def plain_sphere(radius: float = 0.6) -> TexturedMesh:
    """A sphere that carries its colours by latitude: blue (0.2, 0.4, 0.8) above, (1, 0.2, 0) below."""
    solid = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    positions = torch.from_numpy(solid.vertices.copy()).float()
    uv = torch.stack([torch.full((len(positions),), 0.5), (1 - positions[:, 2] / radius) / 2], dim=-1)
    rows = torch.tensor([[51, 102, 204]] * 64 + [[255, 51, 0]] * 64, dtype=torch.uint8)
    texture = rows[:, None].repeat(1, 4, 1)
    return TexturedMesh(positions, torch.from_numpy(solid.faces.copy()).long(), positions / radius, uv, texture)


def test_a_sphere_looks_as_the_formula_says():
    """Per pixel: albedo (0.45 + 0.55 n.l), the light at the camera, with n the point over the radius."""
    view = cameras.turntable(3, 64)
    seen = turntable.render_textured(plain_sphere(), view, background=0.5, supersampling=1)
    rays = cameras.rays_from_cameras(view)
    along = -(rays.origins * rays.directions).sum(dim=-1)
    squared = 0.6**2 - 1.9**2 + along.square()
    depth = (along - squared.clamp(min=0).sqrt())[:, None]
    points = rays.origins + depth * rays.directions
    normals = points / 0.6
    albedo = torch.where(points[:, 2:] > 0, torch.tensor([0.2, 0.4, 0.8]), torch.tensor([1.0, 0.2, 0.0]))
    shade = 0.45 + 0.55 * (normals * -rays.directions).sum(dim=-1, keepdim=True)
    inside = (squared > 0.01) & (points[:, 2].abs() > 0.03)
    outside = squared < -0.01
    assert inside.sum() > 3000
    torch.testing.assert_close(seen.image.view(-1, 3)[inside], (albedo * shade)[inside], atol=0.01, rtol=0)
    torch.testing.assert_close(seen.normal.view(-1, 3)[inside], normals[inside], atol=0.01, rtol=0)
    torch.testing.assert_close(seen.depth.view(-1, 1)[inside], depth[inside], atol=5e-3, rtol=0)
    assert (seen.opacity.view(-1)[inside] == 1).all()
    assert (seen.opacity.view(-1)[outside] == 0).all()
    assert (seen.image.view(-1, 3)[outside] == 0.5).all()


def test_supersampling_is_the_mean_of_a_finer_picture():
    view = cameras.turntable(1, 32)
    fine = turntable.render_textured(plain_sphere(), Cameras(view.camera_to_world, view.fov_y, 64, 64), supersampling=1)
    coarse = turntable.render_textured(plain_sphere(), view, supersampling=2)
    for name in ("image", "opacity", "depth", "normal"):
        blocks = getattr(fine, name).view(1, 32, 2, 32, 2, -1)
        expected = (blocks[:, :, 0, :, 0] + blocks[:, :, 0, :, 1] + blocks[:, :, 1, :, 0] + blocks[:, :, 1, :, 1]) / 4
        torch.testing.assert_close(getattr(coarse, name), expected)
    rim = (coarse.opacity > 0) & (coarse.opacity < 1)
    assert rim.any()
    # The silhouette of a sphere is a disc of angular radius asin(r / d).
    radius = math.tan(math.asin(0.6 / 1.9)) / math.tan(math.radians(22.5)) * 16
    assert coarse.opacity.sum().item() == pytest.approx(math.pi * radius**2, rel=0.02)


def test_normals_become_colours_over_the_background():
    normal = torch.tensor([[[[0.0, 0.0, 1.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]]])
    opacity = torch.tensor([[[[1.0], [0.5], [0.0]]]])
    seen = turntable.normal_image(Rendering(normal, opacity, opacity, normal), background=1.0)
    assert seen.tolist() == [[[[0.5, 0.5, 1.0], [0.75, 0.75, 1.0], [1.0, 1.0, 1.0]]]]


def decoded(path: Path, size: int) -> tuple[str, np.ndarray]:
    """What ffmpeg says of a square video, and its frames."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stderr.decode(), np.frombuffer(done.stdout, np.uint8).reshape(-1, size, size, 3).astype(int)


def test_a_turntable_is_two_looping_videos(tmp_path: Path):
    views = cameras.turntable(6, 48)
    asked: list[Cameras] = []

    def render(camera: Cameras) -> Rendering:
        asked.append(camera)
        return turntable.render_textured(plain_sphere(), camera)

    written = turntable.turntable(render, tmp_path, views=6, resolution=48, fps=12)
    assert torch.equal(torch.cat([camera.camera_to_world for camera in asked]), views.camera_to_world)
    assert {path.name for path in tmp_path.iterdir()} == {"turntable.mp4", "turntable-normals.mp4"}
    expected = turntable.render_textured(plain_sphere(), views)
    for path, images in ((written.color, expected.image), (written.normal, turntable.normal_image(expected))):
        about, frames = decoded(path, 48)
        assert re.search(r"Video: h264 .* yuv420p\(tv, bt709/bt709/iec61966-2-1.* 48x48.* 12 fps", about)
        assert frames.shape == (6, 48, 48, 3)
        assert np.abs(frames - 255 * images.numpy()).mean(axis=(1, 2, 3)).max() < 6  # lossy
        assert frames[:, 2, 2].min() > 240
        content = path.read_bytes()
        assert 0 < content.find(b"moov") < content.find(b"mdat")  # starts before it is loaded


def test_a_video_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path):
    frame = torch.zeros(4, 4, 3, dtype=torch.uint8)
    with pytest.raises(OSError, match=r"The video a\.nonsense could not be written: .*nonsense"):
        turntable.write_video(tmp_path / "a.nonsense", [frame], 30)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Relative to here, these look like a protocol or an option."""
    monkeypatch.chdir(tmp_path)
    for name in ("12:30", "-y"):
        Path(name).mkdir()
        turntable.write_video(Path(name) / "a.mp4", [torch.zeros(4, 4, 3, dtype=torch.uint8)], 30)
        assert (tmp_path / name / "a.mp4").stat().st_size > 0


def test_a_disk_that_fills_up_meanwhile_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = b"[out#0/mp4 @ 0x1] Error writing trailer: No space left on device\nConversion failed!\n"
    monkeypatch.setattr(turntable.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, b"", said))
    with pytest.raises(OSError, match="No space left on device") as caught:
        turntable.write_video(tmp_path / "a.mp4", [torch.zeros(4, 4, 3, dtype=torch.uint8)], 30)
    assert caught.value.errno == errno.ENOSPC


def test_odd_sizes_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="must be even, got 3 and 4"):
        turntable.write_video(tmp_path / "a.mp4", [torch.zeros(3, 4, 3, dtype=torch.uint8)], 30)
    assert list(tmp_path.iterdir()) == []
