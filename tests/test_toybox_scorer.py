"""The scorer's training, made tiny: its loss against brute force, what it writes, and that stopping changes nothing."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator
from transformers import CLIPModel, CLIPProcessor

from dreamtime.toybox import models, scorer, training
from dreamtime.toybox.meanings import Description
from dreamtime.toybox.naming import NAMES, QUESTIONS
from dreamtime.toybox.portraits import Pictures, draw
from dreamtime.toybox.scorer import contrastive_loss, mirrored, shifted, softened, told
from dreamtime.toybox.training import seeded_initialisation
from dreamtime.toybox.world import Pair, Thing, object_of

ROBOT = Thing("robot", "green")
BESIDE = Pair(Thing("cube", "red"), "next to", Thing("sphere", "blue"))


def test_with_one_true_caption_each_the_loss_is_clips(generator: Callable[[int], Generator]):
    logits = 5 * torch.randn(6, 6, generator=generator(0))
    truth = torch.arange(6)
    clip = (torch.nn.functional.cross_entropy(logits, truth) + torch.nn.functional.cross_entropy(logits.T, truth)) / 2
    found = contrastive_loss(logits, torch.eye(6).bool(), torch.zeros(6, 6).bool())
    torch.testing.assert_close(found, clip)


def test_several_true_captions_share_the_target(generator: Callable[[int], Generator]):
    """Brute force: minus the mean log-probability of what is true, over what is decided."""
    draw = generator(1)
    logits = torch.randn(5, 8, generator=draw)
    true = torch.rand(5, 8, generator=draw) < 0.3
    true[torch.arange(5), torch.arange(5)] = True
    true[:, 7] = False  # a caption that is true of no picture
    undecided = (torch.rand(5, 8, generator=draw) < 0.2) & ~true

    def side(scores: torch.Tensor, good: torch.Tensor, out: torch.Tensor) -> float:
        losses = []
        for row in range(len(scores)):
            if good[row].any():
                total = scores[row][~out[row]].exp().sum()
                losses.append(-(scores[row][good[row]] - total.log()).mean().item())
        return sum(losses) / len(losses)

    expected = (side(logits, true, undecided) + side(logits.T, true.T, undecided.T)) / 2
    assert contrastive_loss(logits, true, undecided).item() == pytest.approx(expected, rel=1e-5)


def test_what_is_undecided_has_no_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    undecided = torch.tensor([[False, False, True], [False, False, False]])
    contrastive_loss(logits, torch.eye(2, 3).bool(), undecided).backward()
    assert logits.grad[0, 2] == 0
    assert (logits.grad[1] != 0).all()


def test_in_the_mirror_neighbours_change_places():
    assert mirrored(Description(BESIDE, "front")).what == Pair(BESIDE.second, "next to", BESIDE.first)
    assert mirrored(Description(ROBOT, "side")) == Description(ROBOT, "side")
    on = Pair(BESIDE.first, "on top of", BESIDE.second)
    assert mirrored(Description(on, "front")).what == on


def test_captions_never_tell_more_than_is_shown(generator: Callable[[int], Generator]):
    draw = generator(0)
    tellings = [told(Description(ROBOT, "front"), draw) for _ in range(400)]
    assert sum(each.view is None for each in tellings) / 400 == pytest.approx(0.5, abs=0.08)
    assert sum(not each.colored for each in tellings) / 400 == pytest.approx(0.1, abs=0.05)
    assert {told(Description(ROBOT, None, colored=False), draw) for _ in range(20)} == {Description(ROBOT, None, False)}


def test_some_pictures_are_made_coarse(generator: Callable[[int], Generator]):
    images = torch.rand(200, 3, 8, 8, generator=generator(0))
    changed = (softened(images, generator(1)) != images).flatten(1).any(dim=1)
    assert 0.15 < changed.float().mean() < 0.35
    flat = torch.full((20, 3, 8, 8), 0.3)
    torch.testing.assert_close(softened(flat, generator(2)), flat)


def test_pictures_are_moved_by_a_few_pixels_over_their_own_background(generator: Callable[[int], Generator]):
    images = torch.full((40, 3, 32, 32), 0.3)
    images[:, :, 12:20, 12:20] = 0.9
    moved = shifted(images, generator(0))
    corners = [((image[0] == 0.9).nonzero().amin(dim=0) - 12).tolist() for image in moved]
    assert {abs(step) for corner in corners for step in corner} == {0, 1, 2, scorer.SHIFT}
    torch.testing.assert_close(moved.sum(dim=(1, 2, 3)), images.sum(dim=(1, 2, 3)))


def run(work: Path, output: Path, *more: str) -> None:
    arguments = "--pictures 24 --teacher-steps 3 --steps 3 --batch 6 --seed 5 --device cpu".split()
    scorer.main(["--work", str(work), "--output", str(output), *arguments, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scorer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "CHECKED_PICTURES", 8)
        run(folder / "work", folder / "out")
    return folder / "out"


def test_transformers_loads_what_was_written(trained: Path):
    model, processor = CLIPModel.from_pretrained(trained), CLIPProcessor.from_pretrained(trained)
    assert model.config.vision_config.image_size == 64
    texts = ["a red cube", "a green robot with a white head, overhead view"]
    tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(pixel_values=torch.zeros(1, 3, 64, 64), **tokens)
    assert found.logits_per_image.shape == (1, 2)
    assert found.logits_per_image.isfinite().all()


def test_what_was_written_is_small_and_plain(trained: Path):
    files = [path for path in trained.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".csv"}
    assert max(path.stat().st_size for path in files) < 10_000_000
    card = (trained / "README.md").read_text()
    assert "| everything |" in card
    assert "--teacher-steps 3 --steps 3" in card
    for stage in ("teacher", "scorer"):
        assert len((trained / f"{stage}-loss.csv").read_text().splitlines()) == 2


def test_stopping_and_resuming_gives_the_same_weights(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save = training.save_checkpoint

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        if arguments[-1] == {"step": "2"}:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", save_and_stop)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(scorer, "CHECKED_PICTURES", 8)
    for _ in ("teacher", "scorer"):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "work", tmp_path / "out")
    run(tmp_path / "work", tmp_path / "out")
    whole, resumed = (CLIPModel.from_pretrained(folder).state_dict() for folder in (trained, tmp_path / "out"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_pictures_are_kept_and_those_of_another_training_refused(trained: Path):
    work = trained.parent / "work"
    kept = scorer.pictures(work, 24, 5, torch.device("cpu"))
    fresh = draw(24, Generator().manual_seed(5), shares=scorer.LEARNT_SHARES)
    assert torch.equal(kept.images, fresh.images)
    assert kept.descriptions == fresh.descriptions
    with pytest.raises(ValueError, match="choose another folder"):
        scorer.pictures(work, 25, 5, torch.device("cpu"))


def test_labels_of_another_world_are_refused():
    assert scorer.described({"caption": "a red cube", "view": "", "colored": "0"}) == Description(
        object_of("a red cube"), None, colored=False
    )
    with pytest.raises(ValueError, match="names no object of the world"):
        scorer.described({"caption": "a red unicorn", "view": "front", "colored": "1"})


def test_accuracy_is_the_share_of_questions_answered(monkeypatch: pytest.MonkeyPatch):
    """A model that sees in every picture the caption "a green robot" is right about one of these two, but for its view."""
    with seeded_initialisation(0):
        model = scorer.build_model(models.build_tokenizer(), width=64)
    vectors: dict[str, torch.Tensor] = {}

    def read(model: CLIPModel, tokenizer: object, captions: list[str]) -> torch.Tensor:
        for caption in captions:
            vectors.setdefault(caption, torch.nn.functional.one_hot(torch.tensor(len(vectors)), 400).float())
        return torch.stack([vectors[caption] for caption in captions])

    monkeypatch.setattr(scorer, "text_features", read)
    monkeypatch.setattr(scorer, "image_features", lambda model, images: vectors["a green robot"].expand(len(images), -1))
    images = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    checked = Pictures(images, [Description(ROBOT, "front"), Description(Thing("cube", "red"), None, colored=False)])
    found = scorer.accuracies(model, checked)
    assert found["kind"] == found["color"] == found["accent"] == (1.0, 1)
    assert found["view"] == found["everything"] == (0.0, 1)
    assert found["kind, textureless"] == found["everything, textureless"] == (0.0, 1)
    assert "color, textureless" not in found


def test_a_trained_step_lowers_the_loss(tmp_path: Path):
    """A handful of pictures can be learnt by heart."""
    known = draw(16, Generator().manual_seed(2))
    teacher = scorer.train_teacher(known, tmp_path, 60, 4, 0, torch.device("cpu"))
    scorer.train(known, teacher, tmp_path, 60, 4, 0, torch.device("cpu"))
    guessing = sum(math.log(len(answers)) for answers in QUESTIONS.values())  # the naming loss of a model that knows nothing
    captions = 4 * (1 + scorer.NEAR_MISSES)
    for stage, other_terms in (("teacher", 0), ("scorer", math.log(captions) + 2 * 2 + math.log(len(QUESTIONS["kind"])))):
        rows = [float(line.split(",")[1]) for line in (tmp_path / f"{stage}.csv").read_text().splitlines()[1:]]
        assert rows[-1] < rows[0] < guessing + other_terms + 2


def test_the_teacher_has_pixels_for_every_patch():
    with seeded_initialisation(0):
        model, teacher = scorer.build_model(models.build_tokenizer(), width=64), scorer.Teacher().eval()
    images = torch.zeros(2, 3, 64, 64)
    parts, places, names = teacher(images)
    assert parts.shape == (2, 128, 8, 8)
    assert places.shape == (2, 256, 4, 4)
    assert model.vision_model(pixel_values=images).last_hidden_state.shape == (2, 1 + 4 * 4, 64)
    assert names.shape == (2, NAMES)


@pytest.mark.parametrize("per_side", [1, 2])
def test_whoever_tells_what_the_teacher_saw_is_not_taught(per_side: int, generator: Callable[[int], Generator]):
    """Zero for the teacher's features, standardised by channel over the batch, each place with all pixels that it covers."""
    features = 5 + 3 * torch.randn(4, 6, 4 * per_side, 4 * per_side, generator=generator(3))
    standard = (features - features.mean((0, 2, 3), keepdim=True)) / features.std((0, 2, 3), correction=0, keepdim=True)
    told = torch.stack(
        [
            standard[:, :, per_side * row : per_side * (row + 1), per_side * column : per_side * (column + 1)].flatten(1)
            for row in range(4)
            for column in range(4)
        ],
        dim=1,
    )
    assert scorer.imitation_loss(told, features).item() == pytest.approx(0, abs=1e-4)
    ignorant = scorer.imitation_loss(torch.zeros_like(told), features).item()
    assert ignorant == pytest.approx(1, abs=1e-3), "the variance of each channel"


def test_whoever_doubts_as_the_teacher_does_is_not_taught(generator: Callable[[int], Generator]):
    taught = torch.randn(4, NAMES, generator=generator(3))
    assert scorer.doubt_loss(taught, taught).item() == pytest.approx(0, abs=1e-4)
    kinds = len(QUESTIONS["kind"])
    truth = taught[:, :kinds].softmax(1)
    surprise = (truth * (truth.log() + math.log(kinds))).sum(1).mean().item()
    assert scorer.doubt_loss(torch.zeros_like(taught), taught).item() == pytest.approx(surprise, abs=1e-4)


def test_a_training_can_go_on_from_what_was_written(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    learnt = CLIPModel.from_pretrained(trained, dtype=torch.float32)
    model, _, gathering = scorer.initial_scorer(models.build_tokenizer(), trained, 5, torch.device("cpu"))
    for name, part in learnt.state_dict().items():
        assert torch.allclose(model.state_dict()[name], part, atol=2e-3), name
    assert all(torch.equal(part, value) for part, value in gathering.held)

    monkeypatch.setattr(scorer, "CHECKED_PICTURES", 8)
    work = trained.parent / "work"
    with pytest.raises(ValueError, match=r"began from random weights, not from [0-9a-f]{12}: choose another one"):
        run(work, tmp_path / "out", "--start", str(trained))
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("scorer.*", "scorer-start.txt"))
    run(tmp_path / "work", tmp_path / "out", "--start", str(trained))
    further = CLIPModel.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    assert not all(torch.equal(part, further[name]) for name, part in learnt.state_dict().items())
    assert "--seed 5 --start EARLIER`" in (tmp_path / "out" / "README.md").read_text()


def test_the_config_names_the_layout(trained: Path):
    config = json.loads((trained / "config.json").read_text())
    assert config["model_type"] == "clip"
    assert config["text_config"]["eos_token_id"] == models.build_tokenizer().eos_token_id
