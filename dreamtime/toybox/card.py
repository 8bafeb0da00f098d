"""The model card of the embedded model, written from what its training logged."""

import shutil
from pathlib import Path

from dreamtime.toybox.denoiser import (
    CAMERA_DROPOUT,
    CAPTION_DROPOUT,
    DISTRACTION,
    PAIRS_AS_OFTEN,
    READING_WEIGHT,
    STRANGER_SHARE,
    TURNED_SHARE,
    UNTOLD_TURNED_SHARE,
    UNTOLD_VIEW_DROPOUT,
    VIEW_DROPOUT,
)
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.training import HIDING_FROM, Training
from dreamtime.toybox.world import COLORS, RELATIONS


def last_loss(log: Path) -> float:
    """The loss in a log's last row: a mean over 50 steps."""
    return float(log.read_text().splitlines()[-1].split(",")[1])


def vae_in_words(training: Training, log: Path) -> str:
    """How the VAE was trained: here, or by the training that this one went on from."""
    if not training.vae_steps:
        return "The VAE is the one it began with."
    return (
        f"VAE: {training.vae_steps:,} steps of {training.vae_batch}, mean absolute error with image gradients and a light KL;"
        f" final loss {last_loss(log):.4f}."
    )


def tiny_vae_in_words(training: Training, log: Path) -> str:
    """How the tiny VAE was trained, if it was."""
    if not training.tiny_vae_steps:
        return "The tiny VAE is the one it began with."
    return (
        f"Tiny VAE, from nothing: {training.tiny_vae_steps:,} steps of {training.tiny_vae_batch} on pictures, their latents,"
        f" and what the VAE makes of points between those of two sides of an object; final loss {last_loss(log):.4f}."
    )


def steps_in_words(training: Training, log: Path) -> str:
    """How the UNet and the text encoder were trained on all pictures, if they were."""
    if not training.steps:
        return "no steps on all pictures."
    return (
        f"{training.steps:,} steps of {training.batch}, v-prediction,\n  AdamW at {training.learning_rate:g} with warm-up,"
        f" plateau and linear decay, EMA 0.999; final loss {last_loss(log):.4f}."
    )


def reading_in_words(training: Training) -> str:
    """What the text encoder learnt of captions before it was shown pictures, if it did."""
    if not training.reading_steps:
        return ""
    return f"{training.reading_steps:,} steps of reading exercises for the text encoder alone (`toybox.reading`), then "


def lessons_in_words(training: Training, given: tuple[int, ...]) -> str:
    """What came before all pictures at once, if anything did."""
    if not given:
        return ""
    return f"lessons {', '.join(map(str, given))} on azimuths (`denoiser.LESSONS`), {training.lesson_steps:,} steps each, then "


def write_card(
    folder: Path,
    work: Path,
    training: Training,
    parameters: dict[str, int],
    kinds: list[str],
    shown: int,
    given: tuple[int, ...],
) -> None:
    """README.md with data, steps, losses, sample sheet and limits; the loss curves are copied beside it."""
    stages = {
        "vae": training.vae_steps,
        "tiny-vae": training.tiny_vae_steps,
        "reading": training.reading_steps,
        "denoiser": training.steps,
    }
    for stage in (name for name, steps in stages.items() if steps):
        shutil.copyfile(work / f"{stage}.csv", folder / f"{stage}-loss.csv")
    synonyms = "; ".join(f"{name}: {', '.join(KINDS[name].synonyms)}" for name in kinds if KINDS[name].synonyms)
    pairs = f", and pairs of the first {len(SOLIDS)} kinds ({' or '.join(RELATIONS)} one another)"
    more_pairs = f" Pairs are shown {PAIRS_AS_OFTEN} times as often." if len(kinds) == len(KINDS) else ""
    more = ', many with a second colour ("a green mushroom with a white stem")' + pairs if len(kinds) == len(KINDS) else ""
    part = "" if len(kinds) == len(KINDS) else f" Of these the UNet was shown the {shown:,} of one solid alone."
    which = " ".join(map(str, training.lessons))
    reading = f" --reading-steps {training.reading_steps}" if training.reading_steps else ""
    lessons = f" --lessons {which} --lesson-steps {training.lesson_steps}" if training.lesson_steps else ""
    start = f" --start {training.start}" if training.start else ""
    start += "" if len(kinds) == len(KINDS) else " --objects solids"
    began = f" It began from the weights in `{training.start}`." if training.start else ""
    sizes = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items())
    unet = reading_in_words(training) + lessons_in_words(training, given) + steps_in_words(training, work / "denoiser.csv")
    folder.joinpath("README.md").write_text(f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# The toybox model

A text-to-image latent diffusion model of small coloured objects, in the layout of a `StableDiffusionPipeline`:
`StableDiffusionPipeline.from_pretrained(folder)` loads it. It exists so that score distillation can be run, tested and
measured on a CPU, offline, against shapes that are known exactly.

![Objects from front, side, back and above; 30 DDIM steps, guidance 5](samples.png)

* **Data.** {training.pictures:,} pictures of the toybox, 64x64 pixels, ray-traced from signed distances with 2x2
  supersampling, two of each object from two azimuths, and the mirror images of what has a left and a right alike.{part}
  It knows {len(kinds)} kinds ({", ".join(kinds)}) in {len(COLORS)} colours ({", ".join(COLORS)}){more}.
  A tenth of all combinations is held out (`dreamtime.toybox.world.held_out`), with what looks the same under another name
  (`twin`). 6 % of the objects are white plaster, and their captions name no colour. Cameras: elevation -10 to 45 degrees (15 %
  from 45 to 85), any azimuth, distance 1.5 to 2.2, field of view 40 to 70 degrees. Lambertian light from a point near the
  camera, ambient share 0.3 to 0.6 (10 % without shading); a random shade of grey behind.
* **Captions.** "a red cube, front view" and other wordings ({synonyms}; "a photo of", "a 3d model of", "a toy:"); some
  leave the colour open, {VIEW_DROPOUT:.0%} the view ({UNTOLD_VIEW_DROPOUT:.0%} where nothing else tells it),
  {DISTRACTION:.0%} hold a meaningless word, {CAPTION_DROPOUT:.0%} are empty for the unconditional branch.{more_pairs}
* **Cameras.** {1 - CAMERA_DROPOUT:.0%} of the pictures also tell the camera as numbers: azimuth, elevation, and how large the
  object appears (`dreamtime.priors.camera_embedding`), of which a network of two layers makes what is added to the timestep's
  embedding, as in MVDream, and another what is added to each word. From t = {HIDING_FROM} up some noise hides the object from
  another side ({TURNED_SHARE:.0%}; {UNTOLD_TURNED_SHARE:.0%} where the caption alone tells the side), or another object
  ({STRANGER_SHARE:.0%} where the camera is told), so that what is told has to be heeded (`training.perhaps_another`). The
  embedding lies beside the pipeline, in `camera_embedding`; diffusers leaves it alone and asks as if nothing were told.
* **Parts.** {sizes}. VAE of factor 4, UNet on 16x16x4 latents, word-level CLIP tokenizer, four-layer text encoder
  trained together with the UNet, and beside it to name what new captions tell (`toybox.reading`; {READING_WEIGHT:g} times the
  loss of that is part of the final one). The tiny VAE, in the layout of TAESD, knows the same latents and makes fewer sums; a
  step that compares images decodes by it. Kept in half precision.
* **Training.**{began} {vae_in_words(training, work / "vae.csv")} {tiny_vae_in_words(training, work / "tiny-vae.csv")} UNet:
  {unet} Curves: `*-loss.csv`.
  Seed {training.seed}.
* **Made again by** `python -m dreamtime.toybox.train --work FOLDER --pictures {training.pictures}
  --vae-steps {training.vae_steps} --tiny-vae-steps {training.tiny_vae_steps}{reading}{lessons} --steps {training.steps}
  --batch {training.batch} --learning-rate {training.learning_rate:g} --seed {training.seed}{start}`. It resumes where it
  stopped.

## Limits

Objects centred before plain grey. It knows the words above and no others: unknown words are ignored at best. It says
nothing about scenes, textures or materials. The VAE blurs detail of one or two pixels.
""")
