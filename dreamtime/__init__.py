"""Text to 3D by time-prioritized score distillation, from a prompt to a textured mesh."""

import os

__version__ = "0.1.0"

# How threads wait, which OpenMP reads when torch is loaded: hence here, before any module of the package can load it.
# Threads that spin slow each other down many times over once two runs share a processor; threads that sleep take as long to
# wake as the little they are woken for. GNU's OpenMP can do both, first the one and soon the other; others sleep.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # some microseconds
