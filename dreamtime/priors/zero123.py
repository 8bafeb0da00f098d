"""Zero-1-to-3: from a picture of an object, with the camera it was taken by, to how other cameras would see the object.

The denoiser is shown the picture twice: its latents beside the noisy ones, unscaled, and one token, a linear map of CLIP's
embedding of the picture and of the pose relative to it (Liu et al. 2023, section 3.2). What the conversions to diffusers call
that map and their pipeline differs (`cc_projection` at kxic's, `clip_camera_projection` at ashawkey's and bennyguo's), so the
parts are known by what they hold. Of distances only the change counts: the published models were trained at 1.5 to 2.2 from
objects within a unit cube, with a field of view of 49.1 degrees.

Stable-Zero123 has the very same tensors, but is told the elevation of the picture in place of the change of distance. Nothing
in its files tells it apart (others go by its name): `hub.MODELS` says so of the places it knows, and a model_index.json may say
so of any other by `"absolute_elevation": true`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from dreamtime.cameras import angles_from_position
from dreamtime.diffusion import PredictionType, epsilon_from_prediction
from dreamtime.priors.autoencoder import Autoencoder, economise, pixels, read_autoencoder, read_tiny
from dreamtime.priors.folders import STRANGE, Checkpoint, ModelUnavailable
from dreamtime.priors.hub import find, known
from dreamtime.priors.layouts import check_options, layout_of
from dreamtime.priors.options import PLAIN, Options
from dreamtime.priors.stable_diffusion import load_alphas_cumprod, noise_levels_of
from dreamtime.priors.weights import one_sentence, place_denoiser, read_diffusers, read_tensors, read_transformers
from dreamtime.types import Cameras, Condition

__all__ = ["Zero123Picture", "Zero123Prior", "load_alphas_cumprod", "load_image_encoder", "load_prior", "load_text_encoder"]

# One list for both halves: of several mirrors both come from the same.
PARTS = ("unet", "vae", "scheduler", "image_encoder", "feature_extractor", STRANGE)


# -- the pose


Pose = Callable[[Cameras, Cameras], Float[Tensor, "B 4"]]
"""Cameras and the reference's to what a model is told of where they stand."""


def relative_pose(cameras: Cameras, reference: Cameras) -> Float[Tensor, "B 4"]:
    """Change of polar angle, sine and cosine of that of azimuth, change of distance: (0, 0, 1, 0) is the reference itself.

    The polar angle is measured from the pole: a higher camera has a smaller one (`get_T` of the authors' data loader).
    """
    elevation, azimuth, distance = angles_from_position(cameras.positions)
    elevation_0, azimuth_0, distance_0 = angles_from_position(reference.positions.to(cameras.positions))
    turn = azimuth - azimuth_0
    return torch.stack([elevation_0 - elevation, turn.sin(), turn.cos(), distance - distance_0], dim=-1)


def pose_with_elevation(cameras: Cameras, reference: Cameras) -> Float[Tensor, "B 4"]:
    """The same with the reference's own polar angle as the last entry, whatever the distance (Stable-Zero123)."""
    pose = relative_pose(cameras, reference)
    elevation_0, _, _ = angles_from_position(reference.positions.to(pose))
    return torch.cat([pose[:, :3], (math.pi / 2 - elevation_0).expand(len(pose))[:, None]], dim=-1)


# -- the condition


def beside(tokens: Float[Tensor, "B D"], latent: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 D_Chw"]:
    """Token and reference latent in one row, so that a condition stays one tensor of which others need to know nothing."""
    return torch.cat([tokens, latent.flatten(1)], dim=-1)[:, None]


def apart(
    condition: Float[Tensor, "B 1 D_Chw"], z_t: Float[Tensor, "B C h w"]
) -> tuple[Float[Tensor, "B 1 D"], Float[Tensor, "B C h w"]]:
    """The inverse of `beside`; the latent has the shape of z_t."""
    width = condition.shape[-1] - z_t[0].numel()
    return condition[..., :width], condition[..., width:].reshape(z_t.shape)


def condition_of(
    embedding: Float[Tensor, "1 E"], latent: Float[Tensor, "1 C h w"], projection: nn.Linear, pose: Pose, reference: Cameras
) -> Condition:
    """Nothing, which is zeros for token and latent alike, and the picture as each camera is to see it."""

    def condition(cameras: Cameras) -> tuple[Float[Tensor, "B 1 D_Chw"], Float[Tensor, "B 1 D_Chw"]]:
        told = pose(cameras, reference).to(embedding)
        tokens = projection(torch.cat([embedding.expand(len(told), -1), told], dim=-1))
        positive = beside(tokens, latent.expand(len(told), -1, -1, -1))
        return torch.zeros_like(positive), positive

    return condition


@dataclass(frozen=True)
class Zero123Picture:
    """Pictures to conditions: what CLIP and the VAE see in them, and what the model is told of a camera."""

    encoder: CLIPVisionModelWithProjection
    vae: Autoencoder
    projection: nn.Linear
    pose: Pose
    mean: tuple[float, ...]  # of the pixels that CLIP was trained on, in [0, 1], by channel
    deviation: tuple[float, ...]

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "H W 3"], reference: Cameras) -> Condition:
        """What other cameras are to see, of a picture of an object before white; raises ValueError unless it has one camera."""
        if len(reference) != 1:
            raise ValueError(f"A picture is taken by one camera, got {len(reference)}.")
        images = image[None].to(self.encoder.device)
        seen = self.as_clip_sees(pixels(images, self.vae.resolution))
        embedding = self.encoder(seen.to(self.encoder.dtype)).image_embeds.float()
        return condition_of(embedding, self.vae.means(images), self.projection, self.pose, reference)

    def as_clip_sees(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 s s"]:
        """In CLIP's size and colours. Corners aligned and not antialiased: so the authors' training did it."""
        side = self.encoder.config.image_size
        x = nn.functional.interpolate(x, (side, side), mode="bicubic", align_corners=True)
        mean, deviation = (torch.tensor(values).to(x)[:, None, None] for values in (self.mean, self.deviation))
        return ((x + 1) / 2 - mean) / deviation


# -- the denoiser


@dataclass(frozen=True)
class Zero123Prior:
    """A denoiser of views as a `DiffusionPrior`; its weights are frozen, and gradients pass through `encode` alone."""

    unet: UNet2DConditionModel
    vae: Autoencoder
    alphas_cumprod: Float[Tensor, " T"]
    prediction_type: PredictionType

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Scaled posterior means of the images, resized to the model's own resolution first."""
        return self.vae.encode(images)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B S S 3"]:
        """The images of scaled latents, if a tiny VAE was loaded (`Options.decodes`); no gradient."""
        return self.vae.decode(x)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Float[Tensor, "B C h w"], t: int, condition: Float[Tensor, "B 1 D_Chw"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise in z_t, of the view that the condition asks for."""
        token, latent = apart(condition, z_t)
        seen, dtype = torch.cat([z_t, latent.to(z_t)], dim=1), self.unet.dtype
        output = self.unet(seen.to(dtype), t, encoder_hidden_states=token.to(dtype)).sample.float()
        return epsilon_from_prediction(self.prediction_type, z_t, output, self.alphas_cumprod, t)


# -- from files


def configuration_of(checkpoint: Checkpoint, part: str, file: str = "config.json") -> Mapping[str, Any]:
    with one_sentence(checkpoint):
        read = json.loads((checkpoint.configuration / part / file).read_text(encoding="utf-8"))
    return dict(read)


def checked(source: str | Path, options: Options) -> Checkpoint:
    """The whole model, if it is told a picture and a pose; raises `ModelUnavailable`."""
    described = find(source, (), weights=False)
    if described.reads != "image":
        raise ModelUnavailable(
            described.place, f"is a {described.pipeline}, which is told a text: no picture can be shown to it"
        )
    check_options(described.place, layout_of(described), options)
    if not described.strange_parts:
        raise ModelUnavailable(described.place, "knows no poses: no part of it projects a picture's embedding and a pose")
    checkpoint = find(source, PARTS)
    takes = configuration_of(checkpoint, "unet").get("in_channels", 4)
    if takes != (wanted := 2 * configuration_of(checkpoint, "vae").get("latent_channels", 4)):
        raise ModelUnavailable(
            checkpoint.place, f"has no eye for a picture: its denoiser takes {takes} channels, expected {wanted}"
        )
    return checkpoint


def read_projection(checkpoint: Checkpoint, embedding: int, token: int) -> nn.Linear:
    """The one linear map of [image embedding, pose] to a token among the model's parts; raises `ModelUnavailable`."""
    width = embedding + 4
    shape = (token, width)
    for part in checkpoint.strange_parts:
        read = read_tensors(checkpoint.path, part)
        tensors = {tuple(tensor.shape): tensor for tensor in read.values()}
        if len(read) == 2 and tensors.keys() == {shape, (token,)}:
            projection = nn.Linear(width, token).requires_grad_(False)
            projection.load_state_dict({"weight": tensors[shape], "bias": tensors[token,]})
            return projection
    parts = ", ".join(checkpoint.strange_parts)
    raise ModelUnavailable(
        checkpoint.place, f"knows no poses: none of its parts ({parts}) is a linear map of shape {shape} with its bias"
    )


def pose_of(source: str | Path, checkpoint: Checkpoint) -> Pose:
    """What a model is told of a camera, as far as anyone says so of it."""
    entry = known(source) or known(checkpoint.place)
    told = checkpoint.index.get("absolute_elevation", entry is not None and entry.absolute_elevation)
    return pose_with_elevation if told else relative_pose


def load_prior(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> Zero123Prior:
    """The denoiser from a folder or a Hub id. Raises `ModelUnavailable`."""
    checkpoint = checked(source, options)
    with one_sentence(checkpoint):
        unet = read_diffusers(UNet2DConditionModel, checkpoint.path, "unet", dtype)
        vae = read_autoencoder(checkpoint.path, dtype)
        tiny = read_tiny(vae, checkpoint, dtype, options)
        autoencoder = economise(Autoencoder(vae, unet.config.sample_size, tiny), options).to(device)
        return Zero123Prior(place_denoiser(unet, device, options), autoencoder, *noise_levels_of(checkpoint))


def load_image_encoder(
    source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN
) -> Zero123Picture:
    """What looks at a run's picture for that denoiser; then let it go. Raises `ModelUnavailable`."""
    checkpoint = checked(source, options)
    unet = configuration_of(checkpoint, "unet")
    has_colours = checkpoint.has("feature_extractor")
    colours = configuration_of(checkpoint, "feature_extractor", "preprocessor_config.json") if has_colours else {}
    with one_sentence(checkpoint):
        encoder = read_transformers(CLIPVisionModelWithProjection, checkpoint.path, "image_encoder", dtype)
        encoder.eval().requires_grad_(False).to(device)
        vae = Autoencoder(read_autoencoder(checkpoint.path, dtype), unet["sample_size"]).to(device)
        projection = read_projection(checkpoint, encoder.config.projection_dim, unet["cross_attention_dim"])
        return Zero123Picture(
            encoder,
            vae,
            projection.to(device),
            pose_of(source, checkpoint),
            tuple(colours.get("image_mean", OPENAI_CLIP_MEAN)),
            tuple(colours.get("image_std", OPENAI_CLIP_STD)),
        )


def load_text_encoder(source: str | Path, device: torch.device, dtype: torch.dtype, options: Options = PLAIN) -> NoReturn:
    """There is none: raises `ModelUnavailable`."""
    raise ModelUnavailable(
        str(source), "is shown a picture and reads no text: give it one, or choose a model that reads prompts"
    )
