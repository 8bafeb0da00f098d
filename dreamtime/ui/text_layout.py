"""Where everything on the text tab stands: controls on the left, the object taking shape on the right."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamtime import presets
from dreamtime.prompts import MAX_PROMPT_CHARACTERS
from dreamtime.runs import file_name
from dreamtime.ui import panels
from dreamtime.ui.controls import earlier_runs, knob_tabs, preset_choices, schedule_preview, seed_row
from dreamtime.ui.server import PRIOR, Server
from dreamtime.ui.stage import Stage, build_stage, id_of
from dreamtime.ui.widgets import (
    AUTOMATIC,
    GUIDING,
    KNOBS,
    LOADING,
    METHOD,
    PRIOR_NAMES,
    RENDERING,
    SCHEDULING,
    preset_values,
    resolved,
    start_word,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOWN_EXAMPLES = 8  # pictures at most
PRESET = "standard"  # chosen until somebody chooses another


@dataclass(frozen=True)
class TextTab:
    """The components that events read and write."""

    banner: gr.HTML
    prompt: gr.Textbox
    preset: gr.Radio
    randomise: gr.Checkbox
    prior: gr.Dropdown
    start: gr.Textbox  # hidden: the preset, prior and method that the knobs stand as set by
    knobs: dict[str, Component]  # by the field of `Settings` that each stands for
    examples: gr.Dataset | None
    stage: Stage

    @property
    def asked(self) -> list[Component]:
        """What says which run is wanted, and the banner that follows from it."""
        return [self.banner, self.prompt, self.preset, self.randomise, self.prior, self.start, *self.knobs.values()]


def example_prompts() -> list[str]:
    """One prompt per line of examples/prompts.txt; none where the package is installed without it."""
    path = EXAMPLES / "prompts.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def example_pictures() -> dict[str, Path]:
    """The pictures that `python -m examples.make` has made, by prompt."""
    pictures = {prompt: EXAMPLES / f"{file_name(prompt)}.webp" for prompt in example_prompts()}
    return dict(islice(((prompt, path) for prompt, path in pictures.items() if path.is_file()), SHOWN_EXAMPLES))


def text_presets(server: Server, prior: str, method: str = "dreamtime") -> list[tuple[str, str]]:
    """The presets for a prior and a method, with what they take."""
    return preset_choices(server, lambda name: presets.preset(name, prior=resolved(prior), method=method))


def drawer(values: dict[str, Any]) -> tuple[gr.Dropdown, dict[str, Component]]:
    """The advanced drawer: the prior, and the knobs by name."""
    with gr.Accordion("Advanced", open=False):
        info = f"The diffusion model; auto takes the best within reach, all but {PRIOR} want a GPU"
        prior = gr.Dropdown(list(PRIOR_NAMES), value=AUTOMATIC, label="Prior", info=info)
        knobs = {name: knob.widget(values[name]) for name, knob in METHOD.items()}
        groups = {"Schedule": SCHEDULING, "Guidance": GUIDING, "Rendering": RENDERING, "Memory and precision": LOADING}
        knobs |= knob_tabs(groups, values)
    return prior, {name: knobs[name] for name in KNOBS}


def controls(server: Server, values: dict[str, Any]) -> dict[str, Any]:
    """Everything a person can choose and press."""
    asking = {"label": "Prompt", "placeholder": "One object, for example: a red cube"}
    prompt = gr.Textbox(**asking, lines=2, max_lines=4, max_length=MAX_PROMPT_CHARACTERS, elem_id="dt-prompt")
    examples = None
    if texts := example_prompts():
        words = {"label": f"Examples of what {PRIOR} knows", "samples_per_page": 20}
        examples = gr.Dataset(components=[prompt], samples=[[text] for text in texts], **words)
    preset = gr.Radio(text_presets(server, AUTOMATIC), value=PRESET, label="Quality", elem_classes="dt-presets")
    seed, randomise = seed_row()
    go = gr.Button("Generate", variant="primary", size="lg")
    prior, knobs = drawer(values)
    start = gr.Textbox(start_word(PRESET, AUTOMATIC, values["method"]), visible=False)
    chosen = {"prompt": prompt, "preset": preset, "seed": seed, "randomise": randomise, "prior": prior, "knobs": knobs}
    chosen["examples"] = examples
    return {**chosen, "start": start, "go": go, **earlier_runs()}


def lay_out(server: Server, banner: gr.HTML) -> TextTab:
    """Build the tab, with nothing connected yet; the banner above it tells which prior is in use."""
    values = preset_values(PRESET, AUTOMATIC)
    with gr.Row(elem_classes="dt-columns"):
        with gr.Column(scale=4, min_width=320):
            left = controls(server, values)
        with gr.Column(scale=9, min_width=320, elem_id=id_of("text")):
            examples = example_pictures()
            idle = panels.showcase(examples) if examples else panels.picture("Your object takes shape here.")
            invitation = "Describe one object and press Generate."
            stage = build_stage("text", invitation, idle, schedule_preview(values, AUTOMATIC), values["steps"], left)
    own = {name: left[name] for name in ("prompt", "preset", "randomise", "prior", "start", "knobs", "examples")}
    return TextTab(banner, **own, stage=stage)
