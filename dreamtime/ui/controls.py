"""The controls that every tab has: presets with their time, seed, knobs, earlier runs, and what follows from them at once."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamtime import beforehand, image_to_3d, presets, runs
from dreamtime.presets import Settings
from dreamtime.priors.hub import MODELS
from dreamtime.ui import panels
from dreamtime.ui.charts import schedule_chart
from dreamtime.ui.server import PRIOR, Server, device_in_words
from dreamtime.ui.stage import Stage
from dreamtime.ui.watching import charts
from dreamtime.ui.widgets import EXACT, PRESET_NAMES, SCHEDULING, Knob, automatic_prior, checked_choices, resolved

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""How events that only move the page are announced: not at all."""


def quiet(told: Component) -> dict[str, Any]:
    """The same for events that write into fields: of what goes on, hidden as it is, only the component `told` hears.

    Gradio would tell each field that is written to, at every event of the page from then on; a field that is told something
    in the very moment when somebody types into it may lose what was typed.
    """
    return {**QUIET, "show_progress_on": [told]}


def banner_of(prior: str) -> str:
    """The banner for a choice of a menu: which prior and device it means, and why that prior."""
    if prior == "auto":
        name, why = automatic_prior()
    elif prior in (PRIOR, image_to_3d.EMBEDDED):
        name, why = prior, image_to_3d.not_here(prior) or "embedded, so it needs no network"
    else:
        name, why = prior, "it was chosen"
    return panels.header(name, device_in_words(), why)


memory_foretold = lru_cache(maxsize=64)(beforehand.memory_foretold)


def preset_choices(server: Server, settings_of: Callable[[str], Settings]) -> list[tuple[str, str]]:
    """The presets, each with the time it takes on this machine once that has been measured, and on a GPU with its memory."""
    choices = []
    for name in PRESET_NAMES:
        try:
            settings = settings_of(name)
        except ValueError:  # a method that this prior cannot serve; whoever chooses it is told why
            choices.append((name.capitalize(), name))
            continue
        seconds = server.pace.estimate(settings)
        measuring = not server.pace.done and settings.prior in (PRIOR, image_to_3d.EMBEDDED)
        time = f"about {panels.spoken(seconds)}" if seconds else "measuring…" if measuring else ""
        memory = memory_foretold(settings).partition(" of GPU memory")[0]
        choices.append((" · ".join(filter(None, [name.capitalize(), time, memory])), name))
    return choices


def schedule_preview(choices: Mapping[str, Any], prior: str) -> str:
    """The schedule that the knobs mean, before anything runs; on the noise levels that models of the prior's kind have."""
    chosen = checked_choices({name: choices[name] for name in SCHEDULING if name in choices})
    alphas_cumprod = MODELS[resolved(prior)].layout.usual_alphas_cumprod()
    name, steps = chosen.pop("schedule", "time-prioritized"), chosen.pop("steps", presets.SCHEDULE_STEPS)
    table = presets.timetable(name, alphas_cumprod, steps, **chosen)
    return schedule_chart(name, alphas_cumprod, table, chosen.get("m", 500.0), chosen.get("s", 125.0))(0, 0)


def seed_row() -> tuple[gr.Number, gr.Checkbox]:
    """The seed, and whether each run gets a new one."""
    with gr.Group(), gr.Row(elem_classes="dt-seed"):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=EXACT, step=1, min_width=120)
        randomise = gr.Checkbox(True, label="New seed each time", container=False, min_width=120)
    return seed, randomise


def knob_tabs(groups: Mapping[str, Mapping[str, Knob]], values: Mapping[str, Any]) -> dict[str, Component]:
    """A tab per group of knobs; the knobs by name. Two belong to one schedule each, and show with it."""
    knobs: dict[str, Component] = {}
    with gr.Tabs():
        for title, group in groups.items():
            with gr.Tab(title), gr.Row(elem_classes="dt-knobs"):
                for name, knob in group.items():
                    knobs[name] = knob.widget(values[name], min_width=150, visible=name not in ("fixed_t", "table"))
    return knobs


def earlier_runs() -> dict[str, Any]:
    """The way back to a run by its id."""
    with gr.Accordion("Resume, or show an earlier run", open=False):
        run_id = gr.Textbox(label="Run id", info="Your last run, or paste another one", max_lines=1, max_length=40)
        with gr.Row():
            resume = gr.Button("Resume", min_width=100)
            show = gr.Button("Show result", min_width=100)
    return {"run_id": run_id, "resume": resume, "show": show}


def chart_of_run(stage: Stage, server: Server, run_id: str, choices: Mapping[str, Any]) -> str:
    """The schedule of the page's run, marked where that has come to, if the knobs mean that one; else nothing."""
    if not run_id:
        return ""
    try:
        run = runs.open_run(server.root, run_id)
        own = {name: getattr(run.settings, name) for name in SCHEDULING}
        if checked_choices(choices, SCHEDULING) != {name: value for name, value in own.items() if value not in (None, ())}:
            return ""
        return str(charts(stage, run)(runs.curve_rows(run, runs.steps_done(run)))[stage.schedule])
    except ValueError:  # swept away, or its prior is: what follows says what is wrong with the knobs
        return ""


def knobs_of_schedule(name: str) -> list[Component]:
    """The two knobs that belong to one schedule each, shown with it alone."""
    return [gr.Number(visible=name == "fixed"), gr.Textbox(visible=name == "custom")]


def connect_schedule(stage: Stage, prior: gr.Dropdown, knobs: Mapping[str, Component], server: Server) -> None:
    """Let the schedule's chart follow knobs and prior before anything runs; a hint takes its place when they make no sense."""
    scheduling = [knobs[name] for name in SCHEDULING]

    def schedule_changed(run_id: str, prior_name: str, *values: Any) -> str:
        chosen = dict(zip(SCHEDULING, values, strict=True))
        try:
            return chart_of_run(stage, server, run_id, chosen) or schedule_preview(chosen, prior_name)
        except ValueError as error:
            return panels.hint(str(error))

    gr.on(
        [component.change for component in (prior, *scheduling)],
        schedule_changed,
        [stage.current, prior, *scheduling],
        stage.schedule,
        trigger_mode="always_last",
        queue=False,
        **QUIET,
    )
    # Apart from the chart: an answer that touches one knob can undo what is being typed into the next.
    knobs["schedule"].change(
        knobs_of_schedule,
        knobs["schedule"],
        [knobs["fixed_t"], knobs["table"]],
        queue=False,
        **quiet(stage.schedule),
    )
