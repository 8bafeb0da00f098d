"""What programs are told of a run: where it stands, and the one answer of those that wait, and what it costs."""

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from dreamtime import presets, runs
from dreamtime.runs import Frame, Result, Run
from dreamtime.ui import answers
from dreamtime.ui.server import Pace, Server


def test_a_client_that_waits_pays_for_no_pictures(monkeypatch, tmp_path: Path) -> None:
    asked, told, delivered = list[bool](), list[tuple[tuple[int, int], str]](), list[Run]()

    def drive(run: Run, pictures: bool = True) -> Iterator[Frame]:
        asked.append(pictures)
        yield Frame(1, 2, 500, 1.0, 1.0, 1.0, None, None)

    monkeypatch.setattr(answers, "drive", drive)
    monkeypatch.setattr(answers, "described", lambda run, request: {"run_id": run.id})
    monkeypatch.setattr(runs, "deliver", delivered.append)
    run = Run(tmp_path / ("0" * 32), presets.preset("draft", "cpu", prompt="a red cube"))
    monkeypatch.setattr(gr.Progress, "__call__", lambda self, done, desc, unit: told.append((done, desc)))
    assert answers.waited_for(run, gr.Request(), gr.Progress()) == {"run_id": run.id}
    assert (asked, delivered) == ([False], [run])
    assert told == [((0, 60), f"run {run.id}, preparing"), ((1, 2), f"run {run.id}, optimising")], "or nobody could stop it"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return runs.create_run(tmp_path, presets.preset("draft", "cpu", prompt="a red cube", steps=8))


def standing(monkeypatch: pytest.MonkeyPatch, done: int, made: bool) -> None:
    """A run that has come so far, with or without a result of that step."""
    monkeypatch.setattr(runs, "steps_done", lambda run: done)
    monkeypatch.setattr(runs, "delivered", lambda run: Result(done, {}, {}, ()) if made else None)


@pytest.mark.parametrize(
    ("done", "made", "stopped", "state"),
    [
        (0, False, False, "unfinished"),
        (3, False, False, "unfinished"),
        (3, True, False, "unfinished"),
        (3, False, True, "unfinished"),
        (3, True, True, "stopped"),
        (8, True, False, "finished"),
        (8, True, True, "finished"),
        (8, False, False, "unfinished"),
    ],
)
def test_a_run_that_nobody_works_on_is_what_its_result_says(
    run: Run, monkeypatch: pytest.MonkeyPatch, done: int, made: bool, stopped: bool, state: str
) -> None:
    """Above all nobody waits for a mesh that nobody makes."""
    standing(monkeypatch, done, made)
    if stopped:
        (run.folder / "stop").touch()
    assert answers.state_of(run) == state


def test_a_run_is_running_from_the_first_word_to_the_mesh(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices of a borrowed GPU, too, and before the mesh is begun."""
    standing(monkeypatch, 8, made=False)
    with runs.attended(run):
        assert answers.state_of(run) == "running"
        with runs.working_on(run):
            assert answers.state_of(run) == "running"
        with runs.holding(run, runs.MESH):
            assert answers.state_of(run) == "making the mesh"
        assert answers.state_of(run) == "running"
    with runs.working_on(run):
        assert answers.state_of(run) == "running", "whoever works on it without the page"
    assert answers.state_of(run) == "unfinished"


def test_what_is_told_to_be_finished_has_its_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come in the instant between two questions."""
    made = Result(8, {kind: Path(kind) for kind in ("glb", "turntable", "picture")}, {}, ())
    standing(monkeypatch, 8, made=False)

    def state_of(run: Run) -> str:
        monkeypatch.setattr(runs, "delivered", lambda run: made)
        return "finished"

    monkeypatch.setattr(answers, "state_of", state_of)
    monkeypatch.setattr(answers, "address_of", lambda path, request: str(path))
    assert answers.described(run, gr.Request())["glb_url"] == "glb"


def test_a_result_outlives_its_damaged_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Result(8, {kind: Path(kind) for kind in ("glb", "turntable", "picture")}, {}, ())
    run.checkpoint.write_bytes(b"damaged")
    monkeypatch.setattr(runs, "delivered", lambda run: made)
    monkeypatch.setattr(answers, "address_of", lambda path, request: str(path))
    told = answers.described(run, gr.Request())
    assert (told["state"], told["step"], told["glb_url"]) == ("finished", 8, "glb")


def test_a_stream_can_be_stopped_from_its_first_word_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "drive", lambda run: iter(()))
    said = answers.stream(Server(run.folder.parent, 24.0, Pace()), run)
    assert next(said)[0] == run.id
    runs.request_stop(run)
    said.close()
    assert runs.stop_requested(run)
    assert not runs.goes_on(run)
