"""Casts rays at forms: balls around the copies choose the rays, marching finds the surfaces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural.sdf import Array, Field, Form, form, smooth_min
from isekai.types import Part

MarchField = Callable[[Array, NDArray[np.intp]], Array]

_F = np.float32
_NEAR = 0.0015
"""A ray this close to a surface has hit it, in sketch units: half a pixel at 300 px."""
_STEPS = 48


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


def cast(
    parts: Sequence[Part], origin: Array, direction: Array, *, normals: bool = True
) -> Hits:
    """The nearest hit of each ray. `origin` is [3, 1] or [3, n], `direction` [3, n] of length 1."""
    n = direction.shape[1]
    hits = Hits(
        t=np.full(n, np.inf, dtype=np.float32),
        part=np.full(n, -1, dtype=np.int16),
        copy=np.zeros(n, dtype=np.int16),
        local=np.zeros((3, n), dtype=np.float32),
        normal=np.zeros((3, n), dtype=np.float32),
    )
    melting = [i for i, part in enumerate(parts) if part.melt > 0]
    if melting:
        _cast_melted([(i, parts[i]) for i in melting], origin, direction, hits, normals)
    for i, part in enumerate(parts):
        if part.melt <= 0:
            _cast_part(i, form(part), origin, direction, hits, normals)
    return hits


def _cast_part(
    i: int, shape: Form, origin: Array, direction: Array, hits: Hits, normals: bool
) -> None:
    found = _candidates(shape, origin, direction, hits.t, 0.0)
    if found is None:
        return
    ray, copy, enter, leave = found
    o = _local_points(shape, copy, _pick(origin, ray))
    d = _local_vectors(shape, copy, direction[:, ray])
    hit, t = _march(shape.field, o, d, enter, leave)
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
    parts: Sequence[tuple[int, Part]], origin: Array, direction: Array, hits: Hits, normals: bool
) -> None:
    """All melting parts as one solid: their distances joined by a smooth minimum."""
    shapes = [(i, part, form(part)) for i, part in parts]
    n = direction.shape[1]
    enter = np.full(n, np.inf, dtype=np.float32)
    leave = np.full(n, -np.inf, dtype=np.float32)
    near: list[tuple[int, Form, int, float, NDArray[np.bool_]]] = []
    for i, part, shape in shapes:
        found = _candidates(shape, origin, direction, hits.t, part.melt)
        if found is None:
            continue
        ray, copy, t0, t1 = found
        np.minimum.at(enter, ray, t0)
        np.maximum.at(leave, ray, t1)
        for k in np.unique(copy):
            mask = np.zeros(n, dtype=bool)
            mask[ray[copy == k]] = True
            near.append((i, shape, int(k), part.melt, mask))
    rays = np.flatnonzero(enter < leave)
    if not rays.size:
        return
    o, d = _pick(origin, rays), direction[:, rays]
    masks = [mask[rays] for *_, mask in near]

    def distance(p: Array, which: NDArray[np.intp]) -> tuple[Array, NDArray[np.int16]]:
        total = np.full(p.shape[1], np.inf, dtype=np.float32)
        closest = np.full(p.shape[1], np.inf, dtype=np.float32)
        owner = np.zeros(p.shape[1], dtype=np.int16)
        for j, ((_, shape, k, melt, _), mask) in enumerate(zip(near, masks, strict=True)):
            here = np.flatnonzero(mask[which])
            if not here.size:
                continue
            local = _turn_back(shape.turns[k], p[:, here] - shape.places[k][:, None])
            own = shape.field(local)
            before = total[here]
            total[here] = np.where(np.isinf(before), own, smooth_min(before, own, melt))
            closer = own < closest[here]
            closest[here[closer]] = own[closer]
            owner[here[closer]] = j
        return total, owner

    every = np.arange(rays.size)
    hit, t = _march_indexed(lambda p, w: distance(p, w)[0], o, d, enter[rays], leave[rays], every)
    if not hit.size:
        return
    t = t[hit]
    p = _pick(o, hit) + d[:, hit] * t
    owner = distance(p, hit)[1]
    ray = rays[hit]
    copies = np.array([k for _, _, k, _, _ in near], dtype=np.int16)[owner]
    hits.t[ray] = t
    hits.part[ray] = np.array([i for i, *_ in near], dtype=np.int16)[owner]
    hits.copy[ray] = copies
    for j, (_, shape, k, _, _) in enumerate(near):
        mine = owner == j
        hits.local[:, ray[mine]] = _turn_back(
            shape.turns[k], p[:, mine] - shape.places[k][:, None]
        )
    if normals:
        hits.normal[:, ray] = _gradient(lambda q: distance(q, hit)[0], p)


def _candidates(
    shape: Form, origin: Array, direction: Array, limit: Array, margin: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array] | None:
    """Rays that meet the ball around a copy: ray, copy, entry and exit distances."""
    centres = shape.places + (shape.turns @ shape.centre.astype(np.float32))
    radius = _F((shape.radius + margin) * 1.001 + 0.002)
    rays, copies, enters, leaves = [], [], [], []
    for k, centre in enumerate(centres):
        away = centre[:, None] - origin
        along = away[0] * direction[0] + away[1] * direction[1] + away[2] * direction[2]
        square = away[0] * away[0] + away[1] * away[1] + away[2] * away[2]
        half = along * along
        half -= square
        half += radius * radius
        ray = np.flatnonzero(half > 0)
        if not ray.size:
            continue
        chord = np.sqrt(half[ray])
        middle = along[ray]
        enter = np.maximum(middle - chord, _F(0))
        leave = np.minimum(middle + chord, limit[ray])
        open_ = enter < leave
        rays.append(ray[open_])
        copies.append(np.full(int(open_.sum()), k))
        enters.append(enter[open_])
        leaves.append(leave[open_])
    if not sum(ray.size for ray in rays):
        return None
    return (
        np.concatenate(rays),
        np.concatenate(copies),
        np.concatenate(enters),
        np.concatenate(leaves),
    )


def _march(
    field: Field, o: Array, d: Array, enter: Array, leave: Array
) -> tuple[NDArray[np.intp], Array]:
    return _march_indexed(
        lambda p, _: field(p), o, d, enter, leave, np.arange(d.shape[1])
    )


def _march_indexed(
    field: MarchField, o: Array, d: Array, enter: Array, leave: Array, which: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Array]:
    """Step every ray by the distance around it; returns the rays that hit, and all distances t."""
    t = enter.copy()
    active, now, end = which, enter.copy(), leave
    x, y = _pick(o, active), d[:, active]
    hits = []
    for _ in range(_STEPS):
        step = field(x + y * now, active)
        arrived = step < _NEAR
        if arrived.any():
            hits.append(active[arrived])
            t[active[arrived]] = now[arrived]
        now = now + step
        alive = ~arrived & (now < end)
        if not alive.all():
            active, now, end = active[alive], now[alive], end[alive]
            if not active.size:
                break
            x, y = x if x.shape[1] == 1 else x[:, alive], y[:, alive]
    return (np.concatenate(hits) if hits else np.empty(0, dtype=np.intp)), t


def _gradient(field: Field, p: Array, reach: float = 0.004) -> Array:
    """Unit outward normals, [3, n], from four distances on a tetrahedron around each point."""
    total = np.zeros_like(p)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k = np.array(corner, dtype=np.float32)[:, None]
        total += k * field(p + k * _F(reach * 0.5773))
    size = np.sqrt(total[0] ** 2 + total[1] ** 2 + total[2] ** 2)
    return total / np.maximum(size, _F(1e-9))


def _nearest_first(ray: NDArray[np.intp], t: Array, best: Array) -> NDArray[np.intp]:
    """Of several hits of a ray the nearest, where it is nearer than what was found before."""
    order = np.lexsort((t, ray))
    first = np.ones(order.size, dtype=bool)
    first[1:] = ray[order[1:]] != ray[order[:-1]]
    chosen = order[first]
    return chosen[t[chosen] < best[ray[chosen]]]


def _pick(origin: Array, ray: NDArray[np.intp]) -> Array:
    return origin if origin.shape[1] == 1 else origin[:, ray]


def _local_points(shape: Form, copy: NDArray[np.intp], points: Array) -> Array:
    if points.shape[1] == 1:
        own = np.einsum("kij,ki->kj", shape.turns, points[:, 0] - shape.places)
        return np.ascontiguousarray(own[copy].T)
    return _rotate_back(shape.turns[copy], points - shape.places[copy].T)


def _local_vectors(shape: Form, copy: NDArray[np.intp], vectors: Array) -> Array:
    out = np.empty_like(vectors)
    starts = np.flatnonzero(np.diff(copy, prepend=-1))
    for start, end in zip(starts, [*starts[1:], copy.size], strict=True):
        out[:, start:end] = _turn_back(shape.turns[copy[start]], vectors[:, start:end])
    return out


def _turn_back(turn: Array, vectors: Array) -> Array:
    """The inverse turn of [3, n] vectors, written out: a matrix product's bits depend on n."""
    x, y, z = vectors
    return np.stack([turn[0, j] * x + turn[1, j] * y + turn[2, j] * z for j in range(3)])


def _rotate(turns: Array, vectors: Array) -> Array:
    return np.einsum("nij,jn->in", turns, vectors)


def _rotate_back(turns: Array, vectors: Array) -> Array:
    return np.einsum("nji,jn->in", turns, vectors)
