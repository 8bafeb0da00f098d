"""Stable Diffusion's weights under the names of its original code, as single-file checkpoints have them.

The inverse of what diffusers does when it reads such a file; a layer's number follows from its block and place.
"""

import re

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "down_blocks": "down",
    "resnets": "block",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
}


def unet_name(name: str, layers: int, attentive: set[str]) -> str:
    """The original name of a UNet's tensor; `layers` is its layers_per_block, `attentive` the up blocks with attention."""
    if match := re.match(r"(down_blocks|up_blocks)\.(\d+)\.(\w+)\.(\d+)\.(.*)", name):
        side, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        first = (block * (layers + 1) + 1) if side == "down_blocks" else block * (layers + 1)
        prefix = "input_blocks" if side == "down_blocks" else "output_blocks"
        if kind == "downsamplers":
            return f"{prefix}.{first + layers}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"{prefix}.{first + layers}.{2 if str(block) in attentive else 1}.{rest}"  # behind what its layer has
        place = 0 if kind == "resnets" else 1
        start = f"{prefix}.{first + index}.{place}."
    elif match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        kind, rest = match[1], match[3]
        start = f"middle_block.{2 * int(match[2]) if kind == 'resnets' else 1}."
    else:
        stem, _, leaf = name.rpartition(".")
        return f"{UNET_ENDS[stem]}.{leaf}"
    if kind == "resnets":
        part, _, leaf = rest.partition(".")
        rest = f"{RESNET[part]}.{leaf}"
    return start + rest


def vae_name(name: str, blocks: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{blocks - 1 - int(match[1])}", name)
    for new, old in VAE.items():
        name = name.replace(new, old)
    return name


def unet_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    weights, layers = unet.state_dict(), unet.config.layers_per_block
    attentive = {match[1] for name in weights if (match := re.match(r"up_blocks\.(\d+)\.attentions", name))}
    return {f"model.diffusion_model.{unet_name(name, layers, attentive)}": value for name, value in weights.items()}


def vae_tensors(vae: AutoencoderKL) -> dict[str, Tensor]:
    """Attention among pixels is written as convolutions."""
    blocks, tensors = len(vae.config.block_out_channels), {}
    for name, value in vae.state_dict().items():
        conv = value[:, :, None, None] if re.search(r"\.to_(q|k|v|out\.0)\.weight", name) else value
        tensors[f"first_stage_model.{vae_name(name, blocks)}"] = conv
    return tensors


def clip_tensors(encoder: CLIPTextModel) -> dict[str, Tensor]:
    weights = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    return {f"cond_stage_model.transformer.text_model.{name}": value for name, value in weights.items()}


def open_clip_tensors(encoder: CLIPTextModel) -> dict[str, Tensor]:
    """Queries, keys and values in one; and what no model of version 2 listens to: one more layer, and the way to a picture."""
    tensors: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        for new, old in OPEN_CLIP.items():
            name = name.replace(new, old)
        tensors[name.removeprefix("text_model.")] = value
    for name in [name for name in tensors if ".q_proj." in name]:
        parts = [tensors.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        tensors[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    layers = encoder.config.num_hidden_layers
    last = f"transformer.resblocks.{layers - 1}."
    more = {f"transformer.resblocks.{layers}.{name.removeprefix(last)}": name for name in tensors if name.startswith(last)}
    tensors |= {name: tensors[other].clone() for name, other in more.items()}
    tensors |= {"text_projection": torch.eye(encoder.config.hidden_size), "logit_scale": torch.tensor(4.6)}
    return {f"cond_stage_model.model.{name}": value for name, value in tensors.items()}


def original_layout(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    """All the weights of a pipeline of version 1 or 2, as one state dict."""
    # OpenAI's CLIP, version 1's, has a quick GELU; OpenCLIP's is exact.
    encoder_tensors = open_clip_tensors if pipeline.text_encoder.config.hidden_act == "gelu" else clip_tensors
    tensors = unet_tensors(pipeline.unet) | vae_tensors(pipeline.vae) | encoder_tensors(pipeline.text_encoder)
    return {name: value.contiguous() for name, value in tensors.items()}
