"""What a model's folder must hold: the parts of a diffusers pipeline, each with its configuration and safetensors.

Pickles can run code when they are read. They are left alone unless DREAMTIME_ALLOW_PICKLE names the model they belong to: a
Hub id or a folder, or several with commas between them.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SHARD = r"(\.fp16)?(?:-(\d+)-of-(\d+))?(\.fp16)?"
WEIGHTS_FILE = re.compile(rf"(?:diffusion_pytorch_model|model){SHARD}\.safetensors")
PICKLED_WEIGHTS_FILE = re.compile(rf"(?:diffusion_pytorch_model|pytorch_model){SHARD}\.bin")
TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model")  # any of them makes a tokenizer
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
USUAL = {
    "unet",
    "transformer",
    "vae",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "image_encoder",
    "feature_extractor",
    "safety_checker",
}
"""What the parts of a pipeline are called, up to a number at the end."""
STRANGE = "*"
"""Among the parts to look for: every other part that the model has, whatever it is called."""

CAMERA_EMBEDDING = "camera_embedding"
TINY_VAE = "tiny_vae"
BESIDE = {CAMERA_EMBEDDING: "unet", TINY_VAE: "vae"}
"""Parts that a model may have and no index lists, since no pipeline knows of them, each with the part that it adds to."""
CONTENTS = ("model_index.json", *(f"{part}/config.json" for part in BESIDE))
"""What tells which parts a model has. It is fetched before all else: what lacks in such a copy was never there."""


class ModelUnavailable(ValueError):
    """A model that could not be loaded, with the reason in one sentence."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what!r} {reason}.")
        self.what, self.reason = what, reason


@dataclass(frozen=True)
class Checkpoint:
    """A model on this disk: a folder of parts, or one file with the weights of them all and a folder that describes them."""

    place: str  # where it was found, as one would write it
    path: Path  # the folder, or the single file
    configuration: Path  # the folder with the configurations; `path` itself unless that is a file
    index: Mapping[str, Any]  # what model_index.json says

    @property
    def pipeline(self) -> str:
        """The diffusers pipeline that the model was made for."""
        name = self.index["_class_name"]
        # A pipeline that comes with its own code is a pair: the file and the class.
        return str(name[-1] if isinstance(name, list) else name)

    @property
    def reads(self) -> Literal["text", "image"]:
        """What the model is told."""
        return read_by(parts_in(self.index))

    @property
    def strange_parts(self) -> list[str]:
        """The parts that its maker has added."""
        return selected([STRANGE], parts_in(self.index))

    def has(self, part: str) -> bool:
        """Whether the model has that part at all: a text encoder can have been left out on purpose."""
        return part in parts_in(self.index) or (part in BESIDE and (self.path / part / "config.json").is_file())


def read_by(parts: Collection[str]) -> Literal["text", "image"]:
    """What a model of these parts is told: a picture if it has an encoder of pictures and none of words."""
    return "image" if "image_encoder" in parts and "text_encoder" not in parts else "text"


def without_tiny_vae(what: str) -> ModelUnavailable:
    """What to raise about a model of latents whose images are to be compared and that has nothing to decode them by."""
    expected = f"an AutoencoderTiny for its latents, such as TAESD, as {TINY_VAE!r} in a folder of the model"
    return ModelUnavailable(what, f"has no tiny VAE to compare images by: expected {expected}, or an image residual of 0")


def check_decodes(checkpoint: Checkpoint) -> None:
    """Raise `ModelUnavailable` on a model of latents without a tiny VAE, which a step decodes by."""
    if "vae" in parts_in(checkpoint.index) and not checkpoint.has(TINY_VAE):
        raise without_tiny_vae(checkpoint.place)


def parts_in(index: Mapping[str, Any]) -> list[str]:
    """The parts of a model: what its index gives a library and a class."""
    return [name for name, kind in index.items() if not name.startswith("_") and isinstance(kind, list) and any(kind)]


def is_strange(part: str) -> bool:
    """Whether pipelines do not usually have such a part: its maker has added it, under whatever name."""
    return re.sub(r"_\d$", "", part) not in USUAL


def selected(parts: Iterable[str], names: Iterable[str]) -> list[str]:
    """The parts by name, `STRANGE` replaced by those of the names that are."""
    strange = [name for name in names if is_strange(name)]
    return [name for part in parts for name in (strange if part == STRANGE else [part])]


def pickles_allowed(place: str) -> bool:
    """Whether the user trusts the pickles of the model at that place, a folder by whichever of its paths."""
    trusted = [each for each in os.environ.get("DREAMTIME_ALLOW_PICKLE", "").split(",") if each]
    folders = [Path(each).absolute() for each in trusted]
    return place.partition("@")[0] in trusted or (Path(place).is_dir() and Path(place).absolute() in folders)


def weight_matches(names: Iterable[str], pickles: bool) -> list[re.Match[str]]:
    """The names of files with weights: safetensors if there are any, else pickles if wanted; of two precisions the half one."""
    for pattern in (WEIGHTS_FILE, PICKLED_WEIGHTS_FILE) if pickles else (WEIGHTS_FILE,):
        if matches := [match for name in names if (match := pattern.fullmatch(name))]:
            return [match for match in matches if match[1] or match[4]] or matches
    return []


def weight_files(names: Collection[str], pickles: bool = False) -> list[str]:
    """Those of a folder's files that hold its weights: safetensors in half precision if they are there, else in full."""
    return sorted(match[0] for match in weight_matches(names, pickles))


def missing_weights(names: Collection[str], place: str) -> str | None:
    """What keeps a part with these files, of the model at that place, from being read; None if all is there."""
    matches = weight_matches(names, pickles_allowed(place))
    if not matches:
        name = place.partition("@")[0]
        way_out = f" (its pickles are left alone: convert them, or trust them by DREAMTIME_ALLOW_PICKLE={name})"
        return "weights in safetensors" + (way_out if any(name.endswith(PICKLES) for name in names) else "")
    shards = [match for match in matches if match[3]]
    gone = {shard + 1 for match in shards for shard in range(int(match[3]))} - {int(match[2]) for match in shards}
    return f"shard {min(gone)} of {int(shards[0][3])}" if gone else None


def missing_from_part(names: Collection[str], part: str, weights: bool, place: str) -> str | None:
    """What the folder of one part lacks, given the names of its files; None if all is there."""
    if part == "scheduler":
        return None if "scheduler_config.json" in names else "scheduler_config.json"
    if part == "feature_extractor":
        return None if "preprocessor_config.json" in names else "preprocessor_config.json"
    if part.startswith("tokenizer"):
        return None if any(name in names for name in TOKENIZERS) else " or ".join(TOKENIZERS)
    if "config.json" not in names and (part in BESIDE or not is_strange(part)):
        return "config.json"
    return missing_weights(names, place) if weights else None


def files_in(folder: Path) -> list[str]:
    """The files of a model's parts, such as `unet/config.json`."""
    # In the Hub's cache a link whose file never arrived is no file.
    return [path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()]


def files_of(part: str, names: Iterable[str]) -> list[str]:
    """Of a model's files those of one part, by their names in its folder."""
    return [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/") and name.count("/") == 1]


def parts_present(names: Collection[str], index: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """Those of the parts that a model with these files and that index has, and what lies beside them."""
    listed = parts_in(index)
    present = [part for part in selected(parts, listed) if part in listed]
    return present + [part for part, other in BESIDE.items() if other in present and files_of(part, names)]


def missing(names: Collection[str], index: Mapping[str, Any], parts: Collection[str], weights: bool, place: str) -> str | None:
    """The first thing that a model with these files lacks, such as `unet/config.json`; None if all is there."""
    for part in parts_present(names, index, parts):
        if lack := missing_from_part(files_of(part, names), part, weights, place):
            return f"{part}/{lack}"
    return None


def read_index(folder: Path, what: str) -> Mapping[str, Any]:
    """What model_index.json says; raises `ModelUnavailable`."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return {"_class_name": index["_class_name"], **index}
    except FileNotFoundError:
        raise ModelUnavailable(what, "is no model in the layout of diffusers: it lacks model_index.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(what, f"is damaged: its model_index.json cannot be read ({type(error).__name__})") from error


def in_folder(folder: Path, what: str, parts: Collection[str], weights: bool) -> Checkpoint:
    """The model in a folder, if it is complete; raises `ModelUnavailable`."""
    index = read_index(folder, what)
    if lack := missing(files_in(folder), index, parts, weights, what):
        raise ModelUnavailable(what, f"is incomplete: it lacks {lack}")
    return Checkpoint(what, folder, folder, index)


def wanted_files(
    names: Collection[str], index: Mapping[str, Any], parts: Collection[str], weights: bool, place: str
) -> list[str]:
    """The files of a repository to fetch: the index, and of each part everything small and one precision of the weights."""
    wanted = ["model_index.json"]
    for part in parts_present(names, index, parts):
        files = files_of(part, names)
        small = [name for name in files if name.endswith((".json", ".txt", ".model"))]
        wanted += [f"{part}/{name}" for name in small + (weight_files(files, pickles_allowed(place)) if weights else [])]
    return wanted
