"""Names, settings and their limits: nonsense is refused in one sentence when a run is described, not when it runs."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from fakes import GaussianPrior, stable_diffusion_alphas_cumprod

from dreamtime import assembly, beforehand, presets, text_to_3d
from dreamtime.checkpoints import load_checkpoint, save_checkpoint
from dreamtime.presets import Settings, preset, settings_from_dict, settings_to_dict
from dreamtime.priors.layouts import LAYOUTS
from dreamtime.priors.options import Options


def test_every_preset_is_valid_and_grows_in_steps() -> None:
    for table in presets.PRESETS.values():
        assert list(table) == ["draft", "standard", "high"]
        steps = [settings.steps for settings in table.values()]
        assert steps == sorted(steps)


def test_settings_survive_json() -> None:
    settings = preset("standard", "cpu", prompt="a red cube", table=(900, 100), t_min=30)
    assert settings_from_dict(settings_to_dict(settings)) == settings


def test_settings_cannot_be_rewritten() -> None:
    with pytest.raises(FrozenInstanceError):
        preset("draft", "cpu", prompt="a red cube").steps = 3  # type: ignore[misc]


def test_presets_for_large_priors_have_their_guidance() -> None:
    assert preset("standard", "cpu", prior="stable-diffusion-1.5", prompt="a cat").guidance_scale == presets.GUIDANCE_SCALE
    assert preset("standard", "cpu", prompt="a cat").guidance_scale == presets.EMBEDDED_GUIDANCE_SCALE


def test_an_objective_brings_its_own_guidance_unless_another_is_asked_for() -> None:
    def scale(prior: str, **changes) -> float:
        return preset("standard", "cpu", prior=prior, prompt="a cat", **changes).guidance_scale

    assert scale("stable-diffusion-1.5", objective="vsd") == 7.5
    assert scale("deepfloyd-if-xl", objective="sds") == 20
    assert scale("deepfloyd-if-xl", objective="nfsd") == 7.5
    assert scale("stable-diffusion-1.5", objective="vsd", guidance_scale=3.0) == 3.0
    assert scale("toybox", objective="vsd") == presets.BETWEEN_LATENTS["guidance_scale"]


@pytest.mark.parametrize("name", ["draft", "standard", "high"])
def test_the_embedded_prior_is_asked_between_images_unless_the_objective_is_another(name: str) -> None:
    plain = preset(name, "cpu", prompt="a cat")
    assert plain.objective == "sds"
    assert plain.image_residual > 0
    for objective in presets.OBJECTIVES.keys() - {"sds"}:
        made = preset(name, "cpu", prompt="a cat", objective=objective)
        assert {key: getattr(made, key) for key in presets.BETWEEN_LATENTS} == presets.BETWEEN_LATENTS
    assert preset(name, "cpu", prior="stable-diffusion-1.5", prompt="a cat").image_residual == 0


def test_between_latents_the_embedded_prior_guides_more_firmly_from_nearer() -> None:
    between = preset("draft", "cpu", prompt="a cat", image_residual=0.0)
    assert (between.guidance_scale, between.distance) == (1.5, (1.5, 2.0))
    assert preset("draft", "cpu", prompt="a cat", image_residual=0.0, guidance_scale=9.0).guidance_scale == 9
    large = preset("draft", "cpu", prior="stable-diffusion-1.5", prompt="a cat", image_residual=5.0)
    assert (large.image_residual, large.distance, large.options.decodes) == (5.0, (1.5, 2.0), True)


def test_runs_from_before_there_was_an_image_residual_have_none() -> None:
    old = settings_to_dict(preset("draft", "cpu", prompt="a cat"))
    del old["image_residual"]
    assert settings_from_dict(old).image_residual == 0


def test_an_image_residual_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="with the objective 'csd' it must be 0, got 30"):
        preset("draft", "cpu", prompt="a cat", objective="csd", image_residual=30.0)
    with pytest.raises(ValueError, match="image residual must lie between 0 and"):
        preset("draft", "cpu", prompt="a cat", image_residual=-1.0)


@pytest.mark.parametrize("objective", presets.OBJECTIVES)
@pytest.mark.parametrize("name", ["draft", "standard", "high"])
def test_with_the_embedded_prior_objectives_without_a_brake_go_gently(name: str, objective: str):
    plain, made = (preset(name, "cpu", prompt="a cat", objective=each) for each in ("sds", objective))
    if objective in presets.GENTLE:
        assert made.learning_rate * made.steps == pytest.approx(presets.GENTLE_PATH)
        assert made.learning_rate <= plain.learning_rate
        assert made.opacity == (plain.opacity if objective == "vsd" else 100)
        long, short = (preset(name, "cpu", prompt="a cat", objective=objective, steps=steps) for steps in (6000, 2))
        assert long.learning_rate == pytest.approx(presets.GENTLE_PATH / 6000)
        assert short.learning_rate == plain.learning_rate
        with pytest.raises(ValueError, match="got 0"):
            preset(name, "cpu", prompt="a cat", objective=objective, steps=0)
    else:
        assert (made.learning_rate, made.opacity) == (plain.learning_rate, plain.opacity)
    large = [preset(name, "cpu", "stable-diffusion-1.5", prompt="a cat", objective=each) for each in ("sds", objective)]
    assert large[0].learning_rate == large[1].learning_rate
    assert preset(name, "cpu", prompt="a cat", objective=objective, learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize("prior", ["toybox", "stable-diffusion-1.5"])
@pytest.mark.parametrize("objective", presets.OBJECTIVES)
def test_every_objective_has_every_preset(objective: str, prior: str) -> None:
    for name in ("draft", "standard", "high"):
        assert preset(name, "cpu", prior=prior, prompt="a cat", objective=objective).objective == objective


def test_vsd_learns_beside_the_scene_and_the_scene_needs_no_prior_to_come_back(tmp_path) -> None:
    settings = preset("draft", "cpu", prompt="a red cube", objective="vsd", steps=2, views=1, resolution=16, samples_per_ray=8)
    dream = text_to_3d.text_to_3d(settings)
    untrained = {name: value.clone() for name, value in dream.scene.modules["lora"].state_dict().items()}
    assert [step.index for step in dream.steps(0)] == [1, 2]
    assert any(not torch.equal(value, untrained[name]) for name, value in dream.scene.modules["lora"].state_dict().items())
    assert dream.optimizer.param_groups[-1]["eps"] == 1e-8
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, dream.scene.modules, {"optimizer": dream.optimizer}, dream.generator, {"step": "2"})
    scene = assembly.build_scene(settings, torch.device("cpu"), torch.Generator())
    load_checkpoint(file, scene.modules, {}, torch.Generator())
    kept, made = scene.representation.state_dict(), dream.scene.representation.state_dict()
    assert all(torch.equal(kept[name], made[name]) for name in made)


@pytest.mark.parametrize("name", presets.SCHEDULES)
def test_every_schedule_name_makes_a_timetable(name: str) -> None:
    table = presets.timetable(name, stable_diffusion_alphas_cumprod(), 20, m=500.0, s=125.0, fixed_t=400, table=(900, 30))
    assert len(table) == 20


def test_options_reach_the_schedules_that_have_them() -> None:
    abar = stable_diffusion_alphas_cumprod()
    assert presets.timetable("fixed", abar, 3, fixed_t=321, m=1.0).low.tolist() == [321] * 3
    assert presets.timetable("custom", abar, 2, table=(700, 300)).low.tolist() == [700, 300]
    narrow, wide = (presets.timetable("time-prioritized", abar, 100, s=s).low for s in (50.0, 300.0))
    assert narrow.double().std() < wide.double().std()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": "   "}, "The prompt is empty"),
        ({"prompt": "x" * 401}, "up to 400 characters, got 401"),
        ({"steps": 0}, "between 1 and 1,000,000 steps, got 0"),
        ({"steps": 10**9}, "got 1,000,000,000"),
        ({"schedule": "custom"}, "A custom schedule needs a table"),
        ({"schedule": "custom", "table": (20, 980, 500)}, "only fall or only rise"),
        ({"schedule": "cosine"}, "Unknown schedule 'cosine': choose one of time-prioritized"),
        ({"representation": "voxels"}, "Unknown representation"),
        ({"background": "pink"}, "Unknown background"),
        ({"weighting": "none"}, "Unknown weighting"),
        ({"memory": "tiny"}, "Unknown memory setting 'tiny': choose one of normal, low, lowest"),
        ({"attention": "flash"}, "Unknown attention"),
        ({"precision": "fp8"}, "Unknown precision 'fp8': choose one of fp16, bf16"),
        ({"lora_scale": float("nan")}, "LoRA scale"),
        ({"objective": "gan"}, "Unknown objective 'gan': choose one of sds, vsd"),
        ({"guidance": "loud"}, "Unknown guidance 'loud': choose one of classifier-free"),
        ({"negative_prompt": "blurry\0"}, r"negative prompt holds a character that writes nothing: U\+0000"),
        ({"negative_prompt": "x" * 401}, "length of the negative prompt must lie between 0 and 400, got 401"),
        ({"seed": 2**63}, "between 0 and 9223372036854775807, got 9223372036854775808"),
        ({"views": 10**400}, "between 1 and 64, got a number of 401 digits"),
        ({"objective": "csd", "guidance_scale": 1.0}, "it needs a guidance scale above 1, got 1"),
        ({"guidance_scale": 0.0}, "guidance scale of 0 nobody would look at the prompt"),
        ({"guidance_scale": 1.0, "negative_prompt": "blue"}, "negative prompt has no effect at a guidance scale of 1"),
        ({"guidance_scale": 1.0, "guidance": "rescaled"}, "'rescaled' has no effect at a guidance scale of 1"),
        ({"objective": "ism", "weighting": "uniform"}, "brings its own w"),
        ({"objective": "vsd", "memory": "lowest"}, "memory 'lowest' takes apart"),
        ({"second_learning_rate": -1.0}, "learning rate of the second predictor"),
        ({"s": 0.0}, "positive number up to 1,000,000, got 0"),
        ({"s": float("nan")}, "positive number up to 1,000,000, got nan"),
        ({"t_min": 900, "t_max": 100}, "t_min = 900, t_max = 100"),
        ({"guidance_scale": float("nan")}, "guidance scale must lie between 0 and 1000, got nan"),
        ({"views": 0}, "number of views"),
        ({"elevation": -90.0}, "elevation must lie between -89 and 89, got -90"),
        ({"rgb": 1e7}, "rgb must lie between 0 and 1000000"),
        ({"doublings": 1, "early_views": (65,)}, "number of early views must lie between 1 and 64, got 65"),
        ({"doublings": 2, "early_views": (4,)}, "one number of early views per doubling, 2, or none"),
        ({"doublings": 4}, "resolution of the first steps"),
        ({"distance": (3.0, 2.0)}, "The distance needs 1 <= low <= high <= 20, got 3 to 2"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"seed": -1}, "seed"),
        ({"albedo_share": 0.7, "textureless_share": 0.6}, "sum of the albedo and textureless shares"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(Settings("a red cube"), **change)


@pytest.mark.parametrize("name", presets.RANGES)
def test_a_range_has_both_its_ends_and_nothing_beyond(name: str) -> None:
    plain = Settings("a red cube", albedo_share=0.0, resolution=128)
    low, high = presets.RANGES[name]
    kind = type(getattr(plain, name))
    for end in (low, high):
        if (name, end) not in (("s", 0), ("guidance_scale", 0)):  # which have sentences of their own
            assert getattr(replace(plain, **{name: kind(end)}), name) == end
    for beyond in (low - 1, high + 1):
        with pytest.raises(ValueError):
            replace(plain, **{name: kind(beyond)})


@pytest.mark.parametrize("name", [name for name in presets.SCHEDULES if name not in ("fixed", "custom")])
def test_where_a_schedule_ends_is_known_without_its_table(name: str) -> None:
    """That of the dense schedules is where they arrive; one that is drawn may come as low."""
    alphas_cumprod = stable_diffusion_alphas_cumprod()
    for t_min in (None, 50):
        settings = preset("draft", "cpu", prompt="a red cube", schedule=name, t_min=t_min)
        lowest = int(presets.timetable(name, alphas_cumprod, 5000, t_min=t_min).low.min())
        assert presets.lowest_timestep_of(settings, len(alphas_cumprod)) == pytest.approx(lowest, abs=2)


@pytest.mark.parametrize(("albedo", "textureless"), [(0.8, 0.2), (0.9, 0.1), (0.67, 0.33), (0.55, 0.45), (1.0, 0.0)])
def test_all_steps_may_go_without_the_light(albedo: float, textureless: float) -> None:
    """These sums of shares are 1 exactly, but what two subtractions leave of 1 is less than nothing."""
    settings = preset("draft", "cpu", prompt="a red cube", albedo_share=albedo, textureless_share=textureless)
    assembly.build_scene(settings, torch.device("cpu"), torch.Generator())


def test_what_does_not_shape_a_schedule_is_refused_by_the_name_that_it_has_there() -> None:
    presets.check_effect("uniform", ["t_min", "steps", "seed"])
    with pytest.raises(ValueError, match=r"^The schedule 'uniform' has no m: it takes t_min, t_max\.$"):
        presets.check_effect("uniform", ["s", "m", "t_min"])
    with pytest.raises(ValueError, match=r"^The schedule 'fixed' has no <table>: it takes <fixed_t>\.$"):
        presets.check_effect("fixed", ["table"], "<{}>".format)
    with pytest.raises(ValueError, match="Unknown schedule 'cosine'"):
        presets.check_effect("cosine", [])


def test_advice_names_what_was_likely_meant(monkeypatch) -> None:
    monkeypatch.setattr(beforehand, "unknown_words", lambda prompt: ["spheer", "dragon"])
    (sentence,) = beforehand.advice(preset("draft", "cpu", prompt="a red spheer on a dragon"))
    assert sentence.startswith(
        'The embedded model has never seen "spheer" (did you mean "sphere"?), "dragon", so expect a guess.'
    )
    assert "ice cream, " in sentence


def test_unknown_preset_and_device() -> None:
    with pytest.raises(ValueError, match="Unknown preset 'best': choose one of draft, standard, high"):
        preset("best", "cpu", prompt="a red cube")
    with pytest.raises(ValueError, match="Unknown device 'tpu'"):
        preset("draft", "tpu", prompt="a red cube")


@pytest.mark.no_cuda
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match="'cuda' is not there; this machine has cpu"):
        preset("draft", "cuda", prompt="a red cube")


def test_models_have_the_guidance_that_suits_them() -> None:
    scales = {name: preset("draft", "cpu", prior=name, prompt="a cat").guidance_scale for name in presets.PRIORS}
    assert scales["deepfloyd-if-xl"] == 20
    assert scales["stable-diffusion-xl"] == presets.GUIDANCE_SCALE
    assert preset("draft", "cpu", prior="deepfloyd-if-xl", prompt="a cat", guidance_scale=7.0).guidance_scale == 7


def test_nobody_reads_text_with_a_model_for_pictures() -> None:
    assert "zero123-xl" not in presets.PRIORS


def test_the_automatic_prior_is_the_embedded_one_without_a_gpu() -> None:
    assert preset("draft", "cpu", prior="auto", prompt="a cat") == preset("draft", "cpu", prompt="a cat")


def test_what_was_said_about_loading_reaches_the_loader() -> None:
    settings = preset("draft", "cpu", prompt="a cat", memory="low", attention="sliced", lora="x", lora_scale=0.5, embedding="y")
    assert settings.options == Options("low", "sliced", "x", 0.5, "y", decodes=True)
    assert preset("draft", "cpu", prompt="a cat").options == Options(decodes=True)
    assert preset("draft", "cpu", prompt="a cat", image_residual=0.0).options == Options()


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_gpu_is_asked_in_the_precision_that_was_chosen_and_a_cpu_in_single(
    precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.dtype] = []

    def loads(made: Any) -> Callable[..., Any]:
        def load(source: str, device: torch.device, dtype: torch.dtype, options: Options) -> Any:
            asked.append(dtype)
            return made

        return load

    prior = GaussianPrior(torch.zeros(3, 8, 8))
    monkeypatch.setattr(assembly, "KEPT", {})
    monkeypatch.setattr(assembly.loading, "load_prior", loads(prior))
    monkeypatch.setattr(assembly.loading, "load_text_encoder", loads(lambda prompts: torch.zeros(len(prompts), 1, 1)))
    settings = preset("draft", "cpu", prompt="a cat", precision=precision)
    for device in ("cuda", "cpu"):
        assembly.load_prior(settings.source, device, settings.options)
    assembly.load_embed(replace(settings, device="cuda"))
    assert asked == [dtype, torch.float32, dtype]


@pytest.mark.parametrize(
    "prior", ["stable-diffusion-xl", "stable-diffusion-3-medium", "stabilityai/stable-diffusion-3.5-medium"]
)
def test_a_prior_that_vsd_cannot_learn_in_is_refused_when_the_run_is_described(prior: str) -> None:
    with pytest.raises(ValueError, match=f"'vsd' learns in a UNet like that of .* and '{prior}' has none"):
        preset("draft", "cpu", prior, prompt="a cat", objective="vsd")
    with pytest.raises(ValueError, match="'vsd' learns"):
        preset("draft", "cpu", prior, "prolificdreamer", prompt="a cat")
    assert preset("draft", "cpu", prior, prompt="a cat", objective="asd").prior == prior


def test_a_negative_prompt_brings_guidance_to_the_embedded_prior_which_else_has_none() -> None:
    assert preset("draft", "cpu", prompt="a cat").guidance_scale == 1
    assert preset("draft", "cpu", prompt="a cat", negative_prompt="blue").guidance_scale == presets.STEERED_GUIDANCE_SCALE
    assert preset("draft", "cpu", prompt="a cat", negative_prompt="blue", guidance_scale=5.0).guidance_scale == 5
    large = {"prior": "stable-diffusion-1.5", "prompt": "a cat"}
    assert preset("draft", "cpu", **large, negative_prompt="blue") == replace(
        preset("draft", "cpu", **large), negative_prompt="blue"
    )


@pytest.mark.parametrize("guidance", presets.GUIDANCES)
def test_a_guidance_without_effect_at_a_scale_of_1_brings_more_to_the_embedded_prior(guidance: str) -> None:
    scale = presets.STEERED_GUIDANCE_SCALE if guidance == "rescaled" else 1
    small = {"device": "cpu", "prompt": "a cat", "guidance": guidance}
    assert preset("draft", **small).guidance_scale == scale
    assert preset("draft", **small, guidance_scale=5.0).guidance_scale == 5
    between_latents = presets.BETWEEN_LATENTS["guidance_scale"]
    assert preset("draft", **small, objective="asd").guidance_scale == between_latents
    assert preset("draft", **small, image_residual=0.0).guidance_scale == between_latents
    assert preset("draft", **small, prior="stable-diffusion-1.5").guidance_scale == presets.GUIDANCE_SCALE


@pytest.mark.parametrize("objective", ["csd", "nfsd", "sdi"])
def test_some_objectives_ask_about_the_negative_prompt_at_any_scale(objective: str) -> None:
    scale = 1.5 if objective == "csd" else 1.0
    made = preset("draft", "cpu", prompt="a cat", objective=objective, guidance_scale=scale, negative_prompt="a dog")
    assert made.negative_prompt == "a dog"


@pytest.mark.parametrize("objective", ["sjc", "sdi", "ism"])
def test_an_objective_that_divides_by_the_signal_wants_some(objective: str) -> None:
    """A rectified flow ends in noise alone."""
    settings = preset("draft", "cpu", prompt="a cat", objective=objective, schedule="uniform", t_max=999)
    flow = LAYOUTS["StableDiffusion3Pipeline"].usual_alphas_cumprod()
    with pytest.raises(ValueError, match=f"The objective '{objective}' divides by the share of signal, .* at t = 999"):
        assembly.timetable_of(settings, flow)
    assert assembly.timetable_of(replace(settings, t_max=998), flow).high.max() == 998
    assert assembly.timetable_of(replace(settings, objective="sds"), flow).high.max() == 999
    with pytest.raises(ValueError, match="The objective 'sds' between images divides by the share of signal"):
        assembly.timetable_of(replace(settings, objective="sds", image_residual=30.0), flow)


def test_a_prior_is_kept_for_the_next_run_and_let_go_before_another_is_loaded(monkeypatch) -> None:
    loaded = []
    monkeypatch.setattr(assembly, "KEPT", {})
    monkeypatch.setattr(
        assembly.loading,
        "load_prior",
        lambda source, *others: loaded.append(source) or GaussianPrior(torch.zeros(3, 8, 8), 0.5),
    )
    both = preset("draft", "cpu", "one", prompt="a cat", text_prior="two")
    alone = replace(both, prior="two", text_prior="")
    first = assembly.load_prior("one", "cpu")
    assembly.make_room(both)
    assert assembly.load_prior("one", "cpu") is first
    assembly.load_prior("two", "cpu")
    assembly.make_room(alone)
    assert [source for source, *_ in assembly.KEPT] == ["two"]
    assembly.make_room(replace(alone, memory="low"))
    assert assembly.KEPT == {}
    assembly.load_prior("one", "cpu")
    assert loaded == ["one", "two", "one"]
