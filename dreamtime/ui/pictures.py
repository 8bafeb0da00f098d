"""From what people send and choose to the settings of a run from a picture; programs and the page come in here alike.

A picture is a file that Gradio has taken into its own upload folder, whether it was uploaded or fetched from an address:
nothing else on this disk is ever opened.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

import gradio as gr
from gradio.data_classes import ImageData
from gradio.processing_utils import save_bytes_to_cache
from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder
from gradio_client.utils import is_http_url_like

from dreamtime import image_to_3d, objectives, preprocess
from dreamtime.image_to_3d import EMBEDDED, image_preset
from dreamtime.preprocess import BadPicture, Reference, RemoveBackground
from dreamtime.presets import RANGES, REGULARIZERS, Settings, one_of, within
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.fetching import check_bytes, fetched, name_in
from dreamtime.ui.widgets import (
    AUTOMATIC,
    GUIDING,
    LOADING,
    OFFERED,
    PRESET_NAMES,
    PRIOR_NAMES,
    RENDERING,
    SCHEDULING,
    Knob,
    WithoutStub,
    checked_choices,
    nearest_start,
    real,
    resolved,
    short_text,
    spelled,
    whole,
)

PICTURE_PRIOR_NAMES = tuple(image_to_3d.PRIORS)
REMOVALS: tuple[str, ...] = get_args(RemoveBackground)
SMALLEST, LARGEST = 0.3, 1.0  # share of the picture's side that the object fills

PICTURE_GUIDING: dict[str, Knob] = {
    "objective": replace(GUIDING["objective"], names=objectives.WITHOUT_TEXTS),
    "guidance_scale": replace(GUIDING["guidance_scale"], info="Pull of the picture on what is novel; 1 is none"),
    "weighting": GUIDING["weighting"],
}

FIDELITY: dict[str, Knob] = {
    "rgb": Knob("Colours", "How much the picture's colours count", real, *RANGES["rgb"]),
    "mask": Knob("Outline", "How much its outline counts", real, *RANGES["mask"]),
    "representation": RENDERING["representation"],
    "views": replace(RENDERING["views"], info="Novel views per step"),
    "resolution": Knob(
        "Resolution", "Pixels along each side of an image, at the end of the run", whole, *OFFERED["resolution"]
    ),
    "doublings": Knob("Doublings", "How often the resolution doubles on the way there", whole, *RANGES["doublings"]),
}

REGULARIZING: dict[str, Knob] = {
    name: Knob(name.replace("_", " ").capitalize().replace("3d", "in 3D"), f"Weight of {told}", real, *RANGES[name])
    for name, told in REGULARIZERS.items()
}

PICTURE_KNOBS: dict[str, Knob] = SCHEDULING | PICTURE_GUIDING | FIDELITY | REGULARIZING | LOADING


@dataclass(frozen=True)
class Words:
    """What is said beside the picture, and who reads it: nobody where there is no prompt, or no prior for it."""

    prompt: Any = ""
    prior: Any = AUTOMATIC  # nothing: the prompt only names the result, and `beforehand.advice` says so
    weight: Any = None  # that of the preset

    def checked(self) -> dict[str, Any]:
        """As settings; raises ValueError."""
        prior = resolved(one_of("text prior", str(self.prior), PRIOR_NAMES)) if self.prior else ""
        prompt = short_text("prompt", "" if self.prompt is None else self.prompt)
        told: dict[str, Any] = {"prompt": prompt, "text_prior": prior}
        if self.weight is not None:
            told["text_weight"] = weight = real("text weight", self.weight)
            within("text weight", weight, *RANGES["text_weight"])
        return told if prompt else {}


class PictureBox(gr.Image, metaclass=WithoutStub):  # type: ignore[misc]
    """An image box that takes what was sent as a file and leaves it to us to read.

    Gradio's own would read an address to its end, however far that is, and open the file: what is no picture would end there,
    in words of a library. A class, because Gradio makes a session's components anew from theirs.
    """

    is_template = True  # for the browser, it is an image box

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        if not is_http_url_like(url_or_file_path):
            return await super().async_move_resource_to_block_cache(url_or_file_path)
        url = str(url_or_file_path)
        if here := uploaded_here(url):
            return await super().async_move_resource_to_block_cache(here)
        with one_sentence():
            path = save_bytes_to_cache(await fetched(url), name_in(url), self.GRADIO_CACHE)
        self.temp_files.add(path)
        return path

    def preprocess(self, payload: ImageData | None) -> str | None:
        with one_sentence():
            return uploaded(payload)


def picture_box(**options: Any) -> PictureBox:
    """A box whose file arrives as it was sent, with its orientation, depth and frames; a camera's is no mirror image."""
    return PictureBox(type="filepath", image_mode=None, webcam_options=gr.WebcamOptions(mirror=False), **options)


def uploaded_here(url: str) -> str | None:
    """The file behind the address that this server gave to one that was uploaded, as MCP clients send it; else None."""
    with suppress(ValueError):  # what is no address is refused where it is fetched
        path = Path(unquote(urlsplit(url).path.partition(f"{API_PREFIX}/file=")[2]))
        if path.is_relative_to(get_upload_folder()) and in_upload_folder(path) and path.is_file():
            return str(path)
    return None


def in_upload_folder(path: Path) -> bool:
    """Whether a path leads nowhere but to what was uploaded."""
    return path.resolve().is_relative_to(Path(get_upload_folder()).resolve())


def uploaded(payload: ImageData | None) -> str | None:
    """Where an uploaded file lies; raises BadPicture for any other place, and for too large a file."""
    if payload is None:
        return None
    if not payload.path or not in_upload_folder(Path(payload.path)):
        raise BadPicture("A picture is to be uploaded, or given as an address that starts with http.")
    check_bytes(Path(payload.path).stat().st_size if Path(payload.path).is_file() else 0)
    return payload.path


def reference_of(picture: str | None, foreground_ratio: Any, remove_background: Any) -> Reference:
    """The object of an uploaded picture, as a prior is shown it; raises ValueError with one clear sentence."""
    if picture is None:
        raise BadPicture("A picture is needed first: upload, paste or take one.")
    ratio, removal = real("foreground ratio", foreground_ratio), str(remove_background)
    within("foreground ratio", ratio, SMALLEST, LARGEST)
    one_of("choice of background removal", removal, REMOVALS)
    return preprocess.process(picture, image_to_3d.REFERENCE_SIDE, ratio, removal)  # type: ignore[arg-type]


def elevation_of(value: Any) -> float:
    """Degrees above the horizon; raises ValueError."""
    degrees = real("elevation", value)
    within("elevation", degrees, *RANGES["elevation"])
    return degrees


def picture_settings(preset: Any, prior: Any, seed: Any, elevation: Any, words: Words, choices: Mapping[str, Any]) -> Settings:
    """What was chosen, as settings; raises ValueError with one clear sentence. A prior is a name of the menu, never a path."""
    one_of("preset", str(preset), PRESET_NAMES)
    one_of("prior", str(prior), PICTURE_PRIOR_NAMES)
    changes = {**words.checked(), **checked_choices(choices, PICTURE_KNOBS)}
    return image_preset(preset, prior=prior, seed=whole("seed", seed), elevation=elevation_of(elevation), **changes)


def picture_start_of(settings: Settings) -> str:
    """The preset that a run from a picture was most likely started from."""
    starts = {name: partial(image_preset, name, prior=settings.prior) for name in PRESET_NAMES}
    return nearest_start(settings, starts, PICTURE_KNOBS)


def ratio_of(reference: Reference) -> float:
    """The foreground ratio that makes an object as large as this one."""
    inside = reference.mask[..., 0] >= reference.mask.max() / 2
    ends = [inside.any(dim=axis).nonzero().flatten()[[0, -1]].tolist() for axis in (0, 1)]
    side = max(1 + last - first for first, last in ends)
    return min(max(round(side / len(inside), 2), SMALLEST), LARGEST)


def picture_values(preset: str, prior: str = EMBEDDED) -> dict[str, Any]:
    """What the widgets show for a preset, by name."""
    values = vars(image_preset(preset, prior=prior))
    return {name: spelled(values[name]) for name in PICTURE_KNOBS}
