"""What the embedded prior makes of the cameras it is told: its error on fresh pictures, told rightly and wrongly.

    python -m benchmarks.told_cameras

Pictures of the toybox that no training saw are noised to a timestep; the error is that of x0_hat in latents of unit variance,
without guidance; the noise is the same in every row, and the text is told with its view or without. Writes
`told_cameras.md` beside this file.
"""

import argparse
import math
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from benchmarks.rows import digest_of, measured_on
from dreamtime.cameras import angles_from_position, orbit
from dreamtime.diffusion import add_noise, x0_from_epsilon
from dreamtime.priors import loading
from dreamtime.priors.stable_diffusion import StableDiffusionPrior
from dreamtime.prompts import views_of, with_view
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.pictures import draw_pictures
from dreamtime.types import Cameras

HERE = Path(__file__).parent
TIMESTEPS = (500, 800, 950)


def told(cameras: Cameras) -> dict[str, Cameras | None]:
    """What may be told of a camera, and what that makes of it."""
    elevation, azimuth, distance = angles_from_position(cameras.positions)

    def moved(higher: float = 0.0, further_round: float = 0.0, further_off: float = 1.0) -> Cameras:
        turned = azimuth + math.radians(further_round)
        return orbit(elevation + math.radians(higher), turned, distance * further_off, cameras.fov_y, 64, 64)

    return {
        "nothing": None,
        "where it stands": moved(),
        "another size (1.3 times as far)": moved(further_off=1.3),
        "20 degrees too high": moved(higher=20.0),
        "45 degrees further round": moved(further_round=45.0),
        "from behind": moved(further_round=180.0),
    }


def error(
    prior: StableDiffusionPrior, x: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], t: int, condition: Tensor
) -> float:
    """Mean square of x0_hat - x."""
    z_t = add_noise(x, noise, prior.alphas_cumprod, t)
    parts = zip(z_t.split(32), condition.split(32), strict=True)
    noise_hat = torch.cat([prior.predict_noise(z, t, part) for z, part in parts])
    return (x0_from_epsilon(z_t, noise_hat, prior.alphas_cumprod, t) - x).square().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=192, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=77, help="not the training's (default %(default)s)")
    arguments = parser.parse_args()
    chance = Generator().manual_seed(arguments.seed)
    cpu = torch.device("cpu")
    prior = loading.load_prior(WEIGHTS, cpu, torch.float32)
    assert isinstance(prior, StableDiffusionPrior)
    drawn = draw_pictures(arguments.pictures, chance)
    with_views = [with_view(words, view) for words, view in zip(drawn.captions, views_of(drawn.cameras), strict=True)]
    embed = loading.load_text_encoder(WEIGHTS, cpu, torch.float32)
    texts = {"the text with its view": embed(with_views), "the text alone": embed(drawn.captions)}
    with torch.no_grad():
        x = torch.cat([prior.encode(part.float() / 255) for part in drawn.images.split(32)])
    noise = torch.randn(x.shape, generator=chance)
    head = f"| told | and of the camera | {' | '.join(f't = {t}' for t in TIMESTEPS)} |"
    lines = [measured_on(), f"Model {digest_of(WEIGHTS)}.", "", head, "|---" * 5 + "|"]
    for (name, text), (what, cameras) in product(texts.items(), told(drawn.cameras).items()):
        condition = text if cameras is None else prior.tell(text, cameras)
        lines.append(f"| {name} | {what} | {' | '.join(f'{error(prior, x, noise, t, condition):.4f}' for t in TIMESTEPS)} |")
    (HERE / "told_cameras.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
