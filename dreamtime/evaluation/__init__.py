"""Measures of a result against the truth that the toybox knows."""
