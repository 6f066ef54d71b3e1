"""Synthetic photographs: people, skin, hair, light, lens."""

from p2f_lib.synthesis.people import Appearance, sample_appearance
from p2f_lib.synthesis.photograph import (
    Scene,
    render_backdrop,
    render_light,
    render_photo,
    sample_scene,
)
from p2f_lib.synthesis.samples import (
    NO_FACE_SHARE,
    Draw,
    Sample,
    render_draw,
    render_sample,
    render_samples,
    sample_draw,
)

__all__ = [
    "NO_FACE_SHARE",
    "Appearance",
    "Draw",
    "Sample",
    "Scene",
    "render_backdrop",
    "render_draw",
    "render_light",
    "render_photo",
    "render_sample",
    "render_samples",
    "sample_appearance",
    "sample_draw",
    "sample_scene",
]
