"""A tiny VAE learns to do as another one does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor

from dreamtime.toybox import models, tiny_vae
from dreamtime.toybox.training import latents_of, seeded_initialisation, to_input

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shades() -> tuple[AutoencoderKL, Tensor, Tensor]:
    """An untrained VAE, pictures of one colour each, side by side in pairs, and their latents of unit variance."""
    with seeded_initialisation(0):
        vae = models.build_vae().eval().requires_grad_(False)
    colors = torch.randint(256, (16, 1, 1, 3), generator=Generator().manual_seed(0), dtype=torch.uint8)
    images = colors.expand(-1, 64, 64, -1).contiguous()
    unscaled = latents_of(vae, images, CPU).float()
    vae.register_to_config(scaling_factor=1 / unscaled.std().item())
    return vae, images, (unscaled * vae.config.scaling_factor).half()


def test_it_comes_to_encode_as_the_vae_does_and_to_decode_the_pictures(shades: tuple[AutoencoderKL, Tensor, Tensor], tmp_path: Path):
    vae, images, latents = shades

    def errors(steps: int) -> tuple[float, float]:
        folder = tmp_path / str(steps)
        folder.mkdir()
        tiny = tiny_vae.train_tiny_vae(vae, images, latents, folder, steps, 0, CPU)
        decoded, encoded = tiny.decode(latents.float()).sample, tiny.encode(to_input(images, CPU)).latents
        return (decoded - to_input(images, CPU)).abs().mean().item(), (encoded - latents).abs().mean().item()

    before, after = errors(0), errors(60)
    assert after[0] < before[0] / 2
    assert after[1] < before[1] / 2


def test_between_two_pictures_it_is_shown_what_the_vae_says(
    shades: tuple[AutoencoderKL, Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: Callable[[int], Generator]
):
    vae, images, latents = shades
    asked: list[Tensor] = []
    decode = vae.decode

    def spy(z: Tensor) -> object:
        asked.append(z * vae.config.scaling_factor)
        return decode(z)

    monkeypatch.setattr(vae, "decode", spy)
    tiny_vae.train_tiny_vae(vae, images, latents, tmp_path, 1, 0, CPU)
    (blended,) = asked
    assert len(blended) == tiny_vae.BLENDS
    x, pairs = latents.float(), latents.float().unflatten(0, (8, 2))
    for z in blended:
        towards = (z - pairs[:, 0]).flatten(1), (pairs[:, 1] - pairs[:, 0]).flatten(1)
        share = (towards[0] * towards[1]).sum(1) / towards[1].square().sum(1)
        left_over = (towards[0] - share[:, None] * towards[1]).norm(dim=1) / x[0].norm()
        best = left_over.argmin()
        assert left_over[best] < 1e-3
        assert 0 <= share[best] <= 1
