"""The tab that compares timestep schedules: where each of them spends the steps of a run."""

import csv
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from dreamtime import presets
from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.timesteps import Timetable
from dreamtime.ui import panels
from dreamtime.ui.charts import comparison_chart, stage_shares
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.widgets import SCHEDULING, checked_choices

SHOWN_FIRST = ["time-prioritized", "uniform", "linear", "hifa"]
MAX_COMPARED = 8  # as many as there are colours
OPTIONS = ("steps", "m", "s", "t_min", "t_max")
T = 1000  # of every prior in the menu
COMPARABLE = [name for name in presets.SCHEDULES if name not in ("fixed", "custom")]

SAVE = """text => {
    const link = document.createElement("a")
    link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}))
    link.download = "schedules.csv"
    link.click()
}"""
"""Saves a text that the page holds already: no file is left on the server."""


def compared(names: list[str], choices: dict[str, Any]) -> tuple[dict[str, Timetable], dict[str, Any]]:
    """The timetables of several schedules under the same options, and those options, checked."""
    chosen = checked_choices(choices)
    if not 1 <= len(names) <= MAX_COMPARED:
        raise ValueError(f"Choose between 1 and {MAX_COMPARED} schedules to compare, got {len(names)}.")
    alphas_cumprod = alphas_cumprod_from_betas("scaled_linear")
    steps = chosen.pop("steps", presets.SCHEDULE_STEPS)
    return {name: presets.timetable(name, alphas_cumprod, steps, **chosen) for name in names}, chosen


def table_csv(tables: dict[str, Timetable]) -> str:
    """A row per step and a column per schedule, two for those that draw their t."""
    columns: dict[str, list[int]] = {}
    for name, table in tables.items():
        bounds = {f"{name} low": table.low, f"{name} high": table.high} if table.random else {name: table.low}
        columns |= {title: t.tolist() for title, t in bounds.items()}
    file = io.StringIO()
    rows = zip(*columns.values(), strict=True)
    csv.writer(file).writerows([["step", *columns], *([i, *row] for i, row in enumerate(rows, start=1))])
    return file.getvalue()


def named(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(OPTIONS, values, strict=True))


def comparison(names: list[str], *values: Any) -> tuple[str, str]:
    """The chart and the shares for what is chosen; a hint in place of the chart when it makes no sense."""
    try:
        tables, chosen = compared(names, named(values))
    except ValueError as error:
        return panels.hint(str(error)), ""
    m, s = chosen.get("m", 500.0), chosen.get("s", 125.0)
    rows = {name: stage_shares(table, T, m, s) for name, table in tables.items()}
    return comparison_chart(tables, T, m, s), panels.shares_table(rows)


def download_pressed(names: list[str], *values: Any) -> str:
    """The table of what is chosen, for the browser to save."""
    with one_sentence(escape):
        return table_csv(compared(names, named(values))[0])


def schedule_tab() -> None:
    """Build the tab and wire its events."""
    gr.HTML(panels.SCHEDULES_EXPLAINED, apply_default_css=False)
    values = {"steps": presets.SCHEDULE_STEPS, "m": 500.0, "s": 125.0, "t_min": None, "t_max": None}
    with gr.Row(elem_classes="dt-columns"):
        with gr.Column(scale=4, min_width=320):
            names = gr.CheckboxGroup(COMPARABLE, value=SHOWN_FIRST, label="Schedules", elem_classes="dt-names")
            with gr.Row(elem_classes="dt-knobs"):
                knobs = [SCHEDULING[name].widget(value, min_width=150) for name, value in values.items()]
            save = gr.Button("Download the table as CSV")
            text = gr.Textbox(label="Table", visible=False)
        with gr.Column(scale=9, min_width=320):
            first_chart, first_shares = comparison(SHOWN_FIRST, *values.values())
            chart = gr.HTML(first_chart, apply_default_css=False)
            shares = gr.HTML(first_shares, apply_default_css=False)
    inputs = [names, *knobs]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    changes = [component.change for component in inputs]
    gr.on(changes, comparison, inputs, [chart, shares], trigger_mode="always_last", **quiet)
    written = save.click(download_pressed, inputs, text, show_progress_on=[chart], **quiet)
    written.success(None, text, js=SAVE, api_visibility="private")
