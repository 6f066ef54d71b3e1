"""Synthetic photographs: people, skin, hair, light, lens."""

from p2f_lib.synthesis.people import Appearance, sample_appearance
from p2f_lib.synthesis.photograph import Scene, render_photo, sample_scene
from p2f_lib.synthesis.samples import Sample, SampleBatch, render_sample, render_samples

__all__ = [
    "Appearance",
    "Sample",
    "SampleBatch",
    "Scene",
    "render_photo",
    "render_sample",
    "render_samples",
    "sample_appearance",
    "sample_scene",
]
