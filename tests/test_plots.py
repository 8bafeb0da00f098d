"""The pictures are real PNG files that show what they are asked to, in data coordinates."""

from pathlib import Path

import pytest
import torch
from fakes import stable_diffusion_alphas_cumprod
from PIL import Image

from dreamtime.plots import schedule_figure, schedule_png
from dreamtime.timesteps import Timetable, fixed_table, uniform

ABAR = stable_diffusion_alphas_cumprod()


def falling(steps: int) -> Timetable:
    return fixed_table(torch.linspace(900, 100, steps).round().long())


def test_the_curve_is_the_timesteps_and_the_bands_meet_at_m_plus_and_minus_s() -> None:
    table = falling(9)
    left, right = schedule_figure(ABAR, table, table.low.tolist(), "custom", 500.0, 125.0).axes
    assert right.lines[0].get_ydata().tolist() == [900, 800, 700, 600, 500, 400, 300, 200, 100]
    bands = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in right.patches]
    assert bands == [(0, 375), (375, 625), (625, 1000)]
    assert [text.get_text() for text in right.texts] == ["detail", "content", "coarse"]
    assert [line.get_label() for line in left.lines] == ["$W$", "$W_d$", "$W_p$"]
    assert all(max(line.get_xdata()) == 1 for line in left.lines)


def test_a_random_schedule_shows_its_band_and_the_drawn_timesteps() -> None:
    table = uniform(ABAR, 5)
    right = schedule_figure(ABAR, table, [900, 20, 400, 980, 77], "uniform", 500.0, 125.0).axes[1]
    assert right.lines[0].get_ydata().tolist() == [900, 20, 400, 980, 77]
    low, high = right.collections[0].get_paths()[0].get_extents().intervaly
    assert (low, high) == (20, 980)


@pytest.mark.parametrize("steps", [1, 2, 300])
def test_schedule_png_writes_a_picture_for_any_number_of_steps(steps: int, tmp_path: Path) -> None:
    target = tmp_path / "a schedule.png"
    schedule_png(target, ABAR, falling(steps), falling(steps).low.tolist(), "custom", 500.0, 125.0)
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(maxcolors=1_000_000)) > 20


@pytest.mark.parametrize("m", [-300.0, 40.0, 1500.0])
def test_stages_outside_the_axis_are_left_out(m: float) -> None:
    right = schedule_figure(ABAR, falling(9), falling(9).low.tolist(), "custom", m, 125.0).axes[1]
    assert all(0 <= patch.get_y() < patch.get_y() + patch.get_height() <= 1000 for patch in right.patches)
