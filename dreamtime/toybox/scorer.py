"""Train the scorer: `python -m dreamtime.toybox.scorer --work FOLDER [--output FOLDER]`.

A small CLIP that tells which caption fits a picture of the toybox: the ruler for everything the embedded model makes, and so
trained apart from it, from another seed, on all combinations, those that are held out included. Both stages are kept in the
work folder and resumed where they stopped: draw the pictures, train. The result is a folder that transformers' `CLIPModel` and
`CLIPProcessor` load, with a model card that states how often the scorer is right about pictures of the true objects.
"""

import argparse
import csv
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from dreamtime.prompts import VIEWS
from dreamtime.toybox import SCORER, models
from dreamtime.toybox.meanings import Description, agreement, answers, near_miss, questions, slot_values, wording
from dreamtime.toybox.pictures import RESOLUTION
from dreamtime.toybox.portraits import VIEW_MARGIN, Pictures, draw
from dreamtime.toybox.training import kept, loop, seeded_initialisation, to_input
from dreamtime.toybox.world import Pair, object_of

log = logging.getLogger(__name__)

SLOT_VALUES = slot_values()
TOLD_VIEW = 0.5  # the share of captions that tell the view
OPEN_COLOR = 0.1  # the share of captions that leave the colours open
NEAR_MISSES = 2  # captions per picture that are wrong in one attribute
SOFTENED = 0.25  # the share of pictures made coarse, as optimised shapes are
LARGEST_SCALE = 4.6052  # of the logits, as a logarithm: CLIP's limit of 100
CHECKED_PICTURES = 600  # of a seed of their own, for the model card


def pictures(work: Path, count: int, seed: int) -> Pictures:
    """The training set, drawn once; raises ValueError if another one lies in the work folder."""
    labels = work / "scorer-labels.csv"

    def make() -> dict[str, Tensor]:
        drawn = draw(count, Generator().manual_seed(seed))
        with labels.open("w", newline="") as file:
            told = [(each.what.caption, each.view or "", int(each.colored)) for each in drawn.descriptions]
            csv.writer(file).writerows([("caption", "view", "colored"), *told])
        return {"images": drawn.images}

    images = kept(work / "scorer-pictures.safetensors", {"pictures": str(count), "seed": str(seed)}, make)["images"]
    with labels.open(newline="") as file:
        return Pictures(images, [described(row) for row in csv.DictReader(file)])


def described(row: dict[str, str]) -> Description:
    """One row of the labels."""
    what = object_of(row["caption"])
    if what is None:
        raise ValueError(f"The caption {row['caption']!r} names no object of the world: the pictures are of another version.")
    (view,) = [view for view in (None, *VIEWS) if (view or "") == row["view"]]
    return Description(what, view, row["colored"] == "1")


# -- the model


def build_model(tokenizer: CLIPTokenizer, width: int = 128) -> CLIPModel:
    """A vision transformer of 8-pixel patches and a text transformer, both of four layers or less, into 128 dimensions."""
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": models.MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={**shape, **text, "num_hidden_layers": 2},
        vision_config={**shape, "num_hidden_layers": 5, "image_size": RESOLUTION, "patch_size": 8},
        projection_dim=128,
    )
    return CLIPModel(config)


def image_features(model: CLIPModel, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Unit vectors of normalised pictures."""
    return F.normalize(model.visual_projection(model.vision_model(pixel_values=images).pooler_output), dim=-1)


def text_features(model: CLIPModel, tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Float[Tensor, "P D"]:
    """Unit vectors of captions."""
    tokens = tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt").to(model.device)
    return F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=-1)


def contrastive_loss(
    logits: Float[Tensor, "B P"], true: Bool[Tensor, "B P"], undecided: Bool[Tensor, "B P"]
) -> Float[Tensor, ""]:
    """CLIP's loss where a picture may have several true captions and a caption several pictures: each shares the target evenly.

    What a picture does not decide is left out of the sums; so are captions that are true of no picture, as targets.
    """
    logits = logits.masked_fill(undecided, -1e4)
    target = true.to(logits)
    to_captions = F.cross_entropy(logits, target / target.sum(dim=1, keepdim=True))
    fitting = true.any(dim=0)
    back, target = logits.T[fitting], target.T[fitting]
    return (to_captions + F.cross_entropy(back, target / target.sum(dim=1, keepdim=True))) / 2


def naming_loss(logits: Float[Tensor, "B K"], shown: Sequence[Description]) -> Float[Tensor, ""]:
    """Cross-entropy of naming what each picture shows, slot by slot, over the slots that it does show.

    Contrast alone teaches a small vision transformer slowly; names, whose heads are dropped afterwards, teach it fast.
    """
    losses, start = list[Tensor](), 0
    for place, values in enumerate(SLOT_VALUES):
        number = {value: index for index, value in enumerate(values)}
        target = torch.tensor([number.get(each.slots[place], -100) for each in shown]).to(logits.device)  # type: ignore[arg-type]
        part = logits[:, start : start + len(values)]
        if (target >= 0).any():
            losses.append(F.cross_entropy(part, target, ignore_index=-100))
        start += len(values)
    return torch.stack(losses).sum()


# -- training


def mirrored(description: Description) -> Description:
    """What the mirror image shows: everything the same, except that neighbours change places."""
    what = description.what
    if isinstance(what, Pair) and what.relation == "next to":
        return replace(description, what=Pair(what.second, what.relation, what.first))
    return description


def told(shown: Description, generator: Generator) -> Description:
    """What a caption tells of what a picture shows: often not the view, sometimes not the colours."""
    telling = torch.rand(2, generator=generator)
    view = shown.view if telling[0] < TOLD_VIEW else None
    return replace(shown, view=view, colored=shown.colored and bool(telling[1] >= OPEN_COLOR))


def softened(images: Float[Tensor, "B 3 H W"], generator: Generator) -> Float[Tensor, "B 3 H W"]:
    """The same pictures, some of them at half the resolution."""
    chosen = (torch.rand(len(images), generator=generator) < SOFTENED).to(images.device)
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    return torch.where(chosen[:, None, None, None], coarse, images)


def train(known: Pictures, work: Path, steps: int, batch: int, seed: int, device: torch.device) -> CLIPModel:
    """The scorer after its steps."""
    tokenizer = models.build_tokenizer()
    with seeded_initialisation(seed):
        model = build_model(tokenizer).to(device)
        heads = nn.Linear(model.config.vision_config.hidden_size, sum(map(len, SLOT_VALUES))).to(device)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    generator = Generator().manual_seed(seed)

    def loss_of_step() -> Tensor:
        rows = torch.randint(len(known.images), (batch,), generator=generator)
        flipped = torch.rand(batch, generator=generator) < 0.5
        images = softened(to_input(known.images[rows], device), generator)
        images = torch.where(flipped.to(device)[:, None, None, None], images.flip(-1), images)
        shown = [known.descriptions[row] for row in rows.tolist()]
        shown = [mirrored(each) if flip else each for each, flip in zip(shown, flipped.tolist(), strict=True)]
        captions = [told(each, generator) for each in shown]
        captions += [near_miss(each, generator) for each in captions for _ in range(NEAR_MISSES)]
        worded = {wording(each, generator): each for each in captions}
        true, undecided = agreement(shown, list(worded.values()))
        with torch.autocast(device.type, torch.bfloat16):
            pooled = model.vision_model(pixel_values=images).pooler_output
            seen, read = F.normalize(model.visual_projection(pooled), dim=-1), text_features(model, tokenizer, list(worded))
            names = heads(pooled)
        logits = model.logit_scale.exp() * seen.float() @ read.float().T
        return contrastive_loss(logits, true.to(device), undecided.to(device)) + naming_loss(names.float(), shown)

    def hold_scale() -> None:
        model.logit_scale.data.clamp_(max=LARGEST_SCALE)

    loop("scorer", steps, work, {"scorer": model, "heads": heads}, optimizer, 1e-3, generator, loss_of_step, hold_scale)
    return model.eval().requires_grad_(False)


# -- what it has learnt


@torch.no_grad()
def accuracies(model: CLIPModel, checked: Pictures) -> dict[str, tuple[float, int]]:
    """How often the true caption is nearer than any that is wrong in one attribute, and among how many pictures.

    "everything" counts a picture when no attribute is wrong; textureless pictures are counted apart.
    """
    tokenizer = models.build_tokenizer()
    asked = dict.fromkeys(
        caption for shown in checked.descriptions for options in questions(shown).values() for caption in options
    )
    captions = list(asked)
    read = torch.cat([text_features(model, tokenizer, captions[i : i + 512]) for i in range(0, len(captions), 512)])
    seen = torch.cat([image_features(model, to_input(part, model.device)) for part in checked.images.split(128)])
    vectors = dict(zip(captions, read, strict=True))
    right: dict[str, list[bool]] = {}
    for picture, shown in zip(seen, checked.descriptions, strict=True):
        found = answers(picture, shown, vectors)
        for name, answer in [*found.items(), ("everything", all(found.values()))]:
            right.setdefault(name if shown.colored else f"{name}, textureless", []).append(answer)
    return {name: (sum(values) / len(values), len(values)) for name, values in sorted(right.items())}


def write_card(
    folder: Path, work: Path, measured: dict[str, tuple[float, int]], arguments: argparse.Namespace, parameters: int
) -> None:
    """README.md with data, steps and accuracies; the loss curve is copied beside it."""
    shutil.copyfile(work / "scorer.csv", folder / "scorer-loss.csv")
    rows = "\n".join(f"| {name} | {share:.1%} | {count} |" for name, (share, count) in measured.items())
    folder.joinpath("README.md").write_text(f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---

# The toybox scorer

A small CLIP that tells which caption fits a picture of the toybox: `CLIPModel.from_pretrained(folder)` and
`CLIPProcessor.from_pretrained(folder)` load it. It is the ruler of `python -m dreamtime evaluate`, so it was trained apart from
the embedded diffusion model: from another seed, and on all combinations, those that are held out included.

* **Data.** {arguments.pictures:,} pictures of 64x64 pixels, ray-traced under the cameras, lights and backgrounds of the world;
  one in seven without light, one in seven without colours (their captions name none). Half are mirrored, a quarter made coarse.
* **Training.** {arguments.steps:,} steps of {arguments.batch} pictures, AdamW at 1e-3 with warm-up, plateau and linear decay;
  CLIP's loss, in which a picture may have several true captions, against {NEAR_MISSES} captions per picture that are wrong in
  one attribute; and the names of what a picture shows, by heads that are then dropped. {parameters / 1e6:.2f} M parameters.
  Loss curve: `scorer-loss.csv`. Seed {arguments.seed}.
* **Made again by** `python -m dreamtime.toybox.scorer --work FOLDER --pictures {arguments.pictures} --steps {arguments.steps}
  --batch {arguments.batch} --seed {arguments.seed}`; it resumes where it stopped.

## How often it is right

On {CHECKED_PICTURES} fresh pictures of the true objects, of a seed of their own: is the true caption nearer than every
caption that is wrong in one attribute alone? Views are asked of objects with a front, seen from at least {VIEW_MARGIN:.2f}
radians off the border between two views; "everything" counts a picture when no attribute is wrong.

| attribute | right | pictures |
|---|---|---|
{rows}

## Limits

It knows the words of the toybox and no others, and tells nothing about how well a picture is made.
""")


def export(model: CLIPModel, folder: Path) -> None:
    """The model, its tokenizer and how pictures are to be normalised, as transformers reads them."""
    model.float().cpu().save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    picture = CLIPImageProcessor(size={"shortest_edge": RESOLUTION}, crop_size=RESOLUTION, image_mean=half, image_std=half)
    CLIPProcessor(picture, models.build_tokenizer()).save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the scorer of the procedural toybox world.")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for pictures, checkpoint and log; resumes what it finds"
    )
    parser.add_argument("--output", type=Path, default=SCORER, help="where the model is written (default: the package's own)")
    parser.add_argument("--pictures", type=int, default=30_000, help="training pictures, about (default %(default)s)")
    parser.add_argument("--steps", type=int, default=5000, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="pictures per step (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="not the embedded model's (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    arguments.work.mkdir(parents=True, exist_ok=True)
    known = pictures(arguments.work, arguments.pictures, arguments.seed)
    model = train(known, arguments.work, arguments.steps, arguments.batch, arguments.seed, torch.device(arguments.device))
    measured = accuracies(model, draw(CHECKED_PICTURES, Generator().manual_seed(arguments.seed + 1)))
    for name, (share, count) in measured.items():
        log.info("%s: %.1f %% of %d", name, 100 * share, count)
    export(model, arguments.output)
    write_card(arguments.output, arguments.work, measured, arguments, sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    main()
