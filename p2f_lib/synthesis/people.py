"""Who stands before the camera: skin, eyes, brows, make-up, beard, hair, glasses, clothes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from p2f_lib.synthesis.anatomy import REGION_NAMES
from p2f_lib.synthesis.hair import EDGE_ANGLES, Sheet
from p2f_lib.synthesis.skin import HAIR_COLORS, IRIS_COLORS, skin_albedo

# Where hair can grow at all, as in `Sheet.edge`: long hair falls beyond it.
HAIRLINE = np.array([0.30, 0.28, 0.24, 0.13, -0.05, 0.0, -0.35, -0.55])


@dataclass(frozen=True, eq=False)
class Glasses:
    """Rims around the eyes: size in eye widths, squareness, thickness in mm, lens colours."""

    size: tuple[float, float]
    squareness: float
    thickness: float
    color: np.ndarray
    lower_rim: bool
    tint: np.ndarray
    opacity: float
    glare: float


@dataclass(frozen=True, eq=False)
class Clothes:
    """Colours (linear) of shirt, jacket and tie; neckline depth and width in face widths."""

    shirt: np.ndarray
    jacket: np.ndarray | None
    tie: np.ndarray | None
    neckline: tuple[float, float]
    pattern: tuple[float, float, float]  # period (mm), strength, direction (radians)


@dataclass(frozen=True, eq=False)
class Appearance:
    """One person's looks; the same object gives the same person in every frame.

    Attributes
    ----------
    skin : (3,) linear reflectance.
    region_shift : (R, 3) change of log reflectance in each of `REGION_NAMES`.
    blotches, freckles, wrinkles : amplitudes of irregularities.
    gloss, gloss_power : highlight of the skin.
    lips, lip_edge : colour (3,), sharpness of their outline.
    brow : (3,) colour.
    brow_shape : opacity; half thickness (mm); start and length along the brow (shares); shift,
        tilt and arch (mm).
    lashes : darkness of the upper and the lower lid line.
    iris, iris_radius, pupil_radius, sclera, gaze : colours (3,), mm, mm, colour (3,), (2,) mm.
    beard, beard_shape : colour (3,); opacity, threshold and softness of the edge.
    scalp_edge, scalp_cover : hairline as in `Sheet.edge`; opacity of hair on the scalp itself.
    hair, hat : sheets or None.
    teeth : (2, 3) colours of the upper and the lower row; dark where they aren't seen.
    noise : (3,) where this person's irregularities lie in the noise.
    """

    skin: np.ndarray
    region_shift: np.ndarray
    blotches: float
    freckles: float
    wrinkles: float
    gloss: float
    gloss_power: float
    lips: np.ndarray
    lip_edge: float
    brow: np.ndarray
    brow_shape: tuple[float, ...]
    lashes: tuple[float, float]
    iris: np.ndarray
    iris_radius: float
    pupil_radius: float
    sclera: np.ndarray
    gaze: tuple[float, float]
    beard: np.ndarray
    beard_shape: tuple[float, float, float]
    scalp_edge: np.ndarray
    scalp_cover: float
    hair: Sheet | None
    hat: Sheet | None
    glasses: Glasses | None
    clothes: Clothes
    teeth: np.ndarray
    noise: np.ndarray


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """A random person; all skin tones are equally likely."""
    tone = rng.random()
    skin = skin_albedo(tone, rng.normal(0, 0.5))
    hair_color = _hair_color(rng, tone)
    brow_color = hair_color * rng.uniform(0.35, 0.9) if rng.random() < 0.9 else _hair_color(rng, 1)
    hat = _hat(rng) if rng.random() < 0.13 else None
    hair, scalp_edge, scalp_cover = _hair(rng, hair_color, flat=hat is not None)
    bearded = rng.random() < 0.32
    beard_density = rng.uniform(0.25, 0.95) if bearded else rng.uniform(0, 0.12)
    return Appearance(
        skin=skin,
        region_shift=_region_shift(rng, tone),
        blotches=rng.uniform(0.02, 0.14),
        freckles=rng.uniform(0.05, 0.3) if rng.random() < 0.12 else 0.0,
        wrinkles=rng.uniform(0.0, 0.25) * (rng.random() < 0.6),
        gloss=rng.gamma(1.5, 0.03),
        gloss_power=rng.uniform(8, 40),
        lips=_lip_color(rng, skin),
        lip_edge=rng.uniform(2, 10),
        brow=brow_color,
        brow_shape=(
            rng.uniform(0.4, 1.0),
            rng.uniform(1.6, 4.2),
            rng.uniform(-0.08, 0.12),
            rng.uniform(0.85, 1.08),
            rng.normal(-0.5, 1.3),
            rng.normal(0, 1.5),
            rng.normal(0.3, 1.0),
        ),
        lashes=(rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.7)),
        iris=IRIS_COLORS[rng.choice(6, p=[0.34, 0.26, 0.14, 0.08, 0.1, 0.08])]
        * rng.uniform(0.7, 1.4, 3),
        iris_radius=rng.uniform(5.6, 6.4),
        pupil_radius=rng.uniform(1.2, 3.2),
        sclera=np.array([0.48, 0.43, 0.41]) * rng.uniform(0.6, 1.1),
        gaze=tuple(rng.normal(0, 0.8, 2)),
        beard=hair_color * rng.uniform(0.4, 1.0) if hair_color.max() < 0.6 else hair_color * 0.8,
        beard_shape=(beard_density, rng.uniform(0.3, 0.75), rng.uniform(0.15, 0.45)),
        scalp_edge=scalp_edge,
        scalp_cover=scalp_cover,
        hair=hair,
        hat=hat,
        glasses=_glasses(rng) if rng.random() < 0.22 else None,
        clothes=_clothes(rng),
        teeth=np.array([0.62, 0.56, 0.46])
        * rng.uniform(0.5, 1.1)
        * np.array([[1.0], [0.9 if rng.random() < 0.35 else 0.08]]),
        noise=rng.uniform(0, 32, 3),
    )


def _hair_color(rng, tone):
    """Dark hair is the commonest everywhere; fair hair goes with fair skin, dye with anybody."""
    chance = rng.random()
    if chance < 0.05:
        hue = rng.uniform(0, 2 * np.pi) + np.array([0.0, 2.09, 4.19])
        return 0.2 * np.exp(rng.normal(0, 0.5)) * (1 + 0.8 * np.cos(hue))
    if chance < 0.18:
        names, shares = ("grey", "white"), (0.6, 0.4)
    elif tone > 0.6:
        names, shares = ("black", "dark brown", "brown"), (0.65, 0.28, 0.07)
    else:
        names = ("black", "dark brown", "brown", "light brown", "blond", "pale blond", "red")
        shares = (0.2, 0.22, 0.2, 0.14, 0.12, 0.06, 0.06)
    color = np.array(HAIR_COLORS[names[rng.choice(len(names), p=shares)]])
    return color * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.06, 3))


def _region_shift(rng, tone):
    shift = np.zeros((len(REGION_NAMES), 3))
    blush = np.array([-0.02, -0.2, -0.16])
    dark = np.array([-0.25, -0.32, -0.32])
    for name, amount in (
        ("cheeks", rng.gamma(1.5, 0.5)),
        ("nose", rng.gamma(1.5, 0.5)),
        ("ears", rng.gamma(2.0, 0.5)),
        ("eyelids", rng.gamma(1.2, 0.5)),
    ):
        shift[REGION_NAMES.index(name)] += blush * amount * (1.2 - tone)
    shift[REGION_NAMES.index("sockets")] += dark * rng.uniform(0, 0.9)
    shift[REGION_NAMES.index("muzzle")] += dark * rng.normal(0.1, 0.25)
    shift[REGION_NAMES.index("forehead")] += dark * rng.normal(0, 0.2)
    age = rng.beta(1, 1.5)
    shift[REGION_NAMES.index("folds")] += dark * age * rng.uniform(0, 1.6)
    shift[REGION_NAMES.index("bags")] += dark * age * rng.uniform(0, 1.3)
    shift[REGION_NAMES.index("nostrils")] = np.log([0.10, 0.06, 0.05])
    if rng.random() < 0.2:  # eye shadow
        hue = rng.uniform(0, 2 * np.pi) + np.array([0.0, 2.09, 4.19])
        shift[REGION_NAMES.index("eyelids")] += rng.uniform(0.3, 1.2) * (0.6 * np.cos(hue) - 0.8)
    return shift


def _lip_color(rng, skin):
    natural = skin * np.exp(np.array([-0.12, -0.75, -0.6]) * rng.uniform(0.3, 1.2))
    if rng.random() < 0.22:  # lipstick
        stick = np.array([0.35, 0.03, 0.05]) * np.exp(rng.normal(0, [0.4, 0.7, 0.7]))
        mix = rng.uniform(0.4, 1.0)
        return natural * (1 - mix) + stick * mix
    return natural


def _hair(rng, color, flat):
    """A sheet (or none), the hairline, and how much hair covers the scalp beneath."""
    kind = rng.choice(
        ["bald", "shaved", "short", "full", "long", "bob", "tied", "afro"],
        p=[0.07, 0.08, 0.24, 0.12, 0.24, 0.1, 0.09, 0.06],
    )
    forehead = rng.uniform(0.42, 0.66)  # receding when high
    temple = forehead - rng.uniform(0.0, 0.1)
    front = [forehead, temple + 0.02, temple - rng.uniform(0, 0.12)]
    if kind in ("bald", "shaved"):
        if rng.random() < 0.5:  # hair at the sides only
            front = [2.0, 2.0, rng.uniform(0.5, 2.0)]
        edge = np.array([[*front, 0.12, -0.05, 0.05, -0.3, -0.55]] * 2)
        cover = rng.uniform(0, 0.2) if kind == "bald" else rng.uniform(0.3, 0.95)
        return None, edge, cover
    fringe = rng.random() < {"bob": 0.45, "long": 0.3, "full": 0.35}.get(kind, 0.12)
    if fringe:
        level = rng.uniform(0.12, 0.36)
        front = [level, level + rng.uniform(-0.03, 0.06), level - rng.uniform(0, 0.1)]
    down = -rng.uniform(0.9, 2.6)
    side = {
        "short": [0.12, -0.02 - 0.25 * rng.random() ** 2, 0.02, -0.3, -0.55],
        "full": [0.05, -0.25 * rng.random(), -0.2, -0.5, -0.7],
        "long": [down * rng.uniform(-0.1, 1), down, down, down, down],
        "bob": [-0.1 - 0.5 * rng.random(), -0.75, -0.8, -0.8, -0.8],
        "tied": [0.15, 0.0, 0.0, -0.3, -0.5],
        "afro": [0.1, 0.0, -0.15, -0.5, -0.6],
    }[kind]
    if kind == "long" and rng.random() < 0.35:  # behind the shoulders and ears
        side[0], side[1] = 0.12, -0.02
    edge = np.array([front + side, front + side], float)
    lean = rng.normal(0, 0.06)
    edge[0, :4] += lean
    edge[1, :4] -= lean
    if kind in ("long", "bob") and rng.random() < 0.5:
        edge[rng.integers(2), 2:4] -= rng.uniform(0, 0.35)
    volume = {"short": 0.06, "full": 0.13, "long": 0.1, "bob": 0.12, "tied": 0.045, "afro": 0.36}
    thick = volume[kind] * np.exp(rng.normal(0, 0.35))
    crown = thick * rng.uniform(0.8, 1.5)
    if flat:
        crown = thick = 0.025
    curly = kind == "afro" or rng.random() < 0.25
    light = color * np.exp(abs(rng.normal(0, 0.5)))
    return (
        Sheet(
            edge=edge,
            window=None,
            thickness=(crown, thick * rng.uniform(0.4, 1.3), thick, thick * rng.uniform(0.8, 1.4)),
            length=max(0.55, -float(edge.min()) - 0.3),
            flare=rng.uniform(-0.25, 0.45) if kind in ("long", "bob") else 0.0,
            bumps=(0.18, rng.uniform(0.02, 0.06)) if curly else (0.6, rng.uniform(0.005, 0.025)),
            color=color,
            second=light,
            strands=rng.uniform(40, 140) if not curly else rng.uniform(25, 60),
            contrast=rng.uniform(0.25, 0.9),
            sweep=rng.normal(0, 6),
            softness=rng.uniform(0.2, 1.0),
            raggedness=rng.uniform(0.15, 1.0),
            gloss=rng.gamma(1.2, 0.12),
            brim=(0.0, 0.0),
            seed=int(rng.integers(2**31)),
        ),
        np.maximum(edge, HAIRLINE),
        0.85,
    )


def _fabric(rng):
    """(3,) linear reflectance of cloth."""
    value = 10 ** rng.uniform(-1.6, -0.1)
    hue = rng.uniform(0, 2 * np.pi) + np.array([0.0, 2.09, 4.19])
    return np.clip(value * (1 + rng.beta(1, 1.5) * np.cos(hue)), 0.005, 0.9)


def _hat(rng):
    kind = rng.choice(["beanie", "cap", "wide", "scarf", "hood", "turban"])
    color = _fabric(rng)
    window = None
    brim = (0.0, 0.0)
    level = rng.uniform(0.22, 0.5)
    edge = np.full((2, len(EDGE_ANGLES)), level)
    edge[:, 4:] = level - rng.uniform(0, 0.3)
    thickness, bumps, length = (0.09, 0.05, 0.05, 0.07), (0.8, 0.01), 0.5
    if kind == "beanie":
        thickness = (rng.uniform(0.08, 0.25), 0.05, 0.06, 0.09)
    elif kind == "cap":
        thickness, brim = (0.12, 0.07, 0.06, 0.08), (rng.uniform(0.3, 0.5), 0.0)
    elif kind == "wide":
        long = rng.uniform(0.25, 0.7)
        thickness, brim = (rng.uniform(0.12, 0.3), 0.06, 0.06, 0.06), (long, long)
    elif kind == "turban":
        thickness, bumps = (0.2, 0.18, 0.2, 0.2), (0.4, 0.04)
    else:
        half = np.radians(rng.uniform(58, 74))
        window = (half, rng.uniform(-0.22, -0.12), rng.uniform(0.66, 0.76))
        loose = 0.02 if kind == "scarf" else rng.uniform(0.08, 0.18)
        thickness, length = (0.06 + loose, 0.04 + loose, 0.05 + loose, 0.1 + loose), 2.0
    return Sheet(
        edge=edge,
        window=window,
        thickness=thickness,
        length=length,
        flare=-0.45 if window else 0.0,
        bumps=bumps,
        color=color,
        second=color * rng.uniform(0.4, 1.0) if rng.random() < 0.7 else _fabric(rng),
        strands=rng.uniform(8, 60),
        contrast=rng.uniform(0.1, 0.8),
        sweep=rng.normal(0, 8),
        softness=0.08,
        raggedness=0.05,
        gloss=rng.gamma(1, 0.05),
        brim=brim,
        seed=int(rng.integers(2**31)),
    )


def _glasses(rng):
    sun = rng.random() < 0.15
    dark = rng.random() < 0.65
    return Glasses(
        size=(rng.uniform(1.45, 2.0), rng.uniform(0.95, 1.5)),
        squareness=rng.uniform(2, 5),
        thickness=rng.uniform(1.5, 5.0) if dark else rng.uniform(0.6, 1.6),
        color=np.full(3, 0.015) * np.exp(rng.normal(0, 0.5, 3)) if dark else _fabric(rng),
        lower_rim=rng.random() < 0.85,
        tint=_fabric(rng) * (0.1 if sun else 1.0),
        opacity=rng.uniform(0.75, 0.98) if sun else rng.uniform(0, 0.12),
        glare=rng.uniform(0.1, 0.6) if rng.random() < 0.35 else 0.0,
    )


def _clothes(rng):
    suit = rng.random() < 0.3
    white = np.full(3, rng.uniform(0.5, 0.8))
    return Clothes(
        shirt=white if suit and rng.random() < 0.7 else _fabric(rng),
        jacket=_fabric(rng) * rng.uniform(0.1, 1) if suit or rng.random() < 0.15 else None,
        tie=_fabric(rng) if suit and rng.random() < 0.7 else None,
        neckline=(rng.uniform(-0.1, 0.5) if not suit else 0.02, rng.uniform(0.2, 0.6)),
        pattern=(rng.uniform(6, 40), rng.uniform(0, 0.5) * (rng.random() < 0.3), rng.uniform(0, 3)),
    )


def skin_reflectance(appearance: Appearance, regions: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(V, 3) linear reflectance of the face's skin.

    Parameters
    ----------
    regions : (V, R) masks, `REGION_NAMES`.
    noise : (V,) in [-1, 1], smooth.
    """
    log = regions @ appearance.region_shift.astype(np.float32)
    log += np.log(appearance.skin).astype(np.float32)
    log += (appearance.blotches * noise)[:, None] * np.float32([0.5, 1.0, 0.9])
    return np.exp(log)
