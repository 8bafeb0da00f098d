"""What a server knows of itself, and what the page says about time, examples and schedules because of it."""

import math
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stand_in import write_stand_in

from dreamtime import image_to_3d, presets, runs
from dreamtime.image_to_3d import EMBEDDED, image_preset
from dreamtime.priors import hub, layouts
from dreamtime.runs import Result, Run
from dreamtime.timesteps import Timetable, fixed_table
from dreamtime.toybox.known import unknown_words
from dreamtime.ui import controls, server
from dreamtime.ui.app import cache_seconds
from dreamtime.ui.controls import banner_of
from dreamtime.ui.picture_layout import picture_presets
from dreamtime.ui.schedule_tab import comparison, table_csv
from dreamtime.ui.server import Pace, Server, measured_runs, server_from_environment
from dreamtime.ui.text_layout import example_pictures, example_prompts, text_presets

ROOT = Path(__file__).parents[2]


def test_the_environment_chooses_folder_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMTIME_RUNS", str(tmp_path / "my runs"))
    monkeypatch.setenv("DREAMTIME_KEEP_HOURS", "1.5")
    chosen = server_from_environment()
    assert (chosen.root, chosen.hours) == (tmp_path / "my runs", 1.5)
    assert chosen.root.is_dir()


@pytest.mark.parametrize(
    ("folder", "hours", "kept"),
    [(None, None, 24), (None, "0", math.inf), ("named", None, math.inf), ("named", "24", 24), ("named", "0", math.inf)],
)
def test_a_folder_that_was_named_is_swept_only_if_the_time_was_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None, hours: str | None, kept: float
) -> None:
    """It may hold runs of the command line, which stay until somebody deletes them."""
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(tmp_path))
    for name, value in (("DREAMTIME_RUNS", folder and str(tmp_path / folder)), ("DREAMTIME_KEEP_HOURS", hours)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert server_from_environment().hours == kept


@pytest.mark.parametrize(("hours", "swept"), [(math.inf, []), (0.5, [1800.0])])
def test_the_house_is_swept_unless_runs_are_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float, swept: list[float]
) -> None:
    def tired(seconds: float) -> None:
        raise KeyboardInterrupt

    seen = list[float]()
    monkeypatch.setattr(server, "warm_up", lambda server: None)
    monkeypatch.setattr(runs, "sweep", lambda root, older_than: seen.append(older_than))
    monkeypatch.setattr(server, "time", SimpleNamespace(sleep=tired))
    with suppress(KeyboardInterrupt):
        server.keep_house(Server(tmp_path, hours, Pace()))
    assert seen == swept


@pytest.mark.parametrize(
    ("hours", "seconds"),
    [(24.0, (3600, 86_400)), (0.5, (75, 1800)), (0.001, (60, 60)), (240.0, (3600, 864_000)), (math.inf, (3600, 86_400))],
)
def test_copies_of_files_go_when_their_runs_go(hours: float, seconds: tuple[int, int]) -> None:
    assert cache_seconds(hours) == seconds


def test_an_estimate_is_steps_times_pace_and_the_mesh() -> None:
    pace = Pace()
    pace.learn(presets.preset("draft", prompt="a red cube"), per_step=0.25, for_mesh=3.0)
    assert pace.estimate(presets.preset("draft", prompt="a blue cone", steps=40, seed=7, m=300.0)) == pytest.approx(13)
    for other in ({"name": "standard"}, {"name": "draft", "views": 2}, {"name": "draft", "prior": "stable-diffusion-1.5"}):
        assert pace.estimate(presets.preset(**other)) is None


def test_the_estimate_is_what_the_latest_run_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path, 24.0, Pace())
    run = Run(tmp_path / ("0" * 32), presets.preset("draft", steps=120))
    for seconds, steps, estimate in ((60.0, 120, 64), (90.0, 60, 184), (9.0, 3, 184)):
        made = Result(steps, {}, {"optimisation_seconds": seconds, "extraction_seconds": 4.0}, ())
        monkeypatch.setattr(runs, "deliver", {run: made}.get)
        assert server.deliver(run).steps == steps
        assert server.pace.estimate(run.settings) == pytest.approx(estimate), "and too few steps tell nothing"


def test_what_slows_one_preset_down_slows_the_others() -> None:
    pace, draft, high = Pace(), presets.preset("draft"), presets.preset("high")
    pace.learn(draft, per_step=0.1, for_mesh=2.0)
    pace.learn(high, per_step=0.4, for_mesh=2.0)
    pace.learn(draft, per_step=0.3, for_mesh=5.0)
    assert pace.estimate(draft) == pytest.approx(0.3 * draft.steps + 5)
    assert pace.estimate(high) == pytest.approx(1.2 * high.steps + 2)


def test_the_presets_say_their_time_once_it_is_measured(tmp_path: Path) -> None:
    server = Server(tmp_path, 24.0, Pace())
    assert text_presets(server, "toybox")[0] == ("Draft · measuring…", "draft")
    draft = presets.preset("draft")
    server.pace.learn(draft, 30 / draft.steps, 0.0)
    server.pace.done = True
    assert text_presets(server, "toybox")[:2] == [("Draft · about 30 s", "draft"), ("Standard", "standard")]
    assert text_presets(server, "stable-diffusion-1.5")[0] == ("Draft", "draft")


def test_the_presets_say_their_memory_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "about 12 GB of GPU memory at the peak (prior 2)"
    monkeypatch.setattr(controls, "memory_foretold", lambda settings: words if settings.prior != "toybox" else "")
    server = Server(tmp_path, 24.0, Pace())
    assert text_presets(server, "stable-diffusion-1.5")[0] == ("Draft · about 12 GB", "draft")
    assert text_presets(server, "toybox")[0] == ("Draft · measuring…", "draft")


def test_runs_from_pictures_have_a_pace_of_their_own(tmp_path: Path) -> None:
    server = Server(tmp_path, 24.0, Pace())
    draft = image_preset("draft", "cpu")
    server.pace.learn(draft, 30 / draft.steps, 0.0)
    server.pace.done = True
    assert picture_presets(server, EMBEDDED)[:2] == [("Draft · about 30 s", "draft"), ("Standard", "standard")]
    assert text_presets(server, "toybox")[0] == ("Draft", "draft")
    assert server.pace.estimate(image_preset("draft", "cpu", elevation=50.0, seed=3)) == pytest.approx(30)


def test_the_warm_up_measures_pictures_where_their_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stand_in(tmp_path / "models")
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path / "models"))
    tasks = [run.settings.task for run in measured_runs(tmp_path / "runs")]
    assert tasks == ["text"] * 3 + ["image"] * 3
    monkeypatch.setattr(image_to_3d, "not_here", lambda prior: "It is not here.")
    assert [run.settings.task for run in measured_runs(tmp_path / "runs")] == ["text"] * 3


def test_a_model_that_is_missing_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = hub.Model((str(tmp_path / "gone"),), layouts.TOLD_A_PICTURE)
    monkeypatch.setitem(hub.MODELS, EMBEDDED, gone)
    sentence = "The model 'toybox-zero123' is not in this installation: its weights are missing."
    assert image_to_3d.not_here(EMBEDDED) == sentence
    assert "its weights are missing" in banner_of(EMBEDDED)
    assert image_to_3d.not_here("toybox") == ""


def test_a_method_that_the_prior_cannot_serve_leaves_the_presets_their_names(tmp_path: Path) -> None:
    choices = text_presets(Server(tmp_path, 24.0, Pace()), "stable-diffusion-xl", "prolificdreamer")
    assert choices == [("Draft", "draft"), ("Standard", "standard"), ("High", "high")]


@pytest.mark.no_cuda
def test_the_banner_says_which_prior_and_device_and_why() -> None:
    assert "embedded, so it needs no network" in banner_of("toybox")
    assert "<b>stable-diffusion-1.5</b>" in banner_of("stable-diffusion-1.5")
    automatic = banner_of("auto")
    for told in ("<b>toybox</b>", "<b>cpu,", "there is no GPU, so the embedded model is used"):
        assert told in automatic


def test_the_embedded_prior_knows_every_example() -> None:
    assert len(example_prompts()) >= 3
    assert [word for prompt in example_prompts() for word in unknown_words(prompt)] == []


def test_there_is_something_to_see_before_the_first_run() -> None:
    assert list(example_pictures()) == example_prompts()[:8]


def test_the_table_has_a_row_per_step_and_two_columns_where_t_is_drawn() -> None:
    band = Timetable(torch.tensor([20, 20]), torch.tensor([980, 500]))
    table = table_csv({"mine": fixed_table(torch.tensor([900, 100])), "theirs": band})
    assert table.splitlines() == ["step,mine,theirs low,theirs high", "1,900,20,980", "2,100,20,500"]


@pytest.mark.parametrize(
    ("names", "values", "sentence"),
    [([], (400, 500, 125, "", ""), "Choose between 1 and 8"), (["linear"], (400, 500, 125, "900", "100"), "t_min &lt; t_max")],
)
def test_a_comparison_that_makes_no_sense_says_so(names: list[str], values: tuple, sentence: str) -> None:
    chart, shares = comparison(names, *values)
    assert sentence in chart
    assert shares == ""


@pytest.mark.parametrize("hours", ["abc", "-1", "nan", "1e400"])
def test_hours_that_are_none_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: str) -> None:
    monkeypatch.setenv("DREAMTIME_RUNS", str(tmp_path))
    monkeypatch.setenv("DREAMTIME_KEEP_HOURS", hours)
    with pytest.raises(ValueError, match="must be a number of hours"):
        server_from_environment()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DREAMTIME_RUNS", str(tmp_path / "file" / "runs"))
    with pytest.raises(ValueError, match=r"cannot be made .* choose another by DREAMTIME_RUNS"):
        server_from_environment()


@pytest.mark.parametrize("port", ["abc", "99999", "-1", "0"])
def test_a_port_that_is_none_is_one_line(port: str) -> None:
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=os.environ | {"GRADIO_SERVER_PORT": port}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"dreamtime: GRADIO_SERVER_PORT must be a number from 1 to 65535, got {port!r}.\n"


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """The port was named: another one would do nobody a service."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        chosen = {"GRADIO_SERVER_PORT": port, "DREAMTIME_RUNS": str(tmp_path)}
        done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=os.environ | chosen, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"dreamtime: Cannot find empty port in range: {port}-{port}.")
    assert "Traceback" not in done.stderr
