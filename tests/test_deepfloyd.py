"""IF's peculiarities; `test_parity` compares it with its pipeline."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_if_pipeline, tiny_unet

from dreamtime.priors import deepfloyd
from dreamtime.priors.deepfloyd import DeepFloydPrior
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.options import Options
from dreamtime.priors.text_encoders import quantises

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("if")
    tiny_if_pipeline(path)
    return path


@pytest.fixture
def prior(folder: Path) -> DeepFloydPrior:
    return deepfloyd.load_prior(folder, CPU, FLOAT)


def test_the_tokenizer_is_a_sentencepiece_model_alone(folder: Path) -> None:
    """As IF ships it, so that what is tested here is what its users have."""
    assert {path.name for path in (folder / "tokenizer").iterdir()} == {"spiece.model", "tokenizer_config.json"}


def test_images_are_pixels(prior: DeepFloydPrior, generator) -> None:
    images = torch.rand(1, 8, 8, 3, generator=generator(0))
    torch.testing.assert_close(prior.encode(images).permute(0, 2, 3, 1), 2 * images - 1, rtol=0, atol=0)


def test_the_learnt_variance_is_split_off(prior: DeepFloydPrior, generator) -> None:
    """Whatever the last three channels say, the noise is in the first three."""
    z, condition = torch.randn(1, 3, 8, 8, generator=generator(1)), torch.randn(1, 5, 24, generator=generator(2))
    before = prior.predict_noise(z, 400, condition)
    prior.unet.conv_out.bias.data[3:] += 100
    torch.testing.assert_close(prior.predict_noise(z, 400, condition), before, rtol=0, atol=0)
    prior.unet.conv_out.bias.data[:3] += 1
    torch.testing.assert_close(prior.predict_noise(z, 400, condition), before + 1, rtol=0, atol=1e-5)


def test_betas_are_the_cosine(prior: DeepFloydPrior) -> None:
    """abar of Nichol & Dhariwal: cos^2 of the time shifted by 0.008, where its betas stay below 0.999."""
    t = torch.arange(1, 991, dtype=torch.float64) / 1000
    cosine = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2 / torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2)) ** 2
    torch.testing.assert_close(prior.alphas_cumprod[:990], cosine, rtol=1e-4, atol=1e-6)


def test_prompts_are_read_in_lower_case(folder: Path) -> None:
    shouted, said = deepfloyd.load_text_encoder(folder, CPU, FLOAT)(["  A Red CUBE ", "a red cube"])
    torch.testing.assert_close(shouted, said, rtol=0, atol=0)


def test_a_lora_of_the_unet_is_merged_and_one_of_the_text_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    """T5 takes none here, and half of what was learnt is not it."""
    layers = {name.removesuffix(".weight"): p for name, p in deepfloyd.load_prior(folder, CPU, FLOAT).unet.named_parameters()}
    layer = next(name for name in layers if name.endswith("to_q"))
    weight = layers[layer]
    down, up = torch.ones(2, weight.shape[1]), torch.ones(weight.shape[0], 2)
    adapters = {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    save_file(adapters, tmp_path / "unet.safetensors")
    merged = dict(
        deepfloyd.load_prior(folder, CPU, FLOAT, Options(lora=str(tmp_path / "unet.safetensors"))).unet.named_parameters()
    )
    torch.testing.assert_close(merged[f"{layer}.weight"], weight + up @ down, rtol=0, atol=1e-6)
    more = {"text_encoder.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight": torch.ones(2, 8)}
    save_file(adapters | more, tmp_path / "both.safetensors")
    with pytest.raises(ModelUnavailable, match="changes a text encoder, too"):
        deepfloyd.load_prior(folder, CPU, FLOAT, Options(lora=str(tmp_path / "both.safetensors")))


def test_a_later_stage_is_refused(folder: Path, tmp_path) -> None:
    tiny_if_pipeline(tmp_path)
    tiny_unet(in_channels=6).save_pretrained(tmp_path / "unet")
    with pytest.raises(ModelUnavailable, match="a later stage of IF"):
        deepfloyd.load_prior(tmp_path, CPU, FLOAT)


def test_eight_bits_are_for_gpus_and_only_when_asked_for() -> None:
    assert not quantises(CPU, Options("low"))
    assert not quantises(torch.device("cuda"), Options())
