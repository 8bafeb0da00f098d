"""Judges: they agree with transformers' own pipeline, and what is no judge is one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_scorer import write_tiny_scorer
from torch import Generator
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dreamtime.evaluation import scorers
from dreamtime.evaluation.retrieval import retrieved
from dreamtime.evaluation.scorers import load_scorer
from dreamtime.evaluation.views import portrait_of_truth
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.toybox.world import held_out_objects


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_scorer(tmp_path_factory.mktemp("scorer"))


def test_a_copy_in_the_folder_of_models_is_found_by_its_hub_id(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(folder, tmp_path / "someone--clip")
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    assert load_scorer("someone/clip").fingerprint == load_scorer(str(folder)).fingerprint


def test_similarities_are_those_of_the_library(folder: Path, generator: Callable[[int], Generator]):
    texts = ["a red cube", "a photo of a dog, side view"]
    pixels = (torch.rand(3, 64, 64, 3, generator=generator(0)) * 255).byte()
    scorer = load_scorer(str(folder))
    ours = scorer.images(pixels.float() / 255) @ scorer.texts(texts).T
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pictures = processor([Image.fromarray(each.numpy()) for each in pixels], return_tensors="pt")
    tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
        theirs = model(**pictures, **tokens).logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_pictures_of_another_size_are_brought_to_the_models(folder: Path):
    """A smooth picture shows the same at twice the resolution."""
    x = torch.linspace(0, 1, 128)
    large = torch.stack([x[None].expand(128, -1), x[:, None].expand(-1, 128), 0.5 * torch.ones(128, 128)], dim=-1)[None]
    small = large.reshape(1, 64, 2, 64, 2, 3).mean(dim=(2, 4))
    scorer = load_scorer(str(folder))
    torch.testing.assert_close(scorer.images(large), scorer.images(small), atol=0.02, rtol=0)


def test_vectors_have_length_one_and_none_come_from_nothing(folder: Path):
    scorer = load_scorer(str(folder))
    assert scorer.images(torch.zeros(0, 64, 64, 3)).shape == (0, 128)
    torch.testing.assert_close(scorer.texts(["a", "b"]).norm(dim=-1), torch.ones(2))


def test_many_texts_are_as_one_by_one(folder: Path):
    scorer = load_scorer(str(folder))
    texts = [f"a {word} cube" for word in ("red", "very very very long and strange", "blue")] * 100
    torch.testing.assert_close(scorer.texts(texts), torch.cat([scorer.texts([text]) for text in texts[:3]]).repeat(100, 1))


def test_too_long_a_text_is_cut(folder: Path):
    scorer = load_scorer(str(folder))
    assert scorer.texts(["cube " * 200]).isfinite().all()


def test_the_fingerprint_changes_with_the_weights_alone(folder: Path, tmp_path: Path):
    again, other = write_tiny_scorer(tmp_path / "again"), write_tiny_scorer(tmp_path / "other", seed=1)
    first = load_scorer(str(folder)).fingerprint
    assert len(first) == 12
    assert load_scorer(str(again)).fingerprint == first != load_scorer(str(other)).fingerprint


def test_a_missing_embedded_scorer_says_how_to_train_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scorers, "SCORER", tmp_path)
    monkeypatch.setattr(scorers, "SCORERS", {"toybox": str(tmp_path)})
    with pytest.raises(ModelUnavailable, match=r"train the scorer with `python -m dreamtime\.toybox\.scorer"):
        load_scorer()


NOT_HANDED_OVER = r"is not on this disk, and the Hub does not hand it over\.$"
NO_NAME = r"is no folder here and no Hub id, OWNER/NAME\.$"
NO_CLIP = r"expected a CLIP model in safetensors, here or within reach\.$"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip-b32", NOT_HANDED_OVER),
        ("owner/model", NOT_HANDED_OVER),
        ("no such folder", NO_NAME),
        ("../../no such folder", NO_NAME),
        ("..", NO_CLIP),
    ],
)
def test_what_is_out_of_reach_is_one_sentence(name: str, words: str):
    with pytest.raises(ModelUnavailable, match=words) as caught:
        load_scorer(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_a_damaged_folder_is_one_sentence(folder: Path, tmp_path: Path, damage: str):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / damage).write_bytes(b"{" if damage.endswith(".json") else b"nonsense")
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        load_scorer(str(broken))


def test_another_kind_of_model_is_refused(folder: Path, tmp_path: Path):
    """Weights of other shapes or names must not be filled up with random ones."""
    odd = tmp_path / "odd"
    shutil.copytree(folder, odd)
    config = json.loads((odd / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        load_scorer(str(odd))


def test_the_shipped_judge_finds_the_captions_of_true_objects():
    """Colour renders of what the captions say retrieve them: what R-Precision of a perfect result is."""
    what = held_out_objects(10)[::3]
    judge = load_scorer()
    captions = judge.texts([each.caption for each in held_out_objects(10)])
    truth = torch.arange(10)[::3]
    for row, each in zip(truth.tolist(), what, strict=True):
        views = judge.images(portrait_of_truth(each).color)
        assert retrieved(views @ captions.T, torch.full((len(views),), row)).double().mean() > 0.7, each.caption
