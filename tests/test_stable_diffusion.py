"""What versions 1 and 2 come as besides folders, and how they are run with little memory; `test_parity` has the rest."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    DDPMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from original_layout import original_layout
from safetensors.torch import load_file, save_file
from tiny_models import stirred, tiny_pipeline, tiny_version_2_pipeline
from torch import Tensor

from dreamtime.beforehand import advice
from dreamtime.presets import preset
from dreamtime.priors import hub, loading
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.options import Options
from dreamtime.priors.stable_diffusion import load_alphas_cumprod

CPU, FLOAT = torch.device("cpu"), torch.float32
ATTENTION = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"  # its width tells versions apart
PROMPTS = ["a blue ball", "a red cube, front view"]


@dataclass(frozen=True)
class Whole:
    """One model: as diffusers' pipeline, as a folder, and as a single file."""

    pipeline: StableDiffusionPipeline
    folder: Path
    file: Path


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline("v_prediction")


@pytest.fixture(scope="module")
def folder(pipeline: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def prior(folder: Path):
    return loading.load_prior(folder, CPU, FLOAT)


@pytest.fixture(scope="module")
def embedded(folder: Path) -> torch.Tensor:
    return loading.load_text_encoder(folder, CPU, FLOAT)(PROMPTS)


# -- single files


def written(pipeline: StableDiffusionPipeline, root: Path) -> Whole:
    """The pipeline both ways; beside the file, the folder of its name holds configurations alone."""
    pipeline.save_pretrained(root / "folder")
    save_file(original_layout(pipeline), root / "tuned.safetensors")
    shutil.copytree(root / "folder", root / "tuned", ignore=shutil.ignore_patterns("*.safetensors"))
    return Whole(pipeline, root / "folder", root / "tuned.safetensors")


@pytest.mark.parametrize("make", [lambda kind: stirred(tiny_pipeline(kind)), tiny_version_2_pipeline], ids=["1", "2"])
def test_a_single_file_is_the_same_model_as_its_folder(make: Callable[[str], StableDiffusionPipeline], tmp_path) -> None:
    """Weights by other names in one file."""
    whole = written(make("v_prediction"), tmp_path)
    ours, theirs = (loading.load_prior(source, CPU, FLOAT) for source in (whole.file, whole.folder))
    assert ours.prediction_type == "v_prediction"
    for part in ("unet", "vae"):
        expected = getattr(theirs, part).state_dict()
        assert getattr(ours, part).state_dict().keys() == expected.keys()
        for name, value in getattr(ours, part).state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    embedded, expected = (loading.load_text_encoder(source, CPU, FLOAT)(PROMPTS) for source in (whole.file, whole.folder))
    torch.testing.assert_close(embedded, expected, rtol=0, atol=0)
    torch.testing.assert_close(loading.load_alphas_cumprod(whole.file), theirs.alphas_cumprod, rtol=0, atol=0)


def last_but_one(tensors: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """What version 2's own code listens to: OpenCLIP's layers under a causal mask but for the last, then its last norm."""
    start = "cond_stage_model.model."
    own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])

    x = own["token_embedding.weight"][tokens] + own["positional_embedding"]
    mask = torch.full((tokens.shape[1], tokens.shape[1]), -torch.inf).triu(1)
    layers = len({name.split(".")[2] for name in own if name.startswith("transformer.resblocks.")})
    for layer in [f"transformer.resblocks.{i}" for i in range(layers - 1)]:
        attention = torch.nn.MultiheadAttention(x.shape[-1], heads, batch_first=True)
        attention.load_state_dict({name: own[f"{layer}.attn.{name}"] for name in attention.state_dict()})
        h = norm(x, f"{layer}.ln_1")
        x = x + attention(h, h, h, attn_mask=mask)[0]
        x = x + linear(F.gelu(linear(norm(x, f"{layer}.ln_2"), f"{layer}.mlp.c_fc")), f"{layer}.mlp.c_proj")
    return norm(x, "ln_final")


@torch.no_grad()
def test_a_single_file_of_version_2_is_listened_to_as_by_its_own_code(tmp_path) -> None:
    """Texts filled up with "!", and the last of OpenCLIP's 24 layers let alone."""
    whole = written(tiny_version_2_pipeline("epsilon"), tmp_path)
    tokenizer = whole.pipeline.tokenizer
    filling = tokenizer.convert_tokens_to_ids("!")
    tokens = torch.tensor([ids + [filling] * (77 - len(ids)) for ids in tokenizer(PROMPTS).input_ids])
    ours = loading.load_text_encoder(whole.file, CPU, FLOAT)(PROMPTS)
    torch.testing.assert_close(ours, last_but_one(load_file(whole.file), tokens, heads=2), rtol=1e-5, atol=1e-5)


def test_a_single_file_without_its_configurations_is_named(pipeline, tmp_path) -> None:
    """They are those of the model it descends from, which is not on this disk."""
    save_file({ATTENTION: torch.zeros(320, 768)}, tmp_path / "tuned.safetensors")
    with pytest.raises(ModelUnavailable, match=r"'stable-diffusion-1\.5' could not be had from any of its mirrors"):
        loading.load_prior(tmp_path / "tuned.safetensors", CPU, FLOAT)


def test_a_single_file_may_have_the_name_of_its_ancestor(pipeline, folder: Path, tmp_path, monkeypatch) -> None:
    """In the folder of models, where it is found by that name but cannot describe itself; a folder there can."""
    save_file({ATTENTION: torch.zeros(320, 768)}, tmp_path / "stable-diffusion-1.5.safetensors")
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="could not be had from any of its mirrors"):
        hub.find("stable-diffusion-1.5", ("scheduler",))
    save_file(original_layout(pipeline) | {ATTENTION: torch.zeros(320, 768)}, tmp_path / "tuned.safetensors")
    (tmp_path / "stable-diffusion-1.5").symlink_to(folder)
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    assert hub.recognised(tmp_path / "tuned.safetensors") == "stable-diffusion-1.5"


@pytest.mark.parametrize(
    ("tensors", "yaml", "name"),
    [
        ({ATTENTION: 768}, "", "stable-diffusion-1.5"),
        (
            {ATTENTION: 1024},
            "",
            "stable-diffusion-2.1-base",
        ),
        (
            {ATTENTION: 1024},
            'model:\n  params:\n    parameterization: "v"\n',
            "stable-diffusion-2.1",
        ),
        ({"conditioner.embedders.1.model.ln_final.weight": 8}, "", "stable-diffusion-xl"),
    ],
)
def test_the_ancestor_of_a_single_file_is_recognised(tensors: dict[str, int], yaml: str, name: str, tmp_path) -> None:
    save_file({key: torch.zeros(2, width) for key, width in tensors.items()}, tmp_path / "x.safetensors")
    (tmp_path / "x.yaml").write_text(yaml, encoding="utf-8")
    assert hub.recognised(tmp_path / "x.safetensors") == name


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.safetensors", b"no header", "is damaged or no safetensors file"),
        ("x.ckpt", b"", "pickles are never loaded: convert it"),
    ],
)
def test_files_that_are_no_model_are_named(name: str, content: bytes, sentence: str, tmp_path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelUnavailable, match=sentence):
        loading.load_prior(tmp_path / name, CPU, FLOAT)


def test_a_file_with_something_else_is_named(tmp_path) -> None:
    save_file({"lora.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelUnavailable, match="holds no whole Stable Diffusion model"):
        loading.load_prior(tmp_path / "x.safetensors", CPU, FLOAT)


# -- little memory


@pytest.mark.parametrize("options", [Options("low"), Options("lowest"), Options(attention="sliced")], ids=str)
def test_economy_changes_no_answer(options: Options, folder: Path, prior, embedded, generator) -> None:
    """Latents, their gradient and the predicted noise are those of the prior with all the memory it wants."""
    spare = loading.load_prior(folder, CPU, FLOAT, options)
    images = torch.rand(2, 16, 16, 3, generator=generator(1))
    results = []
    for either in (prior, spare):
        x = images.clone().requires_grad_()
        latents = either.encode(x)
        latents.square().sum().backward()
        results.append((latents.detach(), x.grad, either.predict_noise(latents.detach(), 300, embedded)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_texts_are_embedded_once_and_their_encoder_is_let_go(embedded) -> None:
    loads, asked = [], []

    def load():
        loads.append(1)

        def embed(prompts: list[str]) -> torch.Tensor:
            asked.extend(prompts)
            return torch.tensor([[[float(len(prompt))]] for prompt in prompts])

        return embed

    remembered = loading.Remembered(load, ["a", "bb", "a"])
    assert remembered(["bb", "a", "bb"]).flatten().tolist() == [2, 1, 2]
    assert (len(loads), sorted(asked)) == (1, ["a", "bb"])
    assert remembered(["ccc", "a"]).flatten().tolist() == [3, 1]
    assert (len(loads), sorted(asked)) == (2, ["a", "bb", "ccc"])


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_max": 80.0}, "EDMDPMSolverMultistepScheduler names no betas"),
        ({"beta_schedule": "linear", "prediction_type": "flow_prediction"}, "predicts 'flow_prediction', expected epsilon or"),
    ],
)
def test_noise_of_another_kind_is_refused(tmp_path: Path, told: dict[str, object], sentence: str) -> None:
    """Read as betas that it does not name, it would be distilled at the wrong noise levels without a word."""
    tiny_pipeline("epsilon").save_pretrained(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(told))
    with pytest.raises(ModelUnavailable, match=sentence):
        load_alphas_cumprod(tmp_path)


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler, DDPMScheduler])
@pytest.mark.parametrize("names_its_target", [True, False])
def test_whatever_scheduler_a_model_came_with_its_noise_levels_are_the_same(
    tmp_path: Path, kind, names_its_target: bool
) -> None:
    """Versions 1 and 2 ship PNDM, XL an Euler; models of 2022 do not say that they predict the noise."""
    tiny_pipeline("epsilon").save_pretrained(tmp_path)
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="epsilon")
    scheduler.save_pretrained(tmp_path / "scheduler")
    file = tmp_path / "scheduler" / "scheduler_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    if not names_its_target:
        del told["prediction_type"]
        file.write_text(json.dumps(told), encoding="utf-8")
    prior = loading.load_prior(tmp_path, CPU, FLOAT)
    assert told["_class_name"] == kind.__name__
    torch.testing.assert_close(prior.alphas_cumprod, scheduler.alphas_cumprod.double(), rtol=1e-6, atol=0)
    assert torch.equal(load_alphas_cumprod(tmp_path), prior.alphas_cumprod)
    assert prior.prediction_type == "epsilon"


def test_what_nothing_says_about_a_single_file_of_version_2_is_told(tmp_path) -> None:
    settings = preset("draft", "cpu", str(tmp_path / "x.safetensors"), prompt="a cat", representation="feature-grid")
    save_file({ATTENTION: torch.zeros(8, 1024)}, tmp_path / "x.safetensors")
    (sentence,) = advice(settings)
    assert "says what it predicts: it is taken for the noise, as by 2.1-base" in sentence
    (tmp_path / "x.yaml").write_text("parameterization: v", encoding="utf-8")
    assert advice(settings) == ()
    (tmp_path / "x.yaml").unlink()
    save_file({ATTENTION: torch.zeros(8, 768)}, tmp_path / "x.safetensors")
    assert advice(settings) == ()


def test_a_single_file_may_say_by_its_name_which_version_2_it_is(tmp_path) -> None:
    for name in ("stable-diffusion-2.1", "stable-diffusion-2.0-base"):
        save_file({ATTENTION: torch.zeros(8, 1024)}, file := tmp_path / f"{name}.safetensors")
        assert hub.recognised(file) == name
        assert advice(preset("draft", "cpu", str(file), prompt="a cat", representation="feature-grid")) == ()
