"""The tab that turns a prompt into an object: what happens when people choose, press and come back."""

import secrets
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from dreamtime import presets, runs
from dreamtime.presets import Settings
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.ui import panels
from dreamtime.ui.driver import PriorUnavailable
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.server import PRIOR, RUNNING, Server, device_in_words
from dreamtime.ui.text_layout import TextTab, banner_of, lay_out, preset_choices, schedule_preview
from dreamtime.ui.watching import Updates, model_of, shown, watch
from dreamtime.ui.widgets import KNOBS, MAX_SEED, SCHEDULING, preset_values, settings_of

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

SHOW_STAGE = """() => { if (window.innerWidth < 900)
    setTimeout(() => document.getElementById("dt-stage").scrollIntoView({behavior: "smooth"}), 100) }"""
"""On a phone the stage lies below the controls: bring it into view when a run begins."""

TAKE_PROMPT = """() => document.addEventListener("click", event => {
    const tile = event.target.closest(".dt-tile"), prompt = document.querySelector("#dt-prompt textarea")
    if (!tile) return
    prompt.value = tile.innerText.trim()
    prompt.dispatchEvent(new Event("input"))
    prompt.focus()
})"""
"""A picture of the showcase writes its prompt."""

ADVICE_SECONDS = 20.0  # that a notice stays; it stands in the result, too


def text_tab(server: Server, banner: gr.HTML) -> TextTab:
    """Build the tab and connect it."""
    tab = lay_out(server, banner)
    connect_runs(tab, server)
    connect_choices(tab, server)
    return tab


def advise(settings: Settings) -> None:
    """Show what to know before such a run."""
    for advice in presets.advice(settings):
        gr.Info(escape(advice), duration=ADVICE_SECONDS, title="Unknown to the model")


def start(tab: TextTab, server: Server, settings: Settings, instead: Settings) -> Iterator[Updates]:
    """Run the settings; where their prior is not to be had, say so and run the others, which have the embedded one."""
    try:
        advise(settings)
        yield from watch(tab, server, runs.create_run(server.root, settings))
    except (ModelUnavailable, PriorUnavailable) as error:
        if settings.prior == PRIOR:
            raise
        gr.Warning(escape(f"{error} The embedded model runs instead."), duration=ADVICE_SECONDS, title="Another prior")
        yield {tab.banner: panels.header(PRIOR, device_in_words(), f"instead of {settings.prior}: {error}")}
        advise(instead)
        yield from watch(tab, server, runs.create_run(server.root, instead))


def connect_runs(tab: TextTab, server: Server) -> None:
    """Generate, Resume, Show and Stop."""

    def start_pressed(prompt: str, preset: str, prior: str, seed: float, randomise: bool, *values: Any) -> Iterator[Updates]:
        with one_sentence(escape):
            chosen = secrets.randbelow(MAX_SEED) if randomise else seed
            knobs = dict(zip(KNOBS, values, strict=True))
            # The other knobs stand as the preset for the chosen prior has set them.
            kept = {name: knobs[name] for name in ("negative_prompt", "method")}
            settings = settings_of(prompt, preset, prior, chosen, knobs)
            yield {tab.banner: banner_of(prior)}
            yield from start(tab, server, settings, settings_of(prompt, preset, PRIOR, chosen, kept))

    def resume_pressed(run_id: str) -> Iterator[Updates]:
        with one_sentence(escape):
            run = runs.open_run(server.root, run_id.strip())
            runs.clear_stop(run)
            yield from watch(tab, server, run)

    def show_pressed(run_id: str) -> Updates:
        with one_sentence(escape):
            return shown(tab, runs.open_run(server.root, run_id.strip()))

    def model_ready(run_id: str) -> Updates:
        with one_sentence(escape):
            return model_of(tab, runs.open_run(server.root, run_id))

    def stop_pressed(run_id: str) -> str:
        with one_sentence(escape):
            runs.request_stop(runs.open_run(server.root, run_id))
        return panels.status("Stopping…", ["the mesh of what is there follows"], busy=True)

    visible: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": [tab.status]}
    inputs = [tab.prompt, tab.preset, tab.prior, tab.seed, tab.randomise, *tab.knobs.values()]
    # Listeners of one event run one after the other: what only moves the page comes before what takes minutes.
    gr.on([tab.go.click, tab.prompt.submit, tab.resume.click], None, js=SHOW_STAGE, api_visibility="private")
    started = gr.on([tab.go.click, tab.prompt.submit], start_pressed, inputs, tab.shown, **RUNNING, **visible)
    resumed = tab.resume.click(resume_pressed, tab.run_id, tab.shown, **RUNNING, **visible)
    for event in (started, resumed):
        event.success(model_ready, tab.current, [tab.view, tab.model], **QUIET)
        event.then(choices(server), [tab.prior, tab.knobs["method"]], tab.preset, queue=False, **QUIET)
    tab.show.click(show_pressed, tab.run_id, tab.shown, **visible)
    tab.stop.click(stop_pressed, tab.current, tab.status, queue=False, **QUIET)


def choices(server: Server) -> Callable[[str, str], Any]:
    """The presets as they are now for a prior and a method, with time and memory."""
    return lambda prior, method: gr.Radio(preset_choices(server, prior, method))


def connect_choices(tab: TextTab, server: Server) -> None:
    """What changes on the page while people choose: the knobs follow preset, prior and method, the schedule the knobs."""
    scheduling = [tab.knobs[name] for name in SCHEDULING]

    def start_chosen(preset: str, prior: str, method: str) -> list[Any]:
        with one_sentence(escape):
            return list(preset_values(preset, prior, method).values())

    def schedule_changed(*values: Any) -> list[Any]:
        chosen = dict(zip(SCHEDULING, values, strict=True))
        own = [gr.Number(visible=chosen["schedule"] == "fixed"), gr.Textbox(visible=chosen["schedule"] == "custom")]
        try:
            return [schedule_preview(chosen), *own]
        except ValueError as error:
            return [panels.hint(str(error)), *own]

    knobs = list(tab.knobs.values())
    method = tab.knobs["method"]
    starts = [tab.preset.input, tab.prior.input, method.input]
    gr.on(starts, start_chosen, [tab.preset, tab.prior, method], knobs, queue=False, **QUIET)
    # Apart from the knobs, since estimating a GPU's memory takes seconds.
    gr.on(starts[1:], choices(server), [tab.prior, method], tab.preset, queue=False, **QUIET)
    gr.on(
        [component.change for component in scheduling],
        schedule_changed,
        scheduling,
        [tab.schedule, tab.knobs["fixed_t"], tab.knobs["table"]],
        trigger_mode="always_last",
        queue=False,
        **QUIET,
    )
