"""The full-size benchmark, rehearsed: the same code with shrunk models on a CPU."""

import sys

import pytest
import torch

from benchmarks import full_size
from dreamtime.priors import skeletons
from dreamtime.priors.architectures import PUBLISHED

RUNS = [
    ("stable-diffusion-1.5", "draft"),
    ("stable-diffusion-2.1-base", "prolificdreamer"),
    ("deepfloyd-if-xl", "dreamfusion"),
    ("deepfloyd-if-xl", "prolificdreamer"),
    ("zero123-xl", "high"),
]


@pytest.mark.parametrize(("model", "name"), RUNS)
def test_a_rehearsed_run_is_timed_and_finite(model: str, name: str) -> None:
    head, _, row = full_size.rehearsal([model], [name], 1)
    told = dict(zip(head.split("|"), row.split("|"), strict=True))
    parts = {part.strip(): value.strip() for part, value in told.items()}
    assert (parts["model"], parts["preset"], parts["finite"]) == (model, name, "yes")
    assert float(parts["render"]) > 0
    assert float(parts["denoise"]) > 0
    # Stage I of IF looks at pixels: nothing encodes them.
    assert (float(parts["encode"]) > 0) == (not model.startswith("deepfloyd"))


def test_every_preset_and_method_is_run_with_every_model_that_can_serve_it() -> None:
    made = {(model, name): full_size.settings_of(model, name, "cpu") for model in full_size.MODELS for name in full_size.NAMES}
    assert all(settings for (model, _), settings in made.items() if model != "zero123-xl")
    assert [name for name in full_size.NAMES if made["zero123-xl", name]] == ["draft", "standard", "high"]
    assert made["stable-diffusion-1.5", "prolificdreamer"].objective == "vsd"
    assert made["deepfloyd-if-xl", "standard"].guidance_scale == 20
    assert made["zero123-xl", "standard"].task == "image"


def test_chance_fills_a_skeleton_so_that_numbers_keep_their_size(generator) -> None:
    configuration = full_size.shrunk(PUBLISHED["stable-diffusion-1.5"])
    prior = skeletons.prior_of(configuration, torch.float32)
    for part in (prior.unet, prior.vae):
        full_size.filled(part, torch.device("cpu"), generator(0))
    z, condition = torch.randn(2, 4, 8, 8, generator=generator(1)), torch.randn(2, 77, 32, generator=generator(2))
    assert 0.1 < prior.predict_noise(z, 500, condition).std().item() < 10


@pytest.mark.no_cuda
def test_without_cuda_it_says_so(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["full_size"])
    full_size.main()
    assert "There is no CUDA device here, so nothing was measured" in capsys.readouterr().out
