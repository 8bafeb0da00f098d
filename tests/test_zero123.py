"""Zero-1-to-3 in every layout in circulation, on random weights, against diffusers' community pipeline written out."""

import copy
import json
import math
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ConfigMixin, DDIMScheduler, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from tiny_models import seeded, small_vae, tiny_pipeline, tiny_unet
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dreamtime import diffusion
from dreamtime.cameras import orbit
from dreamtime.distillation import guided_noise, score_distillation
from dreamtime.priors import hub, loading
from dreamtime.priors.autoencoder import Autoencoder
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import Model
from dreamtime.priors.options import Options
from dreamtime.priors.zero123 import Zero123Prior, apart, beside, pose_with_elevation, relative_pose
from dreamtime.toybox import ZERO123
from dreamtime.types import Cameras, Condition, DiffusionPrior, Rendering

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
CPU, FLOAT = torch.device("cpu"), torch.float32
EMBEDDING, TOKEN, GUIDANCE = 24, 64, 3.0
MEAN, DEVIATION = [0.4, 0.45, 0.5], [0.3, 0.25, 0.2]
OPENAI_MEAN, OPENAI_DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def cameras_at(*places: tuple[float, float, float]) -> Cameras:
    """Elevation and azimuth in degrees, distance."""
    elevation, azimuth, distance = torch.tensor(places).T
    return orbit(elevation.deg2rad(), azimuth.deg2rad(), distance, torch.full_like(distance, 0.8), 16, 16)


REFERENCE = cameras_at((20.0, 30.0, 1.9))
TARGETS = cameras_at((50.0, -100.0, 2.1), (-5.0, 170.0, 1.6))


# -- models of random weights


class CCProjection(ModelMixin, ConfigMixin):
    """As in diffusers' examples/community/pipeline_zero1to3.py."""

    @register_to_config
    def __init__(self, in_channel: int = EMBEDDING + 4, out_channel: int = TOKEN) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channel, out_channel)


class CLIPCameraProjection(ModelMixin, ConfigMixin):
    """As in the zero123.py beside ashawkey's and bennyguo's weights, but for widths that may differ."""

    @register_to_config
    def __init__(self, embedding_dim: int = EMBEDDING, additional_embeddings: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding_dim + additional_embeddings, TOKEN)


@dataclass(frozen=True)
class Parts:
    """What a model consists of."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection
    projection: nn.Module
    scheduler: DDIMScheduler
    mean: list[float]
    deviation: list[float]

    @property
    def side(self) -> int:
        """Of the pictures, in pixels."""
        return self.space * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def space(self) -> int:
        """Side of the latents."""
        return int(self.unet.config.sample_size)

    @property
    def linear(self) -> nn.Linear:
        return next(part for part in self.projection.modules() if isinstance(part, nn.Linear))


def parts(projection: Callable[[], nn.Module], prediction_type: str = "epsilon", openai: bool = False) -> Parts:
    """16x16 pictures, 8x8 latents, 12x12 pictures for CLIP; an embedding that is narrower than a token."""
    with seeded(5):
        clip = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=12,
            patch_size=4,
            projection_dim=EMBEDDING,
        )
        return Parts(
            tiny_unet(in_channels=8, cross_attention_dim=TOKEN).eval(),
            small_vae(scaling_factor=0.37).eval(),
            CLIPVisionModelWithProjection(clip).eval(),
            projection().eval(),
            DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                steps_offset=1,
                clip_sample=False,
                set_alpha_to_one=False,
                prediction_type=prediction_type,
            ),
            OPENAI_MEAN if openai else MEAN,
            OPENAI_DEVIATION if openai else DEVIATION,
        )


def write_index(folder: Path, **entries: object) -> None:
    usual = {
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps({**usual, **entries}), encoding="utf-8")


def write_parts(made: Parts, folder: Path, projection: str, variant: str | None = None, shard: str = "10GB") -> None:
    made.unet.save_pretrained(folder / "unet", variant=variant, max_shard_size=shard)
    made.vae.save_pretrained(folder / "vae", variant=variant)
    made.image_encoder.save_pretrained(folder / "image_encoder", variant=variant)
    made.projection.save_pretrained(folder / projection, variant=variant)
    made.scheduler.save_pretrained(folder / "scheduler")
    (folder / "feature_extractor").mkdir()
    colours = {"image_mean": made.mean, "image_std": made.deviation, "crop_size": 12}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(colours), encoding="utf-8")


def in_the_manner_of_kxic(folder: Path) -> Parts:
    made = parts(CCProjection)
    write_parts(made, folder, "cc_projection")
    kind = ["pipeline_zero1to3", "CCProjection"]
    write_index(folder, _class_name="Zero1to3StableDiffusionPipeline", cc_projection=kind)
    return made


def in_the_manner_of_ashawkey(folder: Path) -> Parts:
    """In half precision, with its pipeline's code beside the weights."""
    made = parts(CLIPCameraProjection)
    for part in (made.unet, made.vae, made.image_encoder, made.projection):
        nn.Module.half(part)
    write_parts(made, folder, "clip_camera_projection", variant="fp16")
    (folder / "clip_camera_projection" / "zero123.py").write_text("raise SystemExit", encoding="utf-8")
    for part in (made.unet, made.vae, made.image_encoder, made.projection):
        nn.Module.float(part)
    kind = ["zero123", "CLIPCameraProjection"]
    write_index(folder, _class_name="Zero123Pipeline", clip_camera_projection=kind)
    return made


def in_shards(folder: Path) -> Parts:
    """A pipeline of its own code, parts of unheard-of names, no feature extractor, a UNet in several files."""
    made = parts(CLIPCameraProjection, openai=True)
    write_parts(made, folder, "looks_and_poses", shard="100KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    shutil.rmtree(folder / "feature_extractor")
    strange = {"looks_and_poses": ["mine", "Both"], "watermark": ["mine", "Mark"], "feature_extractor": [None, None]}
    (folder / "watermark").mkdir()
    save_file({"key": torch.zeros(3, 3)}, folder / "watermark" / "model.safetensors")
    write_index(folder, _class_name=["mine", "SomethingElse"], **strange)
    return made


def pickled(tensors: dict[str, object], file: Path) -> None:
    torch.save(tensors, file)  # noqa: TID251 (as some of the Hub still is)


def with_a_pickled_projection(folder: Path) -> Parts:
    made = in_the_manner_of_kxic(folder)
    (folder / "cc_projection" / "diffusion_pytorch_model.safetensors").unlink()
    pickled(made.projection.state_dict(), folder / "cc_projection" / "diffusion_pytorch_model.bin")
    return made


def all_pickled(folder: Path) -> Parts:
    """As the conversion script leaves a model unless it is told otherwise."""
    made = with_a_pickled_projection(folder)
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("image_encoder", "model")):
        (folder / part / f"{name}.safetensors").unlink()
    pickled(made.unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")
    pickled(made.vae.state_dict(), folder / "vae" / "diffusion_pytorch_model.bin")
    pickled(made.image_encoder.state_dict(), folder / "image_encoder" / "pytorch_model.bin")
    return made


def predicting_v(folder: Path) -> Parts:
    made = parts(CCProjection, "v_prediction")
    write_parts(made, folder, "cc_projection")
    kind = ["pipeline_zero1to3", "CCProjection"]
    write_index(folder, _class_name="Zero1to3StableDiffusionPipeline", cc_projection=kind)
    return made


def that_ships(folder: Path) -> Parts:
    """The embedded model, read by the libraries that its layout is for."""
    for source in ZERO123.iterdir():
        (folder / source.name).symlink_to(source)
    (width,) = {tensor.shape[0] for tensor in load_file(ZERO123 / "cc_projection" / WEIGHTS_FILE).values()}
    colours = json.loads((ZERO123 / "feature_extractor" / "preprocessor_config.json").read_text(encoding="utf-8"))
    encoder = CLIPVisionModelWithProjection.from_pretrained(ZERO123 / "image_encoder", dtype=FLOAT)
    projection = CCProjection(encoder.config.projection_dim + 4, width)
    projection.load_state_dict(load_file(ZERO123 / "cc_projection" / WEIGHTS_FILE))
    return Parts(
        UNet2DConditionModel.from_pretrained(ZERO123, subfolder="unet", torch_dtype=FLOAT).eval(),
        AutoencoderKL.from_pretrained(ZERO123, subfolder="vae", torch_dtype=FLOAT).eval(),
        encoder.eval(),
        projection.float().eval(),
        DDIMScheduler.from_pretrained(ZERO123, subfolder="scheduler"),
        colours["image_mean"],
        colours["image_std"],
    )


MAKERS: dict[str, Callable[[Path], Parts]] = {
    "kxic": in_the_manner_of_kxic,
    "ashawkey": in_the_manner_of_ashawkey,
    "shards": in_shards,
    "pickled-projection": with_a_pickled_projection,
    "pickled": all_pickled,
    "v": predicting_v,
    "embedded": that_ships,
}


@dataclass(frozen=True)
class Case:
    """One model: as it was made, and as we load it and show it a picture."""

    folder: Path
    made: Parts
    prior: Zero123Prior
    image: Tensor
    condition: Condition


@pytest.fixture(scope="module", params=MAKERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    made = MAKERS[request.param](folder)
    image = torch.rand(made.side, made.side, 3, generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        if "pickled" in request.param:
            patch.setenv("DREAMTIME_ALLOW_PICKLE", f"somebody/else,{folder}")
        condition = loading.load_image_encoder(folder, CPU, FLOAT)(image, REFERENCE)
        return Case(folder, made, loading.load_prior(folder, CPU, FLOAT), image, condition)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    in_the_manner_of_kxic(path)
    return path


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def edit(file: Path, **entries: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}), encoding="utf-8")


# -- the reference: examples/community/pipeline_zero1to3.py, and get_T of the authors' ldm/data/simple.py


def polar(position: Tensor) -> tuple[float, float, float]:
    x, y, z = position.double().tolist()
    return math.atan2(math.hypot(x, y), z), math.atan2(y, x), math.sqrt(x * x + y * y + z * z)


def get_T(target: Tensor, seen: Tensor) -> list[float]:
    (theta, azimuth, z), (theta_cond, azimuth_cond, z_cond) = polar(target), polar(seen)
    d_azimuth = (azimuth - azimuth_cond) % (2 * math.pi)
    return [theta - theta_cond, math.sin(d_azimuth), math.cos(d_azimuth), z - z_cond]


def reference_poses(cameras: Cameras) -> Tensor:
    return torch.tensor([get_T(position, REFERENCE.positions[0]) for position in cameras.positions])


@torch.no_grad()
def reference_prompt(case: Case, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Tokens and latents, the unconditional ones first."""
    made = case.made
    x = 2 * case.image.permute(2, 0, 1)[None] - 1
    clip = torch.nn.functional.interpolate(x, (made.image_encoder.config.image_size,) * 2, mode="bicubic", align_corners=True)
    clip = ((clip + 1) / 2 - torch.tensor(made.mean)[:, None, None]) / torch.tensor(made.deviation)[:, None, None]
    embedding = made.image_encoder(clip).image_embeds[:, None].expand(len(cameras), -1, -1)
    tokens = made.linear(torch.cat([embedding, reference_poses(cameras)[:, None]], dim=-1))
    latents = made.vae.encode(x).latent_dist.mode().expand(len(cameras), -1, -1, -1)
    return torch.cat([torch.zeros_like(tokens), tokens]), torch.cat([torch.zeros_like(latents), latents])


@torch.no_grad()
def reference_output(case: Case, latents: Tensor, t: int, tokens: Tensor, seen: Tensor) -> Tensor:
    both = torch.cat([torch.cat([latents] * 2), seen], dim=1)
    unconditional, conditional = case.made.unet(both, t, encoder_hidden_states=tokens).sample.chunk(2)
    return unconditional + GUIDANCE * (conditional - unconditional)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * theirs.abs().max().item())


def latents(case: Case, generator: torch.Generator) -> Tensor:
    """Noise for two views."""
    return torch.randn(2, 4, case.made.space, case.made.space, generator=generator)


# -- parity


def test_is_a_prior(case: Case) -> None:
    assert isinstance(case.prior, DiffusionPrior)
    assert case.prior.vae.resolution == case.made.side
    torch.testing.assert_close(case.prior.alphas_cumprod, case.made.scheduler.alphas_cumprod.double(), rtol=0, atol=0)
    torch.testing.assert_close(loading.load_alphas_cumprod(case.folder), case.prior.alphas_cumprod, rtol=0, atol=0)


def test_encode_is_the_scaled_posterior_mean_with_its_gradient(case: Case, generator) -> None:
    images = torch.rand(2, case.made.side, case.made.side, 3, generator=generator(1), requires_grad=True)
    theirs_in = images.detach().clone().requires_grad_()
    theirs = case.made.vae.encode(2 * theirs_in.permute(0, 3, 1, 2) - 1).latent_dist.mean * case.made.vae.config.scaling_factor
    ours = case.prior.encode(images)
    close(ours, theirs, 1e-6)
    cotangent = torch.randn(ours.shape, generator=generator(2))
    ours.backward(cotangent)
    theirs.backward(cotangent)
    torch.testing.assert_close(images.grad, theirs_in.grad, rtol=1e-4, atol=1e-6)


def test_decode_is_the_inverse_the_vae_has_for_it(case: Case, generator) -> None:
    x = latents(case, generator(1))
    theirs = case.made.vae.decode(x / case.made.vae.config.scaling_factor).sample.permute(0, 2, 3, 1) / 2 + 0.5
    vae = copy.deepcopy(case.made.vae)
    whole = replace(case.prior, vae=Autoencoder(vae, case.made.space, vae))
    close(whole.decode(x), theirs.clamp(0, 1), 1e-6)


def test_a_condition_is_the_pipelines_token_beside_the_unscaled_latent(case: Case) -> None:
    negative, positive = case.condition(TARGETS)
    tokens, seen = reference_prompt(case, TARGETS)
    for ours, token, latent in zip((negative, positive), tokens.chunk(2), seen.chunk(2), strict=True):
        assert ours.shape == (2, 1, token.shape[-1] + 4 * case.made.space**2)
        torch.testing.assert_close(ours[..., : token.shape[-1]], token, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours[..., token.shape[-1] :], latent.flatten(1)[:, None], rtol=0, atol=1e-5)
    assert not negative.any()


@pytest.mark.parametrize("t", [20, 500, 980])
def test_one_guided_prediction_is_the_pipelines_own(case: Case, t: int, generator) -> None:
    """Its output, turned into noise by the textbook where it is v."""
    z = latents(case, generator(2))
    theirs = reference_output(case, z, t, *reference_prompt(case, TARGETS))
    if case.made.scheduler.config.prediction_type == "v_prediction":
        abar = case.made.scheduler.alphas_cumprod[t]
        theirs = abar.sqrt() * theirs + (1 - abar).sqrt() * z
    close(guided_noise(case.prior, z, t, *case.condition(TARGETS), GUIDANCE), theirs)


def test_ten_steps_end_where_the_pipeline_ends(case: Case, generator) -> None:
    """Its scheduler's steps on its own network, against DDIM on `predict_noise` alone."""
    theirs = ours = latents(case, generator(3))
    scheduler = DDIMScheduler.from_config(case.made.scheduler.config)
    scheduler.set_timesteps(10)
    prompt, condition = reference_prompt(case, TARGETS), case.condition(TARGETS)
    for t in scheduler.timesteps.tolist():
        theirs = scheduler.step(reference_output(case, theirs, t, *prompt), t, theirs).prev_sample
        noise = guided_noise(case.prior, ours, t, *condition, GUIDANCE)
        ours = diffusion.ddim_step(ours, noise, case.prior.alphas_cumprod, t, max(t - 100, 0))
    close(ours, theirs)


def test_distillation_needs_to_know_nothing_of_pictures(case: Case, generator) -> None:
    """The shared objective runs on it, and its gradient reaches the image alone."""
    side = case.made.side
    image = torch.rand(2, side, side, 3, generator=generator(4), requires_grad=True)
    flat = torch.zeros(2, side, side, 1)

    def guided(z_t: Tensor, t: int, cameras: Cameras) -> Tensor:
        return guided_noise(case.prior, z_t, t, *case.condition(cameras), GUIDANCE)

    objective = score_distillation(case.prior, guided)
    objective(Rendering(image, flat, flat, torch.zeros(2, side, side, 3)), TARGETS, 500, 0.5, generator(5)).backward()
    assert image.grad.any()
    weights = [*case.prior.unet.parameters(), *case.prior.vae.parameters()]
    assert not any(parameter.requires_grad for parameter in weights)


def test_a_picture_of_any_size_is_resized_to_the_models(case: Case) -> None:
    large = case.image.repeat_interleave(2, 0).repeat_interleave(2, 1)[..., :1].expand(-1, -1, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMTIME_ALLOW_PICKLE", str(case.folder))
        condition = loading.load_image_encoder(case.folder, CPU, FLOAT)(large, REFERENCE)
    assert condition(TARGETS)[1].shape == case.condition(TARGETS)[1].shape


def test_in_clips_own_size_only_the_colours_change(folder: Path, generator) -> None:
    picture = loading.load_image_encoder(folder, CPU, FLOAT)
    image = torch.rand(1, 3, 12, 12, generator=generator(6))
    expected = torch.stack([(image[:, c] - MEAN[c]) / DEVIATION[c] for c in range(3)], dim=1)
    torch.testing.assert_close(picture.as_clip_sees(2 * image - 1), expected, rtol=0, atol=1e-5)


def test_the_encoders_are_let_go_with_what_loaded_them(folder: Path) -> None:
    picture = loading.load_image_encoder(folder, CPU, FLOAT)
    encoder, vae = weakref.ref(picture.encoder), weakref.ref(picture.vae)
    condition = picture(torch.ones(16, 16, 3), REFERENCE)
    del picture
    assert (encoder(), vae()) == (None, None)
    assert condition(TARGETS)[1].isfinite().all()


def test_half_precision_is_asked_for_by_the_same_argument(folder: Path) -> None:
    half = loading.load_prior(folder, CPU, torch.bfloat16)
    assert {half.unet.dtype, half.vae.model.dtype} == {torch.bfloat16}
    negative, positive = loading.load_image_encoder(folder, CPU, torch.bfloat16)(torch.ones(16, 16, 3), REFERENCE)(TARGETS)
    z = torch.ones(2, 4, 8, 8)
    full = loading.load_prior(folder, CPU, FLOAT)
    assert positive.dtype == torch.float32
    noise = guided_noise(half, z, 500, negative, positive, 1.0)
    assert noise.dtype == torch.float32
    close(noise, guided_noise(full, z, 500, negative, positive, 1.0), 0.05)


# -- the pose


def test_the_reference_itself_is_no_change() -> None:
    assert relative_pose(REFERENCE, REFERENCE).tolist() == [[0, 0, 1, 0]]
    once_round = cameras_at((20.0, 390.0, 1.9))
    torch.testing.assert_close(relative_pose(once_round, REFERENCE), torch.tensor([[0.0, 0.0, 1.0, 0.0]]), rtol=0, atol=1e-6)


def test_poses_are_the_authors(generator) -> None:
    places = torch.rand(50, 3, generator=generator(7)) * torch.tensor([170.0, 720.0, 2.0]) + torch.tensor([-85.0, -360.0, 1.0])
    cameras = cameras_at(*map(tuple, places.tolist()))
    torch.testing.assert_close(relative_pose(cameras, REFERENCE), reference_poses(cameras), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("place", "pose"),
    [
        ((50.0, 30.0, 1.9), (-math.pi / 6, 0, 1, 0)),  # higher: nearer to the pole
        ((20.0, 120.0, 1.9), (0, 1, 0, 0)),  # counter-clockwise seen from above
        ((20.0, -60.0, 1.9), (0, -1, 0, 0)),
        ((20.0, 210.0, 1.9), (0, 0, -1, 0)),
        ((20.0, 30.0, 2.2), (0, 0, 1, 0.3)),  # farther
    ],
)
def test_each_entry_is_one_movement(place: tuple[float, float, float], pose: tuple[float, ...]) -> None:
    torch.testing.assert_close(relative_pose(cameras_at(place), REFERENCE), torch.tensor([pose]).float(), rtol=0, atol=1e-6)


def test_poses_add_up() -> None:
    """From the reference to the target and back is no change at all."""
    there, back = relative_pose(TARGETS, REFERENCE), torch.cat([relative_pose(REFERENCE, TARGETS[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(there * torch.tensor([-1, -1, 1, -1]), back, rtol=0, atol=1e-6)


def test_stable_zero123_is_told_the_pictures_polar_angle_in_place_of_the_distance() -> None:
    """threestudio's stable_zero123_guidance: deg2rad(90 - cond_elevation_deg)."""
    ours, plain = pose_with_elevation(TARGETS, REFERENCE), relative_pose(TARGETS, REFERENCE)
    torch.testing.assert_close(ours[:, :3], plain[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(ours[:, 3], torch.tensor([70.0, 70.0]).deg2rad(), rtol=0, atol=1e-6)


def test_who_says_that_a_model_is_stable(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """The table of models for its places, under any of their names, and a model's own index; never the looks of a name."""
    assert loading.load_image_encoder(copied(folder, tmp_path / "stable-zero123-copy"), CPU, FLOAT).pose is relative_pose
    edit(tmp_path / "stable-zero123-copy" / "model_index.json", absolute_elevation=True)
    assert loading.load_image_encoder(tmp_path / "stable-zero123-copy", CPU, FLOAT).pose is pose_with_elevation
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path / "models"))
    copied(folder, tmp_path / "models" / "stable-zero123")
    copied(folder, tmp_path / "models" / "ashawkey--stable-zero123-diffusers")
    copied(folder, tmp_path / "models" / "zero123-xl")
    for name, pose in (
        ("stable-zero123", pose_with_elevation),
        ("ashawkey/stable-zero123-diffusers@main", pose_with_elevation),
        ("zero123-xl", relative_pose),
    ):
        assert loading.load_image_encoder(name, CPU, FLOAT).pose is pose


def test_beside_and_apart_are_inverse(generator) -> None:
    tokens, latent = torch.randn(3, 7, generator=generator(8)), torch.randn(3, 4, 2, 2, generator=generator(9))
    token, again = apart(beside(tokens, latent), latent)
    assert token.equal(tokens[:, None])
    assert again.equal(latent)


def test_a_condition_is_linear_in_what_lies_in_it(generator) -> None:
    """What guides by sums of conditions may do so here."""
    a, b = (torch.randn(2, 3, 4, 2, 2, generator=generator(seed)) for seed in (1, 2))
    u, v = (torch.randn(2, 3, 7, generator=generator(seed)) for seed in (3, 4))
    sums = [beside(u[i], a[i]) + beside(v[i], b[i]) for i in (0, 1)]
    for i in (0, 1):
        assert sums[i].equal(beside(u[i] + v[i], a[i] + b[i]))


# -- one sentence each


def expect(sentence: str, folder: Path, load: Callable[..., object] = loading.load_image_encoder) -> None:
    with pytest.raises(ModelUnavailable, match=sentence):
        load(folder, CPU, FLOAT)


@pytest.mark.parametrize("load", [loading.load_image_encoder, loading.load_prior])
def test_a_model_without_poses_is_named(folder: Path, tmp_path: Path, load) -> None:
    broken = copied(folder, tmp_path / "broken")
    edit(broken / "model_index.json", cc_projection=[None, None])
    expect("knows no poses: no part of it projects", broken, load)


def test_a_projection_of_another_shape_is_named(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "broken")
    CCProjection(in_channel=EMBEDDING).save_pretrained(broken / "cc_projection")
    expect(r"none of its parts \(cc_projection\) is a linear map of shape \(64, 28\) with its bias", broken)


@pytest.mark.parametrize("load", [loading.load_image_encoder, loading.load_prior])
def test_a_denoiser_that_sees_no_picture_is_named(folder: Path, tmp_path: Path, load) -> None:
    broken = copied(folder, tmp_path / "broken")
    tiny_unet(in_channels=4).save_pretrained(broken / "unet")
    expect("has no eye for a picture: its denoiser takes 4 channels, expected 8", broken, load)


@pytest.mark.parametrize(
    ("gone", "lack"),
    [
        ("image_encoder/model.safetensors", "image_encoder/weights in safetensors"),
        ("feature_extractor/preprocessor_config.json", "feature_extractor/preprocessor_config.json"),
        ("cc_projection/diffusion_pytorch_model.safetensors", "cc_projection/weights in safetensors"),
    ],
)
def test_what_is_missing_is_named(folder: Path, tmp_path: Path, gone: str, lack: str) -> None:
    broken = copied(folder, tmp_path / "broken")
    (broken / gone).unlink()
    expect(f"is incomplete: it lacks {lack}", broken)


def test_a_pickle_is_left_alone_unless_its_model_is_trusted_by_name(tmp_path: Path, monkeypatch) -> None:
    with_a_pickled_projection(tmp_path)
    lack = r"lacks cc_projection/weights in safetensors \(its pickles are left alone: convert them, or trust them by"
    expect(rf"{lack} DREAMTIME_ALLOW_PICKLE={tmp_path}\)", tmp_path)
    monkeypatch.setenv("DREAMTIME_ALLOW_PICKLE", "1,all,somebody/else")
    expect("its pickles are left alone", tmp_path)
    monkeypatch.setenv("DREAMTIME_ALLOW_PICKLE", str(tmp_path))
    assert loading.load_image_encoder(tmp_path, CPU, FLOAT).projection.weight.shape == (TOKEN, EMBEDDING + 4)


class Code:
    """What runs when it is unpickled by anyone who is not careful."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_even_a_trusted_pickle_runs_no_code(tmp_path: Path, monkeypatch) -> None:
    with_a_pickled_projection(tmp_path)
    ran = tmp_path / "ran"
    pickled({"projection.weight": Code(ran)}, tmp_path / "cc_projection" / "diffusion_pytorch_model.bin")
    monkeypatch.setenv("DREAMTIME_ALLOW_PICKLE", str(tmp_path))
    expect("could not be loaded", tmp_path)
    (tmp_path / "image_encoder" / "model.safetensors").unlink()
    pickled({"visual_projection.weight": Code(ran)}, tmp_path / "image_encoder" / "pytorch_model.bin")
    expect("could not be loaded", tmp_path)
    assert not ran.exists()


def test_safetensors_are_preferred_to_trusted_pickles(folder: Path, tmp_path: Path, monkeypatch) -> None:
    both = copied(folder, tmp_path / "both")
    (both / "cc_projection" / "diffusion_pytorch_model.bin").write_bytes(b"no pickle at all")
    (both / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"no pickle at all")
    monkeypatch.setenv("DREAMTIME_ALLOW_PICKLE", str(both))
    loading.load_image_encoder(both, CPU, FLOAT)
    loading.load_prior(both, CPU, FLOAT)


def test_no_picture_can_be_shown_to_a_model_that_is_told_a_text(tmp_path: Path) -> None:
    tiny_pipeline("epsilon").save_pretrained(tmp_path)
    expect("is a StableDiffusionPipeline, which is told a text: no picture can be shown to it", tmp_path)


def test_no_text_can_be_told_to_a_model_that_is_shown_a_picture(folder: Path) -> None:
    expect("is shown a picture and reads no text", folder, loading.load_text_encoder)


@pytest.mark.parametrize("options", [Options(lora="anything"), Options(embedding="anything")])
def test_additions_to_text_models_are_refused(folder: Path, options: Options) -> None:
    for load in (loading.load_image_encoder, loading.load_prior):
        with pytest.raises(ModelUnavailable, match=r"'anything' is a .*, which .* cannot take"):
            load(folder, CPU, FLOAT, options)


def test_a_picture_has_one_camera(folder: Path) -> None:
    with pytest.raises(ValueError, match="A picture is taken by one camera, got 2"):
        loading.load_image_encoder(folder, CPU, FLOAT)(torch.ones(16, 16, 3), TARGETS)


def test_the_table_knows_places_at_any_revision(monkeypatch) -> None:
    monkeypatch.setitem(hub.MODELS, "thing", thing := Model(("owner/thing@v1", "other/thing")))
    assert hub.known("thing") is hub.known("owner/thing") is hub.known("other/thing@v2") is thing
    assert hub.known("owner/other") is None
