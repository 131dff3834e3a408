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
_STEPS = 32
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


def cast(
    parts: Sequence[Part], rays: Rays, *, apart: Sequence[Part] = (), normals: bool = True
) -> Hits:
    """The nearest hit of each ray: all parts are marched in step, then the nearest hits described.

    `parts` hang together; those of `apart`, which count on behind them, stand alone and never melt.

    Marching together halves the calls, and a ray that has hit something stops all of its marches
    that are farther on.
    """
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
    solids: list[_Part | _Melted] = []
    if melting:
        solids += _Melted.met(melting, rays, among)
    for i, part in enumerate(parts):
        if part.melt <= 0:
            solids += _Part.met(i, form(part), rays, among)
    for i, part in enumerate(apart, start=len(parts)):
        solids += _Part.met(i, form(part), rays, _around([part], rays))
    if solids:
        for solid, chosen, t in _march(solids, rays.near, hits):
            solid.describe(chosen, t, hits, normals)
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
    return _meeting(rays, met, middle, radius)


@dataclass(slots=True)
class _Part:
    """The copies of one part, and the rays that meet the balls around them."""

    i: int
    shape: Form
    ray: NDArray[np.intp]
    copy: NDArray[np.intp]
    enter: Array
    leave: Array
    o: Array
    """[3, m] origins and `d` directions in the copies' own frames."""
    d: Array

    @classmethod
    def met(cls, i: int, shape: Form, rays: Rays, among: NDArray[np.intp]) -> "list[_Part]":
        found = _candidates(shape, rays, among, 0.0)
        if found is None:
            return []
        ray, copy, enter, leave = found
        o = _local_points(shape, copy, _pick(rays.origin, ray))
        d = _local_vectors(shape, copy, rays.direction.take(ray, axis=1))
        return [cls(i, shape, ray, copy, enter, leave, o, d)]

    def distance(self, p: Array) -> Array:
        return self.shape.field(p)

    def describe(self, chosen: NDArray[np.intp], t: Array, hits: Hits, normals: bool) -> None:
        ray, copy = self.ray[chosen], self.copy[chosen]
        p = self.o[:, chosen] + self.d[:, chosen] * t
        hits.part[ray], hits.copy[ray], hits.local[:, ray] = self.i, copy, p
        if normals:
            own = _gradient(self.shape.field, p)
            hits.normal[:, ray] = np.einsum("nij,jn->in", self.shape.turns[copy], own)


@dataclass(slots=True)
class _Melted:
    """All melting parts as one solid: their distances joined by a smooth minimum."""

    solids: list[tuple[int, float, Form]]
    ray: NDArray[np.intp]
    enter: Array
    leave: Array
    o: Array
    d: Array

    @classmethod
    def met(
        cls, parts: Sequence[tuple[int, Part]], rays: Rays, among: NDArray[np.intp]
    ) -> "list[_Melted]":
        solids = [(i, part.melt, form(part)) for i, part in parts]
        n = rays.direction.shape[1]
        enter = np.full(n, np.inf, dtype=np.float32)
        leave = np.full(n, -np.inf, dtype=np.float32)
        for _, melt, shape in solids:
            found = _candidates(shape, rays, among, melt)
            if found is not None:
                ray, _, t0, t1 = found
                np.minimum.at(enter, ray, t0)
                np.maximum.at(leave, ray, t1)
        ray = (enter < leave).nonzero()[0]
        if not ray.size:
            return []
        d = rays.direction.take(ray, axis=1)
        o = np.broadcast_to(_pick(rays.origin, ray), d.shape)
        return [cls(solids, ray, enter[ray], leave[ray], o, d)]

    def distance(self, p: Array) -> Array:
        total = None
        for _, melt, shape in self.solids:
            for own in _distances(shape, p, melt)[0]:
                total = own if total is None else smooth_min(total, own, melt)
        assert total is not None
        return total

    def describe(self, chosen: NDArray[np.intp], t: Array, hits: Hits, normals: bool) -> None:
        """Each place belongs to the copy that is nearest on its own."""
        ray = self.ray[chosen]
        p = self.o[:, chosen] + self.d[:, chosen] * t
        closest = np.full(ray.size, np.inf, dtype=np.float32)
        for i, melt, shape in self.solids:
            own, local = _distances(shape, p, melt)
            for k in range(len(own)):
                mine = own[k] < closest
                closest[mine] = own[k][mine]
                hits.part[ray[mine]], hits.copy[ray[mine]] = i, k
                hits.local[:, ray[mine]] = local(k, mine)
        if normals:
            hits.normal[:, ray] = _gradient(self.distance, p)


def _march(
    solids: "Sequence[_Part | _Melted]", near: float, hits: Hits
) -> "Iterator[tuple[_Part | _Melted, NDArray[np.intp], Array]]":
    """Step all marches by the distances around them, into `hits.t`.

    Yields each solid with the marches of it that hit first of all on their rays, and where.
    """
    sizes = [solid.ray.size for solid in solids]
    bounds = np.cumsum([0, *sizes])
    ray, now, end = (
        np.concatenate([getattr(solid, name) for solid in solids])
        for name in ("ray", "enter", "leave")
    )
    o, d = (np.concatenate([getattr(solid, n) for solid in solids], axis=1) for n in "od")
    march, parts = np.arange(ray.size), bounds
    active = np.ones(ray.size, dtype=bool)
    few = ray.size // 64
    best = np.full(hits.t.size, -1, dtype=np.intp)
    for count in range(_STEPS):
        p = o + d * now
        step = np.empty_like(now)
        for k, solid in enumerate(solids):
            start, stop = parts[k], parts[k + 1]
            if stop > start:
                step[start:stop] = solid.distance(p[:, start:stop])
        if count > 6:  # rays that graze a surface would creep along it
            near = min(near * 1.2, 2 * _GRAZE)
            # The last few of many cost as many calls as all did, and graze.
            if ray.size <= few:
                near = max(near, _GRAZE)
        arrived = step < _F(near)
        arrived &= active
        at = arrived.nonzero()[0]
        if at.size:
            at = at[np.lexsort((at, -now[at]))]  # the nearest is written last, and stays
            at = at[now[at] < hits.t[ray[at]]]
            hits.t[ray[at]] = now[at]
            best[ray[at]] = march[at]
        now += step
        active &= ~arrived
        active &= now < end
        active &= now < hits.t[ray]
        left = active.nonzero()[0]
        if not left.size:
            break
        if left.size < 0.7 * ray.size:  # moving the marches together costs about half a step
            ray, now, end, march = ray[left], now[left], end[left], march[left]
            o, d = o.take(left, axis=1), d.take(left, axis=1)
            parts = np.searchsorted(left, parts)
            active = np.ones(left.size, dtype=bool)
    first = np.sort(best[best >= 0])
    cuts = np.searchsorted(first, bounds)
    for k, solid in enumerate(solids):
        chosen = first[cuts[k] : cuts[k + 1]] - bounds[k]
        if chosen.size:
            yield solid, chosen, hits.t[solid.ray[chosen]]


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
    shape: Form, rays: Rays, among: NDArray[np.intp], margin: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array] | None:
    """Rays that meet the ball around a copy: ray, copy (ascending), entry and exit distances."""
    centres = shape.centres
    radius = (shape.radius + margin) * 1.001 + 0.002
    if len(centres) > 1:
        middle = (centres.min(axis=0) + centres.max(axis=0)) / _F(2)
        away = length(*(centres - middle).T)
        among = _meeting(rays, among, middle, float(away.max()) + radius)
    if not among.size:
        return None
    along, half = _chords(rays, among, centres, radius)
    copy, at = (half > 0).nonzero()
    middle, chord, ray = along[copy, at], np.sqrt(half[copy, at]), among[at]
    enter = np.maximum(middle - chord, _F(0) if rays.start is None else rays.start[ray])
    leave = middle + chord
    ahead = (enter < leave).nonzero()[0]
    return (ray[ahead], copy[ahead], enter[ahead], leave[ahead]) if ahead.size else None


def _meeting(
    rays: Rays, among: NDArray[np.intp] | None, centre: Array, radius: float
) -> NDArray[np.intp]:
    """The rays, of those `among`, that pass through a ball."""
    met = (_chords(rays, among, centre[None], radius)[1][0] > 0).nonzero()[0]
    return met if among is None else among[met]


def _chords(
    rays: Rays, among: NDArray[np.intp] | None, centres: Array, radius: float
) -> tuple[Array, Array]:
    """[k, n] how far along each ray is nearest to each centre, and the half chord squared there."""
    origin, direction = rays.origin, rays.direction
    if among is not None:
        origin, direction = _pick(origin, among), direction.take(among, axis=1)
    x, y, z = (centres[:, j : j + 1] - origin[j] for j in range(3))
    along = x * direction[0]
    along += y * direction[1]
    along += z * direction[2]
    half = along * along
    half -= x * x + y * y + z * z - _F(radius * radius)
    return along, half


def _gradient(field: Field, p: Array, reach: float = 0.004) -> Array:
    """Unit outward normals, [3, n], from four distances on a tetrahedron around each point."""
    n = p.shape[1]
    around = (p[:, None, :] + (_CORNERS * _F(reach * 0.5773))[:, :, None]).reshape(3, 4 * n)
    a, b, c, d = field(around).reshape(4, n)
    total: Array = np.stack([a - b - c + d, -a - b + c + d, -a + b - c + d])
    total /= np.maximum(length(*total), _F(1e-9))
    return total


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


def _rotate_back(turns: Array, vectors: Array) -> Array:
    return np.einsum("nji,jn->in", turns, vectors)
