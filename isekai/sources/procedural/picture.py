"""Renders a scene: cast, shade, then cast again where an edge crosses a pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural import surface
from isekai.sources.procedural.form import form
from isekai.sources.procedural.march import Hits, Rays, cast
from isekai.sources.procedural.scene import Grade, Scene, rays
from isekai.sources.procedural.sdf import Array, clamp
from isekai.types import Part

_F = np.float32
_SHADOW = 112
"""Side of the shadow map, texels."""
_REACH = 1.9
"""Half the shadow map's side, in radii of the concept."""
_NOTHING, _FLOOR, _WALL, _SOLID = 0, 1, 2, 3
_CORNERS = ((-0.37, -0.13), (0.3, -0.26), (0.07, 0.39))
"""Places of an edge pixel's three further rays, round its middle, in pixels."""
_DISK = tuple(
    (
        float(np.sqrt((i + 0.5) / 12) * np.cos(2.4 * i)),
        float(np.sqrt((i + 0.5) / 12) * np.sin(2.4 * i)),
    )
    for i in range(12)
)


@dataclass(slots=True)
class _View:
    """What the rays met: distances, kinds, and the hits of solids, clutter behind the parts."""

    origin: Array
    direction: Array
    t: Array
    kind: NDArray[np.uint8]
    hits: Hits


def render(scene: Scene, size: int) -> NDArray[np.uint8]:
    """[size, size, 3] sRGB."""
    step = ((np.arange(size, dtype=np.float32) + _F(0.5)) / _F(size)) * 2 - 1
    u, v = (m.ravel() for m in np.meshgrid(step, -step))
    shadow = _ShadowMap(scene)
    view = _look(scene, u, v)
    colour = _shade(scene, view, shadow)
    edge = np.flatnonzero(_edges(view, size))
    if edge.size:
        pixel = _F(2 / size)
        du, dv = (
            np.array(side, dtype=np.float32)[:, None] * pixel
            for side in zip(*_CORNERS, strict=True)
        )
        start = np.tile(_before(view.hits.t, size)[edge], len(_CORNERS))
        fine = _look(scene, (u[edge] + du).ravel(), (v[edge] + dv).ravel(), start)
        tones = _tone(_shade(scene, fine, shadow)).reshape(3, len(_CORNERS), edge.size)
        picture = _tone(colour)
        picture[:, edge] = (picture[:, edge] + tones.sum(axis=1)) / _F(1 + len(_CORNERS))
    else:
        picture = _tone(colour)
    eight = np.rint(_graded(picture, scene.grade) * _F(255)).astype(np.uint8)
    return np.ascontiguousarray(eight.reshape(3, size, size).transpose(1, 2, 0))


# ---------------------------------------------------------------- seeing


def _look(scene: Scene, u: Array, v: Array, start: Array | None = None) -> _View:
    origin, direction = rays(
        scene.eye, scene.axes, scene.lens, u - _F(scene.shift[0]), v - _F(scene.shift[1])
    )
    sight = Rays(origin=origin, direction=direction, start=start)
    hits = cast(scene.parts, sight, apart=scene.clutter)
    t = np.full(direction.shape[1], 60.0, dtype=np.float32)
    kind = np.full(direction.shape[1], _NOTHING, dtype=np.uint8)
    heading = scene.axes[2] * np.array([1, 0, 1], dtype=np.float32)
    heading = heading / np.sqrt((heading * heading).sum())
    toward = direction[0] * heading[0] + direction[2] * heading[2]
    # The wall stands behind the concept, whose centre is near the origin in x and z.
    to_wall = _F(scene.wall_at) - (scene.eye * heading).sum()
    for which, distance in (
        (
            _FLOOR,
            np.divide(
                _F(scene.ground) - scene.eye[1],
                direction[1],
                where=direction[1] < -1e-4,
                out=np.full_like(t, np.inf),
            ),
        ),
        (_WALL, np.divide(to_wall, toward, where=toward > 1e-4, out=np.full_like(t, np.inf))),
        (_SOLID, hits.t),
    ):
        nearer = distance < t
        t[nearer] = distance[nearer]
        kind[nearer] = which
    return _View(origin, direction, t, kind, hits)


def _before(t: Array, size: int) -> Array:
    """[n] a little less than the nearest of each pixel and its eight neighbours; inf for none."""
    padded = np.pad(t.reshape(size, size), 1, constant_values=np.inf)
    rows = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    least = np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return (least * _F(0.98) - _F(0.06)).ravel()


def _edges(view: _View, size: int) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour shows another surface, and that neighbour."""
    name = view.kind.astype(np.int32) * 65536
    mine = view.kind == _SOLID
    name[mine] += view.hits.part[mine].astype(np.int32) * 256 + view.hits.copy[mine]
    name = name.reshape(size, size)
    t = view.t.reshape(size, size)
    normal = view.hits.normal.reshape(3, size, size)
    solid = mine.reshape(size, size)
    edge = np.zeros((size, size), dtype=bool)
    for ahead, behind in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ):
        differs = name[ahead] != name[behind]
        differs |= (np.abs(t[ahead] - t[behind]) > _F(0.04) * t[behind]) & solid[ahead]
        bent = (normal[:, *ahead] * normal[:, *behind]).sum(axis=0) < _F(0.72)
        differs |= bent & solid[ahead] & solid[behind]
        edge[ahead] |= differs
        edge[behind] |= differs
    return edge.ravel()


# ---------------------------------------------------------------- light


class _ShadowMap:
    """Depths seen from the light; how much of the light a place gets."""

    def __init__(self, scene: Scene) -> None:
        self.light = scene.light
        helper = np.array([0, 1, 0] if abs(scene.light[1]) < 0.95 else [1, 0, 0], dtype=np.float32)
        right = np.cross(helper, scene.light)
        self.right = (right / np.sqrt((right * right).sum())).astype(np.float32)
        self.up = np.cross(scene.light, self.right).astype(np.float32)
        self.half = _F(scene.bounds.radius * _REACH)
        self.centre = scene.bounds.centre.astype(np.float32)
        self.blur = _F(scene.softness / float(self.half) * _SHADOW / 2)
        step = ((np.arange(_SHADOW, dtype=np.float32) + _F(0.5)) / _SHADOW * 2 - 1) * self.half
        a, b = (m.ravel() for m in np.meshgrid(step, step))
        far = _F(8)
        origin = (
            (self.centre + self.light * far)[:, None]
            + self.right[:, None] * a
            + self.up[:, None] * b
        )
        direction = np.broadcast_to(-self.light[:, None], origin.shape).astype(np.float32)
        beams = Rays(origin=origin, direction=direction, near=0.01)
        hits = cast(scene.parts, beams, apart=scene.clutter, normals=False)
        # Heights towards the light, far below all where nothing stands in its way.
        self.steep = np.maximum((far - hits.t) * _F(40), _F(-1e6))

    def lit(self, p: Array) -> Array:
        """Share of the light that reaches each place, 0..1: twelve taps on a disk."""
        away = p - self.centre[:, None]
        a, b, height = (
            away[0] * axis[0] + away[1] * axis[1] + away[2] * axis[2]
            for axis in (self.right, self.up, self.light)
        )
        share = np.ones(p.shape[1], dtype=np.float32)
        edge = self.half * _F(0.97)
        at = ((np.abs(a) < edge) & (np.abs(b) < edge)).nonzero()[0]
        texel = _F(_SHADOW / 2) / self.half
        x = (a[at] + self.half) * texel - _F(0.5)
        y = (b[at] + self.half) * texel - _F(0.5)
        open_ = (height[at] + _F(0.028)) * _F(40) + _F(1)
        reach = max(float(self.blur), 0.8)
        total = np.zeros(at.size, dtype=np.float32)
        for dx, dy in _DISK:
            i = clamp(np.rint(x + _F(dx * reach)), 0, _SHADOW - 1).astype(np.int32)
            i += clamp(np.rint(y + _F(dy * reach)), 0, _SHADOW - 1).astype(np.int32) * _SHADOW
            total += clamp(open_ - self.steep.take(i), 0, 1)
        share[at] = total / _F(len(_DISK))
        return share


def _contact(scene: Scene, p: Array) -> Array:
    """How open the ground is under the concept, 0..1, from its underside."""
    under = scene.bounds.underside - _F(scene.ground)
    n = under.shape[0]
    near = np.exp(-np.maximum(under, _F(0)) * _F(5))
    for axis in (0, 1):
        for _ in range(2):
            near = (near + np.roll(near, 1, axis) + np.roll(near, -1, axis)) / _F(3)
    x = clamp((p[0] / _F(1.6) + 1) * _F(n / 2) - _F(0.5), 0, n - 1.001)
    z = clamp((p[2] / _F(1.6) + 1) * _F(n / 2) - _F(0.5), 0, n - 1.001)
    i, j = x.astype(np.int32), z.astype(np.int32)
    fx, fz = x - i, z - j
    blend = (
        near[i, j] * (1 - fx) * (1 - fz)
        + near[i + 1, j] * fx * (1 - fz)
        + near[i, j + 1] * (1 - fx) * fz
        + near[i + 1, j + 1] * fx * fz
    )
    return _F(1) - _F(0.6) * blend


# ---------------------------------------------------------------- shading


def _shade(scene: Scene, view: _View, shadow: _ShadowMap) -> Array:
    """[3, n] linear light that reaches the eye."""
    colour = np.empty((3, view.t.size), dtype=np.float32)
    p = view.origin + view.direction * view.t
    # Looked up a little off the surface, or its own facets in the map would shade it.
    lit = shadow.lit(p + view.hits.normal * _F(0.03))
    haze = scene.horizon[0][:, None]
    colour[:] = haze * _F(scene.ambient + 0.9)
    for kind, ground in ((_FLOOR, scene.floor), (_WALL, scene.wall)):
        at = np.flatnonzero(view.kind == kind)
        if not at.size:
            continue
        place = p[:, at]
        if kind == _WALL:
            across = place[0] * scene.axes[0][0] + place[2] * scene.axes[0][2]
            flat = np.stack([across, place[1] - _F(scene.ground)])
            normal = -scene.axes[2] * np.array([1, 0, 1], dtype=np.float32)
            normal = normal / np.sqrt((normal * normal).sum())
        else:
            flat = place[::2]
            normal = np.array([0, 1, 0], dtype=np.float32)
        if ground.pattern:
            weight = surface.pattern(ground.pattern, flat, ground.scale)
        else:
            weight = surface.cloud(flat * _F(ground.scale * 0.6), 2)
        # Far patterns melt into their mean before they would shimmer.
        fade = clamp(_F(1.35) - view.t[at] * _F(ground.scale * scene.lens / 14), 0, 1)
        weight = weight * fade + _F(0.4) * (_F(1) - fade)
        paint = _mix(ground.paints[0], ground.paints[1], weight)
        slope = _F(max(float((normal * scene.light).sum()), 0.12))
        open_ = _contact(scene, place) if kind == _FLOOR else _F(1)
        light = scene.sun[:, None] * (slope * lit[at]) + _F(scene.ambient) * open_
        light *= _F(0.35) + _F(0.65) * open_
        colour[:, at] = paint * light
    solid = view.kind == _SOLID
    for i in np.unique(view.hits.part[solid]):
        at = np.flatnonzero(solid & (view.hits.part == i))
        own = i < len(scene.parts)
        part = scene.parts[i] if own else scene.clutter[i - len(scene.parts)]
        paints = scene.paints if own else scene.clutter_paints
        colour[:, at] = _shade_part(scene, part, paints, view, at, lit[at])
    return colour


def _shade_part(
    scene: Scene,
    part: Part,
    paints: Array,
    view: _View,
    at: NDArray[np.intp],
    lit: Array,
) -> Array:
    material = surface.MATERIALS[part.material]
    hits = view.hits
    n, local, toward = hits.normal[:, at], hits.local[:, at], -view.direction[:, at]
    base = np.broadcast_to(paints[part.paint][:, None], n.shape)
    weight = np.zeros(at.size, dtype=np.float32)
    if part.pattern:
        weight = surface.pattern(part.pattern, local, part.scale)
        base = _mix(paints[part.paint], paints[part.paint2], weight)
        if part.relief:
            # The relief is computed in the part's frame; only the tilt is carried over.
            n = _tilted(part, local, n, hits, at)
    light = scene.light[:, None]
    facing = n[0] * light[0] + n[1] * light[1] + n[2] * light[2]
    wrap = _F(material.wrap)
    diffuse = clamp((facing + wrap) / (1 + wrap), 0, 1) * (lit * (1 - wrap * 0.4) + wrap * _F(0.4))
    glance = clamp((n * toward).sum(axis=0), 0, 1)
    half = light + toward
    half = half / np.maximum(np.sqrt((half * half).sum(axis=0)), _F(1e-6))
    spark = clamp((n * half).sum(axis=0), 0, 1) ** _F(material.sharp)
    spark = spark * lit * (facing > 0) * _F(material.shine)
    sky = _F(0.5) + _F(0.5) * n[1]
    around = _F(scene.ambient) * (_F(0.42) + _F(0.58) * sky)
    colour = base * (scene.sun[:, None] * diffuse + around) * _F(material.diffuse)
    mirror = _F(material.mirror) + (_F(0.04) + _F(material.mirror) * _F(0.5)) * (1 - glance) ** 5
    if material.mirror > 0.01:
        r_y = 2 * glance * n[1] - toward[1]
        up = clamp(r_y * _F(1.5) + _F(0.5), 0, 1)
        window = clamp((r_y - _F(0.55)) * _F(6), 0, 1) * _F(0.8)
        seen = (
            scene.horizon[1][:, None] * (1 - up) + scene.horizon[0][:, None] * up + window
        ) * _F(0.55 + scene.ambient)
        tint = base * _F(1.3) if material.tinted else _F(1)
        colour = colour * (1 - mirror) + seen * mirror * tint
    colour = colour + spark * (base * _F(2) if material.tinted else scene.sun[:, None] * _F(0.45))
    if material.glow:
        bright = weight if part.pattern else np.ones(at.size, dtype=np.float32)
        hot = paints[part.paint2 if part.pattern else part.paint][:, None]
        colour = colour * (1 - _F(0.6) * bright) + hot * bright * _F(1.7 * material.glow)
    return colour


def _tilted(part: Part, local: Array, normal: Array, hits: Hits, at: NDArray[np.intp]) -> Array:
    turns = form(part).turns[hits.copy[at]]
    own = np.einsum("nji,jn->in", turns, normal)
    own = surface.relief(part.pattern, local, part.scale, part.relief, own)
    return np.asarray(np.einsum("nij,jn->in", turns, own))


def _mix(a: Array, b: Array, weight: Array) -> Array:
    return a[:, None] * (1 - weight) + b[:, None] * weight


def _tone(light: Array) -> Array:
    """Linear light to sRGB, 0..1, with a soft shoulder instead of clipping."""
    x = np.maximum(light, _F(0))
    x = x / (_F(1) + x * _F(0.42)) * _F(0.98)
    x = np.minimum(x, _F(1))
    low = x * _F(12.92)
    high = _F(1.055) * np.power(np.maximum(x, _F(1e-6)), _F(1 / 2.4)) - _F(0.055)
    return np.where(x < _F(0.0031308), low, np.minimum(high, _F(1))).astype(np.float32)


def _graded(picture: Array, grade: Grade) -> Array:
    """[3, n] developed as another photographer would: saturation, then a curve a channel."""
    grey = picture[0] * _F(0.3) + picture[1] * _F(0.55) + picture[2] * _F(0.15)
    out = grey + (picture - grey) * _F(grade.saturation)
    out = clamp(out, 1e-4, 1)
    for channel, (gamma, low, high) in zip(out, grade.curves, strict=True):
        np.power(channel, _F(gamma), out=channel)
        channel *= _F(high - low)
        channel += _F(low)
    return out
