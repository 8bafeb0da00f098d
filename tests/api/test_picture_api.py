"""The endpoints and tools that start from a picture, as programs meet them on a real server."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent
from PIL import Image
from serving import Served
from stand_in import photograph

from dreamtime.image_to_3d import ELEVATION
from dreamtime.ui.pictures import PICTURE_KNOBS

OUTPUTS = ["run_id", "seed", "step", "status", "preview", "mesh", "turntable", "files", "statistics"]
SHORT: dict[str, Any] = {"preset": "draft", "steps": 3, "api_name": "/image_to_3d"}


@pytest.fixture(scope="module")
def client(app: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(app.url, verbose=False, analytics_enabled=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    yield client
    client.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return photograph(tmp_path / "ball.png")


def test_a_picture_streams_and_ends_with_everything(client: Client, picture: Path) -> None:
    job = client.submit(handle_file(picture), seed=3, elevation=12.5, **SHORT)
    stream = [dict(zip(OUTPUTS, said, strict=True)) for said in job]
    first, last = stream[0], stream[-1]
    assert first["status"] == "preparing, the picture taken from 12.5 degrees above the horizon"
    assert {said["run_id"] for said in stream} == {first["run_id"]}
    assert (last["step"], last["status"], last["seed"]) == (3, "finished", 3)
    assert Path(last["mesh"]).read_bytes()[:4] == b"glTF"
    assert client.predict(first["run_id"], api_name="/run_status")["elevation"] == 12.5


def test_a_prompt_that_nobody_reads_is_told_first_and_last(client: Client, picture: Path) -> None:
    stream = list(client.submit(handle_file(picture), prompt="a red dragon", text_prior=None, **SHORT))
    first, last = (dict(zip(OUTPUTS, said, strict=True)) for said in (stream[0], stream[-1]))
    assert first["status"].endswith(
        "above the horizon. Nobody reads the prompt: beside a picture it needs a text prior, and none is chosen."
    )
    assert any(note.startswith("Nobody reads the prompt") for note in last["statistics"]["notes"])


@pytest.mark.parametrize("nothing", [None, "auto"])
def test_without_an_elevation_one_is_found(client: Client, picture: Path, nothing: str | None) -> None:
    job = client.submit(handle_file(picture), elevation=nothing, **SHORT)
    run_id = job.result()[0]
    assert client.predict(run_id, api_name="/run_status")["elevation"] in (-10, 0, 10, 20, 30, 40, 50)


def test_preprocess_shows_what_a_model_will_see(client: Client, picture: Path) -> None:
    shown, notes = client.predict(handle_file(picture), foreground_ratio=0.5, api_name="/preprocess")
    assert notes == ["background removed by its colours at the border"]
    with Image.open(shown) as seen:
        left, _, right, _ = seen.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
        assert right - left == pytest.approx(0.5 * seen.width, abs=2)
        assert seen.getpixel((seen.width // 2, seen.height // 2))[:3] == (200, 30, 30)


@pytest.fixture
def bad_pictures(tmp_path: Path) -> dict[str, Path]:
    """Files that are no picture of an object."""
    (tmp_path / "text.png").write_text("not a picture at all")
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.png").write_bytes(photograph(tmp_path / "whole.png").read_bytes()[:300])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    Image.new("RGBA", (64, 64)).save(tmp_path / "clear.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "flat.png")
    return {name: tmp_path / f"{name}.png" for name in ("text", "empty", "broken", "huge", "tiny", "clear", "flat")}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("text", "holds text, whatever its name says"),
        ("empty", "is empty"),
        ("broken", "damaged"),
        ("huge", "at most 80 megapixels"),
        ("tiny", "at least 16 pixels per side"),
        ("clear", "fully transparent"),
        ("flat", "Nothing in the picture stands out"),
    ],
)
@pytest.mark.parametrize("endpoint", ["/image_to_3d", "/preprocess"])
def test_what_is_no_picture_is_refused_in_one_sentence(
    client: Client, app: Served, bad_pictures: dict[str, Path], endpoint: str, name: str, sentence: str
) -> None:
    before = sorted(app.runs.iterdir())
    with pytest.raises(AppError) as refusal:
        client.predict(handle_file(bad_pictures[name]), api_name=endpoint)
    said = str(refusal.value)
    assert sentence in said
    assert "\n" not in said
    assert "/" not in said, "no path of this machine"
    assert sorted(app.runs.iterdir()) == before


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        ({"elevation": 95}, "elevation must lie between -89 and 89"),
        ({"elevation": "high"}, "The elevation must be a finite number, got high."),
        ({"entropy": -1}, "entropy must lie between 0 and 1000000"),
        ({"resolution": 512}, "resolution must lie between 16 and 256, got 512"),
        ({"foreground_ratio": 0.1}, "foreground ratio must lie between 0.3 and 1"),
        ({"remove_background": "maybe"}, "not in the list of choices"),
        ({"prior": "toybox"}, "not in the list of choices"),
        ({"prior": "/etc"}, "not in the list of choices"),
        ({"prompt": "cube " * 200}, "up to 400 characters"),
        ({"prompt": 5}, "The prompt must be text of up to 400 characters."),
        ({"fixed_t": 300}, "The schedule 'time-prioritized' has no fixed_t: it takes t_min, t_max, m, s."),
        ({"prompt": "a cube", "text_weight": -1}, "text weight must lie between"),
        ({"objective": "vsd"}, "not in the list of choices"),
        ({"steps": 0}, "steps must lie between 1 and 50000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_nonsense_is_refused(client: Client, picture: Path, nonsense: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError) as refusal:
        client.predict(handle_file(picture), **{**SHORT, **nonsense})
    assert sentence in str(refusal.value)


def called(app: Served, image: object) -> str:
    """What the plain HTTP endpoint says to a payload that no client library has looked at."""
    place, body = f"{app.url}gradio_api/call/preprocess", json.dumps({"data": [image, None, "auto"]}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(place, body, {"Content-Type": "application/json"})) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{place}/{event}", timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return f"event: error {refusal.code}"


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_other_file_of_this_machine_is_opened(app: Served, tmp_path: Path, meta: dict[str, Any]) -> None:
    for path in (
        str(photograph(tmp_path / "secret.png")),
        str(tmp_path / ".." / tmp_path.name / "secret.png"),
        "docs/teaser.png",
    ):
        said = called(app, {"path": path, **meta})
        assert "event: error" in said
        assert "complete" not in said
    assert "event: error" in called(app, {"path": "http://127.0.0.1:1/ball.png", "meta": {"_type": "gradio.FileData"}})


def test_an_address_that_is_not_fetched_is_one_sentence(client: Client) -> None:
    with pytest.raises(AppError) as refusal:
        client.predict(handle_file("http://127.0.0.1:1/ball.png"), api_name="/preprocess")
    assert str(refusal.value) == "The picture's address cannot be fetched: it must be that of a public host that answers."


def test_every_choice_is_documented(client: Client) -> None:
    endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/image_to_3d"]
    framing = ["image", "preset", "prior", "seed", "elevation", "foreground_ratio", "remove_background"]
    words = ["prompt", "text_prior", "text_weight"]
    assert [p["parameter_name"] for p in endpoint["parameters"]] == [*framing, *words, *PICTURE_KNOBS]
    assert [p["parameter_name"] for p in endpoint["parameters"] if not p["parameter_has_default"]] == ["image"]
    told = {parameter["parameter_name"]: parameter for parameter in endpoint["parameters"]}
    assert told["elevation"]["python_type"]["type"] == "float | Literal['auto'] | None"
    assert told["elevation"]["parameter_default"] == ELEVATION


def test_mcp_clients_send_a_picture_and_get_one_plain_answer(app: Served, picture: Path) -> None:
    """A tool takes an address, of which only one with the picture inside can be reached offline."""
    inside = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"

    async def talk() -> str:
        async with (
            streamable_http_client(f"{app.url}gradio_api/mcp/") as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            schema = tools["generate_3d_from_image"].inputSchema
            assert schema["required"] == ["image"]
            assert "starts with http" in schema["properties"]["image"]["description"]
            assert '"auto" or null finds it' in schema["properties"]["elevation"]["description"]
            here = await session.call_tool("preprocess", {"image": f"{app.url}gradio_api/file=docs/teaser.png"})
            assert here.isError, "an address of this machine itself is not fetched"
            kept = httpx.post(f"{app.url}gradio_api/upload", files={"files": ("my photo.png", picture.read_bytes())})
            sent = await session.call_tool("preprocess", {"image": f"{app.url}gradio_api/file={quote(kept.json()[0])}"})
            assert not sent.isError, "unless it is one that was uploaded to it, as Gradio's own tool for MCP clients does"
            for found in ("auto", None):
                short = {"image": inside, "steps": 1, "elevation": found}
                assert not (await session.call_tool("generate_3d_from_image", short)).isError
            (content,) = (await session.call_tool("generate_3d_from_image", {"image": inside, "steps": 3})).content
            assert isinstance(content, TextContent)
            return content.text

    made = anyio.run(talk)
    assert "'elevation': 20" in made
    address = made.split("'glb_url': '")[1].split("'")[0]
    with urllib.request.urlopen(address, timeout=30) as glb:
        assert glb.read(4) == b"glTF"


def test_nothing_unforeseen_happened(app: Served) -> None:
    """Last in this file: whatever the tests above provoked was foreseen."""
    assert "unforeseen error" not in app.log.read_text()
