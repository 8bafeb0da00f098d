"""Frozen diffusion models behind the `DiffusionPrior` protocol, one module per layout."""
