"""The shape of the code, read from its imports: arrows point down, heavy packages stay in the module that wraps them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Bottom to top; a package stands for all its modules. A module may import from its own layer and from those below.
LAYERS: dict[str, set[str]] = {
    "words": {"types"},
    "mathematics": {
        "cameras",
        "classifier_score",
        "diffusion",
        "distillation",
        "inversion",
        "isosurface",
        "regularizers",
        "shading",
        "timesteps",
        "volume_rendering",
    },
    "things with weights": {"checkpoints", "priors", "prompts", "representations", "toybox"},
    "composition": {
        "assembly",
        "beforehand",
        "elevation",
        "generation",
        "image_to_3d",
        "matting",
        "methods",
        "objectives",
        "preprocess",
        "presets",
        "references",
        "renderers",
        "text_to_3d",
    },
    "products": {"evaluation", "exports", "meshes", "plots", "rasterization", "surfaces", "turntable"},
    "people": {"__main__", "app", "cli", "runs", "ui"},
}

# Who may import what is slow to import, optional, or bound to one task. A package stands for all its modules.
WRAPPED_BY: dict[str, set[str]] = {
    "accelerate": set(),
    "diffusers": {
        "priors",
        "toybox.models",
        "toybox.denoiser",
        "toybox.train",
        "toybox.train_zero123",
        "toybox.training",
        "toybox.tiny_vae",
    },
    "fast_simplification": {"meshes"},
    "filelock": {"runs", "evaluation.grid"},
    "gradio": {"ui", "app"},
    "gradio_client": {"ui", "app"},
    "httpx": {"ui.fetching"},
    "huggingface_hub": {"priors"},
    "imageio": {"turntable"},
    "imageio_ffmpeg": {"turntable"},
    "jinja2": {"evaluation"},
    "matplotlib": {"evaluation", "plots"},
    "mcp": {"ui", "app"},
    "nerfacc": {"renderers"},
    "numpy": {"exports", "meshes", "rasterization", "turntable", "plots", "evaluation", "runs", "ui", "matting", "preprocess"},
    "pandas": {"evaluation", "ui"},
    "peft": {"priors"},
    "PIL": {"exports", "runs", "toybox.sheet", "toybox.train", "ui", "evaluation", "matting", "preprocess"},
    "rembg": {"matting"},
    "safehttpx": {"ui.fetching"},
    "safetensors": {"checkpoints", "evaluation", "priors", "toybox.train_zero123", "toybox.training", "runs"},
    "scipy": {"meshes", "evaluation", "matting"},
    "skimage": {"evaluation", "matting"},
    "spaces": {"ui", "app"},
    "starlette": {"ui.app", "ui.bodies", "ui.privacy"},
    "tinycudann": {"representations.hash_grid"},
    "tqdm": {"cli", "evaluation.command", "toybox.portraits", "toybox.training"},
    "transformers": {
        "priors",
        "toybox.models",
        "toybox.scorer",
        "toybox.denoiser",
        "toybox.reading",
        "toybox.train",
        "toybox.train_zero123",
        "toybox.training",
        "toybox.tiny_vae",
        "evaluation",
    },
    "trimesh": {"exports", "meshes", "evaluation"},
    "xatlas": {"meshes"},
}
EVERYWHERE = {"torch", "jaxtyping"}
PURE = EVERYWHERE | {"collections", "dataclasses", "enum", "functools", "itertools", "math", "typing", "dreamtime"}

# Where the name to import is not the name to install.
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image"}
DISTRIBUTIONS |= dict.fromkeys(("gradio_client", "httpx", "mcp", "safehttpx", "starlette"), "gradio")
ON_NO_INDEX = {"tinycudann"}
OPTIONAL = {"rembg"}


def sources() -> dict[str, Path]:
    """Module name below `dreamtime`, such as `ui.charts`, to its file; the package itself is the empty name."""
    package = ROOT / "dreamtime"
    named = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    named = {re.sub(r"\.?__init__$", "", name): path for name, path in named.items()}
    return named | {path.stem: path for path in [ROOT / "app.py"] if path.exists()}


SOURCES = sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}

each_module = pytest.mark.parametrize("module", sorted(SOURCES))


def imported(module: str) -> Iterator[str]:
    """Full dotted names of what a module imports, at its top or inside its functions."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported(module)}


def imported_modules(module: str) -> set[str]:
    """Modules of this project that a module imports, as keys of `SOURCES`."""
    names = {name.removeprefix("dreamtime.") for name in imported(module) if name.startswith("dreamtime.")}
    return {name if name in SOURCES else name.rpartition(".")[0] for name in names} - {module, ""}


def belongs(module: str, owners: set[str]) -> bool:
    return any(module == owner or module.startswith(f"{owner}.") for owner in owners)


def layer_of(module: str) -> int:
    (level,) = [level for level, owners in enumerate(LAYERS.values()) if belongs(module, owners)]
    return level


@each_module
def test_every_module_has_one_layer(module: str):
    assert module == "" or sum(belongs(module, owners) for owners in LAYERS.values()) == 1, "name the module in LAYERS"


@each_module
def test_imports_point_down(module: str):
    if module:
        assert {other for other in imported_modules(module) if layer_of(other) > layer_of(module)} == set()


def test_imports_run_in_no_circle():
    graph = {module: imported_modules(module) for module in SOURCES}
    while leaves := {module for module, others in graph.items() if not others & graph.keys()}:
        graph = {module: others for module, others in graph.items() if module not in leaves}
    assert graph == {}


@each_module
def test_heavy_packages_stay_in_the_module_that_wraps_them(module: str):
    foreign = imported_packages(module) - EVERYWHERE - set(sys.stdlib_module_names) - {"dreamtime"}
    assert foreign <= WRAPPED_BY.keys(), "name the package in WRAPPED_BY"
    assert {package for package in foreign if not belongs(module, WRAPPED_BY[package])} == set()


@pytest.mark.parametrize("module", sorted(LAYERS["words"] | LAYERS["mathematics"]))
def test_mathematics_needs_torch_alone(module: str):
    """No weights, files, clocks or state."""
    assert imported_packages(module) <= PURE


def requirements() -> set[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {re.split(r"[\[<>=~!; ]", line)[0] for line in lines if line and not line.startswith(("#", "-"))}


def test_whatever_is_imported_is_required():
    packages = {package for module in SOURCES for package in imported_packages(module)}
    foreign = packages - set(sys.stdlib_module_names) - {"dreamtime"} - ON_NO_INDEX - OPTIONAL
    assert {DISTRIBUTIONS.get(package, package.replace("_", "-")) for package in foreign} <= requirements()


def test_requirements_have_both_ends_and_no_host():
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        pinned = [line for line in lines if line != "-r requirements.txt"]
        assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9_-]+(\[\w+\])?>=[\d.]+,<[\d.]+", line)] == []
        names = [re.split(r"[\[>]", line)[0] for line in pinned]
        assert names == sorted(set(names))


FORBIDDEN_CALLS = {
    "print": "a library logs",
    "eval": "it runs what it reads",
    "exec": "it runs what it reads",
    "breakpoint": "it stops for nobody",
    "torch.load": "a pickle runs what it holds",
    "torch.save": "a pickle runs what it holds",
    "torch.manual_seed": "a global seed hides where chance comes from",
    "torch.seed": "a global seed hides where chance comes from",
    "np.random.seed": "a global seed hides where chance comes from",
    "random.seed": "a global seed hides where chance comes from",
    "os.system": "a shell string breaks on the first odd file name",
}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib"}


@each_module
def test_nothing_prints_pickles_or_seeds_globally(module: str):
    calls = {ast.unparse(node.func) for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)}
    # A command's output is what it prints.
    assert calls & FORBIDDEN_CALLS.keys() <= ({"print"} if module == "cli" else set())
    assert imported_packages(module) & FORBIDDEN_IMPORTS == set()
    # jaxtyping checks annotations as they stand; deferred ones are strings to it.
    assert "__future__.annotations" not in set(imported(module))


@each_module
def test_a_module_is_named_for_what_it_does(module: str):
    assert module.rpartition(".")[2] not in {"utils", "util", "helpers", "helper", "misc", "common", "base", "core"}


@each_module
def test_every_module_says_what_it_is(module: str):
    assert ast.get_docstring(TREES[module]) is not None


def run_python(code: str) -> str:
    """What a fresh interpreter, with warnings as errors, writes to either stream."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_is_silent_and_light():
    assert run_python("import dreamtime, sys; assert not {'torch', 'gradio', 'diffusers'} & sys.modules.keys()") == ""


def test_importing_the_mathematics_needs_no_gpu_and_no_heavy_package():
    modules = sorted(name for name in LAYERS["words"] | LAYERS["mathematics"] if name in SOURCES)
    heavy = sorted(WRAPPED_BY.keys() - {"numpy"})
    code = f"""
import importlib, sys, torch
before = set(sys.modules)
for name in {modules}:
    importlib.import_module("dreamtime." + name)
assert not set({heavy}) & (sys.modules.keys() - before)
assert not torch.cuda.is_initialized()
"""
    assert run_python(code) == ""


def test_importing_what_composes_runs_waits_with_the_libraries_of_priors_and_pages():
    code = """
import sys, dreamtime.beforehand, dreamtime.image_to_3d, dreamtime.text_to_3d, torch
assert not {"diffusers", "transformers", "gradio", "spaces", "matplotlib"} & sys.modules.keys()
assert not torch.cuda.is_initialized()
"""
    assert run_python(code) == ""


SKIPS = re.compile(r"pytest\.skip|mark\.skip|mark\.xfail|importorskip|unittest\.skip")


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_skips_live_in_one_place(path: Path):
    if path not in (Path(__file__), ROOT / "tests" / "conftest.py"):
        assert SKIPS.findall(path.read_text(encoding="utf-8")) == []


def test_no_file_is_larger_than_a_space_accepts():
    folders = [ROOT / name for name in ("dreamtime", "examples", "benchmarks", "docs", "tests")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()] + list(ROOT.glob("*.*"))
    assert {str(path.relative_to(ROOT)): path.stat().st_size for path in files if path.stat().st_size > 10_000_000} == {}
