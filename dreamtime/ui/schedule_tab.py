"""The tab that compares timestep schedules: where each of them spends the steps of a run."""

import csv
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from dreamtime import presets
from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.timesteps import Timetable, stage_of
from dreamtime.ui import panels
from dreamtime.ui.charts import comparison_chart
from dreamtime.ui.widgets import SCHEDULING, checked_choices

SHOWN_FIRST = ["time-prioritized", "uniform", "linear", "hifa"]
MAX_COMPARED = 8  # as many as there are colours
COMPARABLE = [name for name in presets.SCHEDULES if name not in ("fixed", "custom")]


def compared(names: list[str], choices: dict[str, Any]) -> tuple[dict[str, Timetable], dict[str, Any]]:
    """The timetables of several schedules under the same options, and those options, checked."""
    chosen = checked_choices(choices)
    if not 1 <= len(names) <= MAX_COMPARED:
        raise ValueError(f"Choose between 1 and {MAX_COMPARED} schedules to compare, got {len(names)}.")
    alphas_cumprod = alphas_cumprod_from_betas("scaled_linear")
    steps = chosen.pop("steps", 400)
    return {name: presets.timetable(name, alphas_cumprod, steps, **chosen) for name in names}, chosen


def shares(table: Timetable, m: float, s: float) -> dict[str, float]:
    """The share of the steps that each stage gets, the middle of its range standing for a random t."""
    stages = [stage_of(t, m, s) for t in ((table.low + table.high) // 2).tolist()]
    return {stage: stages.count(stage) / len(stages) for stage in ("coarse", "content", "detail")}


def write_table(tables: dict[str, Timetable]) -> str:
    """A CSV file with a row per step and a column per schedule, two for those that draw their t."""
    columns: dict[str, list[int]] = {}
    for name, table in tables.items():
        if table.random:
            columns |= {f"{name} low": table.low.tolist(), f"{name} high": table.high.tolist()}
        else:
            columns[name] = table.low.tolist()
    path = Path(tempfile.mkdtemp(prefix="dreamtime-schedules-")) / "schedules.csv"
    with path.open("w", newline="") as file:
        rows = zip(*columns.values(), strict=True)
        csv.writer(file).writerows([["step", *columns], *([i, *row] for i, row in enumerate(rows, start=1))])
    return str(path)


def comparison(names: list[str], *values: Any) -> list[Any]:
    """The chart, the shares and the download for what is chosen; a hint in place of the chart when it makes no sense."""
    try:
        tables, chosen = compared(names, dict(zip(("steps", "m", "s", "t_min", "t_max"), values, strict=True)))
    except ValueError as error:
        return [panels.hint(str(error)), "", gr.DownloadButton(interactive=False)]
    m, s = chosen.get("m", 500.0), chosen.get("s", 125.0)
    rows = {name: shares(table, m, s) for name, table in tables.items()}
    return [comparison_chart(tables, 1000, m, s), panels.shares_table(rows), gr.DownloadButton(interactive=True)]


def schedule_tab() -> None:
    """Build the tab and wire its events."""
    gr.HTML(panels.SCHEDULES_EXPLAINED, apply_default_css=False)
    values = {"steps": 400, "m": 500.0, "s": 125.0, "t_min": None, "t_max": None}
    with gr.Row(elem_classes="dt-columns"):
        with gr.Column(scale=4, min_width=320):
            names = gr.CheckboxGroup(COMPARABLE, value=SHOWN_FIRST, label="Schedules", elem_classes="dt-names")
            with gr.Row(elem_classes="dt-knobs"):
                knobs = [SCHEDULING[name].widget(value, min_width=130) for name, value in values.items()]
            download = gr.DownloadButton("Download the table as CSV", interactive=True)
        with gr.Column(scale=9, min_width=320):
            chart_now, table_now, _ = comparison(SHOWN_FIRST, *values.values())
            chart = gr.HTML(chart_now, apply_default_css=False)
            table = gr.HTML(table_now, apply_default_css=False)
    inputs = [names, *knobs]
    gr.on(
        [component.change for component in inputs],
        comparison,
        inputs,
        [chart, table, download],
        trigger_mode="always_last",
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
