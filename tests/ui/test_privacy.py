"""What of a run nobody can fetch."""

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from serving import Served

from dreamtime import presets, runs
from dreamtime.ui.privacy import is_private

ID = "0" * 32


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/gradio_api/file/", "/behind/a/proxy/gradio_api/file="])
@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("results/a-red-cube.glb", False),
        ("results/a-red-cube-picture.png", False),
        ("reference.png", False),
        ("settings.json", True),
        ("checkpoint.safetensors", True),
        ("results/../settings.json", True),
        ("results/a/b", True),
        ("", True),
        ("../../elsewhere.json", False),
        ("../pictures/mine.png", True),
        ("../public/anything.json", False),
    ],
)
def test_results_and_pictures_alone_are_served(route: str, name: str, private: bool, tmp_path: Path) -> None:
    assert is_private(f"{route}{tmp_path}/{ID}/{name}", tmp_path, [tmp_path / "public"]) == private


def test_a_link_leads_to_nothing_private(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert is_private(f"/gradio_api/file={tmp_path}/link/{ID}/settings.json", tmp_path / "runs")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / "far").symlink_to(tmp_path / "deep" / "down")
    assert is_private(f"/gradio_api/file={tmp_path}/far/../runs/{ID}/settings.json", tmp_path / "runs")
    assert not is_private("/gradio_api/file=\0", tmp_path)
    assert not is_private("/gradio_api/info", tmp_path)


def test_a_server_keeps_settings_to_itself(app: Served) -> None:
    run = runs.create_run(app.runs, presets.preset("draft", "cpu", prompt="a red cube"))
    run.results.mkdir()
    (run.results / "a-red-cube.glb").write_bytes(b"glTF")
    (app.runs.parent / "deep" / "down").mkdir(parents=True)
    (app.runs.parent / "far").symlink_to(app.runs.parent / "deep" / "down")

    def status(path: Path | str) -> int:
        return httpx.get(f"{app.url}gradio_api/file={quote(str(path), safe='/%')}", trust_env=False).status_code

    assert {path.name: status(path) for path in run.folder.glob("**/*.*")} == {
        "settings.json": 404,
        "schedule.csv": 404,
        "a-red-cube.glb": 200,
    }
    assert status(f"{app.runs.parent}/far/%2e%2e/{app.runs.name}/{run.id}/settings.json") == 404
