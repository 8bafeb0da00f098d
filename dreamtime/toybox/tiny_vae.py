"""How a tiny VAE learns to do as a larger one does (TAESD): what a step of distillation decodes by.

It is shown what a denoiser may mean as well as what is so: two sides of an object at once, as a guess between them is.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn

from dreamtime.toybox import models
from dreamtime.toybox.training import gradient_difference, loop, mixed_precision, seeded_initialisation, to_input

BATCH = 32
BLENDS = 8  # of a batch lie between the latents of two pictures of an object; the VAE itself says what they show
LEARNING_RATE = 2e-3
ENCODER_WEIGHT = 0.1  # against the decoder, which is what this is for


def train_tiny_vae(
    vae: AutoencoderKL,
    images: UInt8[Tensor, "N H W 3"],
    latents: Float[Tensor, "N C h w"],
    work: Path,
    steps: int,
    seed: int,
    device: torch.device,
) -> AutoencoderTiny:
    """One for the VAE's latents, which are the pictures', of unit variance, in pairs of an object.

    It is taught to make of a picture's latents the picture itself, not what the VAE makes of them; of others what the VAE does.
    """
    with seeded_initialisation(seed):
        tiny = models.build_tiny_vae().to(device).to(memory_format=torch.channels_last)
    generator = Generator().manual_seed(seed)

    def loss_of_step() -> Tensor:
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        x, z = to_input(images[rows], device), latents[rows].float().to(device)
        there = latents[rows[:BLENDS] ^ 1].float().to(device)
        blended = torch.lerp(z[:BLENDS], there, torch.rand(BLENDS, 1, 1, 1, generator=generator).to(device))
        with torch.no_grad(), mixed_precision(device):
            shown = vae.decode(blended / vae.config.scaling_factor).sample.float()
        meant = torch.cat([shown, x[BLENDS:]])
        with mixed_precision(device):
            decoded = tiny.decode(torch.cat([blended, z[BLENDS:]])).sample.float()
            encoded = tiny.encode(x).latents.float()
        decoder_loss = nn.functional.l1_loss(decoded, meant) + gradient_difference(decoded, meant)
        return decoder_loss + ENCODER_WEIGHT * nn.functional.l1_loss(encoded, z)

    optimizer = torch.optim.AdamW(tiny.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    loop("tiny-vae", steps, work, {"tiny": tiny}, optimizer, LEARNING_RATE, generator, loss_of_step, lambda: None)
    return tiny.eval().requires_grad_(False)
