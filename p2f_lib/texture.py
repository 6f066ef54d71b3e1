"""A face's colours as a texture: photos where they see the surface, the rest completed.

A texture is square; its row 0 is at v = 1, and texel (column, row) has its centre at
u = (column + 0.5) / T, v = 1 - (row + 0.5) / T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy import sparse
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from p2f_lib.camera import PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.images import check_image
from p2f_lib.morphable_model import MorphableModel, edges_of, vertex_normals
from p2f_lib.rasterizer import rasterize

SIZES = (16, 4096)  # texels a side
MARGIN = 0.01  # of the atlas around every part: no neighbour shines through where it is shrunk
NORMAL_REACH = 10.0  # mm that a normal turned by 60 degrees counts as, in the search for mirrors
DEPTH_SLACK = 1.0  # mm
LEAST_COSINE = 0.25  # of the viewing angle; what is seen more obliquely is as good as hidden
FILL_REACH = 1.0  # mm over which a seen colour gives way to its surroundings
LIGHT_REACH = 5.0  # mm over which the difference of light between the two sides is smoothed
FEATHER = 1 / 80  # of the texture's side: the way to what hides a texel, a few millimetres
MIRROR_SHARE = 0.1  # of a mirrored texel in a seen one: it counts where little else does


@dataclass(frozen=True, eq=False)
class Texture:
    """Colours of a face's surface.

    Attributes
    ----------
    image : (T, T, 3) uint8, RGB.
    weight : (T, T) float32 in [0, 1], how well the photos see each texel: 1 from straight ahead,
        0 where the colour was made up or the texel is on no surface.
    """

    image: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class Atlas:
    """Where a mesh's triangles lie in a texture.

    Attributes
    ----------
    coordinates : (N, 2) float32 in [0, 1], u right and v up.
    triangles : (F, 3) int32, coordinates of each mesh triangle's corners.
    """

    coordinates: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True, eq=False)
class TextureMap:
    """The texels of an atlas that lie on the surface, M of T x T.

    Attributes
    ----------
    model : whose surface it is.
    atlas : the layout.
    size : T.
    texels : (M,) int64, row * T + column, increasing.
    corners : (M, 3) int32, the mesh vertices around each.
    shares : (M, 3) float32, their weights; they sum to 1.
    mirror : (M,) int64, the entry nearest to the place mirrored at x = 0 on the mean face.
    nearest : (T, T) int64, the entry nearest to each texel of the picture.
    """

    model: MorphableModel
    atlas: Atlas
    size: int
    texels: np.ndarray
    corners: np.ndarray
    shares: np.ndarray
    mirror: np.ndarray
    nearest: np.ndarray

    def spread(self, attributes: np.ndarray) -> np.ndarray:
        """(V, C) values of vertices to (M, C) of texels."""
        return np.einsum("mkc,mk->mc", attributes[self.corners], self.shares)

    def gather(self, values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, C) values of texels with weights (M,): means (V, C) and weights (V,) of vertices."""
        shares = self.shares * weight[:, None]
        corners, count = self.corners.ravel(), self.model.n_vertices
        total = np.bincount(corners, shares.ravel(), count)
        sums = np.zeros((count, values.shape[1]))
        for k, column in enumerate(values.T):
            sums[:, k] = np.bincount(corners, (shares * column[:, None]).ravel(), count)
        return sums / np.maximum(total, 1e-9)[:, None], total

    def plane(self, values: np.ndarray) -> np.ndarray:
        """(M, ...) values of texels as a float32 picture (T, T, ...), 0 off the surface."""
        picture = np.zeros((self.size**2, *values.shape[1:]), np.float32)
        picture[self.texels] = values
        return picture.reshape(self.size, self.size, *values.shape[1:])

    def rows(self, plane: np.ndarray) -> np.ndarray:
        """(T, T, ...) picture to (M, ...) values of texels."""
        return plane.reshape(self.size**2, *plane.shape[2:])[self.texels]


# ---------------------------------------------------------------- layout


def make_atlas(model: MorphableModel) -> Atlas:
    """Lay the surface out in a square, all parts at one scale.

    Parts are those of the model's own texture coordinates, turned and bent as there but stretched
    to their size: of a whole body's layout, a face would fill a tenth. What has none (or, as ICT's
    eyeballs, a single point) is unrolled from a cylinder about the y axis; where it covers itself
    there, the outermost surface counts.
    """
    coordinates, triangles = _unrolled(model)
    links = (np.ones(2 * len(triangles)), (triangles[:, :2].T.ravel(), triangles[:, 1:].T.ravel()))
    graph = sparse.coo_matrix(links, shape=(len(coordinates),) * 2)
    count, part_of = connected_components(graph, directed=False)
    coordinates = coordinates * _scales(model, coordinates, triangles, count, part_of)[part_of]
    low, high = (np.full((count, 2), sign * np.inf) for sign in (1, -1))
    np.minimum.at(low, part_of, coordinates)
    np.maximum.at(high, part_of, coordinates)
    corners, side = _packed(high - low)
    packed = (coordinates - low[part_of] + corners[part_of]) / side
    return Atlas(np.clip(packed, 0, 1).astype(np.float32), triangles.astype(np.int32))


def _unrolled(model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) coordinates with triangles (F, 3), the model's own where they have an area.

    The others': angle around the y axis and height, both in mm on a cylinder of the mean radius.
    """
    own = np.zeros((0, 2)) if model.texture_coordinates is None else model.texture_coordinates
    triangles = model.triangles if model.texture_triangles is None else model.texture_triangles
    bare = np.ones(len(triangles), bool)
    if len(own):
        bare = _cross(_sides(own, triangles)) == 0
    x, y, z = model.mean.astype(float).T
    angle, radius = np.arctan2(x, z), np.hypot(x, z).mean()
    around = np.stack([angle * radius, y], axis=1)
    # Triangles across the cut at the back of the head continue beyond it.
    corners = model.triangles[bare].astype(np.int64)
    across = np.ptp(angle[corners], axis=1) > np.pi
    beyond = across[:, None] & (angle[corners] < 0)
    full_turn = np.array([2 * np.pi * radius, 0])
    coordinates = np.concatenate([own, around, around + full_turn])
    triangles = triangles.astype(np.int64)
    triangles[bare] = corners + len(own) + beyond * len(around)
    used, triangles = np.unique(triangles, return_inverse=True)
    return coordinates[used], triangles.reshape(-1, 3)


def _scales(
    model: MorphableModel,
    coordinates: np.ndarray,
    triangles: np.ndarray,
    count: int,
    part_of: np.ndarray,
) -> np.ndarray:
    """(P, 2) mm on the mean face a unit of u and of v, the mean over each part's texture area."""
    (a, b), (c, d) = np.moveaxis(_sides(coordinates, triangles), 0, -1)
    one, other = np.moveaxis(_sides(model.mean, model.triangles), 0, -1)
    part = part_of[triangles[:, 0]]
    # The derivatives of space by u and v, both times the triangle's area in the texture.
    along = np.linalg.norm([d * one - b * other, a * other - c * one], axis=1)
    area = np.bincount(part, np.abs(a * d - b * c), count)
    sums = np.stack([np.bincount(part, row, count) for row in along], axis=1)
    return sums / np.maximum(area, 1e-12)[:, None]


def _sides(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(F, 2, C) two sides of each triangle."""
    return points[triangles[:, 1:]] - points[triangles[:, :1]]


def _cross(sides: np.ndarray) -> np.ndarray:
    """(F,) twice the signed area between two sides (F, 2, 2)."""
    return sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]


def _packed(sizes: np.ndarray) -> tuple[np.ndarray, float]:
    """Lower left corners (P, 2) of rectangles (P, 2) in rows, highest first, and the square's side.

    Of many widths of the rows, the one that needs the smallest square.
    """
    gap = MARGIN * np.sqrt((sizes**2).sum())
    sizes = sizes + 2 * gap
    order = np.argsort(-sizes[:, 1], kind="stable")
    widths = np.linspace(sizes[:, 0].max(), sizes[:, 0].sum(), 64)
    tried = [_rows(sizes, order, width) for width in widths]
    corners, side = min(tried, key=lambda found: found[1])
    return corners + gap, side


def _rows(sizes: np.ndarray, order: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    corners = np.zeros(sizes.shape)
    x = bottom = top = right = 0.0
    for part in order:
        if x + sizes[part, 0] > width * (1 + 1e-9):
            x, bottom = 0.0, top
        corners[part] = x, bottom
        x += sizes[part, 0]
        right, top = max(right, x), max(top, bottom + sizes[part, 1])
    return corners, max(right, top)


@lru_cache(maxsize=2)
def texture_map(model: MorphableModel, size: int = 512) -> TextureMap:
    """Which point of the surface each texel shows; the same for every face of a model.

    Parameters
    ----------
    model : MorphableModel
    size : T, texels a side.

    Raises
    ------
    P2FError
        `size` is below 16 or above 4096.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise P2FError(f"A texture has {SIZES[0]} to {SIZES[1]} texels a side, got {size}.")
    atlas = make_atlas(model)
    places = atlas.coordinates.astype(float) * [1, -1] + [0, 1]
    depth = np.zeros(len(places))
    depth[atlas.triangles] = -np.hypot(*model.mean.T[[0, 2]])[model.triangles]  # outermost first
    raster = rasterize(places * size - 0.5, depth, atlas.triangles, size, size, cull_back=False)
    texels = np.flatnonzero(raster.valid)
    corners = model.triangles[raster.triangle_id.ravel()[texels]]
    shares = raster.barycentric.reshape(-1, 3)[texels]
    # Normals keep apart what lies close together: lids and eyeballs, the two lips.
    features = np.concatenate(
        [model.mean, NORMAL_REACH * vertex_normals(model.mean, model.triangles)], axis=1
    )
    surface = np.einsum("mkc,mk->mc", features[corners], shares)
    mirror = cKDTree(surface).query(surface * [-1, 1, 1, -1, 1, 1])[1]
    row, column = distance_transform_edt(~raster.valid, return_distances=False, return_indices=True)
    nearest = np.searchsorted(texels, row * size + column)
    return TextureMap(model, atlas, size, texels, corners, shares, mirror, nearest)


# ---------------------------------------------------------------- colours


def sample_texture(
    layout: TextureMap,
    photo: np.ndarray,
    camera: PerspectiveCamera,
    vertices: np.ndarray,
    usable: np.ndarray | None = None,
) -> Texture:
    """The photo's colours where it sees the surface; no others are made up.

    A texel is seen when nothing of the mesh lies before it in a depth buffer of the photo's
    resolution. Its weight is the squared cosine of the viewing angle, less what is too oblique, and
    falls to 0 towards what hides it, because meshes are a pixel or two beside their photos.

    Parameters
    ----------
    layout : TextureMap
    photo : (H, W, 3) uint8, RGB.
    camera : model space to pixels of `photo`.
    vertices : (V, 3) mm, of the layout's model.
    usable : (H, W) bool, pixels of `photo` that may be taken; all of them by default.

    Raises
    ------
    P2FError
        `photo` is no picture, or the vertices are of another model.
    """
    height, width = check_image(photo).shape[:2]
    model, vertices = layout.model, np.asarray(vertices, np.float32)
    if vertices.shape != model.mean.shape or min(height, width) < 2:
        raise P2FError(
            f"Sampling a texture needs the {model.n_vertices} vertices (V, 3) of the face model "
            f"{model.name!r} and a photo of 2 x 2 pixels or more, got {vertices.shape} and "
            f"{width} x {height}."
        )
    points = layout.spread(vertices)
    pixels, depth = camera.project_with_depth(points)
    raster = rasterize(
        *camera.project_with_depth(vertices), model.triangles, height, width, perspective=True
    )
    inside = ((pixels >= 0) & (pixels <= [width - 1, height - 1])).all(axis=1) & (depth > 0)
    pixels = np.where(inside[:, None], pixels, 0)
    x, y = np.minimum(pixels.astype(int), [width - 2, height - 2]).T
    around = [(y + j, x + i) for j in (0, 1) for i in (0, 1)]
    seen = inside & (depth <= np.max([raster.depth[at] for at in around], axis=0) + DEPTH_SLACK)
    if usable is not None:
        seen &= np.all([usable[at] for at in around], axis=0)

    toward = -camera.rotation.T @ camera.translation - points
    normals = layout.spread(vertex_normals(vertices, model.triangles))
    cosine = np.einsum("mi,mi->m", normals, toward) / np.maximum(
        np.linalg.norm(normals, axis=1) * np.linalg.norm(toward, axis=1), 1e-12
    )
    weight = np.clip((cosine - LEAST_COSINE) / (1 - LEAST_COSINE), 0, 1) ** 2
    blur = (0, 0), FEATHER * layout.size
    shown = cv2.GaussianBlur(layout.plane(seen & (weight > 0)), *blur)
    on_surface = cv2.GaussianBlur(layout.plane(np.ones(len(points))), *blur)
    weight *= seen * np.clip(2 * layout.rows(shown / np.maximum(on_surface, 1e-6)) - 1, 0, 1)

    step = _step(layout.texels, pixels, weight > 0)
    colors = _colors(_blurred(photo, usable, 0.4 * step) if step > 1 else photo, pixels)
    image = layout.plane(colors * (weight > 0)[:, None])
    return Texture(_bytes(image), layout.plane(weight))


def _step(texels: np.ndarray, pixels: np.ndarray, seen: np.ndarray) -> float:
    """Pixels from one seen texel to the next, 0 where none has a neighbour."""
    beside = seen[1:] & seen[:-1] & (np.diff(texels) == 1)
    lengths = np.linalg.norm(np.diff(pixels, axis=0)[beside], axis=1)
    return float(np.median(lengths)) if len(lengths) else 0.0


def _blurred(photo: np.ndarray, usable: np.ndarray | None, sigma: float) -> np.ndarray:
    """The photo as coarse as its texels, so that sampling it leaves no moire, (H, W, 3).

    Pixels that are not usable don't count.
    """
    if usable is None:
        return cv2.GaussianBlur(photo, (0, 0), sigma)
    counts = usable.astype(np.float32)
    mean = cv2.GaussianBlur(photo * counts[..., None], (0, 0), sigma)
    return mean / np.maximum(cv2.GaussianBlur(counts, (0, 0), sigma), 1e-6)[..., None]


def _colors(picture: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(M, 3) float32 of a picture (H, W, 3) at (M, 2) pixels within it, bilinear."""
    height, width = picture.shape[:2]
    x, y = np.minimum(pixels.astype(int), [width - 2, height - 2]).T
    right, down = (pixels - np.stack([x, y], axis=1)).astype(np.float32).T[..., None]
    upper = picture[y, x] * (1 - right) + picture[y, x + 1] * right
    lower = picture[y + 1, x] * (1 - right) + picture[y + 1, x + 1] * right
    return upper * (1 - down) + lower * down


def merge_textures(textures: Sequence[Texture]) -> Texture:
    """Several photos of one person as one texture: the mean of the colours, by weight.

    Parameters
    ----------
    textures : from `sample_texture`, not completed, of one model and size. Light that differs
        between the photos is not evened out.

    Returns
    -------
    Texture, its weight the largest of theirs.

    Raises
    ------
    P2FError
        No textures, or of different sizes.
    """
    sizes = {texture.image.shape[0] for texture in textures}
    if len(sizes) != 1:
        raise P2FError(
            "Merging needs one or more textures of one size, got "
            f"{', '.join(map(str, sorted(sizes))) or 'none'}; make all with the same size."
        )
    weights = np.stack([texture.weight for texture in textures])
    images = np.stack([texture.image for texture in textures]).astype(np.float32)
    mean = np.einsum("nhwc,nhw->hwc", images, weights) / np.maximum(weights.sum(0), 1e-6)[..., None]
    return Texture(_bytes(mean), weights.max(axis=0))


def complete_texture(texture: Texture, layout: TextureMap) -> Texture:
    """Colour what no photo shows: from the other side of the face, else from the surroundings.

    Mirrored colours are first brought to the light of this side: their difference from the seen
    ones, where there are both, continues smoothly into what is hidden. The space around the parts
    bears their nearest colour, so that no renderer finds black beside a seam.

    Parameters
    ----------
    texture : as sampled or merged.
    layout : the one it was sampled with.

    Returns
    -------
    Texture with the same weight, by which seen and made-up colours are told apart.

    Raises
    ------
    P2FError
        Texture and layout are of different sizes.
    """
    if texture.image.shape[0] != layout.size:
        raise P2FError(
            f"A texture of {texture.image.shape[0]} texels a side doesn't fit a layout of "
            f"{layout.size}; make both with the same size."
        )
    own, weight = layout.rows(texture.image.astype(np.float32)), layout.rows(texture.weight)
    mirrored, other = own[layout.mirror], weight[layout.mirror]
    light = _diffused(layout, own - mirrored, np.minimum(weight, other), LIGHT_REACH)
    mirrored = mirrored + light
    other = MIRROR_SHARE * other
    both = np.maximum(weight + other, 1e-9)
    colors = (weight[:, None] * own + other[:, None] * mirrored) / both[:, None]
    known = np.minimum(both / MIRROR_SHARE, 1)[:, None]
    colors = known * colors + (1 - known) * _diffused(layout, colors, known[:, 0], FILL_REACH)
    return Texture(_bytes(colors)[layout.nearest], texture.weight)


def _diffused(
    layout: TextureMap, values: np.ndarray, weight: np.ndarray, reach: float
) -> np.ndarray:
    """(M, C) values as of a membrane over the mesh, held at texels by their weight (M,).

    Over the mesh and not over the texture, where seams would cut it. A weight of 1 holds against
    what is further than `reach`, mm. Parts that nothing holds get the mean.
    """
    mesh = layout.model
    held, weight = layout.gather(values, weight)
    weight = weight / np.maximum(layout.gather(values[:, :0], np.ones(len(values)))[1], 1e-9)
    edges, _, _ = edges_of(mesh.triangles)
    length = np.linalg.norm(np.diff(mesh.mean[edges], axis=1), axis=-1).mean()
    links = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(len(held),) * 2)
    laplacian = sparse.csgraph.laplacian((links + links.T).tocsc())
    mean = np.average(held, axis=0, weights=weight + 1e-9)
    solve = splu(
        ((reach / length) ** 2 * laplacian + sparse.diags(weight + 1e-9)).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        options={"SymmetricMode": True},
    ).solve
    return layout.spread(solve(weight[:, None] * held + 1e-9 * mean))


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
