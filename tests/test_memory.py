"""The memory that was foretold with tensors that hold nothing, against the tensors of a real step."""

from dataclasses import replace

import pytest
import torch
from stand_in import write_stand_in
from tiny_models import tiny_flow_pipeline, tiny_if_pipeline, tiny_pipeline, tiny_xl_pipeline
from transformers import T5EncoderModel

from dreamtime import beforehand, presets
from dreamtime.image_to_3d import EMBEDDED, image_preset
from dreamtime.objectives import answers_at_once
from dreamtime.priors import loading
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.memory import Need, need_of, peak_bytes, rendering_bytes
from dreamtime.priors.options import Options
from dreamtime.priors.skeletons import condition_shape, configuration_of, part_of
from dreamtime.regularizers import eikonal
from dreamtime.renderers import inwards
from dreamtime.types import RaySamples, Rendering, VolumeSamples
from dreamtime.volume_rendering import normals_by_differences

CPU, FLOAT = torch.device("cpu"), torch.float32


def test_the_peak_counts_what_lives_at_the_same_time() -> None:
    def work() -> None:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b.view(10, 100) + 1  # a view is no memory of its own
        del b, c
        torch.ones(100)

    assert peak_bytes(work) == 2 * 4000


def test_what_is_kept_for_the_way_back_counts() -> None:
    weight = torch.ones(1000, requires_grad=True)
    assert peak_bytes(lambda: weight.exp().exp().exp()) == 3 * 4000
    assert peak_bytes(lambda: weight.detach().exp().exp().exp()) == 2 * 4000


@pytest.mark.parametrize("make", ["sd", "xl", "if", "embedded"])
def test_a_step_takes_what_was_foretold(make: str, tmp_path) -> None:
    source = "toybox" if make == "embedded" else str(tmp_path)
    if make == "if":
        tiny_if_pipeline(tmp_path)
    elif make != "embedded":
        (tiny_pipeline("epsilon") if make == "sd" else tiny_xl_pipeline()).save_pretrained(tmp_path)
    need = need_of(source, FLOAT, 2, 24, Options())
    prior = loading.load_prior(source, CPU, FLOAT)
    condition = torch.cat([loading.load_text_encoder(source, CPU, FLOAT)(["a red cube"])] * 4)
    # Only the width of a condition is known beforehand; of tokens the large models have 77.
    condition = torch.cat([condition, condition.new_zeros(4, 77 + (make == "xl") - condition.shape[1], condition.shape[2])], 1)

    def step() -> None:
        images, text = torch.zeros(2, 24, 24, 3, requires_grad=True), condition.clone()
        x = prior.encode(images)
        prior.predict_noise(torch.cat([x, x]).detach(), 500, text)
        x.sum().backward()

    assert need.step == pytest.approx(peak_bytes(step), rel=0.02)
    modules = [module for module in vars(prior).values() if isinstance(module, torch.nn.Module)]
    assert need.weights == sum(p.nbytes for module in modules for p in module.parameters())


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("name", ["feature-grid", "neus"])
def test_the_way_back_through_a_rendering_takes_what_was_foretold(name: str, smooth: bool, generator) -> None:
    make = presets.REPRESENTATIONS[name]
    scene = make(generator(0), CPU)
    points = torch.zeros(5000, 3)

    def work() -> None:
        points_now = points + 0
        density, albedo = scene.density_and_albedo(points_now)
        total = density.sum() + albedo.sum() + normals_by_differences(inwards(scene), points_now).sum()
        if smooth:
            total = total + normals_by_differences(inwards(scene), points_now + 0.01).sum()
        if name == "neus":
            total = total + scene.optical_depths(points_now, points_now, torch.ones(5000)).sum()
            intervals = RaySamples(torch.zeros(5000, dtype=torch.long), torch.zeros(5000), torch.ones(5000), 1)
            samples = VolumeSamples(intervals, torch.ones(5000), points_now, points_now, points_now)
            empty = torch.zeros(1, 1, 1, 3)
            total = total + eikonal(scene.distance)(Rendering(empty, empty[..., :1], empty[..., :1], empty, samples), 0.0)
        total.backward()

    foretold = rendering_bytes(make(generator(0), torch.device("meta")), 5000, smooth)
    assert foretold == pytest.approx(peak_bytes(work), rel=0.05)


def test_economy_saves(tmp_path) -> None:
    tiny_pipeline("epsilon").save_pretrained(tmp_path)
    normal, low, lowest = (need_of(str(tmp_path), FLOAT, 4, 16, Options(memory)) for memory in ("normal", "low", "lowest"))
    assert low.step < normal.step
    assert low.weights == normal.weights
    assert lowest.weights < low.weights
    assert need_of(str(tmp_path), FLOAT, 4, 16, Options(), learns=True).step > normal.step


def test_a_second_predictor_costs_memory_where_cameras_are_told_too() -> None:
    alone, learning = (need_of("toybox", FLOAT, 1, 64, Options(), learns=learns) for learns in (False, True))
    assert learning.step > alone.step


def test_what_stays_in_single_precision_is_counted_so(tmp_path) -> None:
    """The second matrix of T5's feed-forward blocks, which transformers does not round to half precision."""
    tiny_flow_pipeline().save_pretrained(tmp_path)
    read = T5EncoderModel.from_pretrained(tmp_path, subfolder="text_encoder_3", dtype=torch.float16)
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float16, FLOAT}
    made = part_of(configuration_of(str(tmp_path)), "text_encoder_3", torch.float16)
    assert {name: x.dtype for name, x in made.named_parameters()} == {name: x.dtype for name, x in read.named_parameters()}


def test_a_decoder_counts_where_it_is_used() -> None:
    plain, decoding = (need_of("toybox", FLOAT, 2, 64, Options(decodes=decodes)) for decodes in (False, True))
    assert decoding.weights > plain.weights
    assert decoding.step < plain.step, "nothing goes back through the encoder"


def test_half_precision_halves_the_weights() -> None:
    full, half = (need_of("toybox", dtype, 1, 64, Options()) for dtype in (torch.float32, torch.float16))
    assert isinstance(full, Need)
    assert full.weights == 2 * half.weights
    assert half.step < full.step


def test_a_run_is_estimated_before_it_begins() -> None:
    parts = beforehand.memory_of(presets.preset("draft", "cpu", prompt="a red cube"))
    assert set(parts) == {"text encoders", "prior", "a step of the prior", "scene", "rendering"}
    assert min(parts.values()) > 0


def test_a_prior_beside_that_of_the_picture_counts() -> None:
    """Both keep their weights, and what the way back needs of both is there at once."""
    told = beforehand.memory_of(presets.preset("draft", "cpu", prompt="a red cube", image_residual=0.0))
    shown = beforehand.memory_of(image_preset("draft", "cpu"))
    both = beforehand.memory_of(image_preset("draft", "cpu", prompt="a red cube", text_prior="toybox"))
    assert both["text prior"] == told["prior"]
    assert [both[part] for part in ("prior", "scene", "rendering")] == [shown[part] for part in ("prior", "scene", "rendering")]
    assert both["text encoders"] == max(told["text encoders"], shown["text encoders"])
    alone = [told["a step of the prior"], shown["a step of the prior"]]
    assert max(alone) < both["a step of the prior"] <= sum(alone)


def test_a_step_of_two_priors_takes_what_was_foretold(tmp_path, monkeypatch) -> None:
    write_stand_in(tmp_path)
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    need = need_of(EMBEDDED, FLOAT, 2, 64, Options(), beside="toybox")
    priors = [loading.load_prior(source, CPU, FLOAT) for source in (EMBEDDED, "toybox")]
    conditions = [torch.zeros(4, *condition_shape(configuration_of(source))) for source in (EMBEDDED, "toybox")]

    def step() -> None:
        images, losses = torch.zeros(2, 64, 64, 3, requires_grad=True), []
        for prior, condition in zip(priors, conditions, strict=True):
            x = prior.encode(images)
            prior.predict_noise(torch.cat([x, x]).detach(), 500, condition + 0)
            losses.append(x.sum())
        torch.stack(losses).sum().backward()

    assert need.step == pytest.approx(peak_bytes(step), rel=0.02)
    modules = [module for prior in priors for module in vars(prior).values() if isinstance(module, torch.nn.Module)]
    assert need.weights + need.weights_beside == sum(p.nbytes for module in modules for p in module.parameters())


def test_no_prior_is_asked_about_the_pictures_own_view() -> None:
    shown = image_preset("draft", "cpu", views=2)
    need = need_of(EMBEDDED, FLOAT, 2, shown.resolution, shown.options)
    assert beforehand.memory_of(shown)["a step of the prior"] == need.step


def test_the_estimate_in_words_has_the_largest_moment(monkeypatch) -> None:
    gigabytes = {"text encoders": 9, "prior": 8, "a step of the prior": 2, "scene": 1, "rendering": 3}
    monkeypatch.setattr(beforehand, "memory_of", lambda _: {name: size * 2**30 for name, size in gigabytes.items()})
    assert beforehand.memory_in_words(presets.preset("draft", "cpu", prompt="a cat")).startswith("about 15 GB of GPU memory")
    gigabytes["text encoders"] = 20
    assert beforehand.memory_in_words(presets.preset("draft", "cpu", prompt="a cat")).startswith("about 21 GB")


@pytest.mark.parametrize(
    ("name", "method", "most"),
    [("draft", "dreamtime", 8), ("standard", "dreamtime", 8), ("high", "dreamtime", 16), ("standard", "prolificdreamer", 24)],
)
def test_presets_for_gpus_fit(name: str, method: str, most: int) -> None:
    settings = presets.preset(name, "cpu", "stable-diffusion-2.1-base", method)
    gigabytes = int(beforehand.memory_in_words(replace(settings, device="cuda")).split()[1])
    assert 2 < gigabytes <= most


def test_an_estimate_is_for_gpus_and_stops_nothing(monkeypatch, caplog) -> None:
    settings = presets.preset("draft", "cpu", prompt="a cat")
    assert beforehand.memory_foretold(settings) == ""
    on_a_gpu = replace(settings, device="cuda")
    monkeypatch.setattr(beforehand, "memory_in_words", lambda settings: "about 5 GB")
    assert beforehand.memory_foretold(on_a_gpu) == "about 5 GB"

    def fails(settings: presets.Settings) -> str:
        raise RuntimeError("no shapes")

    monkeypatch.setattr(beforehand, "memory_in_words", fails)
    assert beforehand.memory_foretold(on_a_gpu) == ""
    assert caplog.messages == ["The memory of this run could not be estimated (RuntimeError: no shapes)."]
    assert not caplog.records[0].exc_info, "no traceback reaches the screen"


def test_of_a_model_that_is_not_to_be_had_only_the_run_speaks(monkeypatch, caplog) -> None:
    def fails(settings: presets.Settings) -> str:
        raise ModelUnavailable("some/model", "is not here")

    monkeypatch.setattr(beforehand, "memory_in_words", fails)
    assert beforehand.memory_foretold(replace(presets.preset("draft", "cpu", prompt="a cat"), device="cuda")) == ""
    assert caplog.messages == []


def test_more_answers_at_once_take_more_memory() -> None:
    two, four = (need_of("toybox", FLOAT, 2, 64, Options(), answers).step for answers in (2, 4))
    assert four > two
    told = (
        ("sds", "classifier-free", 2.0, "", 2),
        ("sds", "classifier-free", 1.0, "", 1),
        ("vsd", "classifier-free", 1.0, "", 2),
        ("sds", "perp-neg", 1.0, "", 4),
        ("csd", "classifier-free", 2.0, "a dog", 3),
    )
    for *asked, count in told:
        assert answers_at_once(*asked) == count
