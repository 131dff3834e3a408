"""Casts rays at forms: balls around the copies choose the rays, marching finds the surfaces."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural.form import Form, form
from isekai.sources.procedural.sdf import Array, Field, length, smooth_min
from isekai.types import Part

_F = np.float32
_GRAZE = 0.012
_STEPS = 20
_CORNERS = np.array([[1, -1, -1, 1], [-1, -1, 1, 1], [-1, 1, -1, 1]], dtype=np.float32)
"""[3, 4] corners of a tetrahedron."""


@dataclass(slots=True)
class Hits:
    """The nearest surface along each of n rays."""

    t: Array
    """[n] distance along the ray, inf where nothing was hit."""
    part: NDArray[np.int16]
    """[n] position in the scene's parts, -1 for none."""
    copy: NDArray[np.int16]
    local: Array
    """[3, n] place on the surface in the part's own frame."""
    normal: Array
    """[3, n] unit, in the scene's frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rays:
    """Where n rays begin and lead, and how closely they have to be followed."""

    origin: Array
    """[3, 1] or [3, n]."""
    direction: Array
    """[3, n] of length 1."""
    start: Array | None = None
    """[n] nothing nearer than this is looked for; inf leaves a ray out."""
    near: float = 0.0025
    """Distance from a surface at which a ray has hit it, sketch units."""


def cast(parts: Sequence[Part], rays: Rays, *, normals: bool = True) -> Hits:
    """The nearest hit of each ray."""
    n = rays.direction.shape[1]
    hits = Hits(
        t=np.full(n, np.inf, dtype=np.float32),
        part=np.full(n, -1, dtype=np.int16),
        copy=np.zeros(n, dtype=np.int16),
        local=np.zeros((3, n), dtype=np.float32),
        normal=np.zeros((3, n), dtype=np.float32),
    )
    among = _around(parts, rays)
    melting = [(i, part) for i, part in enumerate(parts) if part.melt > 0]
    if melting:
        _cast_melted(melting, rays, among, hits, normals)
    for i, part in enumerate(parts):
        if part.melt <= 0:
            _cast_part(i, form(part), rays, among, hits, normals)
    return hits


def _around(parts: Sequence[Part], rays: Rays) -> NDArray[np.intp]:
    """The rays that come near any of the parts at all."""
    forms = [form(part) for part in parts]
    centres = np.concatenate([shape.centres for shape in forms])
    reach = np.repeat(
        [shape.radius + part.melt for shape, part in zip(forms, parts, strict=True)],
        [len(shape.places) for shape in forms],
    )
    middle = (centres.min(axis=0) + centres.max(axis=0)) / _F(2)
    radius = float((length(*(centres - middle).T) + reach).max()) * 1.001 + 0.002
    met = None if rays.start is None else np.flatnonzero(np.isfinite(rays.start))
    return _meeting(rays, met, middle, radius)[0]


def _cast_part(
    i: int, shape: Form, rays: Rays, among: NDArray[np.intp], hits: Hits, normals: bool
) -> None:
    found = _candidates(shape, rays, among, hits.t, 0.0)
    if found is None:
        return
    ray, copy, enter, leave = found
    o = _local_points(shape, copy, _pick(rays.origin, ray))
    d = _local_vectors(shape, copy, rays.direction.take(ray, axis=1))
    hit, t = _march(shape.field, o, d, enter, leave, rays.near)
    if not hit.size:
        return
    ray, copy, t = ray[hit], copy[hit], t[hit]
    best = _nearest_first(ray, t, hits.t)
    ray, copy, t, hit = ray[best], copy[best], t[best], hit[best]
    p = o[:, hit] + d[:, hit] * t
    hits.t[ray], hits.part[ray], hits.copy[ray] = t, i, copy
    hits.local[:, ray] = p
    if normals:
        gradient = _gradient(shape.field, p)
        hits.normal[:, ray] = _rotate(shape.turns[copy], gradient)


def _cast_melted(
    parts: Sequence[tuple[int, Part]],
    rays: Rays,
    among: NDArray[np.intp],
    hits: Hits,
    normals: bool,
) -> None:
    """All melting parts as one solid: their distances joined by a smooth minimum."""
    solids = [(i, part.melt, form(part)) for i, part in parts]
    n = rays.direction.shape[1]
    enter = np.full(n, np.inf, dtype=np.float32)
    leave = np.full(n, -np.inf, dtype=np.float32)
    for _, melt, shape in solids:
        found = _candidates(shape, rays, among, hits.t, melt)
        if found is not None:
            ray, _, t0, t1 = found
            np.minimum.at(enter, ray, t0)
            np.maximum.at(leave, ray, t1)
    met = np.flatnonzero(enter < leave)
    if not met.size:
        return

    def distance(p: Array) -> Array:
        total = None
        for _, melt, shape in solids:
            for own in _distances(shape, p, melt)[0]:
                total = own if total is None else smooth_min(total, own, melt)
        assert total is not None
        return total

    o, d = _pick(rays.origin, met), rays.direction.take(met, axis=1)
    hit, t = _march(distance, o, d, enter[met], leave[met], rays.near)
    if not hit.size:
        return
    t, ray = t[hit], met[hit]
    p = _pick(o, hit) + d[:, hit] * t
    closest = np.full(hit.size, np.inf, dtype=np.float32)
    for i, melt, shape in solids:
        own, local = _distances(shape, p, melt)
        for k in range(len(own)):
            mine = own[k] < closest
            closest[mine] = own[k][mine]
            hits.part[ray[mine]], hits.copy[ray[mine]] = i, k
            hits.local[:, ray[mine]] = local(k, mine)
    hits.t[ray] = t
    if normals:
        hits.normal[:, ray] = _gradient(distance, p)


def _distances(
    shape: Form, p: Array, melt: float
) -> tuple[Array, Callable[[int, NDArray[np.bool_]], Array]]:
    """[copies, n] distances from each copy, and a function that gives places in a copy's frame.

    Farther from the ball around a copy than anything can melt, the distance to the ball serves.
    """
    centres = shape.centres
    own = length(*(p[j][None, :] - centres[:, j : j + 1] for j in range(3)))
    own -= _F(shape.radius)
    copy, at = (own < _F(melt + 0.03)).nonzero()
    if copy.size:
        near = np.empty((3, copy.size), dtype=np.float32)
        for k, start, end in _runs(copy, len(own)):
            away = p.take(at[start:end], axis=1)
            away -= shape.places[k][:, None]
            _turn_back(shape.turns[k], away, near[:, start:end])
        own[copy, at] = shape.field(near)

    def local(k: int, where: NDArray[np.bool_]) -> Array:
        out = np.empty((3, int(where.sum())), dtype=np.float32)
        _turn_back(shape.turns[k], p[:, where] - shape.places[k][:, None], out)
        return out

    return own, local


def _candidates(
    shape: Form, rays: Rays, among: NDArray[np.intp], limit: Array, margin: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array] | None:
    """Rays that meet the ball around a copy: ray, copy, entry and exit distances."""
    centres = shape.centres
    radius = (shape.radius + margin) * 1.001 + 0.002
    if len(centres) > 4:
        middle = (centres.min(axis=0) + centres.max(axis=0)) / _F(2)
        away = np.sqrt(((centres - middle) ** 2).sum(axis=1))
        among = _meeting(rays, among, middle, float(away.max()) + radius)[0]
    found = []
    for k, centre in enumerate(centres):
        ray, enter, leave = _meeting(rays, among, centre, radius)
        enter = np.maximum(enter, _F(0) if rays.start is None else rays.start[ray])
        leave = np.minimum(leave, limit[ray])
        ahead = enter < leave
        if ahead.any():
            copy = np.full(int(ahead.sum()), k)
            found.append((ray[ahead], copy, enter[ahead], leave[ahead]))
    if not found:
        return None
    ray, copy, enter, leave = (np.concatenate(column) for column in zip(*found, strict=True))
    return ray, copy, enter, leave


def _meeting(
    rays: Rays, among: NDArray[np.intp] | None, centre: Array, radius: float
) -> tuple[NDArray[np.intp], Array, Array]:
    """Rays (of those `among`) through a ball, with the distances at which they enter and leave."""
    origin, direction = rays.origin, rays.direction
    if among is not None:
        origin, direction = _pick(origin, among), direction.take(among, axis=1)
    away = centre[:, None] - origin
    along = away[0] * direction[0] + away[1] * direction[1] + away[2] * direction[2]
    half = along * along
    half -= away[0] * away[0] + away[1] * away[1] + away[2] * away[2] - _F(radius * radius)
    met = (half > 0).nonzero()[0]
    chord, middle = np.sqrt(half[met]), along[met]
    return (met if among is None else among[met]), middle - chord, middle + chord


def _march(
    field: Field, o: Array, d: Array, enter: Array, leave: Array, near: float
) -> tuple[NDArray[np.intp], Array]:
    """Step every ray by the distance around it; returns the rays that hit, and all distances t."""
    t = enter.copy()
    ray, now, end = np.arange(d.shape[1]), enter.copy(), leave
    active = np.ones(ray.size, dtype=bool)
    hits = []
    few = t.size // 64
    for count in range(_STEPS):
        step = field(o + d * now)
        if count > 10:  # rays that graze a surface would creep along it
            near *= 1.25
        # The last few of many would cost as many calls as all did; they graze, too.
        last = count > 4 and ray.size <= few
        arrived = step < _F(max(near, _GRAZE) if last else near)
        arrived &= active
        if arrived.any():
            hit = ray[arrived]
            hits.append(hit)
            t[hit] = now[arrived]
        if last:
            break
        now += step
        active &= now < end
        active &= ~arrived
        left = active.nonzero()[0]
        if not left.size:
            break
        if left.size < 0.7 * ray.size:  # moving the rays together costs about half a step
            ray, now, end = ray[left], now[left], end[left]
            o, d = _pick(o, left), d.take(left, axis=1)
            active = np.ones(left.size, dtype=bool)
    return (np.concatenate(hits) if hits else np.empty(0, dtype=np.intp)), t


def _gradient(field: Field, p: Array, reach: float = 0.004) -> Array:
    """Unit outward normals, [3, n], from four distances on a tetrahedron around each point."""
    n = p.shape[1]
    around = (p[:, None, :] + (_CORNERS * _F(reach * 0.5773))[:, :, None]).reshape(3, 4 * n)
    a, b, c, d = field(around).reshape(4, n)
    total: Array = np.stack([a - b - c + d, -a - b + c + d, -a + b - c + d])
    total /= np.maximum(length(*total), _F(1e-9))
    return total


def _nearest_first(ray: NDArray[np.intp], t: Array, best: Array) -> NDArray[np.intp]:
    """Of several hits of a ray the nearest, where it is nearer than what was found before."""
    order = np.lexsort((t, ray))
    first = np.ones(order.size, dtype=bool)
    first[1:] = ray[order[1:]] != ray[order[:-1]]
    chosen = order[first]
    return chosen[t[chosen] < best[ray[chosen]]]


def _pick(origin: Array, ray: NDArray[np.intp]) -> Array:
    return origin if origin.shape[1] == 1 else origin.take(ray, axis=1)


def _local_points(shape: Form, copy: NDArray[np.intp], points: Array) -> Array:
    if points.shape[1] == 1:
        own = np.einsum("kij,ki->kj", shape.turns, points[:, 0] - shape.places)
        return np.ascontiguousarray(own[copy].T)
    return _rotate_back(shape.turns[copy], points - shape.places[copy].T)


def _local_vectors(shape: Form, copy: NDArray[np.intp], vectors: Array) -> Array:
    out = np.empty_like(vectors)
    for k, start, end in _runs(copy, len(shape.turns)):
        _turn_back(shape.turns[k], vectors[:, start:end], out[:, start:end])
    return out


def _runs(copy: NDArray[np.intp], count: int) -> Iterator[tuple[int, int, int]]:
    """Copy, start and end of each stretch of an ascending list of copies."""
    ends = np.searchsorted(copy, np.arange(count), side="right").tolist()
    start = 0
    for k, end in enumerate(ends):
        if end > start:
            yield k, start, end
        start = end


def _turn_back(turn: Array, vectors: Array, out: Array) -> None:
    """The inverse turn of [3, n] vectors, written out: a matrix product's bits depend on n."""
    x, y, z = vectors
    for j in range(3):
        np.multiply(x, turn[0, j], out=out[j])
        out[j] += turn[1, j] * y
        out[j] += turn[2, j] * z


def _rotate(turns: Array, vectors: Array) -> Array:
    return np.einsum("nij,jn->in", turns, vectors)


def _rotate_back(turns: Array, vectors: Array) -> Array:
    return np.einsum("nji,jn->in", turns, vectors)
