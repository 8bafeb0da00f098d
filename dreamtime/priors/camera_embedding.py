"""The camera of a picture, told to a denoiser as numbers: an embedding that is added to that of the timestep (MVDream).

Four view words leave a prior every elevation, every azimuth in between and every size to guess; what is told exactly need not
be guessed. What a side looks like depends on the object, so the words of its name may be read anew for each camera too.
"""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from dreamtime.cameras import angles_from_position
from dreamtime.types import Cameras

NUMBERS = 16  # of a pose
AZIMUTH = 8  # the first of them
HIDDEN = 256  # units between a word with its pose and what is added to it


def magnification(distance: Float[Tensor, " B"], fov_y: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Half-pictures per scene unit at the origin: how large an object appears, whether it is near or the lens is long."""
    return 1 / (distance * torch.tan(fov_y / 2))


def waves(angle: Float[Tensor, " B"], count: int) -> list[Float[Tensor, " B"]]:
    """Cosine and sine of the angle's first multiples."""
    return [wave(k * angle) for k in range(1, count + 1) for wave in (torch.cos, torch.sin)]


def poses_of(cameras: Cameras) -> Float[Tensor, "B 16"]:
    """Azimuth, elevation and magnification of cameras that look at the origin, as waves; never all zero."""
    elevation, azimuth, distance = angles_from_position(cameras.positions)
    nearness = magnification(distance, cameras.fov_y).log().clamp(-math.pi / 2, math.pi / 2)
    return torch.stack([*waves(azimuth, 4), *waves(2 * elevation, 2), *waves(2 * nearness, 2)], dim=1)


class CameraEmbedding(ModelMixin, ConfigMixin):  # type: ignore[misc] # diffusers leaves it untyped
    """A pose to what is added to the timestep's embedding, and to each token of a text if `text_width` is not 0.

    Zeros, where nothing is told of the camera, add nothing.
    """

    @register_to_config
    def __init__(self, width: int, numbers: int = NUMBERS, text_width: int = 0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(numbers, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.last.weight)
        if text_width:
            self.word, self.pose = nn.Linear(text_width, HIDDEN), nn.Linear(numbers, HIDDEN, bias=False)
            self.reworded = nn.Linear(HIDDEN, text_width, bias=False)
            nn.init.zeros_(self.reworded.weight)

    def forward(self, poses: Float[Tensor, "B P"]) -> Float[Tensor, "B W"]:
        added: Float[Tensor, "B W"] = self.last(nn.functional.silu(self.first(poses)))
        return added

    def reread(self, text: Float[Tensor, "B L D"], poses: Float[Tensor, "B P"]) -> Float[Tensor, "B L D"]:
        """e + R (silu(W e + P p) - silu(W e)) of each token e: the text as it reads from there; itself if never taught."""
        if not self.config.text_width:
            return text
        unseen = self.word(text)
        seen = unseen + self.pose(poses)[:, None]
        read: Float[Tensor, "B L D"] = text + self.reworded(nn.functional.silu(seen) - nn.functional.silu(unseen))
        return read
