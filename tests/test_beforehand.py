"""What is refused before a run has a folder, because a model on this disk, or its kind, could not do it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from tiny_models import tiny_flow_pipeline, tiny_pipeline, tiny_xl_pipeline
from torch import zeros

from dreamtime.beforehand import (
    CUT_OFF,
    MANY_WORDS,
    NOT_ITS_COLOR,
    NOT_TOGETHER,
    PLASTER,
    advice,
    check_comparable,
    check_ingredients,
    describe,
)
from dreamtime.image_to_3d import EMBEDDED, image_preset
from dreamtime.presets import Settings, preset
from dreamtime.priors.folders import TINY_VAE, ModelUnavailable
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.known import has_own_colors, read_known, unknown_words


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_pipeline("epsilon").save_pretrained(folder / "sd")
    tiny_xl_pipeline().save_pretrained(folder / "xl")
    tiny_flow_pipeline().save_pretrained(folder / "sd3")
    save_file({"x": zeros(1)}, folder / "style.safetensors")
    return folder


def asked(prior: Path, **changes: Any) -> Settings:
    return preset("draft", "cpu", str(prior), prompt="a cat", **changes)


@pytest.mark.parametrize(
    ("prior", "changes", "sentence"),
    [
        ("xl", {"objective": "vsd"}, "has no UNet in which the objective 'vsd' could learn"),
        ("sd3", {"objective": "vsd"}, "has no UNet in which the objective 'vsd' could learn"),
        ("sd3", {"lora": "style.safetensors"}, "is a LoRA, which .* cannot take: LoRAs are for UNets"),
        ("sd3", {"attention": "sliced"}, "is a transformer, whose attention cannot be sliced"),
        (
            "xl",
            {"embedding": "style.safetensors"},
            "is a textual inversion, which .* cannot take: those are",
        ),
    ],
)
def test_what_a_kind_of_model_cannot_do_is_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch, prior: str, changes: dict[str, str], sentence: str
) -> None:
    monkeypatch.chdir(models)
    with pytest.raises(ModelUnavailable, match=sentence):
        check_ingredients(asked(models / prior, **changes))
    check_ingredients(asked(models / prior))
    check_ingredients(asked(models / "sd", **changes))


def test_images_are_compared_by_a_tiny_vae_alone(models: Path, tmp_path: Path) -> None:
    between_images = {"image_residual": 5.0}
    with pytest.raises(ModelUnavailable, match="has no tiny VAE to compare images by: expected an AutoencoderTiny"):
        check_ingredients(asked(models / "sd", **between_images))
    with_one = shutil.copytree(models / "sd", tmp_path / "sd")
    AutoencoderTiny().save_pretrained(with_one / TINY_VAE)
    check_ingredients(asked(with_one, **between_images))
    single = tmp_path / "v1.safetensors"
    save_file({"x": zeros(1)}, single)
    with pytest.raises(ModelUnavailable, match="has no tiny VAE to compare images by"):
        check_comparable(str(single))


def test_a_folder_without_weights_is_refused(models: Path, tmp_path: Path) -> None:
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((models / "sd" / name).read_text())
    with pytest.raises(ModelUnavailable, match=r"is incomplete: it lacks unet/config\.json"):
        check_ingredients(asked(tmp_path))


def test_a_name_of_the_table_is_no_folder_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything fetched for it before the run has a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stable-diffusion-1.5").mkdir()
    check_ingredients(asked(Path("stable-diffusion-1.5")))


def test_whoever_reads_text_is_shown_no_picture_and_the_reverse(models: Path) -> None:
    picture = image_preset("draft", "cpu")
    check_ingredients(picture)
    with pytest.raises(ModelUnavailable, match="reads text and is shown no picture"):
        check_ingredients(replace(picture, prior=str(models / "sd")))
    with pytest.raises(ModelUnavailable, match="reads no text"):
        check_ingredients(replace(picture, prompt="a cat", text_prior=EMBEDDED))
    with pytest.raises(ModelUnavailable, match="is no file, no folder"):
        check_ingredients(replace(picture, prompt="a cat", text_prior="nope"))
    with pytest.raises(ModelUnavailable, match="reads no text"):
        check_ingredients(asked(Path(EMBEDDED)))


@pytest.mark.parametrize(("prior", "scale"), [("deepfloyd-if-xl", 20), ("DeepFloyd/IF-I-XL-v1.0", 20)])
def test_a_model_is_guided_as_the_table_says_by_whatever_name(prior: str, scale: float) -> None:
    assert preset("standard", "cpu", prior, prompt="a cat").guidance_scale == scale


def test_a_text_prior_beside_the_picture_must_be_able_to_do_what_is_asked(models: Path) -> None:
    shown = image_preset("draft", "cpu", prompt="a cat", text_prior=str(models / "sd3"), attention="sliced")
    with pytest.raises(ModelUnavailable, match="is a transformer, whose attention cannot be sliced"):
        check_ingredients(shown)
    check_ingredients(replace(shown, attention="fused"))


def test_a_run_in_one_line_names_what_it_compares_and_who_else_reads() -> None:
    assert "sds between images, guidance 1" in describe(preset("draft", "cpu", prompt="a red cube"))
    assert "px, csd, guidance" in describe(preset("draft", "cpu", prompt="a red cube", objective="csd"))
    both = image_preset("draft", "cpu", prompt="a red mug", text_prior="toybox", text_weight=0.5)
    assert describe(both).startswith("toybox-zero123 beside toybox, weight 0.5 on cpu")
    assert "px, sds, guidance" in describe(both)


def test_a_prompt_too_long_to_be_read_is_said_to_be(models: Path) -> None:
    readable = replace(asked(models / "sd"), prompt=" ".join(["very"] * MANY_WORDS))
    assert CUT_OFF not in advice(readable)
    assert CUT_OFF in advice(replace(readable, prompt=f"{readable.prompt} big"))
    assert CUT_OFF not in advice(replace(readable, prompt="une élégante théière émaillée, décorée à la main"))
    assert CUT_OFF in advice(replace(readable, prompt="一只戴着红色帽子的猫" * 6)), "a script without blanks"
    alone = replace(image_preset("draft", "cpu", prompt=" ".join(["so"] * 100)), prior=EMBEDDED)
    assert CUT_OFF not in advice(alone), "nobody reads it"


@pytest.mark.parametrize(
    ("prompt", "share", "said"), [("a red cube", 0.3, True), ("a cube", 0.3, False), ("a red cube", 0.0, False)]
)
def test_the_embedded_model_knows_no_coloured_thing_without_texture(prompt: str, share: float, said: bool) -> None:
    settings = preset("draft", "cpu", prompt=prompt, textureless_share=share)
    assert (PLASTER.format("red") in advice(settings)) == said


@pytest.mark.parametrize(("prompt", "said"), [("\N{ICE CUBE}", True), ("!!!", True), ("a red cube!", False)])
def test_a_prompt_without_words_tells_the_embedded_model_nothing(prompt: str, said: bool) -> None:
    advised = any(note.startswith("The prompt holds no word") for note in advice(preset("draft", "cpu", prompt=prompt)))
    assert advised == said


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a red cube on top of a blue ball", ()),
        ("a green mushroom with a white stem", ()),
        ("a red car on top of a blue house", (NOT_TOGETHER,)),
        ("a red cube with a white stem", (NOT_ITS_COLOR,)),
        ("a red cube next to a mug with a white stem", (NOT_TOGETHER,)),  # one note is enough
    ],
)
def test_known_words_in_an_odd_combination_are_told_to_the_embedded_models_users_alone(
    models: Path, prompt: str, said: tuple[str, ...]
) -> None:
    assert advice(preset("draft", "cpu", prompt=prompt)) == said
    assert advice(image_preset("draft", "cpu", prompt=prompt, text_prior="toybox")) == said
    assert {NOT_TOGETHER, NOT_ITS_COLOR}.isdisjoint(advice(replace(asked(models / "sd"), prompt=prompt)))


def test_what_goes_together_is_true_of_the_embedded_model() -> None:
    known, (example,) = read_known(), NOT_ITS_COLOR.split('"')[1::2]
    assert known.pairs
    assert set(SOLIDS) <= set(known.kinds)
    assert not unknown_words(example)
    assert has_own_colors(example)


def test_what_a_model_of_unknown_make_is_taken_for_is_said(tmp_path: Path) -> None:
    """Of Stable-Zero123 a folder need not say that it is one."""

    def said(prior: str) -> bool:
        return any("it is taken for a Zero-1-to-3" in sentence for sentence in advice(image_preset("draft", "cpu", prior)))

    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "Zero123Pipeline"}')
    assert said(str(tmp_path))
    assert not said("somebody/zero123-of-a-kind")  # nothing of it is here yet
    index.write_text('{"_class_name": "Zero123Pipeline", "absolute_elevation": false}')
    assert not said(str(tmp_path))
    assert not said(EMBEDDED)
    assert not said("stable-zero123")
