"""nerfacc's own sampling kernel without CUDA: its source, made plain C++ by one header, compiled and run on the CPU.

Nothing in the kernel is ours; left out is the device alone: a launch becomes a call in which one thread takes every ray.
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
LAUNCH = re.compile(r"<<<[^>]*>>>")
FOREIGN = re.compile(r'#include [<"](?:ATen/|c10/|torch/|cu)[^>"]+[>"]')


def plain(source: str) -> str:
    """CUDA source without launches, its headers, and the claim that its tensors are on a device."""
    source = FOREIGN.sub('#include "cuda_on_cpu.h"', LAUNCH.sub("", source))
    return source.replace("x.is_cuda()", "true").replace('"include/', '"')


def compiled(folder: Path) -> Path:
    """The library with nerfacc's kernel, built in that folder."""
    import nerfacc
    from torch.utils.cpp_extension import TORCH_LIB_PATH, include_paths

    original, library = Path(nerfacc.__file__).parent / "cuda" / "csrc", folder / "nerfacc_on_cpu.so"
    for file in [original / "grid.cu", *(original / "include").iterdir()]:
        (folder / file.name).write_text(plain(file.read_text()))
    (folder / "grid.cu").rename(folder / "grid.cpp")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = [COMPILER, "-std=c++17", "-O1", "-w", "-shared", "-fPIC", abi, f"-I{folder}", f"-I{HERE}"]
    command += [f"-isystem{path}" for path in include_paths()]
    command += [str(HERE / "nerfacc_grid.cpp"), "-o", str(library), f"-L{TORCH_LIB_PATH}", "-ltorch_cpu", "-lc10"]
    subprocess.run(command, check=True)
    return library


def backend(library: Path) -> ModuleType:
    """What `nerfacc.cuda._backend` is where its kernels are, with those of the grid."""
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
    module._C = SimpleNamespace(ray_aabb_intersect=kernels.intersect, traverse_grids=traverse_grids)
    return module
