"""Text to 3D by time-prioritized score distillation, from a prompt to a textured mesh."""

__version__ = "0.1.0"
