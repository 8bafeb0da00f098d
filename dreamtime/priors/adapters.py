"""What people add to a model: LoRA adapters, merged into its weights, and words learnt by textual inversion."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import fuse_text_encoder_lora
from diffusers.utils import recurse_remove_peft_layers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import find_file
from dreamtime.priors.options import Options
from dreamtime.priors.text_encoders import TextEncoder

log = logging.getLogger(__name__)


@contextmanager
def fitting(source: str) -> Iterator[None]:
    """Turn what the libraries raise over an adapter of another model into `ModelUnavailable`."""
    try:
        yield
    except ModelUnavailable:
        raise
    except (AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        log.info("%s does not fit", source, exc_info=True)
        raise ModelUnavailable(
            source, f"does not fit this model ({type(error).__name__}): adapters belong to the version they were trained on"
        ) from error


def merge(module: nn.Module, scale: float) -> None:
    """Add the adapters inside a module to its weights, and leave the module as if there had never been any."""
    fuse_text_encoder_lora(module, scale)  # works on whatever holds peft's layers
    recurse_remove_peft_layers(module)
    del module.peft_config


def read_lora(options: Options, config: Any = None) -> tuple[dict[str, Tensor], dict[str, float] | None]:
    """The adapters of a LoRA by layer, and their alphas, whichever trainer wrote them; raises `ModelUnavailable`."""
    file = find_file(options.lora, "a LoRA")
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
        str(file.parent), weight_name=file.name, unet_config=config, use_safetensors=True, local_files_only=True
    )
    if not any(name.startswith(("unet.", "text_encoder.", "text_encoder_2.")) for name in state):
        raise ModelUnavailable(options.lora, "holds no LoRA for a UNet or a text encoder")
    return state, alphas


def check_unet_alone(options: Options) -> None:
    """Raise `ModelUnavailable` for a LoRA of more than a UNet, where nothing else takes one."""
    with fitting(options.lora):
        state, _ = read_lora(options)
        if any(not name.startswith("unet.") for name in state):
            raise ModelUnavailable(options.lora, "changes a text encoder, too, and of this model only the UNet takes a LoRA")


def merge_into_unet(unet: Any, options: Options) -> None:
    """Merge what a LoRA says about the UNet; raises `ModelUnavailable`."""
    with fitting(options.lora):
        state, alphas = read_lora(options, unet.config)
        if any(name.startswith("unet.") for name in state):
            unet.load_lora_adapter(state, prefix="unet", network_alphas=alphas)
            merge(unet, options.lora_scale)


def merge_into_text_encoder(model: Any, options: Options, part: str = "text_encoder") -> None:
    """Merge what a LoRA says about a text encoder; most say nothing. Raises `ModelUnavailable`."""
    with fitting(options.lora):
        state, alphas = read_lora(options)
        if any(name.startswith(f"{part}.") for name in state):
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(state, alphas, model, prefix=part)
            merge(model, options.lora_scale)


def learnt_word(file: Path) -> tuple[str, Tensor]:
    """The word of a textual inversion and its vectors [V, D], from diffusers' layout or AUTOMATIC1111's."""
    with safe_open(str(file), framework="pt") as tensors:
        name = next(iter(tensors.keys()))
        vectors = tensors.get_tensor(name)
    return file.stem if name == "emb_params" else name, vectors.reshape(-1, vectors.shape[-1])


def teach_word(encoder: TextEncoder, source: str) -> TextEncoder:
    """The encoder with one more word, which stands for as many tokens as the word has vectors; raises `ModelUnavailable`."""
    with fitting(source):
        word, vectors = learnt_word(find_file(source, "a textual inversion"))
    tokens = [word, *(f"{word}_{index}" for index in range(1, len(vectors)))]
    table = encoder.model.get_input_embeddings().weight
    if vectors.shape[-1] != table.shape[-1]:
        raise ModelUnavailable(
            source, f"has vectors of width {vectors.shape[-1]}, but this model's text encoder takes {table.shape[-1]}"
        )
    if encoder.tokenizer.add_tokens(tokens) != len(tokens):
        raise ModelUnavailable(source, f"teaches the word {word!r}, which the tokenizer knows already")
    encoder.model.resize_token_embeddings(len(encoder.tokenizer), mean_resizing=False)
    ids = encoder.tokenizer.convert_tokens_to_ids(tokens)
    encoder.model.get_input_embeddings().weight.data[ids] = vectors.to(table.dtype)
    return TextEncoder(encoder.tokenizer, encoder.model, {word: " ".join(tokens)})
