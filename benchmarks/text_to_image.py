"""The embedded model's pictures of the published test set, judged by the scorer: is the kind, the colour, the view right?

    python -m benchmarks.text_to_image --guidance 3,5,7.5

Every held-out object from front, side, back and above, by the library's own pipeline with 50 DDIM steps. Writes
`text_to_image.md` and a sheet of the pictures at the best guidance beside this file.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Generator, Tensor

from benchmarks.rows import measured_on
from dreamtime.evaluation.scorers import Scorer, load_scorer
from dreamtime.prompts import VIEWS
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.meanings import ATTRIBUTES, Description, answers, questions
from dreamtime.toybox.pictures import contact_sheet
from dreamtime.toybox.world import held_out_objects

HERE = Path(__file__).parent


def sampled(pipeline: StableDiffusionPipeline, prompts: list[str], guidance: float, steps: int, seed: int) -> Tensor:
    """One picture per prompt, B H W 3, each from a seed of its own."""
    images = []
    for start in range(0, len(prompts), 16):
        part = prompts[start : start + 16]
        draws = [Generator().manual_seed(seed + start + row) for row in range(len(part))]
        out = pipeline(part, num_inference_steps=steps, guidance_scale=guidance, generator=draws, output_type="pt")
        images.append(out.images.permute(0, 2, 3, 1))
    return torch.cat(images)


def rates(images: Tensor, shown: list[Description], scorer: Scorer) -> dict[str, tuple[float, int]]:
    """The share of pictures that are right, and of how many, by attribute."""
    captions = list(dict.fromkeys(text for each in shown for options in questions(each).values() for text in options))
    vectors = dict(zip(captions, scorer.texts(captions), strict=True))
    right = defaultdict[str, list[bool]](list)
    for picture, each in zip(scorer.images(images), shown, strict=True):
        found = answers(picture, each, vectors)
        for name, answer in {**found, "everything": all(found.values())}.items():
            right[name].append(answer)
    return {name: (sum(values) / len(values), len(values)) for name, values in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(WEIGHTS), help="a pipeline's folder (default: the embedded model)")
    parser.add_argument("--objects", type=int, default=40, help="of the held-out set (default %(default)s)")
    parser.add_argument("--guidance", default="5", metavar="X,...", help="guidance scales to compare (default %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scorer", default="toybox", help="who judges, as for `evaluate` (default %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "text_to_image")
    arguments = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    shown = [Description(what, view) for what in held_out_objects(arguments.objects) for view in VIEWS]
    prompts, scorer = [each.caption for each in shown], load_scorer(arguments.scorer)
    names = (*ATTRIBUTES, "everything")
    lines = [measured_on(), "", "| guidance | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    best, sheet = -1.0, torch.empty(0)
    for guidance in map(float, arguments.guidance.split(",")):
        images = sampled(pipeline, prompts, guidance, arguments.steps, arguments.seed)
        found = rates(images, shown, scorer)
        lines.append(f"| {guidance:g} | " + " | ".join("{:.1%} of {}".format(*found[name]) for name in names) + " |")
        print(lines[-1], flush=True)
        if found["everything"][0] > best:
            best, sheet = found["everything"][0], images
    arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Image.fromarray(contact_sheet(sheet, 16).numpy()).save(arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
