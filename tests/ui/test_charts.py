"""The charts put their curves, bands and markers where the numbers are."""

import re
from xml.etree import ElementTree

import pytest
import torch
from fakes import stable_diffusion_alphas_cumprod

from dreamtime.timesteps import Timetable, fixed_table, time_prioritized, uniform
from dreamtime.ui.charts import compact, comparison_chart, loss_chart, schedule_chart, stage_shares, time_spent, visits

ABAR = stable_diffusion_alphas_cumprod()


def falling(*t: int) -> Timetable:
    return fixed_table(torch.tensor(t))


def points(chart: str, kind: str) -> list[tuple[int, int]]:
    """The corners of a curve in the SVG's coordinates: 0..1000 across, and 0..1000 downwards."""
    (path,) = re.findall(rf'<path class="{kind}" d="M([^"Z]*)Z?"', chart)
    return [(int(x), int(y)) for x, y in (corner.split() for corner in path.split("L"))]


def test_the_curve_passes_through_its_timesteps() -> None:
    chart = schedule_chart("custom", ABAR, falling(900, 500, 100, 0), 500.0, 125.0)(0, 0)
    assert points(chart, "dt-t") == [(250, 100), (500, 500), (750, 900), (1000, 1000)]


def test_the_marker_stands_at_its_step_and_its_t() -> None:
    marked = schedule_chart("custom", ABAR, falling(900, 500, 100, 0), 500.0, 125.0)
    assert '<div class="dt-dot" style="left:50.00%;bottom:50.00%">' in marked(2, 500)
    assert "step 2, t = 500, content" in marked(2, 500)
    assert "dt-dot" not in marked(0, 0)


def test_the_three_stages_tile_the_axis() -> None:
    chart = schedule_chart("custom", ABAR, falling(900, 100), 500.0, 125.0)(0, 0)
    bands = re.findall(r'dt-stage dt-(\w+)" style="bottom:([\d.]+)%;height:([\d.]+)%"><span>', chart)
    assert bands == [("detail", "0.0", "37.5"), ("content", "37.5", "25.0"), ("coarse", "62.5", "37.5")]


@pytest.mark.parametrize("steps", [1, 2, 3, 5000])
def test_a_chart_of_any_length_is_well_formed_and_short(steps: int) -> None:
    chart = schedule_chart("uniform", ABAR, uniform(ABAR, steps), 500.0, 125.0)(steps, 20)
    ElementTree.fromstring(chart)
    assert len(chart) < 20_000


def test_visits_add_up_to_the_steps_also_where_t_is_drawn() -> None:
    table = Timetable(torch.tensor([10, 500]), torch.tensor([19, 500]))
    seen = visits(table, 1000)
    assert seen.sum().item() == pytest.approx(2)
    assert seen[10:20].tolist() == pytest.approx([0.1] * 10)
    assert seen[500].item() == pytest.approx(1)
    assert time_spent(table, 1000).max().item() == pytest.approx(1)


def test_the_stages_share_the_steps() -> None:
    table = falling(900, 800, 700, 600, 500, 400, 300, 200)
    assert stage_shares(table, 1000, 500.0, 125.0) == pytest.approx({"coarse": 3 / 8, "content": 3 / 8, "detail": 2 / 8})


def test_a_comparison_draws_every_schedule_in_its_own_colour() -> None:
    chart = comparison_chart({"time-prioritized": time_prioritized(ABAR, 50), "uniform": uniform(ABAR, 50)}, 1000, 500.0, 125.0)
    ElementTree.fromstring(chart)
    assert chart.count('class="dt-c1"') == 2
    assert 'class="dt-c2 dt-band"' in chart


@pytest.mark.parametrize(
    ("number", "said"),
    [(0.0, "0"), (0.1234, "0.123"), (45.64, "45.6"), (999.4, "999"), (999.6, "1k"), (1063.0, "1.06k"), (2.5e6, "2.5M")],
)
def test_numbers_fit_beside_their_axis(number: float, said: str) -> None:
    assert compact(number) == said


def test_the_loss_curve_ends_where_the_run_is() -> None:
    chart = loss_chart([(1, 900, 4.0), (2, 800, 2.0), (3, 700, 4.0)], 12)
    ElementTree.fromstring(chart)
    assert [x for x, _ in points(chart, "dt-mean")] == [83, 167, 250]
    assert "step 3 of 12" in chart


@pytest.mark.parametrize("rows", [[], [(1, 900, 0.0)], [(1, 900, 0.0), (2, 800, 0.0)]])
def test_a_loss_curve_without_a_loss_is_still_a_chart(rows: list[tuple[int, int, float]]) -> None:
    ElementTree.fromstring(loss_chart(rows, 10))
