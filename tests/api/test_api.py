"""The named endpoints and MCP tools of a real server, as programs meet them."""

import json
import struct
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent
from serving import Served

from dreamtime.ui.widgets import KNOBS

OUTPUTS = ["run_id", "seed", "step", "status", "preview", "mesh", "turntable", "files", "statistics"]
SKIPPED = {"__type__": "update"}


@pytest.fixture(scope="module")
def client(app: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(app.url, verbose=False, analytics_enabled=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    yield client
    client.close()


@pytest.fixture(scope="module")
def stream(client: Client) -> list[dict[str, Any]]:
    """Everything that one whole short run has said."""
    job = client.submit("a red cube", preset="draft", steps=6, seed=3, api_name="/text_to_3d")
    return [dict(zip(OUTPUTS, said, strict=True)) for said in job]


def glb_document(path: Path) -> dict[str, Any]:
    """The JSON chunk of a binary glTF 2.0 file."""
    content = path.read_bytes()
    magic, version, length, chunk, kind = struct.unpack("<4sIII4s", content[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
    return dict(json.loads(content[20 : 20 + chunk]))


def test_the_run_id_comes_first_and_everything_comes_last(stream: list[dict[str, Any]]) -> None:
    first, last = stream[0], stream[-1]
    assert len(first["run_id"]) == 32
    assert {said["run_id"] for said in stream} == {first["run_id"]}
    assert {said["seed"] for said in stream} == {3}
    assert (last["step"], last["status"]) == (6, "finished")
    assert not any(value == SKIPPED for value in last.values())
    steps = [said["step"] for said in stream]
    assert steps == sorted(steps)


def test_previews_arrive_while_it_runs_and_change(stream: list[dict[str, Any]]) -> None:
    previews = [Path(said["preview"]).read_bytes() for said in stream[:-1] if said["preview"] != SKIPPED]
    assert len(set(previews)) >= 2
    assert all(content[:4] == b"RIFF" and content[8:12] == b"WEBP" for content in previews)


def test_the_files_are_what_they_are_called(stream: list[dict[str, Any]]) -> None:
    last = stream[-1]
    assert glb_document(Path(last["mesh"]))["asset"]["extras"]["prompt"] == "a red cube"
    assert Path(last["turntable"]).read_bytes()[4:8] == b"ftyp"
    by_ending = {Path(name).suffix: Path(name) for name in last["files"]}
    assert set(by_ending) == {".glb", ".zip", ".ply", ".stl", ".mp4"}
    with zipfile.ZipFile(by_ending[".zip"]) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".obj", ".mtl", ".png"}
    assert by_ending[".ply"].read_bytes()[:3] == b"ply"
    assert last["statistics"]["faces"] > 0
    assert last["statistics"]["steps"] == 6


def test_a_stop_keeps_the_mesh_and_resume_goes_on_along_the_same_schedule(client: Client) -> None:
    steps = 24
    job = client.submit("a blue sphere", preset="draft", steps=steps, api_name="/text_to_3d")
    for said in job:
        if said[4] != SKIPPED:
            break
    run_id = said[0]
    assert client.predict(run_id, api_name="/run_status")["state"] == "running"
    with pytest.raises(AppError, match="being worked on already"):
        client.predict(run_id, api_name="/resume")
    assert client.predict(run_id, api_name="/stop") == "stopping"
    stopped = dict(zip(OUTPUTS, job.result(), strict=True))
    assert stopped["status"] == "stopped"
    assert 1 <= stopped["step"] < steps
    assert Path(stopped["mesh"]).read_bytes()[:4] == b"glTF"
    assert client.predict(run_id, api_name="/run_status")["state"] == "stopped"

    table = client.predict(steps=steps, api_name="/schedule")["t"]
    resumed = [dict(zip(OUTPUTS, said, strict=True)) for said in client.submit(run_id, api_name="/resume")]
    said_steps = [said for said in resumed if " of " in said["status"]]
    assert said_steps[0]["step"] == stopped["step"] + 1
    assert all(f"t = {table[said['step'] - 1]}," in said["status"] for said in said_steps)
    assert (resumed[-1]["step"], resumed[-1]["status"]) == (steps, "finished")


def test_a_call_that_waits_is_stopped_by_the_id_in_its_progress(client: Client) -> None:
    job = client.submit("a red cube", preset="draft", steps=400, api_name="/generate_3d")
    for _ in range(240):
        told = [unit.desc for unit in job.status().progress_data or ()]
        if told and told[0].endswith("optimising"):
            break
        time.sleep(0.5)
    else:
        pytest.fail(f"never optimising: {told}")
    run_id = told[0].removeprefix("run ").removesuffix(", optimising")
    assert client.predict(run_id, api_name="/stop") == "stopping"
    assert job.result()["state"] == "stopped"
    with pytest.raises(AppError, match="Nobody works on this run: there is nothing to stop"):
        client.predict(run_id, api_name="/stop")
    assert client.predict(run_id, api_name="/run_status")["state"] == "stopped"


def test_whoever_leaves_finds_the_run_saved(client: Client) -> None:
    job = client.submit("a white cone", preset="draft", api_name="/text_to_3d")
    for said in job:
        if said[4] != SKIPPED:
            break
    job.cancel()
    for _ in range(60):
        run = client.predict(said[0], api_name="/run_status")
        if run["state"] != "running":
            break
        time.sleep(0.5)
    assert run["state"] == "unfinished"
    assert 1 <= run["step"] < run["steps"]


def test_words_that_the_embedded_model_has_never_seen_are_told_first_and_last(client: Client) -> None:
    job = client.submit("a red dragon", preset="draft", steps=2, api_name="/text_to_3d")
    said = [dict(zip(OUTPUTS, update, strict=True)) for update in job]
    assert said[0]["status"].startswith('preparing. The embedded model has never seen "dragon"')
    assert any('"dragon"' in note for note in said[-1]["statistics"]["notes"])
    assert said[-1]["status"] == "finished"


def test_schedule_gives_the_numbers_of_the_paper(client: Client) -> None:
    t = client.predict("time-prioritized", 10_000, api_name="/schedule")["t"]
    assert [t[int(share * 10_000) - 1] for share in (0.05, 0.25, 0.50, 0.75, 0.95)] == [767, 642, 556, 470, 349]
    assert round(sum(400 <= step <= 600 for step in t) / 10_000, 2) == 0.53
    assert client.predict("uniform", 3, api_name="/schedule") == {
        "name": "uniform",
        "steps": 3,
        "low": [20, 20, 20],
        "high": [980, 980, 980],
    }
    assert client.predict(None, None, api_name="/schedule") == client.predict(api_name="/schedule")
    assert client.predict("custom", 3, table="900, 500, 100", api_name="/schedule")["t"] == [900, 500, 100]
    with pytest.raises(AppError, match="A custom schedule needs a table"):
        client.predict("custom", 3, api_name="/schedule")
    with pytest.raises(AppError, match="The schedule 'uniform' has no m: it takes t_min, t_max"):
        client.predict("uniform", m=300, api_name="/schedule")


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        ({"prompt": "   "}, "The prompt is empty"),
        ({"prompt": "cube " * 200}, "up to 400 characters"),
        ({"prompt": 5}, "The prompt must be text, got int."),
        ({"prompt": ["a red cube"]}, "The prompt must be text, got list."),
        ({"prompt": None}, "The prompt must be text, got nothing."),
        ({"preset": "<img src=x onerror=alert(1)>"}, "not in the list of choices"),
        ({"prior": "/etc"}, "not in the list of choices"),
        ({"prior": "stabilityai/some-model"}, "not in the list of choices"),
        ({"steps": 0}, "steps must lie between 1 and 50000"),
        ({"steps": 10**9}, "steps must lie between 1 and 50000"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seed": -1}, "seed must lie between"),
        ({"views": 10_000}, "views must lie between 1 and 16"),
        ({"s": 0}, "s of the prior weight must be a positive number"),
        ({"seed": 2**63}, "seed must lie between 0 and 9223372036854775807"),
        ({"fixed_t": 300}, "The schedule 'time-prioritized' has no fixed_t: it takes t_min, t_max, m, s."),
        ({"schedule": "uniform", "table": "900, 20"}, "The schedule 'uniform' has no table: it takes t_min, t_max."),
        ({"t_min": 900, "t_max": 100}, "t_min < t_max"),
        ({"schedule": "custom"}, "A custom schedule needs a table"),
        ({"schedule": "custom", "table": "100, 900, 20"}, "only fall or only rise"),
        ({"schedule": "custom", "table": "one, two"}, "whole numbers with commas"),
        ({"albedo_share": 0.7, "textureless_share": 0.7}, "sum of the albedo and textureless shares"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_nonsense_is_refused_in_one_sentence(client: Client, nonsense: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError) as refusal:
        client.predict(**{"prompt": "a red cube", "preset": "draft", **nonsense}, api_name="/text_to_3d")
    said = str(refusal.value)
    assert sentence in said
    assert "Traceback" not in said
    assert "\n" not in said


@pytest.mark.parametrize("run_id", ["", "../../etc/passwd", "0" * 32, "G" * 32, "<b>"])
@pytest.mark.parametrize("endpoint", ["/resume", "/stop", "/run_status"])
def test_ids_that_are_no_run_are_refused(client: Client, endpoint: str, run_id: str) -> None:
    with pytest.raises(AppError, match=r"run id is|no run with this id"):
        client.predict(run_id, api_name=endpoint)


def test_only_the_runs_are_served(app: Served) -> None:
    for path in ("/etc/passwd", "app.py", str(app.log)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{app.url}gradio_api/file={path}", timeout=30)
        refusal.value.close()
        assert refusal.value.code in (403, 404)


def test_every_endpoint_is_documented_and_labelled(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    of_pictures = {"/image_to_3d", "/generate_3d_from_image", "/preprocess"}
    assert set(endpoints) == {"/text_to_3d", "/resume", "/stop", "/run_status", "/schedule", "/generate_3d"} | of_pictures
    for endpoint in endpoints.values():
        assert endpoint["description"].endswith(".")
        assert all(value["label"] and not value["label"].startswith("value_") for value in endpoint["returns"])
    parameters = endpoints["/text_to_3d"]["parameters"]
    assert [p["parameter_name"] for p in parameters] == ["prompt", "preset", "prior", "seed", *KNOBS]
    assert [p["parameter_name"] for p in parameters if not p["parameter_has_default"]] == ["prompt"]
    assert [p["parameter_default"] for p in endpoints["/schedule"]["parameters"][:4]] == ["time-prioritized", 600, None, None]


def test_what_a_knob_may_be_is_documented_where_it_is_checked(app: Served) -> None:
    with urllib.request.urlopen(f"{app.url}gradio_api/mcp/schema", timeout=30) as answer:
        tools = {tool["name"]: tool["inputSchema"]["properties"] for tool in json.load(answer)}
    assert tools["text_to_3d"]["views"]["description"] == "Images per step, 1 to 16."
    assert "hifa" in tools["text_to_3d"]["schedule"]["description"]
    assert tools["schedule"]["s"]["description"] == "Width of the prior weight, 0 to 1000000."


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def test_mcp_clients_find_the_tools_and_get_one_plain_answer(app: Served) -> None:
    async def talk() -> None:
        async with (
            streamable_http_client(f"{app.url}gradio_api/mcp/") as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert {"generate_3d", "run_status", "stop_run", "schedule"} <= set(tools)
            assert tools["generate_3d"].inputSchema["required"] == ["prompt"]
            assert "1 to 50000" in tools["generate_3d"].inputSchema["properties"]["steps"]["description"]

            made = text_of(await session.call_tool("generate_3d", {"prompt": "a yellow cone", "steps": 3}))
            address = made.split("'glb_url': '")[1].split("'")[0]
            assert address.startswith(app.url)
            with urllib.request.urlopen(address, timeout=30) as glb:
                assert glb.read(4) == b"glTF"
            run_id = made.split("'run_id': '")[1].split("'")[0]
            assert "'state': 'finished'" in text_of(await session.call_tool("run_status", {"run_id": run_id}))
            assert (await session.call_tool("run_status", {"run_id": "../../etc"})).isError

    anyio.run(talk)


def test_two_runs_at_once_stay_apart(client: Client) -> None:
    jobs = [
        client.submit(prompt, preset="draft", steps=3, seed=seed, api_name="/text_to_3d")
        for seed, prompt in enumerate(["a red cube", "a pink torus"])
    ]
    results = [dict(zip(OUTPUTS, job.result(), strict=True)) for job in jobs]
    assert results[0]["run_id"] != results[1]["run_id"]
    prompts = [glb_document(Path(result["mesh"]))["asset"]["extras"]["prompt"] for result in results]
    assert prompts == ["a red cube", "a pink torus"]


def test_nothing_unforeseen_happened(app: Served) -> None:
    """Last in this file: whatever the tests above provoked was foreseen."""
    assert "unforeseen error" not in app.log.read_text()
