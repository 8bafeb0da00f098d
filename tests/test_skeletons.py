"""The published architectures, counted without their weights."""

import pytest
import torch
from diffusers import AutoencoderTiny
from tiny_models import tiny_flow_pipeline, tiny_xl_pipeline

from dreamtime.priors import skeletons
from dreamtime.priors.architectures import PUBLISHED
from dreamtime.priors.folders import TINY_VAE, ModelUnavailable
from dreamtime.types import DiffusionPrior

# As their makers or users have published them; IF and Stable Diffusion 3 are known as models of 4.3 and 2 billion.
COUNTS = {
    ("stable-diffusion-1.5", "unet"): 859_520_964,
    ("stable-diffusion-1.5", "vae"): 83_653_863,
    ("stable-diffusion-1.5", "text_encoder"): 123_060_480,
    ("stable-diffusion-2.1-base", "unet"): 865_910_724,
    ("stable-diffusion-2.1-base", "text_encoder"): 340_387_840,
    ("stable-diffusion-2.1", "unet"): 865_910_724,
    ("stable-diffusion-xl", "unet"): 2_567_463_684,
    ("stable-diffusion-xl", "text_encoder_2"): 694_659_840,
    ("stable-diffusion-3-medium", "transformer"): pytest.approx(2.03e9, rel=0.03),
    ("stable-diffusion-3-medium", "text_encoder_3"): 4_762_310_656,
    ("deepfloyd-if-xl", "unet"): pytest.approx(4.3e9, rel=0.005),
    ("zero123-xl", "unet"): 859_532_484,
    ("zero123-xl", "image_encoder"): 303_966_208,
}


@pytest.mark.parametrize(("model", "part"), COUNTS, ids=lambda value: value)
def test_parameter_counts_are_the_published_ones(model: str, part: str) -> None:
    skeleton = skeletons.part_of(PUBLISHED[model], part, torch.float16)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == COUNTS[model, part]


@pytest.mark.parametrize(
    "model",
    [
        "stable-diffusion-1.5",
        "stable-diffusion-2.1",
        "stable-diffusion-xl",
        "stable-diffusion-3-medium",
        "deepfloyd-if-xl",
        "zero123-xl",
    ],
)
def test_a_skeleton_answers_in_the_shapes_of_the_model(model: str) -> None:
    """Latents of an eighth of the side, or pixels; the answer has the shape of the question."""
    configuration = PUBLISHED[model]
    prior = skeletons.prior_of(configuration, torch.float16)
    assert isinstance(prior, DiffusionPrior)
    x = prior.encode(torch.empty(1, 64, 64, 3, device="meta"))
    sides = {
        "deepfloyd-if-xl": 64,
        "zero123-xl": 256,
        "stable-diffusion-2.1": 768,
        "stable-diffusion-xl": 1024,
        "stable-diffusion-3-medium": 1024,
    }
    channels, factor = {"deepfloyd-if-xl": (3, 1), "stable-diffusion-3-medium": (16, 8)}.get(model, (4, 8))
    side = sides.get(model, 512)
    assert x.shape == (1, channels, side // factor, side // factor)
    condition = torch.empty(1, *skeletons.condition_shape(configuration), device="meta")
    assert prior.predict_noise(x, 500, condition).shape == x.shape


@pytest.mark.parametrize("make", [tiny_xl_pipeline, tiny_flow_pipeline])
def test_a_models_own_files_say_what_it_is(make, tmp_path) -> None:
    """Every part of a folder has as many parameters as the pipeline that was saved there."""
    pipeline = make()
    pipeline.save_pretrained(tmp_path)
    configuration = skeletons.configuration_of(str(tmp_path))
    for part in set(configuration) - {"_class_name"}:
        shapes = [p.shape for p in skeletons.part_of(configuration, part, torch.float32).parameters()]
        assert shapes == [p.shape for p in pipeline.components[part].parameters()]


def test_a_pictures_condition_is_one_token_and_its_latent() -> None:
    assert skeletons.condition_shape(PUBLISHED["zero123-xl"]) == (1, 768 + 4 * 32 * 32)


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="FluxPipeline"):
        skeletons.prior_of({"_class_name": "FluxPipeline"}, torch.float32)


def test_a_tiny_vae_beside_a_published_model_counts_where_it_decodes(tmp_path, monkeypatch) -> None:
    name = "stable-diffusion-1.5"
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="has no tiny VAE to compare images by"):
        skeletons.prior_of(skeletons.configuration_of(name), torch.float16, decodes=True)
    tiny = AutoencoderTiny()
    tiny.save_pretrained(tmp_path / name / TINY_VAE)
    plain, decoding = (skeletons.prior_of(skeletons.configuration_of(name), torch.float16, each) for each in (False, True))
    assert plain.vae.decoder is None
    shapes = [parameter.shape for parameter in decoding.vae.decoder.decoder.parameters()]
    assert shapes == [parameter.shape for parameter in tiny.decoder.parameters()]
