"""The prior against diffusers' own pipeline on the same random weights, for every kind of network output."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny_models import tiny_pipeline

from dreamtime import diffusion
from dreamtime.cameras import orbit
from dreamtime.distillation import guided_noise
from dreamtime.priors import stable_diffusion
from dreamtime.priors.stable_diffusion import ModelUnavailable
from dreamtime.prompts import view_condition
from dreamtime.types import DiffusionPrior

CPU, FLOAT = torch.device("cpu"), torch.float32
PROMPT, NEGATIVE = "a red cube, front view", "a blue ball"


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample"])
def folder(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    tiny_pipeline(request.param).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def prior(folder: Path) -> stable_diffusion.StableDiffusionPrior:
    return stable_diffusion.load_prior(folder, CPU, FLOAT)


@pytest.fixture(scope="module")
def embedded(folder: Path) -> torch.Tensor:
    return stable_diffusion.load_text_encoder(folder, CPU, FLOAT)([NEGATIVE, PROMPT])


def test_is_a_prior(prior) -> None:
    assert isinstance(prior, DiffusionPrior)


def test_embeddings_are_the_pipelines(pipeline, embedded) -> None:
    positive, negative = pipeline.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt=NEGATIVE)
    torch.testing.assert_close(embedded, torch.cat([negative, positive]), rtol=0, atol=1e-6)


def test_ten_ddim_steps_reproduce_the_pipeline(pipeline, prior, embedded, generator) -> None:
    """A denoising loop written on `predict_noise` alone ends on the pipeline's latents."""
    z = torch.randn(1, 4, 8, 8, generator=generator(1))
    theirs = pipeline(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=10, guidance_scale=4.0, latents=z, output_type="latent"
    ).images
    timesteps = pipeline.scheduler.timesteps.tolist()
    assert len(timesteps) == 10
    negative, positive = embedded[:1], embedded[1:]
    for t in timesteps:
        # The pipeline guides the network's own output; v and x0 are affine in eps at a fixed z, so guidance commutes.
        noise = guided_noise(prior, z, t, negative, positive, 4.0)
        x0 = diffusion.x0_from_epsilon(z, noise, prior.alphas_cumprod, t)
        previous = max(t - 100, 0)
        z = diffusion.add_noise(x0, noise, prior.alphas_cumprod, previous)
    torch.testing.assert_close(z, theirs, rtol=0, atol=1e-5 * max(1.0, theirs.abs().max().item()))


def test_encode_is_the_scaled_posterior_mean_with_its_gradient(pipeline, prior, generator) -> None:
    images = torch.rand(2, 16, 16, 3, generator=generator(2), requires_grad=True)
    latents = prior.encode(images)
    theirs_in = images.detach().clone().requires_grad_()
    theirs = pipeline.vae.encode(2 * theirs_in.permute(0, 3, 1, 2) - 1).latent_dist.mean * 0.37
    torch.testing.assert_close(latents, theirs, rtol=0, atol=1e-6)
    cotangent = torch.randn(latents.shape, generator=generator(3))
    latents.backward(cotangent)
    theirs.backward(cotangent)
    torch.testing.assert_close(images.grad, theirs_in.grad, rtol=1e-5, atol=1e-6)


def test_encode_resizes_to_the_models_resolution(prior) -> None:
    assert prior.resolution == 16
    assert prior.encode(torch.full((1, 40, 40, 3), 0.5)).shape == (1, 4, 8, 8)


def test_nothing_reaches_the_weights(prior, embedded, generator) -> None:
    images = torch.rand(1, 16, 16, 3, generator=generator(0), requires_grad=True)
    noise = prior.predict_noise(prior.encode(images), 500, embedded[:1])
    assert not noise.requires_grad
    assert not any(p.requires_grad for module in (prior.unet, prior.vae) for p in module.parameters())


def test_condition_follows_the_camera_and_is_embedded_once() -> None:
    calls = []

    def embed(prompts: list[str]) -> torch.Tensor:
        calls.append(prompts)
        return torch.arange(len(prompts), dtype=torch.float32)[:, None, None].expand(-1, 3, 2)

    condition = view_condition(embed, "a red cube", "blurry")
    azimuth = torch.tensor([0.0, 1.5, 3.1, 0.0])
    elevation = torch.tensor([0.0, 0.0, 0.0, 1.4])
    one = torch.ones(4)
    negative, positive = condition(orbit(elevation, azimuth, one, one, 8, 8))
    negative, positive = condition(orbit(elevation, azimuth, one, one, 8, 8))
    names = ["blurry", *(f"a red cube, {view} view" for view in ("front", "side", "back", "overhead"))]
    assert calls == [names]
    assert positive[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert negative[:, 0, 0].tolist() == [0, 0, 0, 0]


def test_a_folder_that_is_no_model_is_named_in_a_sentence(tmp_path) -> None:
    with pytest.raises(ModelUnavailable, match="lacks the folders unet, vae"):
        stable_diffusion.load_prior(tmp_path, CPU, FLOAT)


def test_a_damaged_model_is_one_sentence(folder: Path, tmp_path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        stable_diffusion.load_prior(broken, CPU, FLOAT)


def test_an_unreachable_hub_id_is_one_sentence() -> None:
    with pytest.raises(ModelUnavailable, match="'nobody/nothing' could not be loaded"):
        stable_diffusion.load_prior("nobody/nothing", CPU, FLOAT)


def test_a_name_that_is_neither_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="neither a folder nor a Hub id"):
        stable_diffusion.load_prior("../../etc; rm -rf", CPU, FLOAT)
