"""The named endpoints and tools that start from a picture; their docstrings are their documentation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import gradio as gr
from gradio.components import Component
from PIL import Image

from dreamtime import runs
from dreamtime.image_to_3d import ELEVATION, EMBEDDED, foreground_ratio
from dreamtime.preprocess import Reference, straight_rgba
from dreamtime.presets import Settings
from dreamtime.ui.answers import stream, waited_for
from dreamtime.ui.api import menu, number, streamed_outputs, taking
from dreamtime.ui.driver import elevation_found
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.pictures import (
    PICTURE_KNOBS,
    PICTURE_PRIOR_NAMES,
    REMOVALS,
    Words,
    elevation_of,
    picture_box,
    picture_settings,
    reference_of,
)
from dreamtime.ui.server import RUNNING, Server
from dreamtime.ui.widgets import AUTOMATIC, PRESET_NAMES, PRIOR_NAMES, SentText, WithoutStub, check_effect


class ElevationBox(gr.Number, metaclass=WithoutStub):  # type: ignore[misc]
    """A number box that tells programs, and MCP clients, which are held to it, of the word "auto" and of nothing at all."""

    is_template = True  # for the browser, it is a number box

    def api_info(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "number"}, {"enum": ["auto"]}, {"type": "null"}]}


def with_elevation(settings: Settings, reference: Reference, asked: Any) -> Settings:
    """The settings with the elevation that was asked for, or with the one that is found if that was, or none."""
    found = asked is None or asked == "auto"
    return replace(settings, elevation=elevation_found(settings, reference) if found else elevation_of(asked))


def framed(image: str | None, ratio: Any, removal: Any, prior: Any = EMBEDDED) -> Reference:
    """The object of a picture; without a ratio, the one that the prior was taught."""
    return reference_of(image, foreground_ratio(prior) if ratio is None else ratio, removal)


@dataclass(frozen=True)
class PictureEndpoints:
    """The functions behind the endpoints, for one server."""

    server: Server

    @taking(PICTURE_KNOBS, **dict.fromkeys(PICTURE_KNOBS))
    def image_to_3d(
        self,
        image: str,
        preset: str = "standard",
        prior: str = EMBEDDED,
        seed: int = 0,
        elevation: float | Literal["auto"] | None = ELEVATION,
        foreground_ratio: float | None = None,
        remove_background: str = "auto",
        prompt: str | None = None,
        text_prior: str = AUTOMATIC,
        text_weight: float | None = None,
        *choices: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Turn a picture of one object into a textured 3D model and stream how it takes shape.

        The run id comes first, then a preview about twice a second, at the end the files; /generate_3d_from_image gives one
        answer, /preprocess shows beforehand what the model will see. Options left out keep the preset's value.

        Parameters:
            image: The picture, a file or an address: PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF, up to 10 MB and 80 megapixels.
            preset: "draft", "standard" or "high": how much time to spend.
            prior: The model that imagines the other sides: "toybox-zero123" is embedded, the others need a GPU.
            seed: Whole number from 0 to 9223372036854775807 that decides all chance.
            elevation: Degrees above the horizon from which the picture was taken, -89 to 89; "auto" or null finds it.
            foreground_ratio: Share of the frame that the object is to fill, 0.3 to 1; the prior's own when left out.
            remove_background: "auto" respects the picture's transparency, "always" ignores it, "never" keeps the background.
            prompt: Optional words, up to 400 characters, which a second prior reads that guides, too; it takes the picture for
                the front.
            text_prior: Which one; with null the prompt only names the result.
            text_weight: How much it counts beside the picture, 0 to 1000000; the preset's when left out.
        """
        with one_sentence():
            knobs = dict(zip(PICTURE_KNOBS, choices, strict=True))
            settings = picture_settings(preset, prior, seed, ELEVATION, Words(prompt, text_prior, text_weight), knobs)
            check_effect(settings.schedule, knobs)
            reference = framed(image, foreground_ratio, remove_background, prior)
            settings = with_elevation(settings, reference, elevation)
            yield from stream(self.server, runs.create_run(self.server.root, settings, reference))

    def generate_3d_from_image(
        self,
        image: str,
        request: gr.Request,
        preset: str = "draft",
        seed: int = 0,
        elevation: float | Literal["auto"] | None = ELEVATION,
        remove_background: str = "auto",
        steps: int | None = None,
        foreground_ratio: float | None = None,
        prompt: str | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[str, Any]:
        """Turn a picture of one object into a textured 3D model and wait for it.

        One answer with the run id, the addresses of the GLB, of a turntable video and of a picture, and statistics. It takes
        from seconds to minutes: choose the preset "draft" for a client that is impatient. The run goes on if the client leaves;
        the progress names its id.

        Parameters:
            image: The picture, as an address that starts with http or as a file: PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF.
            preset: "draft", "standard" or "high": how much time to spend.
            seed: Whole number from 0 to 9223372036854775807 that decides all chance.
            elevation: Degrees above the horizon from which the picture was taken, -89 to 89; "auto" or null finds it.
            remove_background: "auto" respects the picture's transparency, "always" ignores it, "never" keeps the background.
            steps: Optimisation steps, 1 to 50000; the preset's when left out.
            foreground_ratio: Share of the frame that the object is to fill, 0.3 to 1; the model's own when left out.
            prompt: Optional words, up to 400 characters, which a second model reads that guides, too; it takes the picture for
                the front.
        """
        with one_sentence():
            settings = picture_settings(preset, EMBEDDED, seed, ELEVATION, Words(prompt), {"steps": steps})
            reference = framed(image, foreground_ratio, remove_background)
            run = runs.create_run(self.server.root, with_elevation(settings, reference, elevation), reference)
            return waited_for(run, request, progress)

    def preprocess(
        self, image: str, foreground_ratio: float | None = None, remove_background: str = "auto"
    ) -> tuple[Image.Image, list[str]]:
        """Take the object out of its picture, as a run would: cut out, centred, transparent around it. Quick, needs no model.

        Parameters:
            image: The picture, a file or an address: PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF, up to 10 MB and 80 megapixels.
            foreground_ratio: Share of the frame that the object is to fill, 0.3 to 1; the embedded prior's own when left out.
            remove_background: "auto" respects the picture's transparency, "always" ignores it, "never" keeps the background.
        """
        with one_sentence():
            reference = framed(image, foreground_ratio, remove_background)
            return straight_rgba(reference), list(reference.notes)


def add_picture_endpoints(server: Server) -> None:
    """Give the app its named endpoints for pictures. Their inputs are components that the page never shows."""
    endpoints = PictureEndpoints(server)
    image, prompt = picture_box(label="Image", visible=False), SentText(label="Prompt", visible=False)
    seed, steps = number(0, "Seed"), PICTURE_KNOBS["steps"].parameter()
    standard, draft = menu(PRESET_NAMES, "standard", "Preset"), menu(PRESET_NAMES, "draft", "Preset")
    prior, text_prior = menu(PICTURE_PRIOR_NAMES, EMBEDDED, "Prior"), menu(PRIOR_NAMES, AUTOMATIC, "Text prior")
    elevation = ElevationBox(ELEVATION, label="Elevation", visible=False)
    removal = menu(REMOVALS, "auto", "Remove the background")
    ratio, weight = gr.Number(None, label="Foreground ratio", visible=False), number(None, "Text weight")
    options: list[Component] = [knob.parameter() for knob in PICTURE_KNOBS.values()]
    called = gr.Button(visible=False).click

    whole = [image, standard, prior, seed, elevation, ratio, removal, prompt, text_prior, weight, *options]
    called(endpoints.image_to_3d, whole, streamed_outputs(), api_name="image_to_3d", **RUNNING)
    short = [image, draft, seed, elevation, removal, steps, ratio, prompt]
    result = gr.JSON(label="Result", visible=False)
    called(endpoints.generate_3d_from_image, short, result, api_name="generate_3d_from_image", **RUNNING)
    cut_out = [gr.Image(label="Object", format="png", visible=False), gr.JSON(label="Notes", visible=False)]
    called(endpoints.preprocess, [image, ratio, removal], cut_out, api_name="preprocess", concurrency_limit=2)
