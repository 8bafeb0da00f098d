"""The tiny VAE against the VAE it stands in for: how near to the picture each decodes, how near to one another, and how fast.

    python -m benchmarks.tiny_vae

Draws pictures that neither has learnt from, two sides of each object; also decodes points halfway between two sides, as a prior
means them that cannot tell which it is. Writes `tiny_vae.md` beside this file.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from benchmarks.rows import measured_on
from dreamtime.priors import loading
from dreamtime.priors.autoencoder import Autoencoder, read_autoencoder
from dreamtime.priors.options import Options
from dreamtime.priors.stable_diffusion import StableDiffusionPrior
from dreamtime.references import psnr
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.pictures import draw_pictures

HERE = Path(__file__).parent
CPU, SINGLE = torch.device("cpu"), torch.float32
VIEWS = 6  # that a step of the presets decodes at once
Decode = Callable[[Float[Tensor, "B C h w"]], Float[Tensor, "B S S 3"]]


def mean_psnr(images: Float[Tensor, "B H W 3"], truth: Float[Tensor, "B H W 3"]) -> float:
    """Of each picture by itself, then the mean, in decibel."""
    return sum(psnr(*pair) for pair in zip(images, truth, strict=True)) / len(images)


def milliseconds(decode: Decode, x: Float[Tensor, "B C h w"], times: int = 30) -> float:
    """The median of decoding so many latents."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        decode(x)
        spent.append(1000 * (time.perf_counter() - started))
    return sorted(spent)[times // 2]


@torch.no_grad()
def measured(count: int, seed: int) -> str:
    """The table."""
    images = draw_pictures(count, Generator().manual_seed(seed), sides=2).images / 255
    prior = loading.load_prior(WEIGHTS, CPU, SINGLE, Options(decodes=True))
    assert isinstance(prior, StableDiffusionPrior)
    vae = read_autoencoder(WEIGHTS, SINGLE)
    whole = Autoencoder(vae, prior.unet.config.sample_size, vae)
    ways: dict[str, Decode] = {"VAE": whole.decode, "tiny VAE": prior.decode}
    x = torch.cat([prior.encode(part) for part in images.split(64)])
    halfway = (x[::2] + x[1::2]) / 2
    plain, between = (
        {name: torch.cat([decode(part) for part in asked.split(64)]) for name, decode in ways.items()} for asked in (x, halfway)
    )
    lines = [
        measured_on(),
        f"{count} pictures of objects that are not held out, seed {seed}; PSNR in decibel, means over pictures.",
        "",
        f"| decoder | to the picture | to the VAE | to the VAE, between two sides | ms for {VIEWS} |",
        "|---|---|---|---|---|",
    ]
    for name, decode in ways.items():
        near = [mean_psnr(plain[name], images), mean_psnr(plain[name], plain["VAE"]), mean_psnr(between[name], between["VAE"])]
        told = [f"{value:.1f}" if value < 99 else "" for value in near]
        lines.append(f"| {name} | {' | '.join(told)} | {milliseconds(decode, x[:VIEWS]):.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the pictures: not one of a training")
    parser.add_argument("--output", type=Path, default=HERE / "tiny_vae.md")
    arguments = parser.parse_args()
    arguments.output.write_text(measured(arguments.pictures, arguments.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
