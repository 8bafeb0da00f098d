"""What is said and checked of a run before it starts: what it is, its prompt, its ingredients, its memory."""

import logging

import torch
from torch import Generator

from dreamtime.assembly import dtype_of
from dreamtime.objectives import answers_at_once
from dreamtime.presets import REPRESENTATIONS, Settings
from dreamtime.priors.folders import ModelUnavailable, check_decodes, in_folder, without_tiny_vae
from dreamtime.priors.hub import (
    DENOISER,
    find_file,
    folder_here,
    is_taken_for_granted,
    is_taken_for_zero123,
    layout_expected,
    on_this_disk,
    places_of,
    short_name,
    what_it_reads,
)
from dreamtime.priors.layouts import check_options
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.known import goes_together, has_own_colors, nearest_known, read_known, spelled, unknown_words
from dreamtime.toybox.world import words_of

log = logging.getLogger(__name__)


MADE_FOR_GPUS = ("hash-grid", "mlp")  # the representations that are

TAKEN_FOR_NOISE = (
    "Nothing beside {!r}, a single file of version 2, says what it predicts: it is taken for the noise, as by 2.1-base. If it"
    " is of 2.1, which predicts v, put its .yaml beside it."
)

TAKEN_FOR_ZERO123 = (
    "Nothing says whether {!r} is told how high the picture was taken, as Stable-Zero123 is: it is taken for a Zero-1-to-3,"
    ' which is not. If it is, put "absolute_elevation": true into the model_index.json of a copy.'
)

MANY_WORDS = 55  # with the view's and the marks at both ends, about the 77 tokens that CLIP reads
CUT_OFF = (
    f"The prompt is longer than about {MANY_WORDS} English words: CLIP reads no more, and what is beyond them is cut off, the"
    " words for the view first of all."
)

PLASTER = (
    "The embedded model has seen things without texture only under prompts that name no colour: steps without texture work"
    " against {!r} here."
)

NOT_TOGETHER = (
    "The embedded model has never seen such things together, so expect a guess. It knows two only where one is on top of or"
    f" next to the other, out of these: {', '.join(SOLIDS)}."
)
NOT_ITS_COLOR = (
    "The embedded model has never seen such a second colour, so expect a guess. It knows those of a thing's own part, as in \"a"
    ' green mushroom with a white stem".'
)


def describe(settings: Settings) -> str:
    """One line for people: what runs, where, how long."""
    beside = f" beside {settings.text_prior}, weight {settings.text_weight:g}" if settings.text_prior else ""
    return (
        f"{settings.prior}{beside} on {settings.device}, {settings.schedule} schedule, {settings.steps} steps of"
        f" {settings.views} views at {settings.resolution} px, {settings.asked}, guidance {settings.guidance_scale:g}, seed"
        f" {settings.seed}"
    )


def as_words(prompt: str) -> int:
    """About how many English words are as long to CLIP, which reads other letters one by one or in even smaller parts."""
    foreign = sum(not character.isascii() for character in prompt)
    return foreign + sum(any(map(str.isascii, word)) for word in prompt.split())


def advice(settings: Settings) -> tuple[str, ...]:
    """What to know before such a run: what its prior is taken for, and whether its prompt can be read and understood."""
    taken: tuple[str, ...] = (
        (TAKEN_FOR_NOISE.format(short_name(settings.prior)),) if is_taken_for_granted(settings.prior) else ()
    )
    if settings.device == "cpu" and settings.representation in MADE_FOR_GPUS:
        taken += (f"The representation {settings.representation!r} is made for GPUs: here a step takes many seconds.",)
    if settings.precision != "fp16" and settings.device == "cpu":
        taken += (f"The precision {settings.precision!r} is for GPUs: here the prior is asked in single precision.",)
    if settings.task == "image" and is_taken_for_zero123(settings.prior):
        taken += (TAKEN_FOR_ZERO123.format(short_name(settings.prior)),)
    if settings.task == "image" and settings.prompt and not settings.text_prior:
        return (*taken, "Nobody reads the prompt: beside a picture it needs a text prior, and none is chosen.")
    if as_words(settings.prompt) > MANY_WORDS:
        taken += (CUT_OFF,)
    return taken + embedded_advice(settings) if "toybox" in (settings.prior, settings.text_prior) else taken


def embedded_advice(settings: Settings) -> tuple[str, ...]:
    """What to know of a prompt that the embedded text model reads."""
    words = words_of(settings.prompt)
    color = next((word for word in words if word in read_known().colors), None)
    taken = (PLASTER.format(color),) if color and settings.textureless_share else ()
    if not words:
        nothing = "The prompt holds no word that the embedded model could read, so expect just anything."
        return (*taken, f"{nothing} {what_it_knows()}")
    if unknown := ", ".join(map(with_nearest, unknown_words(settings.prompt))):
        return (*taken, f"The embedded model has never seen {unknown}, so expect a guess. {what_it_knows()}")
    if not goes_together(settings.prompt):
        return (*taken, NOT_TOGETHER)
    return taken if has_own_colors(settings.prompt) else (*taken, NOT_ITS_COLOR)


def what_it_knows() -> str:
    """The embedded model's things and colours, and where to turn for others."""
    known = read_known()
    things, colors = ", ".join(map(spelled, known.kinds)), ", ".join(known.colors)
    return f"It knows these things: {things}; in these colours: {colors}. For free text choose a Stable Diffusion prior."


def with_nearest(word: str) -> str:
    """An unknown word, with the known one that was most likely meant."""
    nearest = nearest_known(word)
    return f'"{word}" (did you mean "{nearest}"?)' if nearest else f'"{word}"'


def check_reader(prior: str) -> None:
    """Raise `ModelUnavailable` on what is known, without the network, to be no model that reads prompts."""
    if what_it_reads(prior) == "image":
        raise ModelUnavailable(prior, "is shown a picture and reads no text: give it one, or choose a model that reads prompts")


def check_looker(prior: str) -> None:
    """Raise `ModelUnavailable` on what is known, without the network, to be no model that is shown pictures."""
    if what_it_reads(prior) == "text":
        raise ModelUnavailable(prior, "reads text and is shown no picture: choose a Zero-1-to-3, or begin from a prompt")


def check_abilities(settings: Settings) -> None:
    """Raise `ModelUnavailable` on what is asked of models and their kind, as far as that is known, cannot do."""
    layouts = {prior: layout_expected(prior) for prior in filter(None, (settings.prior, settings.text_prior))}
    for prior, layout in layouts.items():
        if layout is None:
            continue
        if settings.objective == "vsd" and not layout.learns:
            raise ModelUnavailable(prior, "has no UNet in which the objective 'vsd' could learn: choose another objective")
        check_options(prior, layout, settings.options)
    if settings.options.decodes:
        check_comparable(settings.prior)


def check_comparable(prior: str) -> None:
    """Raise `ModelUnavailable` on a model on this disk whose images cannot be compared."""
    if folder := folder_here(prior):
        check_decodes(in_folder(folder, prior, (), weights=False))
    elif (path := on_this_disk(prior)) and path.is_file():
        raise without_tiny_vae(prior)


def check_ingredients(settings: Settings) -> None:
    """Raise `ModelUnavailable` on a model or an addition to it that a run could not have, before anything of it is written."""
    if settings.task == "text":
        check_reader(settings.prior)
    else:
        check_looker(settings.prior)
        if settings.text_prior:
            check_reader(settings.text_prior)
    check_abilities(settings)
    for prior in filter(None, (settings.prior, settings.text_prior)):
        place, *mirrors = places_of(prior)
        if not mirrors and (path := on_this_disk(place)) and path.is_dir():
            in_folder(path, prior, DENOISER, weights=True)
    for addition, what in ((settings.lora, "a LoRA"), (settings.embedding, "a textual inversion")):
        if addition:
            find_file(addition, what)


def memory_of(settings: Settings) -> dict[str, int]:
    """Bytes that a run is expected to take, by what takes them, found without allocating any. Raises `ModelUnavailable`.

    The text encoders are gone before anything else comes. Libraries keep about a gigabyte of a GPU for themselves.
    """
    from dreamtime.priors import memory

    dtype, learns = dtype_of(settings.device, settings.options), settings.objective == "vsd"
    # Early views are smaller, but a prior resizes what it is shown.
    size = max(settings.views_by_part), settings.resolution
    answers = answers_at_once(settings.objective, settings.guidance, settings.guidance_scale, settings.negative_prompt)
    need = memory.need_of(settings.source, dtype, *size, settings.options, answers, learns, settings.text_prior)
    scene = REPRESENTATIONS[settings.representation](Generator(), torch.device("meta"))
    views = settings.views + (settings.task == "image")  # no prior is asked about the picture's own
    samples = views * settings.resolution**2 * settings.samples_per_ray // 4  # visible, before the scene has a surface
    return {
        "text encoders": need.text_encoders,
        "prior": need.weights,
        **({"text prior": need.weights_beside} if settings.text_prior else {}),
        "a step of the prior": need.step,  # of both where there are two
        "scene": 4 * memory.bytes_of(scene),  # its gradient and Adam's two means are as large
        "rendering": memory.rendering_bytes(scene, samples, settings.task == "image" and settings.normal_smoothness_3d > 0),
    }


def memory_in_words(settings: Settings) -> str:
    """One line for people, before a run on a GPU. Raises `ModelUnavailable`."""
    gigabytes = {name: size / 2**30 for name, size in memory_of(settings).items()}
    first = gigabytes["text encoders"]
    peak = 1 + max(first, sum(gigabytes.values()) - first)
    parts = ", ".join(f"{name} {size:.1f}" for name, size in gigabytes.items())
    return f"about {peak:.0f} GB of GPU memory at the peak ({parts}, libraries 1; the text encoders are gone by then)"


def memory_foretold(settings: Settings) -> str:
    """The same, or nothing where there is no GPU or no telling: a failing estimate stops no run."""
    if settings.device == "cpu":
        return ""
    try:
        return memory_in_words(settings)
    except ModelUnavailable:
        return ""  # the run itself says so, in one sentence
    except Exception as error:
        log.warning("The memory of this run could not be estimated (%s: %s).", type(error).__name__, error)
        log.debug("where it failed", exc_info=error)
        return ""
