"""Train the scorer: `python -m dreamtime.toybox.scorer --work FOLDER [--output FOLDER]`.

A small CLIP that tells which caption fits a picture of the toybox: the ruler for everything the embedded model makes, and so
trained apart from it, from another seed, on all combinations, those that are held out included. Every stage is resumed where
it stopped: draw the pictures, which a GPU does anew, train a small convolutional teacher, train the scorer with its help. The
result is a folder that transformers' `CLIPModel` and `CLIPProcessor` load, with a model card that states how often the scorer
is right about pictures of the true objects.
"""

import argparse
import csv
import hashlib
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

from dreamtime.checkpoints import write_atomically
from dreamtime.prompts import VIEWS
from dreamtime.toybox import SCORER, models
from dreamtime.toybox.gathering import PLACES, SIDE, Gathering
from dreamtime.toybox.meanings import Description, agreement, answers, near_miss, questions, wording
from dreamtime.toybox.naming import NAMES, QUESTIONS, naming_loss
from dreamtime.toybox.pictures import RESOLUTION
from dreamtime.toybox.portraits import VIEW_MARGIN, Pictures, draw
from dreamtime.toybox.training import DEVICES, kept, loop, mixed_precision, plain_attention, seeded_initialisation, to_input
from dreamtime.toybox.world import Pair, object_of

log = logging.getLogger(__name__)

LEARNT_SHARES = (0.2, 0.35, 0.15, 0.3)  # of pictures: solids, other kinds, two colours; pairs, which take longest to learn
TOLD_VIEW = 0.5  # the share of captions that tell the view
OPEN_COLOR = 0.1  # the share of captions that leave the colours open
NEAR_MISSES = 3  # captions per picture that are wrong in one attribute
SOFTENED = 0.25  # the share of pictures made coarse, as optimised shapes are
SHIFT = 3  # pixels by which a picture is moved at most
HINTED = 2  # the layer after which each patch tells what the teacher's earlier feature map holds there
LARGEST_SCALE = 4.6052  # of the logits, as a logarithm: CLIP's limit of 100
CHECKED_PICTURES = 600  # of a seed of their own, for the model card


def pictures(work: Path, count: int, seed: int, device: torch.device) -> Pictures:
    """The training set, drawn by the device; raises ValueError if the work folder is another one's."""
    labels = work / "scorer-labels.csv"

    def make() -> dict[str, Tensor]:
        drawn = draw(count, Generator().manual_seed(seed), device, LEARNT_SHARES)
        with labels.open("w", newline="") as file:
            told = [(each.what.caption, each.view or "", int(each.colored)) for each in drawn.descriptions]
            csv.writer(file).writerows([("caption", "view", "colored"), *told])
        return {"images": drawn.images}

    made_as = {"pictures": str(count), "seed": str(seed), "shares": str(LEARNT_SHARES)}
    images = kept(work / "scorer-pictures.safetensors", made_as, make, device)["images"]
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


def build_model(tokenizer: CLIPTokenizer, width: int = 192) -> CLIPModel:
    """A vision transformer of five layers with a patch per place and a text transformer of two, both into 128 dimensions."""

    def transformer(width: int, layers: int) -> dict[str, int]:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": width // 32,
            "num_hidden_layers": layers,
        }

    text = transformer(width // 2, 2) | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": models.MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = transformer(width, 5) | {"image_size": RESOLUTION, "patch_size": RESOLUTION // SIDE}
    vision["num_attention_heads"] = PLACES
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


class Teacher(nn.Module):
    """A small convolutional network that names what a picture shows.

    It learns that from several times fewer pictures than a vision transformer, which in turn learns much faster when each of
    its tokens has to tell what the teacher saw in the same place: its last feature map has a pixel for every patch, and an
    earlier one, from which the first layers can learn already, four.
    """

    def __init__(self) -> None:
        super().__init__()

        def block(channels: int, wider: int, stride: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU())

        shape = [(3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1)]
        self.parts = nn.Sequential(*(block(*each) for each in shape))
        self.places = nn.Sequential(*(block(*each) for each in [(128, 256, 2), (256, 256, 1), (256, 256, 1)]))
        self.names = nn.Sequential(nn.Flatten(), nn.Linear(256 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, NAMES))

    def forward(
        self, images: Float[Tensor, "B 3 64 64"]
    ) -> tuple[Float[Tensor, "B 128 8 8"], Float[Tensor, "B 256 4 4"], Float[Tensor, "B K"]]:
        """An earlier and the last feature map, and the logits of the names."""
        parts = self.parts(images)
        places = self.places(parts)
        return parts, places, self.names(places)


class Student(nn.Module):
    """What a scorer has only while it learns: heads that name what the picture shows and what the teacher saw in each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = nn.Linear(width, NAMES)
        self.places = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 256))
        self.parts = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * 128))


def image_features(model: CLIPModel, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Unit vectors of normalised pictures."""
    return F.normalize(model.visual_projection(model.vision_model(pixel_values=images).pooler_output).float(), dim=-1)


def text_features(model: CLIPModel, tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Float[Tensor, "P D"]:
    """Unit vectors of captions."""
    tokens = tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt").to(model.device)
    return F.normalize(model.text_projection(model.text_model(**tokens).pooler_output).float(), dim=-1)


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


def shifted(images: Float[Tensor, "B 3 H W"], generator: Generator) -> Float[Tensor, "B 3 H W"]:
    """The same pictures, each moved by a few pixels; what comes in at the edges is the background there."""
    height, width = images.shape[-2:]
    wider = F.pad(images, (SHIFT,) * 4, mode="replicate")
    corners = torch.randint(2 * SHIFT + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(wider, corners, strict=True)])


def seen(
    known: Pictures, batch: int, generator: Generator, device: torch.device
) -> tuple[Float[Tensor, "B 3 H W"], list[Description]]:
    """Pictures by chance, half of them mirrored, some made coarse, all moved a little, and what each shows."""
    rows = torch.randint(len(known.images), (batch,), generator=generator)
    flipped = torch.rand(batch, generator=generator) < 0.5
    images = softened(to_input(known.images[rows], device), generator)
    images = shifted(torch.where(flipped.to(device)[:, None, None, None], images.flip(-1), images), generator)
    images = images.contiguous(memory_format=torch.channels_last)
    shown = [known.descriptions[row] for row in rows.tolist()]
    return images, [mirrored(each) if flip else each for each, flip in zip(shown, flipped.tolist(), strict=True)]


def train_teacher(known: Pictures, work: Path, steps: int, batch: int, seed: int, device: torch.device) -> Teacher:
    """The teacher after its steps, in its mode for use."""
    with seeded_initialisation(seed):
        teacher = Teacher().to(device)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=2e-3, weight_decay=0.02)
    generator = Generator().manual_seed(seed)

    def loss_of_step() -> Tensor:
        images, shown = seen(known, batch, generator, device)
        with mixed_precision(device):
            names = teacher(images)[-1]
        return naming_loss(names.float(), shown)

    loop("teacher", steps, work, {"teacher": teacher}, optimizer, 2e-3, generator, loss_of_step, lambda: None)
    return teacher.eval().requires_grad_(False)


def imitation_loss(told: Float[Tensor, "B N D"], features: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """How far what is told of N places is from what a feature map holds there, in channels of unit variance.

    A place that covers several pixels of the map tells all of them: D is C times their number.
    """
    per_side = int((told.shape[2] / features.shape[1]) ** 0.5)
    wanted = F.unfold(F.batch_norm(features, None, None, training=True), per_side, stride=per_side)
    return F.mse_loss(told, wanted.transpose(1, 2))


def doubt_loss(names: Float[Tensor, "B K"], taught: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """How far a scorer's doubts between the kinds are from its teacher's."""
    kinds = len(QUESTIONS["kind"])
    return F.kl_div(names[:, :kinds].log_softmax(1), taught[:, :kinds].softmax(1), reduction="batchmean")


def check_start(work: Path, start: Path | None) -> None:
    """Note in the work folder what its scorer begins from; raises ValueError where one is there that began elsewhere."""
    began = hashlib.sha256((start / "model.safetensors").read_bytes()).hexdigest()[:12] if start else "random weights"
    note = work / "scorer-start.txt"
    if (work / "scorer.safetensors").exists() and note.exists() and (found := note.read_text()) != began:
        raise ValueError(
            f"The work folder {work} holds a scorer that began from {found}, not from {began}: choose another one."
        )
    write_atomically(note, lambda path: path.write_text(began))


def initial_scorer(
    tokenizer: CLIPTokenizer, start: Path | None, seed: int, device: torch.device
) -> tuple[CLIPModel, Student, Gathering]:
    """An untrained scorer or the one in `start`, its untrained heads, and what holds its last layer's reading."""
    with seeded_initialisation(seed):
        model = build_model(tokenizer).to(device)
        heads = Student(model.config.vision_config.hidden_size).to(device)
        gathering = Gathering(model.vision_model)
    if start:
        learnt = CLIPModel.from_pretrained(start, dtype=torch.float32, local_files_only=True)
        model.load_state_dict(learnt.state_dict())
        gathering.hold()
    plain_attention(model)
    return model, heads, gathering


def train(
    known: Pictures,
    teacher: Teacher,
    work: Path,
    steps: int,
    batch: int,
    seed: int,
    device: torch.device,
    start: Path | None = None,
    compiled: bool = False,
) -> CLIPModel:
    """The scorer after its steps."""
    check_start(work, start)
    tokenizer = models.build_tokenizer()
    model, heads, gathering = initial_scorer(tokenizer, start, seed, device)
    if compiled:
        model.vision_model.compile()
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    generator = Generator().manual_seed(seed)

    def loss_of_step() -> Tensor:
        images, shown = seen(known, batch, generator, device)
        captions = [told(each, generator) for each in shown]
        captions += [near_miss(each, generator) for each in captions for _ in range(NEAR_MISSES)]
        worded = {wording(each, generator): each for each in captions}
        true, undecided = agreement(shown, list(worded.values()))
        with mixed_precision(device):
            part_features, place_features, taught = teacher(images)
            out = model.vision_model(pixel_values=images, output_hidden_states=True)
            names = heads.names(out.pooler_output).float()
            parts = heads.parts(out.hidden_states[HINTED][:, 1:]).float()
            places = heads.places(out.hidden_states[-2][:, 1:]).float()  # before they are gathered
            picture = F.normalize(model.visual_projection(out.pooler_output).float(), dim=-1)
            read = text_features(model, tokenizer, list(worded))
        logits = model.logit_scale.exp() * picture @ read.T
        matching = contrastive_loss(logits, true.to(device), undecided.to(device)) + naming_loss(names, shown)
        imitation = imitation_loss(parts, part_features.float()) + imitation_loss(places, place_features.float())
        return matching + 2 * imitation + doubt_loss(names, taught.float())

    def hold() -> None:
        gathering.hold()
        model.logit_scale.data.clamp_(max=LARGEST_SCALE)

    loop("scorer", steps, work, {"scorer": model, "heads": heads}, optimizer, 1e-3, generator, loss_of_step, hold)
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
    """README.md with data, steps and accuracies; the loss curves are copied beside it."""
    for stage in ("teacher", "scorer"):
        shutil.copyfile(work / f"{stage}.csv", folder / f"{stage}-loss.csv")
    rows = "\n".join(f"| {name} | {share:.1%} | {count} |" for name, (share, count) in measured.items())
    went_on = " It went on from an earlier scorer." if arguments.start else ""
    start = (" --start EARLIER" if arguments.start else "") + (" --compile" if arguments.compile else "")
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
  three in ten of pairs, one in seven without light, one in seven without colours (their captions name none). Half are mirrored,
  a quarter made coarse, all moved by up to {SHIFT} pixels.
* **Training.** {arguments.steps:,} steps of {arguments.batch} pictures, AdamW at 1e-3 with warm-up, plateau and linear decay;
  CLIP's loss, in which a picture may have several true captions, against {NEAR_MISSES} captions per picture that are wrong in
  one attribute; the names of what a picture shows, one by one (`toybox.naming`), by heads that are then dropped; and two
  feature maps of a convolutional teacher that learnt those names first, in {arguments.teacher_steps:,} steps. The heads of the
  last vision layer read one place each (`toybox.gathering`). {parameters / 1e6:.2f} M parameters.{went_on}
  Loss curves: `teacher-loss.csv`, `scorer-loss.csv`. Seed {arguments.seed}.
* **Made again by** `python -m dreamtime.toybox.scorer --work FOLDER --pictures {arguments.pictures}
  --teacher-steps {arguments.teacher_steps} --steps {arguments.steps} --batch {arguments.batch} --seed {arguments.seed}{start}`;
  it resumes where it stopped.

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
    """The model in half precision, its tokenizer and how pictures are to be normalised, as transformers reads them."""
    model.half().cpu().save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    picture = CLIPImageProcessor(size={"shortest_edge": RESOLUTION}, crop_size=RESOLUTION, image_mean=half, image_std=half)
    CLIPProcessor(picture, models.build_tokenizer()).save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the scorer of the procedural toybox world.")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for pictures, checkpoint and log; resumes what it finds"
    )
    parser.add_argument("--output", type=Path, default=SCORER, help="where the model is written (default: the package's own)")
    parser.add_argument("--pictures", type=int, default=56_000, help="training pictures, about (default %(default)s)")
    parser.add_argument("--teacher-steps", type=int, default=14_000, help="(default %(default)s)")
    parser.add_argument("--steps", type=int, default=8_000, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="pictures per step (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="not the embedded model's (default %(default)s)")
    parser.add_argument("--start", type=Path, help="a scorer of an earlier training to go on from (default: random weights)")
    parser.add_argument("--compile", action="store_true", help="compile the scorer first, which needs a C++ compiler")
    parser.add_argument("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    arguments.work.mkdir(parents=True, exist_ok=True)
    device = torch.device(arguments.device)
    known = pictures(arguments.work, arguments.pictures, arguments.seed, device)
    teacher = train_teacher(known, arguments.work, arguments.teacher_steps, arguments.batch, arguments.seed, device)
    # One that goes on meets the pictures in another order than one that begins.
    seed = arguments.seed + bool(arguments.start)
    options = {"start": arguments.start, "compiled": arguments.compile}
    model = train(known, teacher, arguments.work, arguments.steps, arguments.batch, seed, device, **options)
    measured = accuracies(model, draw(CHECKED_PICTURES, Generator().manual_seed(arguments.seed + 1), device))
    for name, (share, count) in measured.items():
        log.info("%s: %.1f %% of %d", name, 100 * share, count)
    export(model, arguments.output)
    write_card(arguments.output, arguments.work, measured, arguments, sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    main()
