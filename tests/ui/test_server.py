"""What a server knows of itself, and what the page says about time, examples and schedules because of it."""

from pathlib import Path

import pytest
import torch

from dreamtime import presets
from dreamtime.timesteps import Timetable, fixed_table
from dreamtime.toybox.world import thing_of
from dreamtime.ui.schedule_tab import comparison, table_csv
from dreamtime.ui.server import Pace, Server, server_from_environment
from dreamtime.ui.text_layout import example_prompts, preset_choices


def test_the_environment_chooses_folder_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMTIME_RUNS", str(tmp_path / "my runs"))
    monkeypatch.setenv("DREAMTIME_KEEP_HOURS", "1.5")
    server = server_from_environment()
    assert (server.root, server.hours) == (tmp_path / "my runs", 1.5)
    assert server.root.is_dir()


def test_an_estimate_is_steps_times_pace_and_the_mesh() -> None:
    pace = Pace(per_step={"draft": 0.25}, for_mesh=3.0)
    draft = presets.preset("draft", prompt="a red cube", steps=40)
    assert pace.estimate(draft, "draft") == pytest.approx(13)
    assert pace.estimate(draft, "standard") is None
    assert pace.estimate(presets.preset("draft", prior="stable-diffusion-1.5"), "draft") is None


def test_the_presets_say_their_time_once_it_is_measured(tmp_path: Path) -> None:
    server = Server(tmp_path, 24.0, Pace())
    assert preset_choices(server, "toybox")[0] == ("Draft · measuring…", "draft")
    steps = presets.preset("draft").steps
    server.pace.per_step["draft"], server.pace.done = 30 / steps, True
    assert preset_choices(server, "toybox")[:2] == [("Draft · about 30 s", "draft"), ("Standard", "standard")]
    assert preset_choices(server, "stable-diffusion-1.5")[0] == ("Draft", "draft")


def test_the_embedded_prior_knows_every_example() -> None:
    assert len(example_prompts()) >= 3
    assert all(thing_of(prompt) for prompt in example_prompts())


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
