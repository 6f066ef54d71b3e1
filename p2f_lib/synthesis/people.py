"""Who stands before the camera: skin, eyes, brows, make-up, beard, hair, glasses, clothes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from p2f_lib.synthesis.anatomy import REGION_NAMES
from p2f_lib.synthesis.hair import EDGE_ANGLES, Sheet, Tail
from p2f_lib.synthesis.skin import HAIR_COLORS, IRIS_COLORS, pick, skin_albedo, tint

# Where hair can grow at all, as in `Sheet.edge`: long hair falls beyond it.
HAIRLINE = np.array([0.30, 0.28, 0.24, 0.13, -0.05, 0.0, -0.35, -0.55])
REGION = {name: index for index, name in enumerate(REGION_NAMES)}
# Changes of log reflectance.
BLUSH = np.array([-0.02, -0.2, -0.16])
DARKER = np.array([-0.25, -0.32, -0.32])
PINK = np.array([-0.12, -0.75, -0.6])
NOSTRILS = np.log([0.10, 0.06, 0.05])
# Linear reflectance.
LIPSTICK = np.array([0.35, 0.03, 0.05])
SCLERA = np.array([0.48, 0.43, 0.41])
TOOTH = np.array([0.62, 0.56, 0.46])
# What is how common.
IRIS_SHARES = dict(enumerate((0.34, 0.26, 0.14, 0.08, 0.1, 0.08)))
DARK_HAIR = {"black": 0.65, "dark brown": 0.28, "brown": 0.07}
HAIR = {
    "black": 0.2, "dark brown": 0.22, "brown": 0.2, "light brown": 0.14, "blond": 0.12,
    "pale blond": 0.06, "red": 0.06,
}  # fmt: skip
LONGER = {
    "short": 0.06, "full": 0.08, "long": 0.42, "bob": 0.18, "tied": 0.19, "afro": 0.06,
    "shaved": 0.01,
}  # fmt: skip
SHORTER = {
    "bald": 0.06, "shaved": 0.14, "short": 0.38, "quiff": 0.12, "full": 0.13, "long": 0.07,
    "tied": 0.03, "afro": 0.07,
}  # fmt: skip
VOLUME = {  # face widths
    "short": 0.06, "quiff": 0.06, "full": 0.13, "long": 0.1, "bob": 0.12, "tied": 0.03,
    "afro": 0.36,
}  # fmt: skip
FRINGES = {
    "long": {"none": 0.5, "fringe": 0.22, "curtain": 0.15, "swept": 0.13},
    "bob": {"none": 0.35, "fringe": 0.4, "curtain": 0.1, "swept": 0.15},
    "full": {"none": 0.45, "fringe": 0.25, "curtain": 0.1, "swept": 0.2},
    "tied": {"none": 0.75, "fringe": 0.2, "receding": 0.05},
}
HATS = {
    "beanie": 0.2, "cap": 0.25, "wide": 0.13, "scarf": 0.14, "hood": 0.12, "turban": 0.08,
    "band": 0.08,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Glasses:
    """Two lenses, rims, a bridge and temples.

    Attributes
    ----------
    size : width and height of a lens in eye widths.
    squareness : 2 an ellipse, 5 nearly a rectangle.
    droop, wing : how much the outer corners hang (aviators) or rise (cat eyes), of the height.
    thickness : of the rims, mm.
    color : (3,) of the rims, linear reflectance.
    upper_rim, lower_rim : which halves of the rims there are.
    tint, opacity, gradient : of the lenses: colour (3,), share of it, share lost to the bottom.
    glare, glare_angle : strength and direction (radians) of what they mirror.
    """

    size: tuple[float, float]
    squareness: float
    droop: float
    wing: float
    thickness: float
    color: np.ndarray
    upper_rim: bool
    lower_rim: bool
    tint: np.ndarray
    opacity: float
    gradient: float
    glare: float
    glare_angle: float


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


def sample_appearance(rng: np.random.Generator, age: float | None = None) -> Appearance:
    """A random person; all skin tones are equally likely.

    Parameters
    ----------
    age : 0 a child to 1 the eldest, decides on wrinkles, grey and thin hair, beard and make-up;
        None for a random adult.
    """
    tone = rng.random()
    age = 0.2 + 0.8 * rng.beta(1, 1.5) if age is None else age
    adult = age > 0.15
    feminine = rng.random() < 0.5
    made_up = rng.uniform(0.2, 1) if adult and rng.random() < (0.5 if feminine else 0.04) else 0.0
    skin = skin_albedo(tone, rng.normal(0, 0.5))
    hair_color = _hair_color(rng, tone, age)
    brow_color = hair_color * rng.uniform(0.35, 0.9)
    if rng.random() < 0.1:
        brow_color = _hair_color(rng, 1, 0)
    hat = _hat(rng) if rng.random() < 0.13 else None
    hair, scalp_edge, scalp_cover = _hair(rng, hair_color, hat is not None, feminine, age)
    return Appearance(
        skin=skin,
        region_shift=_region_shift(rng, tone, age, made_up),
        blotches=rng.uniform(0.02, 0.14) * (0.6 + 0.7 * age),
        freckles=rng.uniform(0.05, 0.25) if rng.random() < 0.2 * (1.1 - tone) else 0.0,
        wrinkles=rng.uniform(0.3, 1.0) * 0.35 * age if rng.random() < age + 0.2 else 0.0,
        gloss=rng.gamma(1.5, 0.03),
        gloss_power=rng.uniform(8, 40),
        lips=_lip_color(rng, skin, made_up),
        lip_edge=rng.uniform(4, 10) if made_up else rng.uniform(2, 8),
        brow=brow_color,
        brow_shape=(
            rng.uniform(0.4, 1.0),
            rng.uniform(1.2, 3.0) if made_up else rng.uniform(1.6, 4.6),
            rng.uniform(-0.08, 0.12),
            rng.uniform(0.85, 1.08),
            rng.normal(-0.5, 1.3),
            rng.normal(0, 1.5),
            rng.normal(0.3, 1.0) + (0.8 if made_up else 0.0),
        ),
        lashes=(
            min(rng.uniform(0.35, 0.95) + 0.5 * made_up, 1.0),
            min(rng.uniform(0.1, 0.6) + 0.5 * made_up * rng.random(), 1.0),
        ),
        iris=IRIS_COLORS[pick(rng, IRIS_SHARES)] * rng.uniform(0.7, 1.4, 3),
        iris_radius=rng.uniform(5.6, 6.4),
        pupil_radius=rng.uniform(1.2, 3.2),
        sclera=SCLERA * rng.uniform(0.6, 1.1),
        gaze=(rng.normal(0, 0.8), rng.normal(0, 0.8)),
        beard=hair_color * (rng.uniform(0.4, 1.0) if hair_color.max() < 0.6 else 0.8),
        beard_shape=_beard(rng, adult and rng.random() < (0.01 if feminine else 0.62)),
        scalp_edge=scalp_edge,
        scalp_cover=scalp_cover,
        hair=hair,
        hat=hat,
        glasses=_glasses(rng) if rng.random() < 0.16 + 0.14 * age else None,
        clothes=_clothes(rng),
        teeth=TOOTH
        * rng.uniform(0.7 - 0.2 * age, 1.15 - 0.2 * age)
        * np.array([[1.0], [0.9 if rng.random() < 0.35 else 0.08]]),
        noise=rng.uniform(0, 32, 3),
    )


def _beard(rng, grown):
    """Opacity, threshold and softness: none, a shadow, stubble or a beard."""
    if not grown:
        return rng.uniform(0, 0.06), 0.5, 0.3
    kind = pick(rng, {"shadow": 0.35, "stubble": 0.3, "full": 0.35})
    if kind == "shadow":  # shaved this morning
        return rng.uniform(0.06, 0.2), rng.uniform(0.25, 0.45), rng.uniform(0.25, 0.45)
    if kind == "stubble":
        return rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.5)
    return rng.uniform(0.7, 0.98), rng.uniform(0.3, 0.75), rng.uniform(0.12, 0.4)


def _hair_color(rng, tone, age):
    """Dark hair is the commonest everywhere; fair hair goes with fair skin, dye with anybody."""
    if rng.random() < 0.05:
        return 0.2 * np.exp(rng.normal(0, 0.5)) * (1 + 0.8 * tint(rng.uniform(0, 2 * np.pi)))
    color = HAIR_COLORS[pick(rng, DARK_HAIR if tone > 0.6 else HAIR)]
    grey = np.clip(3.0 * (age - 0.75) + rng.normal(0, 0.3), 0, 1)
    if grey > 0.05:
        color = (
            color * (1 - grey) + HAIR_COLORS["white" if rng.random() < age - 0.4 else "grey"] * grey
        )
    return color * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.06, 3))


def _region_shift(rng, tone, age, made_up):
    shift = np.zeros((len(REGION_NAMES), 3))
    for name, shape in (("cheeks", 1.5), ("nose", 1.5), ("ears", 2.0), ("eyelids", 1.2)):
        shift[REGION[name]] += BLUSH * rng.gamma(shape, 0.5) * (1.2 - tone)
    shift[REGION["sockets"]] += DARKER * rng.uniform(0, 0.6 + 0.5 * age)
    shift[REGION["muzzle"]] += DARKER * rng.normal(0.1, 0.25)
    shift[REGION["forehead"]] += DARKER * rng.normal(0, 0.2)
    shift[REGION["folds"]] += DARKER * age * rng.uniform(0, 1.5)
    shift[REGION["bags"]] += DARKER * age * rng.uniform(0, 1.3)
    shift[REGION["nostrils"]] = NOSTRILS
    if made_up:
        shift[REGION["cheeks"]] += BLUSH * rng.uniform(0, 2.5) * made_up
        shift[REGION["sockets"]] *= 1 - made_up  # concealed
        shift[REGION["bags"]] *= 1 - made_up
        if rng.random() < 0.6:  # eye shadow
            hue = tint(rng.uniform(0, 2 * np.pi))
            shift[REGION["eyelids"]] += made_up * rng.uniform(0.2, 1.2) * (0.6 * hue - 0.8)
    return shift


def _lip_color(rng, skin, made_up):
    natural = skin * np.exp(PINK * rng.uniform(0.3, 1.2))
    if rng.random() < made_up:  # lipstick
        stick = LIPSTICK * np.exp(rng.normal(0, 1, 3) * [0.4, 0.7, 0.7])
        mix = rng.uniform(0.4, 1.0)
        return natural * (1 - mix) + stick * mix
    return natural


def _front_edge(rng, kind, age):
    """Heights of the hairline at the first three of `EDGE_ANGLES`, for each side: (2, 3)."""
    forehead = rng.uniform(0.42, 0.6) + 0.06 * age
    temple = forehead - rng.uniform(0.0, 0.1)
    front = np.array([[forehead, temple + 0.02, temple - rng.uniform(0, 0.12)]] * 2)
    style = pick(rng, FRINGES.get(kind, {"none": 0.75, "receding": 0.15, "fringe": 0.1}))
    if style == "receding":  # high corners beside a tongue of hair
        front += [0.02, rng.uniform(0.05, 0.2), rng.uniform(0.1, 0.3)]
    elif style == "fringe":
        level = rng.uniform(0.1, 0.36)
        front[:] = [level, level + rng.uniform(-0.05, 0.06), level - rng.uniform(0, 0.12)]
    elif style == "curtain":  # open in the middle, down to the cheekbones
        front[:, 1] = rng.uniform(0.2, 0.36)
        front[:, 2] = rng.uniform(-0.3, 0.1)
    elif style == "swept":  # over one side of the forehead, at times over the eye
        low, level = rng.integers(2), rng.uniform(-0.12, 0.28)
        front[low] = [level + 0.2, level + 0.04, level - 0.08]
        front[1 - low, 0] = level + 0.24
    return front, style


def _hair(rng, color, flat, feminine=None, age=0.4):
    """A sheet (or none), the hairline, and how much hair covers the scalp beneath."""
    feminine = rng.random() < 0.5 if feminine is None else feminine
    kind = pick(rng, LONGER if feminine else SHORTER)
    if not feminine and rng.random() < 0.5 * (age - 0.45):
        kind = "bald"
    front, style = _front_edge(rng, kind, age)
    if kind in ("bald", "shaved"):
        if rng.random() < (0.75 if kind == "bald" else 0.3):  # hair at the sides only
            front[:] = [2.0, 2.0, rng.uniform(0.5, 2.0)]
        edge = np.concatenate([front, [[0.12, -0.05, 0.05, -0.3, -0.55]] * 2], 1)
        cover = rng.uniform(0, 0.3) if kind == "bald" else rng.uniform(0.3, 0.95)
        return None, edge, cover
    down = -rng.uniform(0.9, 2.6)
    side = {
        "short": [0.12, -0.02 - 0.25 * rng.random() ** 2, 0.02, -0.3, -0.55],
        "quiff": [0.12, -0.02 - 0.2 * rng.random() ** 2, 0.02, -0.3, -0.5],
        "full": [0.05, -0.25 * rng.random(), -0.2, -0.5, -0.7],
        "long": [down * rng.uniform(-0.1, 1), down, down, down, down],
        "bob": [-0.1 - 0.5 * rng.random(), -0.75, -0.8, -0.8, -0.8],
        "tied": [0.15, -0.05 * rng.random(), 0.0, -0.3, -0.5],
        "afro": [0.1, 0.0, -0.15, -0.5, -0.6],
    }[kind]
    if kind == "long" and rng.random() < 0.35:  # behind the shoulders and ears
        side[0], side[1] = 0.12, -0.02
    edge = np.concatenate([front, [side] * 2], 1)
    lean = rng.normal(0, 0.06)
    edge[0, :4] += lean
    edge[1, :4] -= lean
    if kind in ("long", "bob") and rng.random() < 0.5:  # over a cheek
        edge[rng.integers(2), 2:4] -= rng.uniform(0, 0.35)
    thick = VOLUME[kind] * np.exp(rng.normal(0, 0.3))
    crown = thick * rng.uniform(0.8, 1.4)
    lift = thick * rng.uniform(0.5, 1.3)
    if kind == "quiff":
        lift, crown = rng.uniform(0.14, 0.32), rng.uniform(0.08, 0.2)
    curly = kind == "afro" or (kind != "tied" and rng.random() < 0.25)
    parting, locks = _strand_layout(rng, kind, style, curly)
    bumps = (rng.uniform(0.14, 0.24), rng.uniform(0.03, 0.08)) if curly else (0.6, 0.012)
    if flat:  # under a hat
        crown = thick = lift = 0.025
        bumps, locks = (0.6, 0.0), (locks[0], 0.0, locks[2])
    return (
        Sheet(
            edge=edge,
            window=None,
            thickness=(crown, lift, thick, thick * rng.uniform(0.8, 1.4)),
            taper=rng.uniform(0.3, 0.6) if kind in ("afro", "full") else rng.uniform(0.12, 0.4),
            length=max(0.55, -float(edge.min()) - 0.1),
            flare=rng.uniform(-0.25, 0.45) if kind in ("long", "bob") else 0.0,
            bumps=bumps,
            locks=locks,
            color=color,
            second=color * np.exp(abs(rng.normal(0, 0.5))),
            strands=rng.uniform(40, 140) if not curly else rng.uniform(25, 60),
            contrast=rng.uniform(0.35, 0.95),
            parting=parting,
            sweep=rng.normal(0, 6) if parting is None else rng.normal(0, 3),
            softness=rng.uniform(0.2, 1.0),
            raggedness=rng.uniform(0.3, 1.1),
            gloss=rng.gamma(1.2, 0.12) * (0.4 if curly else 1.0),
            brim=(0.0, 0.0, 0.0),
            tails=_tails(rng) if kind == "tied" else (),
            seed=int(rng.integers(2**31)),
        ),
        np.maximum(edge, HAIRLINE),
        0.85,
    )


def _strand_layout(rng, kind, style, curly):
    """`Sheet.parting` and `Sheet.locks` that suit a haircut."""
    if kind in ("quiff", "tied") and style != "fringe":  # combed back from the forehead
        parting = (rng.normal(0, 0.15), 1.3, 1.3)
    elif style == "curtain" or (kind in ("long", "bob", "full") and style == "none"):
        middle = 0.0 if style == "curtain" or rng.random() < 0.5 else rng.choice([-0.35, 0.35])
        parting = (middle + rng.normal(0, 0.05), 1.4, rng.uniform(-0.5, 0.0))
    elif style == "swept" or (kind == "short" and rng.random() < 0.35):
        parting = (rng.choice([-1, 1]) * rng.uniform(0.3, 0.6), 1.4, rng.uniform(-0.4, 0.1))
    else:
        parting = None
    if kind == "tied":
        return parting, (rng.uniform(2, 4), 0.006, 0.02)
    if curly:
        return parting, (rng.uniform(2, 4), rng.uniform(0.02, 0.05), rng.uniform(0.05, 0.2))
    return parting, (rng.uniform(1.2, 4), rng.uniform(0.008, 0.035), rng.uniform(0.03, 0.25))


def _tails(rng):
    """A bun, a ponytail or two braids; often behind the head, sometimes above or beside it."""
    kind = pick(rng, {"bun": 0.3, "ponytail": 0.4, "braids": 0.2, "puffs": 0.1})
    if kind == "bun":
        radius = rng.uniform(0.13, 0.26)
        place = rng.uniform(0.1, 1.5), np.pi + rng.normal(0, 0.1)
        return (Tail(place, 1.8 * radius, 0.0, radius, 0.0),)
    if kind == "puffs":
        radius, polar, around = (
            rng.uniform(0.14, 0.24),
            rng.uniform(0.4, 0.8),
            rng.uniform(1.4, 2.0),
        )
        return tuple(Tail((polar, s * around), 1.7 * radius, 0.0, radius, 0.0) for s in (-1, 1))
    if kind == "ponytail":
        place = rng.uniform(0.5, 1.6), np.pi + rng.normal(0, 0.5)
        return (
            Tail(place, rng.uniform(0.1, 0.3), rng.uniform(0.5, 1.6), rng.uniform(0.08, 0.16), 0.0),
        )
    shape = rng.uniform(0.02, 0.12), rng.uniform(0.8, 1.7), rng.uniform(0.06, 0.11)
    around, knots = rng.uniform(1.5, 2.2), rng.uniform(4, 9)
    return tuple(Tail((1.75, s * around), *shape, knots) for s in (-1, 1))


def _fabric(rng):
    """(3,) linear reflectance of cloth."""
    value = 10 ** rng.uniform(-1.6, -0.1)
    color = value * (1 + rng.beta(1, 1.5) * tint(rng.uniform(0, 2 * np.pi)))
    return np.minimum(np.maximum(color, 0.005), 0.9)


def _hat(rng):
    kind = pick(rng, HATS)
    color = _fabric(rng)
    window = None
    brim = (0.0, 0.0, 0.0)
    level = rng.uniform(0.22, 0.5)
    edge = np.full((2, len(EDGE_ANGLES)), level)
    edge[:, 4:] = level - rng.uniform(0, 0.3)
    thickness, bumps, length = (0.09, 0.05, 0.05, 0.07), (0.8, 0.01), 0.5
    strands, locks = rng.uniform(8, 60), (3.0, 0.0, 0.0)
    if kind == "beanie":
        thickness = (rng.uniform(0.08, 0.25), 0.05, 0.06, 0.09)
        strands, locks = rng.uniform(60, 140), (rng.uniform(4, 7), 0.006, 0.0)
    elif kind == "cap":
        thickness, brim = (
            (rng.uniform(0.1, 0.16), 0.07, 0.06, 0.08),
            (rng.uniform(0.3, 0.5), 0, 0.25),
        )
    elif kind == "wide":
        long = rng.uniform(0.25, 0.6)
        thickness = (rng.uniform(0.12, 0.3), 0.06, 0.06, 0.06)
        brim = (long, long, rng.uniform(-0.05, 0.3))
    elif kind == "turban":
        thickness, bumps = (0.2, 0.18, 0.2, 0.2), (0.4, 0.04)
        locks = (rng.uniform(2, 4), 0.03, 0.0)
    elif kind == "band":  # around the head, hair above it
        thickness = (0.03, 0.03, 0.03, 0.03)
    else:
        half = np.radians(rng.uniform(58, 74))
        window = (half, rng.uniform(-0.22, -0.12), rng.uniform(0.66, 0.76))
        loose = 0.02 if kind == "scarf" else rng.uniform(0.08, 0.18)
        thickness, length = (0.06 + loose, 0.04 + loose, 0.05 + loose, 0.1 + loose), 2.0
        locks = (rng.uniform(2, 4), rng.uniform(0, 0.02), 0.0)
    return Sheet(
        edge=edge,
        window=window,
        thickness=thickness,
        taper=1.0,
        length=length,
        flare=-0.45 if window else 0.0,
        bumps=bumps,
        locks=locks,
        color=color,
        second=color * rng.uniform(0.4, 1.0) if rng.random() < 0.7 else _fabric(rng),
        strands=strands,
        contrast=rng.uniform(0.1, 0.6),
        parting=None,
        sweep=rng.normal(0, 8) if kind not in ("beanie", "cap") else 0.0,
        softness=0.08,
        raggedness=0.05,
        gloss=rng.gamma(1, 0.05),
        brim=brim,
        tails=(),
        seed=int(rng.integers(2**31)),
    )


def _glasses(rng):
    sun = rng.random() < 0.18
    dark = rng.random() < 0.65
    rims = pick(rng, {"full": 0.75, "upper": 0.15, "none": 0.06, "lower": 0.04})
    color = np.exp(rng.normal(0, 0.5, 3)) * 0.015 if dark else _fabric(rng)
    return Glasses(
        size=(rng.uniform(1.45, 2.0), rng.uniform(0.95, 1.5) + 0.2 * sun),
        squareness=rng.uniform(2, 5),
        droop=rng.uniform(0.1, 0.4) if rng.random() < 0.3 else 0.0,
        wing=rng.uniform(0.1, 0.5) if rng.random() < 0.15 else 0.0,
        thickness=rng.uniform(1.5, 5.0) if dark else rng.uniform(0.6, 1.6),
        color=color,
        upper_rim=rims in ("full", "upper"),
        lower_rim=rims in ("full", "lower"),
        tint=_fabric(rng) * (0.1 if sun else 1.0),
        opacity=rng.uniform(0.7, 0.98) if sun else rng.uniform(0, 0.12),
        gradient=rng.uniform(0, 0.7) if sun and rng.random() < 0.5 else 0.0,
        glare=rng.uniform(0.1, 0.6) if rng.random() < (0.6 if sun else 0.35) else 0.0,
        glare_angle=rng.uniform(-1.2, 1.2),
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
