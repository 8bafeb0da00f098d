"""A tiny VAE learns to do as another one does."""

from pathlib import Path
from types import SimpleNamespace

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


def test_it_comes_to_encode_as_the_vae_does_and_to_decode_the_pictures(
    shades: tuple[AutoencoderKL, Tensor, Tensor], tmp_path: Path
):
    vae, images, latents = shades

    def errors(steps: int) -> tuple[float, float]:
        folder = tmp_path / str(steps)
        folder.mkdir()
        tiny = tiny_vae.train_tiny_vae(vae, images, latents, folder, steps, 0, CPU)
        decoded, encoded = tiny.decode(latents.float()).sample, tiny.encode(to_input(images, CPU)).latents
        return (decoded - to_input(images, CPU)).abs().mean().item(), (encoded - latents).abs().mean().item()

    before, after = errors(0), errors(60)
    assert after[0] < before[0] / 2
    assert after[1] < 0.7 * before[1]


def test_between_two_pictures_it_is_shown_what_the_vae_says(
    shades: tuple[AutoencoderKL, Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Here all of a batch lies between two pictures, and the VAE says of everything that it is white."""
    vae, images, latents = shades
    asked: list[Tensor] = []

    def white(z: Tensor) -> SimpleNamespace:
        asked.append(z * vae.config.scaling_factor)
        return SimpleNamespace(sample=torch.ones(len(z), 3, 64, 64))

    monkeypatch.setattr(vae, "decode", white)
    monkeypatch.setattr(tiny_vae, "BATCH", tiny_vae.BLENDS)
    learnt = tiny_vae.train_tiny_vae(vae, images, latents, tmp_path, 60, 0, CPU)
    assert (learnt.decode(latents.float()).sample - 1).abs().mean() < 0.5
    pairs, shares = latents.float().unflatten(0, (8, 2)), []
    for z in torch.cat(asked):
        along, whole = (z - pairs[:, 0]).flatten(1), (pairs[:, 1] - pairs[:, 0]).flatten(1)
        share = (along * whole).sum(1) / whole.square().sum(1)
        best = (along - share[:, None] * whole).norm(dim=1).argmin()
        assert torch.allclose(along[best], share[best] * whole[best], atol=1e-2)
        shares.append(share[best].item())
    assert min(shares) < 0.1
    assert max(shares) > 0.9
    assert sum(0.2 < share < 0.8 for share in shares) > len(shares) / 3
