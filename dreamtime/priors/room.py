"""What is raised where memory ends."""

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; on a CPU torch has no kind of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
