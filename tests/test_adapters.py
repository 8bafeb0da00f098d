"""LoRA adapters and textual inversions, against diffusers' own way of using them."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_models import seeded, tiny_if_pipeline, tiny_pipeline, tiny_xl_pipeline
from torch import nn

from dreamtime.priors import loading
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.options import Options

CPU, FLOAT = torch.device("cpu"), torch.float32
PROMPTS = ["a blue ball", "a red cube, front view"]


def trained(module: nn.Module, targets: list[str]) -> dict[str, torch.Tensor]:
    """The state of an adapter that has learnt something, as a trainer would save it."""
    module.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=targets))
    state = get_peft_model_state_dict(module)
    with seeded(5):
        return convert_state_dict_to_diffusers({name: torch.randn_like(value) / 4 for name, value in state.items()})


def save_lora(pipeline: StableDiffusionPipeline, folder: Path) -> Path:
    """A LoRA for a freshly made pipeline, with layers for its UNet and its text encoder."""
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    layers = {"unet_lora_layers": trained(pipeline.unet, attention)}
    layers["text_encoder_lora_layers"] = trained(pipeline.text_encoder, ["q_proj", "v_proj"])
    if isinstance(pipeline, StableDiffusionXLPipeline):
        layers["text_encoder_2_lora_layers"] = trained(pipeline.text_encoder_2, ["k_proj"])
    pipeline.save_lora_weights(folder, **layers)
    (file,) = folder.glob("*.safetensors")
    return file


@pytest.fixture(scope="module", params=[lambda: tiny_pipeline("epsilon"), tiny_xl_pipeline], ids=["2", "xl"])
def model(request, tmp_path_factory):
    """A model's folder, its LoRA, and the same model with that LoRA put on by diffusers."""
    folder, lora = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("lora")
    pipeline = request.param()
    pipeline.save_pretrained(folder)
    file = save_lora(request.param(), lora)
    pipeline.load_lora_weights(str(lora), weight_name=file.name)
    pipeline.fuse_lora(components=[name for name in ("unet", "text_encoder", "text_encoder_2") if name in pipeline.components])
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return folder, file, pipeline


def embedded(pipeline) -> torch.Tensor:
    """Embeddings of the prompts by diffusers, the negative one first."""
    if isinstance(pipeline, StableDiffusionXLPipeline):
        return torch.cat(pipeline.encode_prompt(PROMPTS[1], negative_prompt=PROMPTS[0])[:2][::-1])
    return torch.cat(pipeline.encode_prompt(PROMPTS[1], "cpu", 1, True, negative_prompt=PROMPTS[0])[::-1])


def test_a_lora_is_what_diffusers_makes_of_it(model) -> None:
    folder, file, pipeline = model
    prior = loading.load_prior(folder, CPU, FLOAT, Options(lora=str(file)))
    for ours, theirs in zip(prior.unet.parameters(), merged(pipeline.unet), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    ours = loading.load_text_encoder(folder, CPU, FLOAT, Options(lora=str(file)))(PROMPTS)
    theirs = embedded(pipeline)
    torch.testing.assert_close(ours[:, : theirs.shape[1]], theirs, rtol=0, atol=1e-5)
    plain = loading.load_text_encoder(folder, CPU, FLOAT)(PROMPTS)
    assert (plain - ours).abs().max() > 0.01


def merged(module: nn.Module) -> list[torch.Tensor]:
    """A fused module's weights, without those of the adapters inside."""
    return [value for name, value in module.named_parameters() if "lora_" not in name]


def test_a_merged_unet_is_as_if_there_had_never_been_an_adapter(model) -> None:
    folder, file, _ = model
    plain, changed = (loading.load_prior(folder, CPU, FLOAT, Options(lora=lora)) for lora in ("", str(file)))
    assert plain.unet.state_dict().keys() == changed.unet.state_dict().keys()
    assert not any("lora" in type(module).__module__ for module in changed.unet.modules())
    assert not any(p.requires_grad for p in changed.unet.parameters())


def test_the_scale_is_linear_in_the_weights(model) -> None:
    folder, file, _ = model
    plain, half, full = (
        loading.load_prior(folder, CPU, FLOAT, Options(lora=str(file.parent), lora_scale=scale)) for scale in (0.0, 0.5, 1.0)
    )
    for zero, middle, one in zip(*(p.unet.parameters() for p in (plain, half, full)), strict=True):
        torch.testing.assert_close(middle, (zero + one) / 2, rtol=0, atol=1e-6)
    untouched = loading.load_prior(folder, CPU, FLOAT)
    for ours, theirs in zip(plain.unet.parameters(), untouched.unet.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"unet.nothing": torch.zeros(1)}, "does not fit this model"),
        ({"x.lora_A.weight": torch.zeros(2, 2)}, "holds no LoRA for"),
    ],
)
def test_a_file_that_is_no_lora_is_named(tensors, sentence: str, model, tmp_path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelUnavailable, match=sentence):
        loading.load_prior(model[0], CPU, FLOAT, Options(lora=str(tmp_path)))


@pytest.mark.parametrize(
    ("lora", "sentence"), [("nobody/nothing", "is not on this disk"), ("/no/such", "no file, no folder and no Hub id")]
)
def test_a_lora_that_is_nowhere_is_named(lora: str, sentence: str, model) -> None:
    with pytest.raises(ModelUnavailable, match=sentence):
        loading.load_prior(model[0], CPU, FLOAT, Options(lora=lora))


# -- textual inversion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain")
    tiny_pipeline("epsilon").save_pretrained(path)
    return path


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_learnt_word_is_what_diffusers_makes_of_it(vectors: int, folder: Path, tmp_path) -> None:
    with seeded(6):
        save_file({"<cat>": torch.randn(vectors, 64)}, tmp_path / "learned_embeds.safetensors")
    pipeline = tiny_pipeline("epsilon")
    pipeline.text_encoder.eval()
    pipeline.load_textual_inversion(str(tmp_path), weight_name="learned_embeds.safetensors")
    prompt = "a red <cat>, front view"
    theirs = pipeline.encode_prompt(prompt, "cpu", 1, False)[0]
    ours = loading.load_text_encoder(folder, CPU, FLOAT, Options(embedding=str(tmp_path)))([prompt])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (loading.load_text_encoder(folder, CPU, FLOAT)([prompt]) - ours).abs().max() > 0.01


def test_a_word_in_the_other_layout_has_the_name_of_its_file(folder: Path, tmp_path) -> None:
    with seeded(6):
        save_file({"emb_params": torch.randn(2, 64)}, tmp_path / "zebracat.safetensors")
    embed = loading.load_text_encoder(folder, CPU, FLOAT, Options(embedding=str(tmp_path / "zebracat.safetensors")))
    ids = embed.encoder.tokenizer.convert_tokens_to_ids(["zebracat", "zebracat_1"])
    table = embed.encoder.model.get_input_embeddings().weight
    torch.testing.assert_close(table[ids], load_file(tmp_path / "zebracat.safetensors")["emb_params"], rtol=0, atol=0)


def test_a_word_of_another_width_is_named(folder: Path, tmp_path) -> None:
    save_file({"<cat>": torch.zeros(1, 768)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelUnavailable, match="has vectors of width 768, but this model's text encoder takes 64"):
        loading.load_text_encoder(folder, CPU, FLOAT, Options(embedding=str(tmp_path)))


def test_models_that_do_not_read_with_clip_alone_learn_no_words(tmp_path) -> None:
    tiny_if_pipeline(tmp_path)
    with pytest.raises(ModelUnavailable, match=r"is a textual inversion, which .* cannot take"):
        loading.load_text_encoder(tmp_path, CPU, FLOAT, Options(embedding="owner/word"))


def test_a_lora_of_another_version_is_named(model, folder: Path, tmp_path) -> None:
    """Layers of another width."""
    state = load_file(model[1])
    wide = {
        name: value.repeat_interleave(2, dim=1) if "lora.down" in name or "lora_A" in name else value
        for name, value in state.items()
    }
    save_file(wide, tmp_path / "x.safetensors")
    with pytest.raises(ModelUnavailable, match="does not fit this model"):
        loading.load_prior(model[0], CPU, FLOAT, Options(lora=str(tmp_path)))
