"""nerfacc's own kernels without CUDA: their source, made plain C++ by one header, compiled and run on the CPU.

Nothing in the kernels is ours; left out is the device alone: a launch becomes a call that runs every thread of every block.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

HERE = Path(__file__).parent / "cuda_on_cpu"
COMPILER = os.name == "posix" and (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"))
SOURCES = "grid.cu", "scan.cu"
LAUNCH = re.compile(r"([\w:]+(?:<[^<>]*>)?)<<<blocks, threads, 0, stream>>>\(")
FOREIGN = re.compile(r'#include [<"](?:ATen/|c10/|thrust/|torch/|cu)[^>"]+[>"]')


def plain(source: str) -> str:
    """CUDA source without its launches, its headers, and the claim that its tensors are on a device."""
    source = LAUNCH.sub(r"launched([](auto... a) { \1(a...); }, blocks, threads)(", source)
    source = FOREIGN.sub('#include "cuda_on_cpu.h"', source)
    return source.replace("x.is_cuda()", "true").replace('"include/', '"')


def compiled(folder: Path) -> Path:
    """The library with nerfacc's kernels, built in that folder."""
    import nerfacc
    from torch.utils.cpp_extension import TORCH_LIB_PATH, include_paths

    original, library = Path(nerfacc.__file__).parent / "cuda" / "csrc", folder / "nerfacc_on_cpu.so"
    for file in [*(original / name for name in SOURCES), *(original / "include").iterdir()]:
        (folder / file.name.replace(".cu", ".cpp" if file.name in SOURCES else ".cu")).write_text(plain(file.read_text()))
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = [COMPILER, "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread", abi, f"-I{folder}", f"-I{HERE}"]
    command += [f"-isystem{path}" for path in include_paths()]
    command += [str(HERE / "nerfacc_kernels.cpp"), "-o", str(library), f"-L{TORCH_LIB_PATH}", "-ltorch_cpu", "-lc10"]
    subprocess.run(command, check=True)
    return library


def backend(library: Path) -> ModuleType:
    """What `nerfacc.cuda._backend` is where its kernels are, with those of the grid and one sum."""
    torch.ops.load_library(library)
    kernels = torch.ops.nerfacc_on_cpu

    def traverse_grids(*arguments: Any) -> tuple[SimpleNamespace, SimpleNamespace, torch.Tensor]:
        *geometry, step, cone_angle, intervals, samples, ends, limit, over_allocate = arguments
        assert (intervals, samples, ends, over_allocate) == (True, True, True, False)
        edges, left, right, rays, starts, counts, ends = kernels.traverse(*geometry, step, cone_angle, limit)
        packed = {"chunk_starts": starts, "chunk_cnts": counts}
        return (
            SimpleNamespace(vals=edges, is_left=left, is_right=right, ray_indices=None, **packed),
            SimpleNamespace(vals=None, ray_indices=rays, is_valid=None, **packed),
            ends,
        )

    module: Any = ModuleType("nerfacc.cuda._backend")
    module._C = SimpleNamespace(
        ray_aabb_intersect=kernels.intersect, traverse_grids=traverse_grids, exclusive_sum=kernels.exclusive_sum
    )
    return module
