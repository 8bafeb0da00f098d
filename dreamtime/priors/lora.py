"""VSD's second predictor: LoRA adapters and a camera embedding on the prior's own UNet, whose weights both share."""

import copy
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from peft import LoraConfig, inject_adapter_in_model
from torch import Generator, Tensor, nn

from dreamtime.diffusion import add_noise, epsilon_from_prediction
from dreamtime.priors.camera_embedding import NUMBERS, CameraEmbedding
from dreamtime.priors.deepfloyd import DeepFloydPrior
from dreamtime.priors.stable_diffusion import StableDiffusionPrior
from dreamtime.types import Cameras, Condition, DiffusionPrior

AnyModule = TypeVar("AnyModule", bound=nn.Module)

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
"""The layers of diffusers' attention blocks that are adapted; the last two are IF's, for its text."""


def same_weights(module: AnyModule) -> AnyModule:
    """A second module of the same structure on the very same parameters and buffers: no memory, and free to be rebuilt."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def uniform_weights(weight: Tensor, generator: Generator) -> None:
    """Draw a layer's weight from U(-1/sqrt(inputs), 1/sqrt(inputs)), torch's own range, on the CPU."""
    bound = 1 / math.sqrt(weight[0].numel())
    with torch.no_grad():
        weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * bound)


def camera_embedding(width: int, generator: Generator) -> nn.Sequential:
    """The 16 numbers of a pose to what is added to the time embedding, zero until it has learnt something."""
    first, last = nn.Linear(16, width), nn.Linear(width, width)
    uniform_weights(first.weight, generator)
    for parameter in (first.bias, last.weight, last.bias):
        nn.init.zeros_(parameter)
    return nn.Sequential(first, nn.SiLU(), last)


class BothEmbeddings(nn.Module):
    """The prior's own embedding of a camera, of the first numbers, and the second predictor's, of the others."""

    def __init__(self, prior: CameraEmbedding, second: nn.Module) -> None:
        super().__init__()
        self.prior, self.second = prior, second

    def forward(self, poses: Float[Tensor, "B P"]) -> Float[Tensor, "B W"]:
        known: Float[Tensor, "B W"] = self.prior(poses[:, :NUMBERS].to(self.prior.dtype))
        added: Float[Tensor, "B W"] = self.second(poses[:, NUMBERS:])
        return known + added


@dataclass(frozen=True)
class LoraPredictor:
    """A `SecondPredictor` that starts as the prior under the prompt and learns in its adapters (ProlificDreamer)."""

    prior: StableDiffusionPrior | DeepFloydPrior
    unet: nn.Module  # the prior's weights, adapted
    weights: nn.ParameterDict  # all that learns: what the optimiser steps and a checkpoint holds
    condition: Condition

    def denoise(self, z_t: Float[Tensor, "B C h w"], t: int, cameras: Cameras) -> Float[Tensor, "B C h w"]:
        """The noise in z_t, with gradients."""
        dtype, condition = self.prior.unet.dtype, self.condition(cameras)[1]
        poses = cameras.camera_to_world.flatten(1).to(z_t)  # [B, 16]
        if isinstance(self.prior, StableDiffusionPrior):
            condition, told = self.prior.understood(condition)
            poses = poses if told is None else torch.cat([told.to(z_t), poses], dim=1)
        output = self.unet(z_t.to(dtype), t, encoder_hidden_states=condition.to(dtype), class_labels=poses).sample.float()
        # DeepFloyd's other three channels say how to draw, and are of no use here.
        output = output[:, : z_t.shape[1]]
        return epsilon_from_prediction(self.prior.prediction_type, z_t, output, self.prior.alphas_cumprod, t)

    @torch.no_grad()
    def predict_noise(self, z_t: Float[Tensor, "B C h w"], t: int, cameras: Cameras) -> Float[Tensor, "B C h w"]:
        """The noise in z_t, a noised rendering from these cameras."""
        return self.denoise(z_t, t, cameras)

    def group(self, learning_rate: float = 1e-4) -> dict[str, Any]:
        """What the optimiser steps, at the paper's rate and with Adam's usual constants."""
        return {"params": list(self.weights.parameters()), "lr": learning_rate, "betas": (0.9, 0.999), "eps": 1e-8}

    def loss(self, x: Float[Tensor, "B C h w"], cameras: Cameras, generator: Generator) -> Float[Tensor, ""]:
        """1/2 ||eps_phi(z_t; t, camera) - eps||^2 / B at one t of the whole range."""
        t = int(torch.randint(len(self.prior.alphas_cumprod), (), generator=generator))
        noise = torch.randn(x.shape, generator=generator).to(x)
        z_t = add_noise(x, noise, self.prior.alphas_cumprod, t)
        # Summed, not averaged: a mean's small gradients vanish in half precision, and Adam takes either for the same.
        return 0.5 * (self.denoise(z_t, t, cameras) - noise).square().sum() / len(x)


def lora_predictor(prior: DiffusionPrior, condition: Condition, generator: Generator, rank: int = 4) -> LoraPredictor:
    """Untrained adapters on the attention layers of the prior's UNet; the prior itself stays as it was."""
    if not isinstance(prior, StableDiffusionPrior | DeepFloydPrior):
        raise ValueError(
            f"The objective 'vsd' adapts the UNet of Stable Diffusion 1 or 2 or of DeepFloyd IF, got a {type(prior).__name__}."
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ATTENTION))
    unet = same_weights(prior.unet)
    inject_adapter_in_model(config, unet)
    for name, parameter in unet.named_parameters():
        if "lora_A" in name:
            uniform_weights(parameter, generator)
    known = unet.class_embedding
    second = camera_embedding(unet.time_embedding.linear_2.out_features, generator).to(prior.unet.device)
    unet.class_embedding = BothEmbeddings(known, second) if isinstance(known, CameraEmbedding) else second
    learning = {name.replace(".", "/"): p for name, p in unet.named_parameters() if p.requires_grad}
    # What learns stays in single precision, whatever the prior is kept in.
    return LoraPredictor(prior, unet, nn.ParameterDict(learning).float(), condition)
