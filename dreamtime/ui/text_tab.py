"""The tab that turns a prompt into an object: what happens when people choose and press."""

import secrets
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from dreamtime.runs import Run
from dreamtime.ui.controls import QUIET, banner_of, connect_schedule, quiet
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.running import connect_runs, in_use_by, start
from dreamtime.ui.server import PRIOR, Server
from dreamtime.ui.text_layout import TextTab, lay_out, text_presets
from dreamtime.ui.watching import Updates
from dreamtime.ui.widgets import (
    AUTOMATIC,
    DRAWN_SEEDS,
    EXACT,
    KNOBS,
    PRIOR_NAMES,
    followed,
    guidance_followed,
    kept_elsewhere,
    preset_values,
    residual_followed,
    settings_of,
    start_of,
    start_word,
    suited_to,
    values_of,
)

TAKE_PROMPT = """() => document.addEventListener("click", event => {
    const tile = event.target.closest(".dt-tile"), prompt = document.querySelector("#dt-prompt textarea")
    if (!tile) return
    prompt.value = tile.innerText.trim()
    prompt.dispatchEvent(new Event("input"))
    prompt.focus()
})"""
"""A picture of the showcase writes its prompt."""


def text_tab(server: Server, banner: gr.HTML) -> TextTab:
    """Build the tab and connect it."""
    tab = lay_out(server, banner)
    connect_start(tab, server)
    connect_choices(tab, server)
    connect_schedule(tab.stage, tab.prior, tab.knobs, server)
    return tab


def connect_start(tab: TextTab, server: Server) -> None:
    """Generate, and what comes after."""

    def start_pressed(
        prompt: str, preset: str, prior: str, seed: float, randomise: bool, stood_for: str, *values: Any
    ) -> Iterator[Updates]:
        with one_sentence(escape):
            chosen = secrets.randbelow(DRAWN_SEEDS) if randomise else seed
            knobs = dict(zip(KNOBS, values, strict=True))
            knobs = followed(knobs, stood_for, (preset, prior, knobs["method"]), preset_values)
            knobs = residual_followed(knobs, preset, prior)
            # The other knobs stand as the preset for the chosen prior has set them.
            kept = kept_elsewhere(knobs)
            settings = settings_of(prompt, preset, prior, chosen, knobs)
            yield {tab.banner: banner_of(prior)}
            yield from start(tab.stage, tab.banner, server, settings, settings_of(prompt, preset, PRIOR, chosen, kept))

    events = [tab.stage.go.click, tab.prompt.submit]
    inputs = [tab.prompt, tab.preset, tab.prior, tab.stage.seed, tab.randomise, tab.start, *tab.knobs.values()]
    for event in connect_runs(tab.stage, server, events, start_pressed, inputs, tab.banner):
        event.then(choices(server), [tab.prior, tab.knobs["method"]], tab.preset, queue=False, **QUIET)


def prompt_again(tab: TextTab, run: Run) -> Updates:
    """The controls as they stood for a run, so that Generate makes it again: all that has a control here."""
    settings = run.settings
    preset, method = start_of(settings)
    values = {**values_of(settings, tab.knobs), "method": method}
    # Whoever has a link need not learn where this machine keeps other models.
    known = {tab.prior: settings.prior} if settings.prior in PRIOR_NAMES else {}
    start = start_word(preset, settings.prior if known else AUTOMATIC, method)
    chosen = {tab.prompt: settings.prompt, tab.preset: preset, tab.randomise: settings.seed > EXACT, tab.start: start}
    return {**chosen, **known, tab.banner: in_use_by(run), **{tab.knobs[name]: value for name, value in values.items()}}


def choices(server: Server) -> Callable[[str, str], Any]:
    """The presets as they are now for a prior and a method, with time and memory."""
    return lambda prior, method: gr.Radio(text_presets(server, prior, method))


def connect_choices(tab: TextTab, server: Server) -> None:
    """What changes on the page while people choose: the knobs follow preset, prior and method, the banner the prior."""

    def start_chosen(preset: str, prior: str, method: str) -> list[Any]:
        with one_sentence(escape):
            return [start_word(preset, prior, method), *preset_values(preset, prior, method).values()]

    def objective_chosen(
        preset: str, prior: str, method: str, objective: str, guidance: str, negative_prompt: str
    ) -> tuple[float, float]:
        with one_sentence(escape):
            return suited_to(preset, prior, method, objective, guidance, negative_prompt=negative_prompt)

    def guidance_touched(
        preset: str,
        prior: str,
        method: str,
        objective: str,
        guidance: str,
        image_residual: Any,
        negative_prompt: str,
        scale: Any,
    ) -> Any:
        with one_sentence(escape):
            return guidance_followed(preset, prior, method, objective, guidance, image_residual, negative_prompt, scale)

    knobs = list(tab.knobs.values())
    method, objective, guidance = tab.knobs["method"], tab.knobs["objective"], tab.knobs["guidance"]
    scale, residual = tab.knobs["guidance_scale"], tab.knobs["image_residual"]
    start_and_choice = [tab.preset, tab.prior, method, objective, guidance]
    negative = tab.knobs["negative_prompt"]
    objective.input(objective_chosen, [*start_and_choice, negative], [scale, residual], queue=False, **quiet(tab.banner))
    touched = [guidance.input, residual.input, negative.input]
    gr.on(touched, guidance_touched, [*start_and_choice, residual, negative, scale], scale, queue=False, **quiet(tab.banner))
    starts = [tab.preset.input, tab.prior.input, method.input]
    gr.on(starts, start_chosen, [tab.preset, tab.prior, method], [tab.start, *knobs], queue=False, **quiet(tab.banner))
    # Apart from the knobs, since estimating a GPU's memory takes seconds.
    gr.on(starts[1:], choices(server), [tab.prior, method], tab.preset, queue=False, **QUIET)
    tab.prior.change(banner_of, tab.prior, tab.banner, queue=False, **QUIET)
    if tab.examples:
        tab.examples.click(lambda chosen: chosen[0], tab.examples, tab.prompt, queue=False, **quiet(tab.banner))
