"""The tab that turns a picture into an object: what happens when people give one, choose and press."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from dreamtime import presets, runs
from dreamtime.elevation import height_in_words
from dreamtime.image_to_3d import ELEVATION, EMBEDDED, foreground_ratio, image_preset
from dreamtime.preprocess import load_reference
from dreamtime.runs import Run
from dreamtime.ui import panels
from dreamtime.ui.controls import QUIET, banner_of, connect_schedule, quiet
from dreamtime.ui.driver import PriorUnavailable, elevation_found
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.picture_layout import PictureTab, awaiting, example_result, lay_out, picture_presets
from dreamtime.ui.pictures import (
    PICTURE_KNOBS,
    PICTURE_PRIOR_NAMES,
    Words,
    picture_settings,
    picture_start_of,
    picture_values,
    ratio_of,
    reference_of,
)
from dreamtime.ui.running import connect_runs, in_use_by, start
from dreamtime.ui.server import PRIOR, RUNNING, Server
from dreamtime.ui.stage import model_in_view
from dreamtime.ui.watching import Updates
from dreamtime.ui.widgets import DRAWN_SEEDS, EXACT, LOADING, followed, kept_elsewhere, start_word, values_of

NAME_EXAMPLES = """() => setTimeout(() => document.querySelectorAll("#dt-examples button:has(img)").forEach(button => {
    const file = decodeURI(button.querySelector("img").src).split("/").pop()
    button.title = file.replace(/[.][a-z]+$/, "").replaceAll("-", " ")
}), 400)"""
"""Gradio's examples are pictures without words: they get those of their file names."""

PROCESSING: dict[str, Any] = {"concurrency_id": "pictures", "concurrency_limit": 2}
"""How many pictures are processed at a time: each takes some memory for a moment."""


def picture_tab(server: Server, banner: gr.HTML) -> PictureTab:
    """Build the tab and connect it."""
    tab = lay_out(server, banner)
    connect_picture(tab)
    connect_examples(tab, server)
    connect_elevation(tab)
    connect_start(tab, server)
    connect_choices(tab, server)
    connect_schedule(tab.stage, tab.prior, tab.knobs, server)
    return tab


def connect_picture(tab: PictureTab) -> None:
    """The object shows as soon as there is a picture, and follows how it is cut out; a hint when there is none in it."""

    def processed(picture: str | None, ratio: float, removal: str) -> str:
        if picture is None:
            return awaiting()
        try:
            with one_sentence():
                return panels.processed(reference_of(picture, ratio, removal))
        except gr.Error as error:
            return panels.hint(error.message)

    shown: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private", "trigger_mode": "always_last"}
    changes = [tab.picture.change, tab.ratio.release, tab.ratio.change, tab.removal.change]
    gr.on(changes, processed, tab.framing, tab.object, **PROCESSING, **shown)


def goes_on(server: Server, run_id: str) -> bool:
    """Whether the run of that id goes on, if there still is one."""
    try:
        return bool(run_id) and runs.goes_on(runs.open_run(server.root, run_id))
    except runs.RunError:  # swept away
        return False


def connect_examples(tab: PictureTab, server: Server) -> None:
    """An example shows at once what the embedded model has made of it, unless a run of this page goes on."""
    if tab.examples is None:
        return
    stage = tab.stage

    def example_chosen(chosen: tuple[int, Any], current: str) -> Updates:
        with one_sentence(escape):
            result = example_result(chosen[0])
            if result is None or goes_on(server, current):
                return {stage.status: gr.skip()}
            picture, model = result
            return {
                tab.elevation: ELEVATION,
                stage.current: "",
                stage.results: gr.Column(visible=False),
                stage.status: panels.status("An example", ["made beforehand; Generate makes it anew, at the quality chosen"]),
                stage.live: panels.picture_file(picture.stem.replace("-", " "), picture, "the result"),
                stage.view: gr.HTML(visible=False),
                stage.model: model_in_view(model),
            }

    shown = [tab.elevation, stage.current, stage.results, stage.status, stage.live, stage.view, stage.model]
    tab.examples.click(example_chosen, [tab.examples, stage.current], shown, queue=False, **quiet(stage.status))


def found_in_words(degrees: float) -> Any:
    """What was found, under the slider."""
    words = f"Found: about {height_in_words(round(degrees, 0))}. It is an estimate: move the slider if you know better."
    return gr.HTML(f'<p class="dt-found" role="status">{words}</p>', visible=True)


def connect_elevation(tab: PictureTab) -> None:
    """Estimate now: the slider goes where the prior believes the camera stood."""

    def estimate_pressed(picture: str | None, ratio: float, removal: str, prior: str, *loading: str) -> Updates:
        with one_sentence(escape):
            knobs = dict(zip(LOADING, loading, strict=True))
            settings = picture_settings("draft", prior, 0, 0.0, Words(), knobs)
            degrees = elevation_found(settings, reference_of(picture, ratio, removal))
            return {tab.elevation: round(degrees), tab.found: found_in_words(degrees)}

    visible: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private", "show_progress_on": [tab.object]}
    asked = [*tab.framing, tab.prior, *(tab.knobs[name] for name in LOADING)]
    tab.estimate.click(estimate_pressed, asked, [tab.elevation, tab.found], **RUNNING, **visible)
    tab.picture.change(lambda: gr.HTML(visible=False), None, tab.found, queue=False, **QUIET)


def connect_start(tab: PictureTab, server: Server) -> None:
    """Generate, and what comes after."""
    stage = tab.stage

    def start_pressed(
        picture: str | None,
        ratio: float,
        removal: str,
        elevation: float,
        automatic: bool,
        preset: str,
        prior: str,
        seed: float,
        randomise: bool,
        prompt: str,
        text_prior: str,
        text_weight: float,
        stood_for: str,
        *values: Any,
    ) -> Iterator[Updates]:
        with one_sentence(escape):
            seed = secrets.randbelow(DRAWN_SEEDS) if randomise else seed
            turned, words = dict(zip(PICTURE_KNOBS, values, strict=True)), Words(prompt, text_prior, text_weight)
            knobs = followed(turned, stood_for, (preset, prior), picture_values)
            settings = picture_settings(preset, prior, seed, elevation, words, knobs)
            reference = reference_of(picture, ratio, removal)
            yield {tab.banner: banner_of(prior)}
            if automatic:
                yield {stage.status: panels.status("Finding the elevation", ["from what the prior imagines above"], busy=True)}
                try:
                    elevation = elevation_found(settings, reference)
                    yield {tab.elevation: round(elevation), tab.found: found_in_words(elevation)}
                except PriorUnavailable as error:
                    yield {stage.status: panels.status("Not begun", ["the prior is not to be had"])}
                    if prior == EMBEDDED:
                        raise
                    gr.Warning(escape(f"{error} The elevation stays at {elevation:g}°."), title="No estimate")
                settings = picture_settings(preset, prior, seed, elevation, words, knobs)
            weight = None if text_weight == usual_weight(prior) else text_weight
            said = replace(words, prior=text_prior and PRIOR, weight=weight)
            instead = picture_settings(preset, EMBEDDED, seed, elevation, said, kept_elsewhere(knobs))
            reframed = reference
            if prior != EMBEDDED and ratio == foreground_ratio(prior):
                reframed = reference_of(picture, foreground_ratio(EMBEDDED), removal)
            yield from start(stage, tab.banner, server, settings, instead, reference, reframed)

    chosen = [tab.elevation, tab.automatic, tab.preset, tab.prior, stage.seed, tab.randomise]
    inputs = [*tab.framing, *chosen, *tab.words, tab.start, *tab.knobs.values()]
    found = [tab.elevation, tab.found]
    for event in connect_runs(stage, server, [stage.go.click], start_pressed, inputs, tab.banner, found):
        event.then(lambda prior: gr.Radio(picture_presets(server, prior)), tab.prior, tab.preset, queue=False, **QUIET)


def picture_again(tab: PictureTab, run: Run) -> Updates:
    """The controls as they stood for a run, so that Generate makes much the same again: all that has a control here.

    The picture itself is not kept: its object stands in for it, as large as it was.
    """
    settings, reference = run.settings, load_reference(run.reference)
    picture = {tab.picture: str(run.reference), tab.ratio: ratio_of(reference), tab.removal: "auto"}
    camera = {tab.elevation: settings.elevation, tab.automatic: False}
    # Whoever has a link need not learn where this machine keeps other models.
    known = {tab.prior: settings.prior} if settings.prior in PICTURE_PRIOR_NAMES else {}
    words = {tab.prompt: settings.prompt, tab.text_weight: settings.text_weight}
    words |= {tab.text_prior: settings.text_prior} if settings.text_prior in presets.PRIORS else {}
    preset = picture_start_of(settings)
    start = start_word(preset, settings.prior if known else EMBEDDED)
    chosen = {tab.preset: preset, tab.randomise: settings.seed > EXACT, tab.start: start}
    knobs = {tab.knobs[name]: value for name, value in values_of(settings, tab.knobs).items()}
    return {tab.banner: in_use_by(run), **picture, **camera, **known, **words, **chosen, **knobs}


def usual_weight(prior: str) -> float:
    """How much a prompt counts beside a picture that this prior sees, unless somebody says otherwise."""
    return image_preset("standard", prior=prior).text_weight


def connect_choices(tab: PictureTab, server: Server) -> None:
    """What changes on the page while people choose: the knobs follow preset and prior, frame and banner the prior."""

    def start_chosen(preset: str, prior: str) -> list[Any]:
        with one_sentence(escape):
            return [start_word(preset, prior), *picture_values(preset, prior).values()]

    def prior_chosen(prior: str) -> list[Any]:
        return [gr.Radio(picture_presets(server, prior)), foreground_ratio(prior), usual_weight(prior), banner_of(prior)]

    knobs = list(tab.knobs.values())
    starts = [tab.preset.input, tab.prior.input]
    gr.on(starts, start_chosen, [tab.preset, tab.prior], [tab.start, *knobs], queue=False, **quiet(tab.banner))
    follow = [tab.preset, tab.ratio, tab.text_weight, tab.banner]
    tab.prior.input(prior_chosen, tab.prior, follow, queue=False, **quiet(tab.banner))
    locked: dict[str, Any] = quiet(tab.found)
    tab.automatic.change(lambda automatic: gr.Slider(interactive=not automatic), tab.automatic, tab.elevation, **locked)
