"""The table of kinds of models agrees with itself, with the libraries' schedulers and with the embedded models' own files."""

from importlib import import_module

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from dreamtime.priors import loading
from dreamtime.priors.architectures import PUBLISHED
from dreamtime.priors.hub import MODELS
from dreamtime.priors.layouts import LAYOUTS, TOLD_A_PICTURE
from dreamtime.toybox import WEIGHTS, ZERO123


@pytest.mark.parametrize("pipeline", LAYOUTS)
def test_every_kind_has_a_module_that_reads_it(pipeline: str) -> None:
    module = import_module(f"dreamtime.priors.{LAYOUTS[pipeline].module}")
    for name in ("load_alphas_cumprod", "load_prior", "load_text_encoder"):
        assert callable(getattr(module, name))


def test_the_tables_agree_on_what_each_model_is() -> None:
    assert {model.pipeline for model in MODELS.values()} == set(LAYOUTS)
    for name, configuration in PUBLISHED.items():
        assert MODELS[name].pipeline == configuration["_class_name"]


def test_usual_noise_levels_are_the_published_schedulers() -> None:
    """Their tables are in single precision."""
    stable = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    cosine = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    s = FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas.flip(0).double()
    expected = {
        "StableDiffusionPipeline": stable,
        "StableDiffusionXLPipeline": stable,
        TOLD_A_PICTURE: stable,
        "IFPipeline": cosine,
        "StableDiffusion3Pipeline": (1 - s) ** 2 / ((1 - s) ** 2 + s**2),
    }
    assert expected.keys() == LAYOUTS.keys()
    for pipeline, levels in expected.items():
        torch.testing.assert_close(LAYOUTS[pipeline].usual_alphas_cumprod(), levels.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("folder", "name"), [(WEIGHTS, "toybox"), (ZERO123, "toybox-zero123")])
def test_the_embedded_models_have_the_usual_noise_levels(folder, name: str) -> None:
    usual = MODELS[name].layout.usual_alphas_cumprod()
    torch.testing.assert_close(loading.load_alphas_cumprod(folder), usual, rtol=1e-4, atol=1e-6)
