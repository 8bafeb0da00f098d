"""Where models come from: folders, mirrors, caches; and one clear sentence for everything that can be wrong with them."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import huggingface_hub
import pytest
import torch
from fake_hub import SHA, FakeHub, fake_hub
from safetensors.torch import save_file
from stand_in import write_stand_in
from tiny_models import tiny_pipeline

from dreamtime.priors import hub, loading
from dreamtime.priors.camera_embedding import CameraEmbedding
from dreamtime.priors.folders import CAMERA_EMBEDDING, STRANGE, ModelUnavailable, missing_weights, weight_files
from dreamtime.priors.hub import Model
from dreamtime.priors.layouts import LAYOUTS

CPU, FLOAT = torch.device("cpu"), torch.float32
DENOISER = ("unet", "vae", "scheduler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_pipeline("epsilon").save_pretrained(path)
    return path


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on this machine that the client takes for the real one, and an empty cache."""
    constants = huggingface_hub.constants
    with fake_hub() as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield served


@pytest.fixture
def offline_again(monkeypatch: pytest.MonkeyPatch):
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


@pytest.fixture
def told(folder: Path, tmp_path: Path) -> Path:
    """The model with an embedding of cameras beside it, and with what else may lie there."""
    path = copied(folder, tmp_path / "told")
    CameraEmbedding(tiny_pipeline("epsilon").unet.time_embedding.linear_2.out_features).save_pretrained(path / CAMERA_EMBEDDING)
    for other in ("diffusion_pytorch_model.bin", "code.py", "README.md"):
        (path / CAMERA_EMBEDDING / other).write_bytes(b"pickle")
    return path


EMBEDDING = {f"{CAMERA_EMBEDDING}/config.json", f"{CAMERA_EMBEDDING}/diffusion_pytorch_model.safetensors"}
"""Of those files the ones that are read."""


def fetched_beside(served: FakeHub) -> set[str]:
    return {name for name in served.fetched if name.startswith(f"{CAMERA_EMBEDDING}/")}


# -- files


def test_the_half_precision_variant_is_preferred() -> None:
    names = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "config.json"]
    assert weight_files([*names, "diffusion_pytorch_model.non_ema.safetensors"]) == [names[1]]
    assert weight_files(["model.safetensors", "pytorch_model.bin"]) == ["model.safetensors"]
    old = ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"]
    assert weight_files([*old, "model.safetensors"]) == old


@pytest.mark.parametrize(
    ("names", "lack"),
    [
        (["model.safetensors"], None),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
        (["model.fp16-00002-of-00003.safetensors", "model.fp16-00003-of-00003.safetensors"], "shard 1 of 3"),
        (["pytorch_model.bin"], "left alone: convert them, or trust them by DREAMTIME_ALLOW_PICKLE=owner/model)"),
        ([], "weights in safetensors"),
    ],
)
def test_missing_weights_are_named(names: list[str], lack: str | None) -> None:
    found = missing_weights(names, "owner/model@v1")
    assert found is None if lack is None else lack in found


def test_pickles_are_weights_only_where_they_are_trusted_and_nothing_better_is_there(monkeypatch) -> None:
    pickles = ["pytorch_model.bin", "pytorch_model.fp16.bin", "training_args.bin"]
    monkeypatch.setenv("DREAMTIME_ALLOW_PICKLE", "owner/model,other/model")
    assert missing_weights(pickles, "owner/model@v1") is None
    assert "left alone" in missing_weights(pickles, "owner/model2")
    assert weight_files(pickles) == []
    assert weight_files(pickles, pickles=True) == ["pytorch_model.fp16.bin"]
    assert weight_files([*pickles, "model.safetensors"], pickles=True) == ["model.safetensors"]


# -- folders


def test_a_folder_is_its_own_place(folder: Path) -> None:
    checkpoint = hub.find(folder, DENOISER)
    assert (checkpoint.path, checkpoint.pipeline) == (folder, "StableDiffusionPipeline")


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("model_index.json", "is no model in the layout of diffusers: it lacks model_index.json"),
        ("unet/config.json", "is incomplete: it lacks unet/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "is incomplete: it lacks unet/weights in safetensors"),
        ("scheduler/scheduler_config.json", "lacks scheduler/scheduler_config.json"),
    ],
)
def test_what_a_folder_lacks_is_named(folder: Path, tmp_path: Path, gone: str, sentence: str) -> None:
    broken = copied(folder, tmp_path / "broken")
    (broken / gone).unlink()
    with pytest.raises(ModelUnavailable, match=sentence):
        loading.load_prior(broken, CPU, FLOAT)


def test_an_index_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "broken")
    (broken / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelUnavailable, match=r"damaged: its model_index.json"):
        loading.load_prior(broken, CPU, FLOAT)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_model_too_large_for_this_machine_is_not_called_damaged(folder: Path, monkeypatch, error: Exception) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("diffusers.UNet2DConditionModel.from_pretrained", fail)
    with pytest.raises(ModelUnavailable, match=r"does not fit into this machine's memory\.$"):
        loading.load_prior(str(folder), torch.device("cpu"), torch.float32)


def test_a_damaged_file_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "broken")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        loading.load_prior(broken, CPU, FLOAT)


def test_a_pipeline_of_another_kind_is_named(folder: Path, tmp_path: Path) -> None:
    other = copied(folder, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text(encoding="utf-8"))
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}), encoding="utf-8")
    with pytest.raises(ModelUnavailable, match="is a FluxPipeline, which is none of Stable Diffusion 1, 2, XL or 3"):
        loading.load_prior(other, CPU, FLOAT)


def test_a_model_for_another_task_is_named(folder: Path, tmp_path: Path) -> None:
    """An inpainting model says that it is a StableDiffusionPipeline; its UNet takes nine channels."""
    other = copied(folder, tmp_path / "other")
    tiny_pipeline("epsilon").unet.__class__(**{**tiny_pipeline("epsilon").unet.config, "in_channels": 9}).save_pretrained(
        other / "unet"
    )
    with pytest.raises(ModelUnavailable, match="made for another task: its denoiser takes 9 channels, where a latent has 4"):
        loading.load_prior(other, CPU, FLOAT)


def test_half_precision_files_are_loaded_in_any_precision(folder: Path, tmp_path: Path) -> None:
    tiny_pipeline("epsilon").to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    prior, full = loading.load_prior(tmp_path, CPU, FLOAT), loading.load_prior(folder, CPU, FLOAT)
    assert prior.unet.dtype == torch.float32
    for ours, theirs in zip(prior.unet.parameters(), full.unet.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.half().float(), rtol=0, atol=0)
    assert loading.load_text_encoder(tmp_path, CPU, FLOAT)(["a"]).dtype == torch.float32


@pytest.mark.parametrize(
    ("gone", "lack"),
    [("config.json", "config.json"), ("diffusion_pytorch_model.safetensors", r"weights in safetensors \(its pi")],
)
def test_what_a_camera_embedding_lacks_is_named_where_there_is_one(told: Path, gone: str, lack: str) -> None:
    (told / CAMERA_EMBEDDING / gone).unlink()
    with pytest.raises(ModelUnavailable, match=f"is incomplete: it lacks {CAMERA_EMBEDDING}/{lack}"):
        loading.load_prior(told, CPU, FLOAT)
    assert not hub.complete_here(str(told))
    assert loading.load_text_encoder(told, CPU, FLOAT)(["a"]).isfinite().all(), "it belongs to the denoiser"
    shutil.rmtree(told / CAMERA_EMBEDDING)
    assert hub.complete_here(str(told))
    (told / CAMERA_EMBEDDING).mkdir()
    assert not loading.load_prior(told, CPU, FLOAT).knows_cameras


@pytest.mark.parametrize("name", ["stable-diffusion-1.5", "owner/model", "owner--model"])
def test_a_folder_of_models_is_looked_into_first(folder: Path, tmp_path: Path, monkeypatch, name: str) -> None:
    there = copied(folder, tmp_path / name)
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    assert hub.find(name.replace("--", "/"), DENOISER).path == there


def test_no_name_leads_out_of_the_folder_of_models(folder: Path, tmp_path: Path, monkeypatch) -> None:
    copied(folder, tmp_path / "outside")
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path / "models"))
    with pytest.raises(ModelUnavailable):
        hub.find("../outside", DENOISER)


def test_a_models_name_is_never_a_folder_in_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "toybox").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub.find("toybox", DENOISER).path != Path("toybox")


# -- the Hub


def test_a_model_is_fetched_once_and_only_what_is_needed(online: FakeHub, folder: Path, tmp_path, offline_again) -> None:
    served = copied(folder, tmp_path / "served")
    tiny_pipeline("epsilon").unet.half().save_pretrained(served / "unet", variant="fp16")
    (served / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    online.repositories["owner/model"] = served
    found = hub.find("owner/model", DENOISER)
    assert found.place == "owner/model"
    wanted = {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"}
    weights = {"unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"}
    assert set(online.fetched) == wanted | weights
    online.fetched.clear()
    offline_again()
    assert hub.find("owner/model", DENOISER).path == found.path
    assert online.fetched == []


def test_a_part_of_any_name_is_fetched_and_a_pickle_only_of_a_trusted_model(
    online: FakeHub, folder: Path, tmp_path, monkeypatch
) -> None:
    """What neither is in safetensors nor trusted makes the next mirror take over."""
    served = copied(folder, tmp_path / "served")
    index = json.loads((served / "model_index.json").read_text(encoding="utf-8"))
    (served / "model_index.json").write_text(json.dumps({**index, "odd_thing": ["mine", "Thing"]}), encoding="utf-8")
    (served / "odd_thing").mkdir()
    (served / "odd_thing" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (served / "odd_thing" / "code.py").write_text("raise SystemExit", encoding="utf-8")
    online.repositories |= {"owner/model": served, "other/model": copied(served, tmp_path / "better")}
    (tmp_path / "better" / "odd_thing" / "diffusion_pytorch_model.bin").rename(
        tmp_path / "better" / "odd_thing" / "diffusion_pytorch_model.safetensors"
    )
    monkeypatch.setitem(hub.MODELS, "thing", Model(("owner/model", "other/model")))
    assert hub.find("thing", ("scheduler", STRANGE)).place == "other/model"
    with pytest.raises(ModelUnavailable, match=r"lacks odd_thing/weights in safetensors \(its pickles are left alone"):
        hub.find("owner/model", ("scheduler", STRANGE))
    assert not any(name.endswith((".bin", ".py")) for name in online.fetched)
    assert online.fetched.count("scheduler/scheduler_config.json") == 1, "what is incomplete is not fetched at all"
    monkeypatch.setenv("DREAMTIME_ALLOW_PICKLE", "owner/model")
    assert hub.find("thing", ("scheduler", STRANGE)).place == "owner/model"
    assert "odd_thing/diffusion_pytorch_model.bin" in online.fetched
    assert not any(name.startswith(("unet/", "vae/")) or name.endswith(".py") for name in online.fetched)


def test_a_camera_embedding_comes_with_the_denoiser(online: FakeHub, told: Path, offline_again) -> None:
    """No index lists it; of what lies there only what is read is fetched."""
    online.repositories["me/told"] = told
    assert len(loading.load_text_encoder("me/told", CPU, FLOAT)(["a"])) == 1
    assert fetched_beside(online) == {f"{CAMERA_EMBEDDING}/config.json"}, "whoever reads words has no use for it"
    assert loading.load_prior("me/told", CPU, FLOAT).knows_cameras
    assert fetched_beside(online) == EMBEDDING
    offline_again()
    assert loading.load_prior("me/told", CPU, FLOAT).knows_cameras
    assert hub.complete_here("me/told")


def test_a_camera_embedding_whose_transfer_broke_is_noticed(online: FakeHub, told: Path, monkeypatch, offline_again) -> None:
    """Also where all the rest has come: it is known from the first that there is one."""
    online.repositories["me/told"] = told
    online.cut_off.add(f"{CAMERA_EMBEDDING}/diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelUnavailable, match="the Hub is out of reach"):
        hub.find("me/told", DENOISER)
    offline_again()
    cached = hub.cached("me/told")
    assert cached is not None
    for part in ("unet", "vae"):
        shutil.copytree(told / part, cached / part, dirs_exist_ok=True)
    (cached / "scheduler").mkdir(exist_ok=True)
    shutil.copy(told / "scheduler" / "scheduler_config.json", cached / "scheduler")
    with pytest.raises(ModelUnavailable, match=rf"half downloaded \(it lacks {CAMERA_EMBEDDING}/weights in safetensors\)"):
        hub.find("me/told", DENOISER)
    online.cut_off.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert loading.load_prior("me/told", CPU, FLOAT).knows_cameras


def test_a_camera_embedding_in_pickles_alone_makes_the_next_mirror_take_over(
    online: FakeHub, told: Path, folder: Path, monkeypatch
) -> None:
    (told / CAMERA_EMBEDDING / "diffusion_pytorch_model.safetensors").unlink()
    online.repositories |= {"me/told": told, "other/model": folder}
    monkeypatch.setitem(hub.MODELS, "thing", Model(("me/told", "other/model")))
    assert hub.find("thing", DENOISER).place == "other/model"
    assert not any(name.endswith(".bin") for name in online.fetched)


def test_the_configurations_alone_are_a_few_files(online: FakeHub, folder: Path) -> None:
    online.repositories["owner/model"] = folder
    assert len(loading.load_alphas_cumprod("owner/model")) == 1000
    assert set(online.fetched) == {"model_index.json", "scheduler/scheduler_config.json"}


def test_mirrors_are_tried_in_order(online: FakeHub, folder: Path, monkeypatch) -> None:
    online.repositories |= {"second/mirror": folder, "third/mirror": folder}
    monkeypatch.setitem(hub.MODELS, "thing", Model(("first/mirror", "second/mirror", "third/mirror")))
    assert hub.find("thing", DENOISER).place == "second/mirror"


def test_which_mirror_was_used_is_told_once(online: FakeHub, folder: Path, monkeypatch, caplog) -> None:
    online.repositories["second/mirror"] = folder
    monkeypatch.setitem(hub.MODELS, "a thing", Model(("first/mirror", "second/mirror")))
    with caplog.at_level("INFO", logger=hub.said.name):
        hub.find("a thing", ("scheduler",), weights=False)  # no more than its configuration
        hub.find("a thing", DENOISER)
        hub.find("a thing", ("unet",))
        hub.find("toybox", DENOISER)
        hub.find("second/mirror", DENOISER)
    assert [record.getMessage() for record in caplog.records if record.name == hub.said.name] == [
        "The model a thing is taken from second/mirror."
    ]


def test_a_path_means_the_same_from_anywhere_and_a_name_stays_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert hub.whole_path("unet") == str(folder / "unet")
    for name in ("", "toybox", "owner/model", "stable-diffusion-1.5"):
        assert hub.whole_path(name) == hub.short_name(name) == name
    assert hub.short_name(str(folder / "unet")) == "unet"
    (folder / "toybox").mkdir()
    assert hub.whole_path("toybox") == "toybox", "names of the table are never folders"
    (folder / "toybox").rmdir()


def test_a_pinned_revision_is_fetched(online: FakeHub, folder: Path) -> None:
    online.repositories["owner/model"] = folder
    assert hub.find(f"owner/model@{SHA}", DENOISER).path.name == SHA
    with pytest.raises(ModelUnavailable, match="has no such revision on the Hub"):
        hub.find(f"owner/model@{'f' * 40}", DENOISER)


def test_a_gated_model_says_how_to_be_let_in(online: FakeHub, folder: Path) -> None:
    online.repositories["owner/model"] = folder
    online.gated.add("owner/model")
    with pytest.raises(
        ModelUnavailable, match=r"licence to be accepted: do so at https://huggingface.co/owner/model, then run `hf"
    ):
        hub.find("owner/model", DENOISER)
    assert not hub.reachable("owner/model")


def test_a_withdrawn_model_is_named_with_all_its_mirrors(online: FakeHub, monkeypatch) -> None:
    with pytest.raises(ModelUnavailable, match="'owner/model' is not on the Hub: withdrawn, renamed or private"):
        hub.find("owner/model", DENOISER)
    monkeypatch.setitem(hub.MODELS, "thing", Model(("first/mirror@v1", "second/mirror")))
    told = (
        "'thing' could not be had from any of its mirrors: 'first/mirror' is not on the Hub: withdrawn, renamed or private"
        " (likewise 'second/mirror')."
    )
    with pytest.raises(ModelUnavailable, match=re.escape(told)):
        hub.find("thing", DENOISER)


def test_a_broken_transfer_is_named_and_taken_up_again(online: FakeHub, folder: Path, offline_again) -> None:
    online.repositories["owner/model"] = folder
    online.cut_off.add("unet/diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelUnavailable, match="the Hub is out of reach"):
        hub.find("owner/model", DENOISER)
    online.cut_off.clear()
    assert hub.find("owner/model", DENOISER).path.is_dir()


def test_half_a_model_offline_is_named(online: FakeHub, folder: Path, offline_again) -> None:
    online.repositories["owner/model"] = folder
    hub.find("owner/model", ("scheduler",))
    offline_again()
    with pytest.raises(
        ModelUnavailable, match=r"only half downloaded \(it lacks unet/config.json\) and is not on this disk, and HF_HUB"
    ):
        hub.find("owner/model", DENOISER)


def test_nothing_offline_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="'nobody/nothing' is not on this disk, and HF_HUB_OFFLINE keeps this machine"):
        hub.find("nobody/nothing", DENOISER)


def test_a_name_that_is_nothing_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="no file, no folder, no Hub id"):
        hub.find("../../etc; rm -rf", DENOISER)


def test_a_disk_without_space_is_named() -> None:
    assert "no space is left" in hub.why(OSError(28, "No space left on device"), "owner/model")


def test_what_a_model_reads_is_known_without_the_network(folder: Path, tmp_path: Path) -> None:
    assert hub.what_it_reads("stable-diffusion-xl") == hub.what_it_reads("CompVis/stable-diffusion-v1-4@main") == "text"
    assert hub.what_it_reads("toybox-zero123") == hub.what_it_reads("kxic/zero123-xl") == "image"
    assert hub.what_it_reads("nobody/nothing") is None
    assert hub.what_it_reads(str(folder)) == "text"
    (tmp_path / "model.safetensors").touch()
    assert hub.what_it_reads(str(tmp_path / "model.safetensors")) == "text"
    write_stand_in(tmp_path)
    assert hub.what_it_reads(str(tmp_path / "toybox-zero123")) == "image"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [("nope", "no file, no folder, no Hub id"), ("model.ckpt", "is no safetensors file"), ("empty", "lacks model_index.json")],
)
def test_what_can_be_no_model_is_refused_without_the_network(
    source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.ckpt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnavailable, match=sentence):
        hub.what_it_reads(source)


# -- the choice


def test_the_choice_is_the_embedded_model_without_a_gpu() -> None:
    assert hub.automatic("cpu")[0] == "toybox"


def test_the_choice_on_a_gpu_is_what_is_within_reach(online: FakeHub, folder: Path, offline_again) -> None:
    place = hub.MODELS["stable-diffusion-1.5"].places[0].partition("@")[0]
    assert hub.automatic("cuda")[0] == "toybox"
    online.repositories[place] = folder
    assert hub.automatic("cuda") == ("stable-diffusion-1.5", "there is a GPU, and stable-diffusion-1.5 is within reach")
    assert online.fetched == []
    offline_again()
    assert hub.automatic("cuda")[0] == "toybox"


def test_half_a_download_is_not_within_reach(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    whole = copied(folder, tmp_path / "stable-diffusion-1.5")
    assert hub.automatic("cuda")[0] == "stable-diffusion-1.5"
    assert hub.layout_expected("stable-diffusion-1.5") is LAYOUTS["StableDiffusionPipeline"]
    next((whole / "unet").glob("*.safetensors")).unlink()
    assert hub.automatic("cuda")[0] == "toybox"
    shutil.rmtree(whole)
    whole.mkdir()
    assert hub.automatic("cuda")[0] == "toybox"


def test_an_addition_is_one_whole_file(tmp_path: Path) -> None:
    (pickled := tmp_path / "style.ckpt").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="is no safetensors file; pickles are never loaded"):
        hub.find_file(str(pickled), "a LoRA")
    (damaged := tmp_path / "style.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelUnavailable, match="is damaged or no safetensors file"):
        hub.find_file(str(damaged), "a LoRA")


def test_of_a_whole_model_nothing_is_fetched_as_an_addition(online: FakeHub, folder: Path, tmp_path: Path) -> None:
    online.repositories["me/style"] = style = tmp_path / "style"
    style.mkdir()
    save_file({"x": torch.zeros(1)}, style / "style.safetensors")
    online.repositories["me/model"] = folder
    assert hub.find_file("me/style", "a LoRA").name == "style.safetensors"
    assert [name for name in online.fetched if name.endswith(".safetensors")] == ["style.safetensors"]
    online.fetched.clear()
    with pytest.raises(ModelUnavailable, match=r"exactly one \.safetensors file .* got 0 files"):
        hub.find_file("me/model", "a LoRA")
    assert not [name for name in online.fetched if name.endswith(".safetensors")]


def test_a_refused_token_is_named() -> None:
    request = httpx.Request("GET", "https://huggingface.co/api/models/owner/model")
    refused = huggingface_hub.errors.HfHubHTTPError("no", response=httpx.Response(401, request=request))
    assert hub.why(refused, "owner/model") == "is refused to this access token: run `hf auth login` again, or correct HF_TOKEN"


def test_of_many_files_none_is_fetched(online: FakeHub, tmp_path: Path) -> None:
    online.repositories["me/styles"] = styles = tmp_path / "styles"
    styles.mkdir()
    for name in ("one", "two"):
        save_file({"x": torch.zeros(1)}, styles / f"{name}.safetensors")
    with pytest.raises(ModelUnavailable, match=r"must be or hold exactly one \.safetensors file with a LoRA, got 2 files"):
        hub.find_file("me/styles", "a LoRA")
    assert online.fetched == []
