"""Where everything on the text tab stands: controls on the left, the object taking shape on the right."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamtime import presets
from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.prompts import MAX_PROMPT_CHARACTERS
from dreamtime.runs import file_name
from dreamtime.ui import panels
from dreamtime.ui.charts import loss_chart, schedule_chart
from dreamtime.ui.server import PRIOR, Server, device_in_words
from dreamtime.ui.widgets import (
    GUIDING,
    KNOBS,
    LOADING,
    MAX_SEED,
    METHOD,
    PRESET_NAMES,
    PRIOR_NAMES,
    RENDERING,
    SCHEDULING,
    automatic_prior,
    checked_choices,
    preset_values,
    resolved,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOWN_EXAMPLES = 8  # pictures at most
PRESET = "standard"  # chosen until somebody chooses another
DOWNLOADS = {"glb": "GLB", "zip": "OBJ + MTL + PNG", "ply": "PLY", "stl": "STL"}


@dataclass(frozen=True)
class TextTab:
    """The components that events read and write."""

    banner: gr.HTML
    prompt: gr.Textbox
    preset: gr.Radio
    seed: gr.Number
    randomise: gr.Checkbox
    go: gr.Button
    stop: gr.Button
    prior: gr.Dropdown
    knobs: dict[str, Component]  # by the field of `Settings` that each stands for
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
    downloads: dict[str, gr.DownloadButton]  # by kind of file
    words: gr.HTML

    current: gr.State  # id of this page's run
    last_run: gr.BrowserState  # id of this browser's last run

    @property
    def shown(self) -> list[Component]:
        """Everything that a run writes to."""
        stage = [self.status, self.live, self.view, self.model, self.schedule, self.loss, self.results, self.words]
        files = [self.turntable, self.normals, *self.downloads.values()]
        return [self.banner, *stage, *files, self.go, self.stop, self.seed, self.run_id, self.current, self.last_run]


def example_prompts() -> list[str]:
    """One prompt per line of examples/prompts.txt; none where the package is installed without it."""
    path = EXAMPLES / "prompts.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def example_pictures() -> dict[str, Path]:
    """The pictures that `python -m examples.make` has made, by prompt."""
    pictures = {prompt: EXAMPLES / f"{file_name(prompt)}.webp" for prompt in example_prompts()}
    return dict(islice(((prompt, path) for prompt, path in pictures.items() if path.is_file()), SHOWN_EXAMPLES))


def banner_of(prior: str) -> str:
    """The banner for a choice of the menu: which prior and device it means, and why that prior."""
    if prior == "auto":
        name, why = automatic_prior()
    else:
        name, why = prior, "embedded, so it needs no network" if prior == PRIOR else "it was chosen"
    return panels.header(name, device_in_words(), why)


memory_foretold = lru_cache(maxsize=64)(presets.memory_foretold)


def preset_choices(server: Server, prior: str, method: str = "dreamtime") -> list[tuple[str, str]]:
    """The presets, each with the time it takes on this machine once that has been measured, and on a GPU with its memory."""
    choices = []
    for name in PRESET_NAMES:
        try:
            settings = presets.preset(name, prior=resolved(prior), method=method)
        except ValueError:  # a method that this prior cannot serve; whoever chooses it is told why
            choices.append((name.capitalize(), name))
            continue
        seconds = server.pace.estimate(settings)
        measuring = not server.pace.done and settings.prior == PRIOR
        time = f"about {panels.spoken(seconds)}" if seconds else "measuring…" if measuring else ""
        memory = memory_foretold(settings).partition(" of GPU memory")[0]
        choices.append((" · ".join(filter(None, [name.capitalize(), time, memory])), name))
    return choices


def schedule_preview(choices: dict[str, Any]) -> str:
    """The schedule that the knobs mean, before anything runs; on Stable Diffusion's noise levels, as every prior has here."""
    chosen = checked_choices(choices)
    alphas_cumprod = alphas_cumprod_from_betas("scaled_linear")
    name, steps = chosen.pop("schedule", "time-prioritized"), chosen.pop("steps", 400)
    table = presets.timetable(name, alphas_cumprod, steps, **chosen)
    return schedule_chart(name, alphas_cumprod, table, chosen.get("m", 500.0), chosen.get("s", 125.0))(0, 0)


def drawer(values: dict[str, Any]) -> tuple[gr.Dropdown, dict[str, Component]]:
    """The advanced drawer: the prior, and the knobs by name."""
    knobs: dict[str, Component] = {}
    with gr.Accordion("Advanced", open=False):
        info = f"The diffusion model; auto takes the best within reach, all but {PRIOR} want a GPU"
        prior = gr.Dropdown(list(PRIOR_NAMES), value=PRIOR, label="Prior", info=info)
        knobs |= {name: knob.widget(values[name]) for name, knob in METHOD.items()}
        with gr.Tabs():
            groups = {"Schedule": SCHEDULING, "Guidance": GUIDING, "Rendering": RENDERING, "Memory": LOADING}
            for title, group in groups.items():
                with gr.Tab(title), gr.Row(elem_classes="dt-knobs"):
                    for name, knob in group.items():
                        knobs[name] = knob.widget(values[name], min_width=150, visible=name not in ("fixed_t", "table"))
    return prior, {name: knobs[name] for name in KNOBS}


def controls(server: Server) -> dict[str, Any]:
    """Everything a person can choose and press."""
    words = {"label": "Prompt", "placeholder": "One object, for example: a red cube"}
    prompt = gr.Textbox(**words, lines=2, max_lines=4, max_length=MAX_PROMPT_CHARACTERS, elem_id="dt-prompt")
    if examples := example_prompts():
        gr.Examples([[text] for text in examples], [prompt], label=f"Examples of what {PRIOR} knows", examples_per_page=20)
    preset = gr.Radio(preset_choices(server, PRIOR), value=PRESET, label="Quality", elem_classes="dt-presets")
    with gr.Group(), gr.Row(elem_classes="dt-seed"):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, step=1, min_width=120)
        randomise = gr.Checkbox(True, label="New seed each time", container=False, min_width=120)
    go = gr.Button("Generate", variant="primary", size="lg")
    prior, knobs = drawer(preset_values(PRESET, PRIOR))
    with gr.Accordion("Earlier runs", open=False):
        run_id = gr.Textbox(label="Run id", info="Your last run, or paste another one", max_lines=1, max_length=40)
        with gr.Row():
            resume = gr.Button("Resume", min_width=100)
            show = gr.Button("Show result", min_width=100)
    chosen = {"prompt": prompt, "preset": preset, "seed": seed, "randomise": randomise, "prior": prior, "knobs": knobs}
    return {**chosen, "go": go, "run_id": run_id, "resume": resume, "show": show}


def stage() -> dict[str, Any]:
    """Everything a person watches and takes home."""
    plain: dict[str, Any] = {"apply_default_css": False}
    with gr.Row(equal_height=True):
        with gr.Column(scale=9, min_width=260):
            status = gr.HTML(panels.status("Ready", ["Describe one object and press Generate."]), **plain)
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=110, visible=False)
    with gr.Row(elem_classes="dt-views"):
        with gr.Column(min_width=300):
            examples = example_pictures()
            idle = panels.showcase(examples) if examples else panels.picture("Your object takes shape here.")
            live = gr.HTML(idle, **plain)
        with gr.Column(min_width=300):
            view = gr.HTML(panels.picture("Then it stands here, to turn and to download."), **plain)
            # Hidden, not absent: a viewer that appears together with its value stays blank (Gradio 6.31).
            model = gr.Model3D(label="3D model", camera_position=(70, 75, None), elem_id="dt-model", visible="hidden")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            values = preset_values(PRESET, PRIOR)
            schedule = gr.HTML(schedule_preview(values), **plain)
        with gr.Column(scale=2, min_width=260):
            loss = gr.HTML(loss_chart([], values["steps"]), **plain)
    with gr.Column(visible=False) as results:
        with gr.Row():
            video: dict[str, Any] = {"loop": True, "autoplay": True, "buttons": ["download"], "height": 280, "min_width": 200}
            video["elem_classes"] = "dt-video"
            turntable = gr.Video(label="Turntable", **video)
            normals = gr.Video(label="Turntable, normals", **video)
            with gr.Column(min_width=200, elem_classes="dt-downloads"):
                downloads = {kind: gr.DownloadButton(f"Download {what}", min_width=120) for kind, what in DOWNLOADS.items()}
        words = gr.HTML(**plain)
    watched = {"status": status, "stop": stop, "live": live, "view": view, "model": model, "schedule": schedule, "loss": loss}
    files = {"turntable": turntable, "normals": normals, "downloads": downloads, "words": words}
    return {**watched, "results": results, **files}


def lay_out(server: Server, banner: gr.HTML) -> TextTab:
    """Build the tab, with nothing connected yet; the banner above it tells which prior is in use."""
    with gr.Row(elem_classes="dt-columns"):
        with gr.Column(scale=4, min_width=320):
            left = controls(server)
        with gr.Column(scale=9, min_width=320, elem_id="dt-stage"):
            right = stage()
    # The secret hides nothing: a browser's own run ids are no secret to it. Without one they are lost at every restart.
    last_run = gr.BrowserState("", storage_key="dreamtime-last-run", secret="dreamtime")
    return TextTab(banner, **left, **right, current=gr.State(""), last_run=last_run)
