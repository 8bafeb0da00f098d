"""The tab that turns a prompt into an object: controls on the left, the object taking shape on the right."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from dreamtime import presets, runs
from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.runs import Frame, Result, Run
from dreamtime.ui import panels
from dreamtime.ui.charts import loss_chart, schedule_chart
from dreamtime.ui.driver import drive
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.server import RUNNING, Server
from dreamtime.ui.widgets import GUIDING, KNOBS, MAX_SEED, PRESET_NAMES, RENDERING, SCHEDULING, checked_choices, preset_values, settings_of

Updates = dict[gr.components.Component, Any]

PROMPTS = Path(__file__).parents[2] / "examples" / "prompts.txt"
DOWNLOADS = {"glb": "GLB", "zip": "OBJ + MTL + PNG", "ply": "PLY", "stl": "STL"}

SHOW_STAGE = """() => { if (window.innerWidth < 900)
    setTimeout(() => document.getElementById("dt-stage").scrollIntoView({behavior: "smooth"}), 100) }"""
"""On a phone the stage lies below the controls: bring it into view when a run begins."""


def example_prompts() -> list[str]:
    """One prompt per line of examples/prompts.txt; none when the package is installed without it."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines() if PROMPTS.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@dataclass(frozen=True)
class TextTab:
    """The components that events read and write."""

    prompt: gr.Textbox
    preset: gr.Radio
    seed: gr.Number
    randomise: gr.Checkbox
    prior: gr.Dropdown
    knobs: dict[str, gr.components.Component]
    go: gr.Button
    stop: gr.Button
    run_id: gr.Textbox
    resume: gr.Button
    show: gr.Button
    status: gr.HTML
    live: gr.HTML
    view: gr.HTML
    model: gr.Model3D
    schedule: gr.HTML
    loss: gr.HTML
    results: gr.Column
    turntable: gr.Video
    normals: gr.Video
    downloads: dict[str, gr.DownloadButton]
    words: gr.HTML
    current: gr.State
    last_run: gr.BrowserState


# -- layout


def preset_choices(server: Server, prior: str) -> list[tuple[str, str]]:
    """The presets with the time each takes on this machine, once that has been measured."""
    choices = []
    for name in PRESET_NAMES:
        settings = presets.preset(name, prior=prior)
        seconds = server.pace.estimate(name, settings.steps) if prior == "toybox" else None
        time = f"about {panels.spoken(seconds)}" if seconds else "" if server.pace.done or prior != "toybox" else "measuring…"
        choices.append((f"{name.capitalize()}{f' · {time}' if time else ''}", name))
    return choices


def drawer(values: dict[str, Any]) -> tuple[gr.Dropdown, dict[str, gr.components.Component]]:
    """The advanced drawer, and its components by the field of `Settings` that each stands for."""
    knobs: dict[str, gr.components.Component] = {}
    with gr.Accordion("Advanced", open=False):
        prior = gr.Dropdown(list(presets.PRIORS), value="toybox", label="Prior", info="The diffusion model; all but toybox need a GPU")
        for title, group in {"Schedule": SCHEDULING, "Guidance": GUIDING, "Rendering": RENDERING}.items():
            with gr.Accordion(title, open=title == "Schedule"), gr.Row(elem_classes="dt-knobs"):
                for name, knob in group.items():
                    knobs[name] = knob.widget(values[name], min_width=130, visible=name not in ("fixed_t", "table"))
    return prior, knobs


def controls(server: Server) -> dict[str, Any]:
    """Everything a person can choose and press."""
    prompt = gr.Textbox(
        label="Prompt", placeholder="One object, for example: a red cube", lines=2, max_lines=4, max_length=400, autofocus=True
    )
    if examples := example_prompts():
        gr.Examples([[text] for text in examples], [prompt], label="Examples of what toybox knows", examples_per_page=20)
    preset = gr.Radio(preset_choices(server, "toybox"), value="standard", label="Quality", elem_classes="dt-presets")
    with gr.Group(), gr.Row(elem_classes="dt-seed"):
        seed = gr.Number(value=0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, step=1, min_width=120)
        randomise = gr.Checkbox(value=True, label="New seed each time", container=False, min_width=120)
    with gr.Row():
        go = gr.Button("Generate", variant="primary", size="lg", scale=3, min_width=160)
        stop = gr.Button("Stop", size="lg", scale=1, min_width=90, interactive=False)
    prior, knobs = drawer(preset_values("standard", "toybox"))
    with gr.Accordion("Earlier runs", open=False):
        run_id = gr.Textbox(label="Run id", info="Your last run; paste another one to go on with it", max_lines=1, max_length=40)
        with gr.Row():
            resume = gr.Button("Resume", min_width=100)
            show = gr.Button("Show result", min_width=100)
    return {name: value for name, value in locals().items() if name in TextTab.__dataclass_fields__}


def stage() -> dict[str, Any]:
    """Everything a person watches and takes home."""
    status = gr.HTML(panels.status("Ready", ["Describe one object and press Generate."]), apply_default_css=False)
    with gr.Row(elem_classes="dt-views"):
        live = gr.HTML(panels.picture("Your object takes shape here."), apply_default_css=False, min_width=260)
        view = gr.HTML(panels.picture("Then it stands here, to turn and to download."), apply_default_css=False, min_width=260)
        model = gr.Model3D(label="3D model", height=420, camera_position=(70, 75, None), min_width=260, elem_id="dt-model", visible="hidden")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            schedule = gr.HTML(schedule_preview(preset_values("standard", "toybox")), apply_default_css=False)
        with gr.Column(scale=2, min_width=260):
            loss = gr.HTML(loss_chart([], 400), apply_default_css=False)
    with gr.Column(visible=False, elem_classes="dt-results") as results:
        with gr.Row():
            video: dict[str, Any] = {"loop": True, "autoplay": True, "buttons": ["download"], "height": 280, "min_width": 200}
            turntable = gr.Video(label="Turntable", **video)
            normals = gr.Video(label="Turntable, normals", **video)
            with gr.Column(min_width=200, elem_classes="dt-downloads"):
                downloads = {kind: gr.DownloadButton(f"Download {words}", min_width=120) for kind, words in DOWNLOADS.items()}
        words = gr.HTML(apply_default_css=False)
    return {name: value for name, value in locals().items() if name in TextTab.__dataclass_fields__}


def text_tab(server: Server) -> TextTab:
    """Build the tab and wire its events."""
    with gr.Row(elem_classes="dt-columns"):
        with gr.Column(scale=4, min_width=320, elem_classes="dt-controls"):
            left = controls(server)
        with gr.Column(scale=9, min_width=320, elem_id="dt-stage"):
            right = stage()
    last_run = gr.BrowserState("", storage_key="dreamtime-last-run", secret="not a secret: a run id")
    tab = TextTab(**left, **right, current=gr.State(""), last_run=last_run)
    wire(tab, server)
    return tab


# -- what a run shows


def schedule_preview(choices: dict[str, Any]) -> str:
    """The schedule that these knobs mean, before anything runs, on Stable Diffusion's noise levels, which every prior of the menu has."""
    chosen = checked_choices(choices)
    alphas_cumprod = alphas_cumprod_from_betas("scaled_linear")
    name, steps = chosen.pop("schedule"), chosen.pop("steps")
    table = presets.timetable(name, alphas_cumprod, steps, **chosen)
    return schedule_chart(name, alphas_cumprod, table, chosen.get("m", 500.0), chosen.get("s", 125.0))(0, 0)


def begun(tab: TextTab, run: Run) -> Updates:
    """The page as a run begins."""
    return {
        tab.status: panels.status("Preparing", ["the first run loads the model"], busy=True),
        tab.live: panels.picture(f"“{run.settings.prompt}” is about to take shape."),
        tab.view: gr.HTML(panels.picture("Here you see what the prior is asked about."), visible=True),
        tab.model: gr.Model3D(visible="hidden"),
        tab.run_id: run.id,
        tab.current: run.id,
        tab.last_run: run.id,
        tab.seed: run.settings.seed,
        tab.results: gr.Column(visible=False),
        tab.go: gr.Button(interactive=False),
        tab.stop: gr.Button(interactive=True),
    }


def over(tab: TextTab, headline: str, *details: str, share: float | None = None) -> Updates:
    """The page when nothing runs any more."""
    return {
        tab.status: panels.status(headline, details, share),
        tab.go: gr.Button(interactive=True),
        tab.stop: gr.Button(interactive=False),
    }


def finished(tab: TextTab, run: Run, made: Result) -> Updates:
    """The page with a result."""
    steps, all_steps = made.steps, run.settings.steps
    if steps == all_steps:
        end = over(tab, "Finished", f"{steps:,} steps", share=1.0)
    else:
        end = over(tab, "Stopped", f"the mesh is that of step {steps:,} of {all_steps:,}; Resume goes on", share=steps / all_steps)
    return {
        **end,
        tab.turntable: str(made.files["turntable"]),
        tab.normals: str(made.files["normals"]),
        tab.words: panels.result(run, made),
        tab.results: gr.Column(visible=True),
        **{button: gr.DownloadButton(value=str(made.files[kind])) for kind, button in tab.downloads.items()},
    }


def model_of(tab: TextTab, run: Run) -> Updates:
    """The viewer with a run's model, in the place of the prior's view.

    It comes in an event of its own: given to the viewer by a generator's last yield, the model would stay invisible (Gradio 6.31).
    """
    made = runs.delivered(run)
    if made is None:
        return {tab.model: gr.skip()}
    return {tab.view: gr.HTML(visible=False), tab.model: gr.Model3D(str(made.files["glb"]), visible=True)}


def watch(tab: TextTab, run: Run) -> Iterator[Updates]:
    """Work on a run and deliver it, telling the page about twice a second."""
    yield begun(tab, run)
    settings, rows = run.settings, runs.curve_rows(run, runs.steps_done(run))
    table = presets.timetable_of(settings)
    chart = schedule_chart(settings.schedule, presets.alphas_cumprod_of(settings.source), table, settings.m, settings.s)

    def progress(frame: Frame) -> Updates:
        return {
            tab.status: panels.optimising(frame, table, settings.m, settings.s, runs.stop_requested(run)),
            tab.live: panels.picture(f"{settings.prompt}, step {frame.step}", frame.preview, "live, from a fixed camera"),
            tab.view: panels.picture("A random view of it", frame.view, "what the prior was shown"),
            tab.schedule: chart(frame.step, frame.t),
            tab.loss: loss_chart(rows, settings.steps),
        }

    try:
        for frame in drive(run):
            rows.append((frame.step, frame.t, frame.loss))
            if frame.preview is not None:
                yield progress(frame)
        yield {tab.status: panels.status("Making the mesh", ["surface, texture, turntable"], busy=True)}
        made = runs.deliver(run)
    except Exception:
        yield over(tab, "Not finished", "what was saved before is kept; Resume goes on")
        raise
    yield finished(tab, run, made)


# -- events


def wire(tab: TextTab, server: Server) -> None:
    """Connect the components of the tab to what they do."""
    knobs = list(tab.knobs.values())
    outputs = [tab.status, tab.live, tab.view, tab.model, tab.schedule, tab.loss, tab.results, tab.turntable, tab.normals, tab.words]
    outputs += [*tab.downloads.values(), tab.go, tab.stop, tab.seed, tab.run_id, tab.current, tab.last_run]

    def start(prompt: str, preset: str, prior: str, seed: float, randomise: bool, *values: Any) -> Iterator[Updates]:
        with one_sentence():
            number = secrets.randbelow(MAX_SEED) if randomise else seed
            choices = dict(zip(KNOBS, values, strict=True))
            yield from watch(tab, runs.create_run(server.root, settings_of(prompt, preset, prior, number, choices)))

    def resume(run_id: str) -> Iterator[Updates]:
        with one_sentence():
            run = runs.open_run(server.root, run_id.strip())
            runs.clear_stop(run)
            yield from watch(tab, run)

    def show(run_id: str) -> Updates:
        with one_sentence():
            return shown(tab, server, run_id.strip())

    def model(run_id: str) -> Updates:
        with one_sentence():
            return model_of(tab, runs.open_run(server.root, run_id))

    def stop(run_id: str) -> str:
        with one_sentence():
            runs.request_stop(runs.open_run(server.root, run_id))
        return panels.status("Stopping…", ["the mesh of what is there follows"], busy=True)

    private = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": [tab.status]}
    inputs = [tab.prompt, tab.preset, tab.prior, tab.seed, tab.randomise, *knobs]
    started = gr.on([tab.go.click, tab.prompt.submit], start, inputs, outputs, **RUNNING, **private)
    gr.on([tab.go.click, tab.prompt.submit, tab.resume.click], None, js=SHOW_STAGE, api_visibility="private")
    resumed = tab.resume.click(resume, tab.run_id, outputs, **RUNNING, **private)
    for event in (started, resumed):
        event.success(model, tab.current, [tab.view, tab.model], api_visibility="private", show_progress="hidden")
    tab.show.click(show, tab.run_id, outputs, **private)
    tab.stop.click(stop, tab.current, tab.status, queue=False, api_visibility="private", show_progress="hidden")
    wire_choices(tab, server)


def shown(tab: TextTab, server: Server, run_id: str) -> Updates:
    """The page with the result of an earlier run, delivered now if it has not been yet."""
    run = runs.open_run(server.root, run_id)
    settings, made = run.settings, runs.delivered(run)
    rows = runs.curve_rows(run, runs.steps_done(run))
    table = presets.timetable_of(settings)
    chart = schedule_chart(settings.schedule, presets.alphas_cumprod_of(settings.source), table, settings.m, settings.s)
    return {
        **finished(tab, run, made or runs.deliver(run)),
        **model_of(tab, run),
        tab.schedule: chart(*rows[-1][:2]) if rows else chart(0, 0),
        tab.loss: loss_chart(rows, settings.steps),
        tab.run_id: run.id,
        tab.seed: settings.seed,
    }


def wire_choices(tab: TextTab, server: Server) -> None:
    """What changes on the page while people choose."""
    knobs = list(tab.knobs.values())
    scheduling = {name: tab.knobs[name] for name in SCHEDULING}
    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}

    def preset_chosen(preset: str, prior: str) -> list[Any]:
        return list(preset_values(preset, prior).values())

    def prior_chosen(preset: str, prior: str) -> list[Any]:
        return [gr.Radio(preset_choices(server, prior), value=preset), *preset_values(preset, prior).values()]

    def schedule_changed(*values: Any) -> list[Any]:
        choices = dict(zip(scheduling, values, strict=True))
        own = [gr.Number(visible=choices["schedule"] == "fixed"), gr.Textbox(visible=choices["schedule"] == "custom")]
        try:
            return [schedule_preview(choices), *own]
        except ValueError as error:
            return [panels.hint(str(error)), *own]

    tab.preset.input(preset_chosen, [tab.preset, tab.prior], knobs, **quiet)
    tab.prior.input(prior_chosen, [tab.preset, tab.prior], [tab.preset, *knobs], **quiet)
    gr.on(
        [component.change for component in scheduling.values()],
        schedule_changed,
        list(scheduling.values()),
        [tab.schedule, tab.knobs["fixed_t"], tab.knobs["table"]],
        trigger_mode="always_last",
        **quiet,
    )
