"""Where everything on the picture tab stands: the picture and its object on the left, the stage on the right."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamtime import image_to_3d
from dreamtime.image_to_3d import ELEVATION, EMBEDDED, foreground_ratio, image_preset
from dreamtime.preprocess import FORMATS
from dreamtime.presets import RANGES, Settings
from dreamtime.prompts import MAX_PROMPT_CHARACTERS
from dreamtime.ui import panels
from dreamtime.ui.controls import earlier_runs, knob_tabs, preset_choices, schedule_preview, seed_row
from dreamtime.ui.fetching import MAX_BYTES
from dreamtime.ui.pictures import (
    FIDELITY,
    LARGEST,
    PICTURE_GUIDING,
    PICTURE_KNOBS,
    PICTURE_PRIOR_NAMES,
    REGULARIZING,
    REMOVALS,
    SMALLEST,
    picture_box,
    picture_values,
)
from dreamtime.ui.server import Server
from dreamtime.ui.stage import Stage, build_stage, id_of
from dreamtime.ui.text_layout import EXAMPLES, PRESET
from dreamtime.ui.widgets import AUTOMATIC, LOADING, PRIOR_NAMES, SCHEDULING, start_word

PICTURES, RESULTS = EXAMPLES / "pictures", EXAMPLES / "results"
REMOVAL_WORDS = {"auto": "Automatic", "always": "Always", "never": "Never"}


@dataclass(frozen=True)
class PictureTab:
    """The components that events read and write."""

    banner: gr.HTML
    picture: gr.Image
    examples: gr.Dataset | None
    object: gr.HTML  # the processed view
    ratio: gr.Slider
    removal: gr.Radio
    elevation: gr.Slider
    automatic: gr.Checkbox
    estimate: gr.Button
    found: gr.HTML
    preset: gr.Radio
    randomise: gr.Checkbox
    prior: gr.Dropdown
    start: gr.Textbox  # hidden: the preset and prior that the knobs stand as set by
    prompt: gr.Textbox
    text_prior: gr.Dropdown
    text_weight: gr.Number
    knobs: dict[str, Component]  # by the field of `Settings` that each stands for
    stage: Stage

    @property
    def framing(self) -> list[Component]:
        """What decides how the object is taken out of its picture."""
        return [self.picture, self.ratio, self.removal]

    @property
    def asked(self) -> list[Component]:
        """What says which run is wanted, and the banner that follows from it."""
        camera = [self.elevation, self.automatic]
        start = [self.preset, self.randomise, self.prior, self.start]
        return [self.banner, *self.framing, *camera, *start, *self.words, *self.knobs.values()]

    @property
    def words(self) -> list[Component]:
        """What is said beside the picture."""
        return [self.prompt, self.text_prior, self.text_weight]


def example_pictures() -> list[str]:
    """The pictures that can be tried at once; none where the package is installed without them."""
    return [str(path) for path in sorted(PICTURES.glob("*")) if path.suffix in (".png", ".jpg", ".webp")]


def example_result(index: int) -> tuple[Path, Path] | None:
    """Picture and GLB of what the embedded model has made of an example, if `python -m examples.make` has made it."""
    name = Path(example_pictures()[index]).stem
    picture, model = RESULTS / f"{name}.webp", RESULTS / f"{name}.glb"
    return (picture, model) if picture.is_file() and model.is_file() else None


def picture_presets(server: Server, prior: str) -> list[tuple[str, str]]:
    """The presets for a prior, with what they take."""
    return preset_choices(server, lambda name: image_preset(name, prior=prior))


def awaiting() -> str:
    """What stands in the place of the processed view before there is one."""
    known = f"{', '.join(FORMATS)}; up to {MAX_BYTES // 2**20} MB"
    return f'{panels.picture("Its object shows here before anything runs.")}<p class="dt-notes">{known}</p>'


def framing() -> dict[str, Any]:
    """The picture, its object, and how the one becomes the other."""
    with gr.Row(elem_classes="dt-framing"):
        with gr.Column(min_width=140):
            sources: list[Any] = ["upload", "webcam", "clipboard"]
            words: dict[str, Any] = {"label": "Picture", "placeholder": "Drop, paste or\nclick to choose"}
            picture = picture_box(sources=sources, buttons=[], height=None, elem_classes="dt-input", **words)
        with gr.Column(min_width=140):
            processed = gr.HTML(awaiting(), apply_default_css=False)
    examples = None
    if paths := example_pictures():
        words = {"label": "Examples", "examples_per_page": 20, "elem_id": "dt-examples"}
        examples = gr.Examples([[path] for path in paths], [picture], **words).dataset
    with gr.Accordion("Cutting out", open=False):
        info = "How much of the frame the object fills; it should be what the model was taught"
        bounds: dict[str, Any] = {"minimum": SMALLEST, "maximum": LARGEST, "step": 0.01}
        ratio = gr.Slider(value=foreground_ratio(EMBEDDED), label="Foreground ratio", info=info, **bounds)
        info = "Automatic keeps what the picture's own transparency says"
        removals = [(REMOVAL_WORDS[name], name) for name in REMOVALS]
        removal = gr.Radio(removals, value="auto", label="Remove the background", info=info, elem_classes="dt-presets")
    return {"picture": picture, "examples": examples, "object": processed, "ratio": ratio, "removal": removal}


def elevating() -> dict[str, Any]:
    """From how high the picture was taken."""
    with gr.Group():
        info = "Degrees above the horizon from which the picture was taken"
        lowest, highest = RANGES["elevation"]
        bounds: dict[str, Any] = {"minimum": lowest, "maximum": highest, "step": 1}
        elevation = gr.Slider(value=ELEVATION, label="Elevation", info=info, **bounds)
        with gr.Row(elem_classes="dt-seed"):
            automatic = gr.Checkbox(False, label="Automatic", container=False, min_width=110)
            estimate = gr.Button("Estimate now", size="sm", min_width=110, elem_classes="dt-small")
    found = gr.HTML(visible=False, apply_default_css=False)
    return {"elevation": elevation, "automatic": automatic, "estimate": estimate, "found": found}


def drawer(values: dict[str, Any]) -> dict[str, Any]:
    """The advanced drawer: the prior, the words beside the picture, and the knobs by name."""
    with gr.Accordion("Advanced", open=False):
        info = f"The model that imagines the other sides; all but {EMBEDDED} want a GPU"
        prior = gr.Dropdown(list(PICTURE_PRIOR_NAMES), value=EMBEDDED, label="Prior", info=info)
        with gr.Group():
            info = "Optional: say what it is, and a second prior that reads it guides, too. It takes the picture for the front"
            prompt = gr.Textbox(label="Prompt", info=info, max_lines=2, max_length=MAX_PROMPT_CHARACTERS)
            with gr.Row():
                text_prior = gr.Dropdown(list(PRIOR_NAMES), value=AUTOMATIC, label="Text prior", min_width=140)
                least, most = RANGES["text_weight"]
                bounds: dict[str, Any] = {"minimum": least, "maximum": most, "step": 0.005}
                text_weight = gr.Number(Settings.text_weight, label="Text weight", min_width=100, **bounds)
        groups = {"Schedule": SCHEDULING, "Guidance": PICTURE_GUIDING, "Fidelity": FIDELITY, "Regularizers": REGULARIZING}
        knobs = knob_tabs(groups | {"Memory and precision": LOADING}, values)
    chosen = {name: knobs[name] for name in PICTURE_KNOBS}
    return {"prior": prior, "prompt": prompt, "text_prior": text_prior, "text_weight": text_weight, "knobs": chosen}


def controls(server: Server, values: dict[str, Any]) -> dict[str, Any]:
    """Everything a person can choose and press."""
    if sentence := image_to_3d.not_here(EMBEDDED):
        gr.HTML(panels.hint(f"{sentence} Choose another prior under Advanced."), apply_default_css=False)
    chosen = framing() | elevating()
    preset = gr.Radio(picture_presets(server, EMBEDDED), value=PRESET, label="Quality", elem_classes="dt-presets")
    seed, randomise = seed_row()
    go = gr.Button("Generate", variant="primary", size="lg")
    start = gr.Textbox(start_word(PRESET, EMBEDDED), visible=False)
    chosen |= {"preset": preset, "seed": seed, "randomise": randomise, "go": go, "start": start}
    return chosen | drawer(values) | earlier_runs()


def lay_out(server: Server, banner: gr.HTML) -> PictureTab:
    """Build the tab, with nothing connected yet; the banner above it tells which prior is in use."""
    values = picture_values(PRESET)
    with gr.Row(elem_classes="dt-columns"):
        with gr.Column(scale=4, min_width=320):
            left = controls(server, values)
        with gr.Column(scale=9, min_width=320, elem_id=id_of("picture")):
            invitation = "Give it a picture of one object and press Generate."
            idle = panels.picture("Your object takes shape here.")
            stage = build_stage("picture", invitation, idle, schedule_preview(values, EMBEDDED), values["steps"], left)
    own = {name: left[name] for name in PictureTab.__dataclass_fields__ if name in left}
    return PictureTab(banner, **own, stage=stage)
