"""From files to frozen modules on their device, in the precision and with the economy that was asked for."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.models.model_loading_utils import load_state_dict
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from dreamtime.priors.folders import Checkpoint, ModelUnavailable, weight_files
from dreamtime.priors.options import Options
from dreamtime.priors.room import out_of_memory

log = logging.getLogger(__name__)

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    KeyError,
    AttributeError,
    TypeError,
    ImportError,
    SafetensorError,
)
"""What the libraries raise over files that are damaged or not what they should be."""


@contextmanager
def one_sentence(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what loading libraries raise into `ModelUnavailable`; the details go to the log."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except ModelUnavailable:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelUnavailable(checkpoint.place, "does not fit into this GPU's memory: set memory to low or lowest") from error
    except (*UNREADABLE, MemoryError) as error:
        if out_of_memory(error):
            raise ModelUnavailable(checkpoint.place, "does not fit into this machine's memory") from error
        log.info("loading %s failed", checkpoint.place, exc_info=True)
        again = "" if Path(checkpoint.place).exists() else "; delete them to have them fetched again"
        raise ModelUnavailable(
            checkpoint.place,
            f"could not be loaded ({type(error).__name__}): its files are damaged or belong to another kind of model{again}",
        ) from error


def weight_names(folder: Path, part: str) -> list[str]:
    """The files with a part's weights. Pickles are among them only where there is nothing else: `find` has let them pass."""
    return weight_files([path.name for path in (folder / part).iterdir()], pickles=True)


def manner_of(folder: Path, part: str) -> dict[str, Any]:
    """Those files as the libraries want them named. They unpickle tensors alone, never code."""
    files = weight_names(folder, part)
    return {
        "variant": "fp16" if any(".fp16" in name for name in files) else None,
        "use_safetensors": all(name.endswith(".safetensors") for name in files),
    }


def read_tensors(folder: Path, part: str) -> dict[str, Tensor]:
    """The tensors of a part that no library defines, by name, on the CPU in single precision."""
    files = [load_state_dict(folder / part / name) for name in weight_names(folder, part)]
    return {name: tensor.float() for tensors in files for name, tensor in tensors.items()}


def read_diffusers(kind: type[ModelMixin], folder: Path, part: str, dtype: torch.dtype) -> Any:
    """A part that diffusers defines, on the CPU."""
    return kind.from_pretrained(folder, subfolder=part, torch_dtype=dtype, local_files_only=True, **manner_of(folder, part))


def read_transformers(kind: type[PreTrainedModel], folder: Path, part: str, dtype: torch.dtype, **options: Any) -> Any:
    """A part that transformers defines, on the CPU."""
    manner = manner_of(folder, part)
    if not manner["use_safetensors"]:
        # diffusers' reader of pickles tells of a bad one by an error that has a name here; transformers' own does not.
        config = kind.config_class.from_pretrained(folder, subfolder=part, local_files_only=True)
        return kind.from_pretrained(None, config=config, state_dict=read_tensors(folder, part), dtype=dtype, **options)
    return kind.from_pretrained(folder, subfolder=part, dtype=dtype, local_files_only=True, **manner, **options)


def place_denoiser(denoiser: Any, device: torch.device, options: Options) -> Any:
    """The denoiser, frozen, where it will compute."""
    denoiser.eval().requires_grad_(False)
    if options.attention == "sliced":
        denoiser.set_attention_slice("max")
    if options.memory != "lowest":
        return denoiser.to(device)
    # A stream fetches the next leaf's weights while this one computes.
    denoiser.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")
    return denoiser
