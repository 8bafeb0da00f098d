"""Prompts from files and from the toybox: what is read, and one sentence for each mistake."""

from pathlib import Path

import pytest

from dreamtime.evaluation.prompt_sets import GROUPS, MOST, group_of, look_alikes, prompts_of, training_objects, truth_of
from dreamtime.toybox.world import Pair, Thing, held_out


def written(folder: Path, text: str) -> str:
    path = folder / "prompts.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_has_one_prompt_per_line(tmp_path: Path):
    source = written(tmp_path, "# COCO\na corgi\n\n   a red   cube \n  # more\nein Würfel\n")
    assert prompts_of(source) == ["a corgi", "a red cube", "ein Würfel"]


def test_the_mark_that_some_editors_begin_with_is_no_part_of_a_prompt(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbf# x\na cat\n")
    assert prompts_of(str(path)) == ["a cat"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "prompts.txt holds no prompt"),
        ("# nothing\n\n", "prompts.txt holds no prompt"),
        ("a cat\na dog\n\na  cat\n", "'a cat' stands on lines 1 and 4 of prompts.txt"),
        ("a cat\nA Cat\n", "'A Cat' stands on lines 1 and 2 of prompts.txt"),  # the same to CLIP
        ("a cat\n" + "x" * 401 + "\n", "Line 2 of prompts.txt: The prompt may have up to 400 characters"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str):
    with pytest.raises(ValueError, match=words):
        prompts_of(written(tmp_path, text))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00bad"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read: expected a text file .* or toybox:heldout"):
        prompts_of(str(path))


def test_the_published_set_is_held_out_and_the_training_set_is_not():
    published, training = prompts_of("toybox:heldout"), prompts_of("toybox:training:25")
    assert len(set(published)) == len(published) == 40
    assert len(set(training)) == len(training) == 25
    assert all(held_out(truth_of(prompt)) for prompt in published)
    assert not any(held_out(truth_of(prompt)) for prompt in training)
    assert training_objects(25) == training_objects(25)


def test_the_published_set_has_every_sort_of_object():
    assert {group_of(prompt) for prompt in prompts_of("toybox:heldout:20")} == set(GROUPS) - {"free text"}


@pytest.mark.parametrize("count", ["0", "9", "1000", "many", "-3"])
def test_a_wrong_count_is_refused(count: str):
    for name, most in (("toybox:heldout", 40), ("toybox:training", 200)):
        with pytest.raises(ValueError, match=f"between 10 and {most} prompts"):
            prompts_of(f"{name}:{count}")


def test_the_most_that_can_be_asked_for_is_there():
    assert [len(prompts_of(f"{name}:{most}")) for name, most in MOST.items()] == list(MOST.values())


@pytest.mark.parametrize(
    ("prompt", "truth", "group"),
    [
        ("a red cube", Thing("cube", "red"), "solids"),
        ("a photo of a green robot", Thing("robot", "green"), "objects"),
        ("a green mushroom with a blue stem", Thing("mushroom", "green", "blue"), "two colours"),
        ("a red box beside a blue ball", Pair(Thing("cube", "red"), "next to", Thing("sphere", "blue")), "pairs"),
        ("a red cube wearing a hat of straw", None, "free text"),
        ("a red cube with a green cone", None, "free text"),
        ("a robot", None, "free text"),
    ],
)
def test_only_what_the_toybox_knows_entirely_has_a_truth(prompt: str, truth: Thing | Pair | None, group: str):
    assert truth_of(prompt) == truth
    assert group_of(prompt) == group


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a red ball", "a red sphere"),
        ("a red cube", "a photo of a red box, side view"),
        ("a green mushroom", "a green mushroom with a white stem"),
        ("a red cube next to a blue sphere", "a blue ball beside a red cube"),
    ],
)
def test_other_words_for_the_same_and_a_twin_look_alike(first: str, second: str):
    assert look_alikes([first, "a corgi", second, "a green robot"]) == [(first, second)]
    assert look_alikes([first, second, second.replace("a ", "", 1)]) == [(first, second), (first, second.replace("a ", "", 1))]


def test_what_differs_to_the_eye_or_has_no_truth_does_not_look_alike():
    things = ["a red ball", "a blue ball", "a red cube", "a green mushroom", "a green mushroom with a red stem"]
    pairs = ["a red cube on a blue ball", "a blue ball on a red cube", "a red cube next to a blue ball"]
    assert look_alikes([*things, *pairs, "a corgi", "a dog", "a ball", "a sphere"]) == []


def test_no_two_of_the_published_set_look_alike():
    assert look_alikes(prompts_of("toybox:heldout")) == []
