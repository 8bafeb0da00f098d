"""Every layout against diffusers' own pipeline on the same weights: what we load is what its users know.

The pipelines are of random weights in the layouts of the Hub, and the embedded model. Expectations are the pipelines' outputs.
"""

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    IFPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from tiny_models import tiny_flow_pipeline, tiny_if_pipeline, tiny_pipeline, tiny_version_2_pipeline, tiny_xl_pipeline
from torch import Tensor

from dreamtime import diffusion
from dreamtime.cameras import turntable
from dreamtime.distillation import guided_noise
from dreamtime.priors import loading
from dreamtime.priors.autoencoder import Autoencoder
from dreamtime.priors.folders import TINY_VAE, ModelUnavailable
from dreamtime.priors.options import Options
from dreamtime.priors.rectified_flow import RectifiedFlowPrior
from dreamtime.toybox import WEIGHTS
from dreamtime.types import DecodingPrior, DiffusionPrior

CPU, FLOAT = torch.device("cpu"), torch.float32
PROMPT, NEGATIVE, GUIDANCE = "a red cube, front view", "a blue ball", 4.0


@dataclass(frozen=True)
class Case:
    """One model, as diffusers' pipeline and as our prior."""

    folder: Path
    pipeline: DiffusionPipeline
    prior: DiffusionPrior
    embedded: Tensor  # the negative prompt, the prompt


def case_of(folder: Path, pipeline: DiffusionPipeline) -> Case:
    """The pipeline beside what we load from the folder it was saved to."""
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    if isinstance(pipeline, IFPipeline):
        # Its own scheduler clips and draws. Of DDIM it only wants to know whether the network's variance is used: it is not.
        pipeline.scheduler = DDIMScheduler.from_config(
            {**pipeline.scheduler.config, "variance_type": "fixed_small"}, thresholding=False, clip_sample=False
        )
    embed = loading.load_text_encoder(folder, CPU, FLOAT)
    return Case(folder, pipeline, loading.load_prior(folder, CPU, FLOAT), embed([NEGATIVE, PROMPT]))


def saved(pipeline: DiffusionPipeline, folder: Path) -> Case:
    pipeline.save_pretrained(folder)
    return case_of(folder, pipeline)


MAKERS: dict[str, Callable[[Path], Case]] = {
    "epsilon": lambda folder: saved(tiny_pipeline("epsilon"), folder),
    "v": lambda folder: saved(tiny_pipeline("v_prediction"), folder),
    "sample": lambda folder: saved(tiny_pipeline("sample"), folder),
    "2.1-base": lambda folder: saved(tiny_version_2_pipeline("epsilon"), folder),
    "2.1": lambda folder: saved(tiny_version_2_pipeline("v_prediction"), folder),
    "embedded": lambda folder: case_of(WEIGHTS, StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)),
    "xl": lambda folder: saved(tiny_xl_pipeline(), folder),
    "if": lambda folder: case_of(folder, tiny_if_pipeline(folder)),
    "flow": lambda folder: saved(tiny_flow_pipeline(), folder),
    "flow-without-t5": lambda folder: saved(tiny_flow_pipeline(with_t5=False), folder),
}


@pytest.fixture(scope="module", params=MAKERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def side_of(case: Case) -> int:
    """Side of the images that the pipeline's denoiser was trained on, in pixels."""
    if isinstance(case.pipeline, IFPipeline):
        return case.pipeline.unet.config.sample_size
    denoiser = case.pipeline.transformer if isinstance(case.pipeline, StableDiffusion3Pipeline) else case.pipeline.unet
    return denoiser.config.sample_size * case.pipeline.vae_scale_factor


def start(case: Case, generator: torch.Generator) -> Tensor:
    """Noise in the model's space."""
    return torch.randn(case.prior.encode(torch.zeros(1, 8, 8, 3)).shape, generator=generator)


def run_pipeline(case: Case, noise: Tensor, times: list[int]) -> Tensor:
    """The pipeline's own latents or pixels, after denoising at those timesteps."""
    common: dict[str, Any] = {"negative_prompt": NEGATIVE, "guidance_scale": GUIDANCE}
    if isinstance(case.pipeline, StableDiffusion3Pipeline):
        # Before the scheduler shifts them, the flow's times are (t + 1) / 1000.
        chosen = {"num_inference_steps": len(times), "sigmas": [(t + 1) / 1000 for t in times]}
    else:
        chosen = {"num_inference_steps": len(times)}
    if isinstance(case.pipeline, IFPipeline):
        # It takes no start: it draws its own, which we hand it.
        case.pipeline.prepare_intermediate_images = lambda *_: noise
        return case.pipeline(PROMPT, output_type="pt", clean_caption=False, **common, **chosen).images
    return case.pipeline(PROMPT, latents=noise, output_type="latent", **common, **chosen).images


def times_of(case: Case, steps: int) -> list[int]:
    """The timesteps at which the pipeline's scheduler would denoise, falling."""
    if isinstance(case.pipeline, StableDiffusion3Pipeline):
        # Not from pure noise: there the noise says nothing of x0, and single precision cannot carry what it does not say.
        return [900 * (steps - i) // steps for i in range(steps)]
    case.pipeline.scheduler.set_timesteps(steps)
    return case.pipeline.scheduler.timesteps.tolist()


def before(case: Case, t: int, times: list[int]) -> float:
    """abar where a step from t ends."""
    later = [time for time in times if time < t]
    if isinstance(case.pipeline, StableDiffusion3Pipeline):
        return float(case.prior.alphas_cumprod[later[0]]) if later else 1.0
    scheduler = case.pipeline.scheduler
    previous = t - scheduler.config.num_train_timesteps // len(times)
    return float(scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(1.0, theirs.abs().max().item()))


def test_is_a_prior(case: Case) -> None:
    assert isinstance(case.prior, DiffusionPrior)
    assert case.prior.alphas_cumprod.dtype == torch.float64
    assert (case.prior.alphas_cumprod.diff() < 0).all()
    torch.testing.assert_close(loading.load_alphas_cumprod(case.folder), case.prior.alphas_cumprod, rtol=0, atol=0)


def test_embeddings_are_the_pipelines(case: Case) -> None:
    """Negative prompt and prompt; where there is a pooled embedding, it is the last token, filled up with zeros."""
    if isinstance(case.pipeline, (StableDiffusionXLPipeline, StableDiffusion3Pipeline)):
        other = {"prompt_2": None, "prompt_3": None} if isinstance(case.pipeline, StableDiffusion3Pipeline) else {}
        positive, negative, positive_pooled, negative_pooled = case.pipeline.encode_prompt(
            PROMPT, negative_prompt=NEGATIVE, **other
        )
        pooled = torch.cat([negative_pooled, positive_pooled])
        last, filling = case.embedded[:, -1].split([pooled.shape[1], case.embedded.shape[2] - pooled.shape[1]], dim=1)
        close(last, pooled)
        assert not filling.any()
        close(case.embedded[:, :-1], torch.cat([negative, positive]))
    else:
        positive, negative = case.pipeline.encode_prompt(
            PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt=NEGATIVE
        )
        close(case.embedded, torch.cat([negative, positive]))


def test_an_empty_prompt_is_the_pipelines_unconditional_one(case: Case) -> None:
    other = {"prompt_2": None, "prompt_3": None} if isinstance(case.pipeline, StableDiffusion3Pipeline) else {}
    if not isinstance(case.pipeline, StableDiffusion3Pipeline | StableDiffusionXLPipeline):
        other = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    theirs = case.pipeline.encode_prompt(PROMPT, **other)[1]
    ours = loading.load_text_encoder(case.folder, CPU, FLOAT)([""])
    close(ours[:, : theirs.shape[1]], theirs)


def test_each_guided_prediction_is_the_pipelines_own(case: Case, generator, monkeypatch) -> None:
    """What the pipeline hands its scheduler on the way, turned from the network's target into noise by the textbook."""
    noise, times = start(case, generator(4)), times_of(case, 10)
    heard: list[tuple[Tensor, Tensor]] = []
    step = case.pipeline.scheduler.step

    def listen(output: Tensor, t: Tensor, sample: Tensor, **options: Any) -> Any:
        heard.append((output, sample))
        return step(output, t, sample, **options)

    monkeypatch.setattr(case.pipeline.scheduler, "step", listen)
    run_pipeline(case, noise, times)
    for (theirs, z), t in zip(heard, times, strict=True):
        abar = float(case.prior.alphas_cumprod[t])
        alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
        if isinstance(case.pipeline, StableDiffusion3Pipeline):
            s = sigma / (alpha + sigma)
            expected, z = z + (1 - s) * theirs, z * (alpha + sigma)
        else:
            expected = {
                "epsilon": theirs,
                "v_prediction": alpha * theirs + sigma * z,
                "sample": (z - alpha * theirs) / sigma,
            }[case.pipeline.scheduler.config.prediction_type]
        close(guided_noise(case.prior, z, t, case.embedded[:1], case.embedded[1:], GUIDANCE), expected)


def test_ten_steps_written_on_our_prior_end_where_the_pipeline_ends(case: Case, generator) -> None:
    """DDIM on `predict_noise` alone; of a flow it is Euler's method, up to the factor between x_s and z_t."""
    noise, times = start(case, generator(1)), times_of(case, 10)
    theirs = run_pipeline(case, noise, times)
    is_flow = isinstance(case.prior, RectifiedFlowPrior)
    alpha, sigma = diffusion.alpha_sigma(case.prior.alphas_cumprod, times[0])
    z = noise * (alpha + sigma) if is_flow else noise
    for t in times:
        # Pipelines guide the network's own output; every target is affine in eps at a fixed z, so guidance commutes.
        noise_hat = guided_noise(case.prior, z, t, case.embedded[:1], case.embedded[1:], GUIDANCE)
        x0 = diffusion.x0_from_epsilon(z, noise_hat, case.prior.alphas_cumprod, t)
        abar = before(case, t, times)
        z = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * noise_hat
    close(z, theirs)


def x0_of_the_network(case: Case, z: Tensor, t: int, condition: Tensor) -> Tensor:
    """x0 as the pipeline's own network and scheduler have it; a flow's is x_s - s v."""
    if isinstance(case.pipeline, StableDiffusion3Pipeline):
        alpha, sigma = diffusion.alpha_sigma(case.prior.alphas_cumprod, t)
        s, x_s = sigma / (alpha + sigma), z / (alpha + sigma)
        pooled = condition[:, -1, : case.pipeline.transformer.config.pooled_projection_dim]
        return x_s - s * case.pipeline.transformer(x_s, condition[:, :-1], pooled, torch.tensor([1000 * s])).sample
    added = {}
    if isinstance(case.pipeline, StableDiffusionXLPipeline):
        side = side_of(case)
        size = torch.tensor([[side, side, 0, 0, side, side]])
        added = {"added_cond_kwargs": {"text_embeds": condition[:, -1, :48], "time_ids": size}}
        condition = condition[:, :-1]
    output = case.pipeline.unet(z, t, encoder_hidden_states=condition, **added).sample[:, : z.shape[1]]
    scheduler = DDIMScheduler.from_config(case.pipeline.scheduler.config, clip_sample=False, thresholding=False)
    scheduler.set_timesteps(1000)
    return scheduler.step(output, t, z).pred_original_sample


@pytest.mark.parametrize("t", [20, 500, 980])
@torch.no_grad()
def test_x0_is_the_schedulers(case: Case, t: int, generator) -> None:
    """Whatever the network predicts, early, in the middle and late."""
    z, positive = start(case, generator(5)), case.embedded[1:]
    noise = case.prior.predict_noise(z, t, positive)
    close(diffusion.x0_from_epsilon(z, noise, case.prior.alphas_cumprod, t), x0_of_the_network(case, z, t, positive), 2e-5)


def test_encode_is_the_scaled_posterior_mean_with_its_gradient(case: Case, generator) -> None:
    side = side_of(case)
    images = torch.rand(2, side, side, 3, generator=generator(2), requires_grad=True)
    theirs_in = images.detach().clone().requires_grad_()
    theirs = 2 * theirs_in.permute(0, 3, 1, 2) - 1
    if not isinstance(case.pipeline, IFPipeline):
        vae = case.pipeline.vae
        theirs = (vae.encode(theirs).latent_dist.mean - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    latents = case.prior.encode(images)
    close(latents, theirs, 1e-6)
    cotangent = torch.randn(latents.shape, generator=generator(3))
    latents.backward(cotangent)
    theirs.backward(cotangent)
    torch.testing.assert_close(images.grad, theirs_in.grad, rtol=1e-4, atol=3e-6)


def test_decode_is_what_the_pipeline_shows(case: Case, generator) -> None:
    x = 0.3 * start(case, generator(4))
    if isinstance(case.pipeline, IFPipeline):
        theirs, prior = x, case.prior
    else:
        vae = copy.deepcopy(case.pipeline.vae)
        theirs = vae.decode(x / vae.config.scaling_factor + (vae.config.shift_factor or 0)).sample
        prior = Autoencoder(vae, x.shape[-1], vae)
    close(prior.decode(x), (theirs.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1), 1e-6)


def test_no_step_decodes_by_the_vae_itself(case: Case, tmp_path: Path) -> None:
    """A model of latents without a tiny VAE is not loaded for steps that compare images."""
    plain = shutil.copytree(case.folder, tmp_path / "plain", ignore=shutil.ignore_patterns(TINY_VAE))
    if isinstance(case.pipeline, IFPipeline):
        assert isinstance(loading.load_prior(plain, CPU, FLOAT, Options(decodes=True)), DecodingPrior)
        return
    with pytest.raises(ModelUnavailable, match="has no tiny VAE to compare images by"):
        loading.load_prior(plain, CPU, FLOAT, Options(decodes=True))


def tiny_beside(case: Case, folder: Path, levels: int) -> AutoencoderTiny:
    """A copy of the model with a tiny VAE of so many levels beside its own, if it has latents to decode."""
    shutil.copytree(case.folder, folder)
    widths, blocks = (8,) * levels, (1,) * levels
    channels = 3 if isinstance(case.pipeline, IFPipeline) else case.pipeline.vae.config.latent_channels
    more = {"latent_channels": channels, "scaling_factor": 0.7, "shift_factor": 0.2}
    tiny = AutoencoderTiny(3, 3, widths, widths, num_encoder_blocks=blocks, num_decoder_blocks=blocks, **more)
    tiny.save_pretrained(folder / TINY_VAE)
    return tiny.eval()


def test_a_tiny_vae_decodes_in_the_place_of_the_vae(case: Case, tmp_path: Path, generator) -> None:
    """Where one lies beside it: then the VAE's own decoder is not even kept. Where images are the latents it means nothing."""
    pixels = isinstance(case.pipeline, IFPipeline)
    tiny = tiny_beside(case, tmp_path / "with", 2 if pixels else len(case.pipeline.vae.config.block_out_channels))
    prior = loading.load_prior(tmp_path / "with", CPU, FLOAT, Options(memory="low", decodes=True))
    x = start(case, generator(4))
    theirs = x if pixels else tiny.decode(x / 0.7 + 0.2).sample
    close(prior.decode(x), (theirs.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1), 1e-6)
    if not pixels:
        assert not list(prior.vae.model.decoder.parameters())
        assert not any(parameter.requires_grad for parameter in prior.vae.parameters())
        assert loading.load_prior(tmp_path / "with", CPU, FLOAT).vae.decoder is None


def test_a_tiny_vae_of_another_size_is_refused(tmp_path: Path) -> None:
    case = MAKERS["embedded"](tmp_path)
    tiny_beside(case, tmp_path / "with", levels=4)
    with pytest.raises(ModelUnavailable, match="it decodes 4 channels to 8 times their side, expected 4 and 4"):
        loading.load_prior(tmp_path / "with", CPU, FLOAT, Options(decodes=True))


def test_the_vae_of_xl_is_upcast_from_half_precision_alone(tmp_path: Path) -> None:
    tiny_xl_pipeline().save_pretrained(tmp_path)
    kept = {dtype: loading.load_prior(tmp_path, CPU, dtype).vae.model.dtype for dtype in (torch.float16, torch.bfloat16)}
    assert kept == {torch.float16: FLOAT, torch.bfloat16: torch.bfloat16}


def test_bfloat16_answers_as_single_precision_does(generator) -> None:
    """To three per cent, without guidance: what a GPU may be asked in."""
    exact, coarse = (loading.load_prior(WEIGHTS, CPU, dtype, Options(decodes=True)) for dtype in (FLOAT, torch.bfloat16))
    assert {part.dtype for part in (coarse.unet, coarse.vae.model, coarse.vae.decoder)} == {torch.bfloat16}
    images = torch.rand(2, 64, 64, 3, generator=generator(1))
    x, text = exact.encode(images), torch.randn(2, 77, 64, generator=generator(2))
    cameras = turntable(2, 64)
    for ours, theirs in (
        (coarse.encode(images), x),
        (coarse.predict_noise(x, 500, text), exact.predict_noise(x, 500, text)),
        tuple(prior.predict_noise(x, 500, prior.tell(text, cameras)) for prior in (coarse, exact)),
        (coarse.decode(x), exact.decode(x)),
    ):
        assert ours.dtype == FLOAT
        assert (ours - theirs).abs().mean() < 0.03 * theirs.abs().mean()


def test_encode_resizes_to_the_models_resolution(case: Case) -> None:
    small, large = (case.prior.encode(torch.full((1, side, side, 3), 0.5)) for side in (side_of(case), 40))
    assert small.shape == large.shape


def test_nothing_reaches_the_weights(case: Case, generator) -> None:
    images = torch.rand(1, 16, 16, 3, generator=generator(0), requires_grad=True)
    noise = case.prior.predict_noise(case.prior.encode(images), 500, case.embedded[:1])
    assert not noise.requires_grad
    modules = [value for value in vars(case.prior).values() if isinstance(value, torch.nn.Module)]
    assert modules
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())
