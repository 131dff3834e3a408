"""Signed distances to the shapes of a sketch.

Points are `[3, n]` float32 in the part's own frame; distances are `[n]`, negative inside. A
distance may be too short, never much too long, so that a ray may always step by it. The closed
forms are the usual ones for these solids (I. Quilez, "Distance functions").
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Field = Callable[[Array], Array]

_F = np.float32


def length(*components: Array) -> Array:
    total = components[0] * components[0]
    for component in components[1:]:
        total += component * component
    return np.sqrt(total, out=total)


def clamp(x: Array, low: float, high: float) -> Array:
    """np.clip without its cost a call, which is half the time for short arrays."""
    return np.minimum(np.maximum(x, _F(low)), _F(high))


def smooth_min(a: Array, b: Array, radius: float) -> Array:
    """Union of two distances whose seam is filled with a fillet of about `radius`."""
    h = np.maximum(_F(radius) - np.abs(a - b), _F(0))
    h *= h
    h *= _F(0.25 / radius)
    return np.minimum(a, b) - h


# ---------------------------------------------------------------- shapes


def _ball(p: Array, r: float) -> Array:
    return length(p[0], p[1], p[2]) - _F(r)


def _ellipsoid(p: Array, a: float, b: float, c: float) -> Array:
    k0 = length(p[0] / _F(a), p[1] / _F(b), p[2] / _F(c))
    k1 = length(p[0] / _F(a * a), p[1] / _F(b * b), p[2] / _F(c * c))
    # Exact on the surface; the first-order estimate overshoots far inside thin axes only.
    return np.where(k1 > 1e-6, k0 * (k0 - _F(1)) / np.maximum(k1, _F(1e-6)), _F(-min(a, b, c)))


def _egg(p: Array, r1: float, r2: float, h: float) -> Array:
    slope = (r1 - r2) / h
    side = math.sqrt(max(1.0 - slope * slope, 0.0))
    y = p[1] + _F(h / 2)
    q = length(p[0], p[2])
    k = y * _F(side) - q * _F(slope)
    foot = length(q, y) - _F(r1)
    top = length(q, y - _F(h)) - _F(r2)
    flank = q * _F(side) + y * _F(slope) - _F(r1)
    return np.where(k < 0, foot, np.where(k > _F(side * h), top, flank))


def _box(p: Array, hx: float, hy: float, hz: float, r: float) -> Array:
    x = np.abs(p[0]) - _F(hx - r)
    y = np.abs(p[1]) - _F(hy - r)
    z = np.abs(p[2]) - _F(hz - r)
    zero = _F(0)
    outside = length(np.maximum(x, zero), np.maximum(y, zero), np.maximum(z, zero))
    return outside + np.minimum(np.maximum(x, np.maximum(y, z)), zero) - _F(r)


def _extrude(flat: Array, y: Array, half: float, r: float) -> Array:
    """A flat distance given height 2 * half along y, its edges rounded by r."""
    a = flat + _F(r)
    b = np.abs(y) - _F(half - r)
    zero = _F(0)
    return (
        length(np.maximum(a, zero), np.maximum(b, zero))
        + np.minimum(np.maximum(a, b), zero)
        - _F(r)
    )


def _cylinder(p: Array, radius: float, half: float, r: float) -> Array:
    return _extrude(length(p[0], p[2]) - _F(radius), p[1], half, r)


def _tube(p: Array, radius: float, wall: float, half: float) -> Array:
    flat = np.abs(length(p[0], p[2]) - _F(radius - wall / 2)) - _F(wall / 2)
    return _extrude(flat, p[1], half, min(wall, half) * 0.3)


def _cone(p: Array, r1: float, r2: float, half: float, r: float) -> Array:
    r1, r2, half = max(r1 - r, 0.0), max(r2 - r, 0.0), half - r
    q, y = length(p[0], p[2]), p[1]
    cap_x = q - np.minimum(q, np.where(y < 0, _F(r1), _F(r2)))
    cap_y = np.abs(y) - _F(half)
    kx, ky = r2 - r1, 2.0 * half
    along = ((_F(r2) - q) * _F(kx) + (_F(half) - y) * _F(ky)) / _F(kx * kx + ky * ky)
    along = clamp(along, 0, 1)
    side_x = q - _F(r2) + _F(kx) * along
    side_y = y - _F(half) + _F(ky) * along
    inside = np.where((side_x < 0) & (cap_y < 0), _F(-1), _F(1))
    nearest = np.minimum(cap_x * cap_x + cap_y * cap_y, side_x * side_x + side_y * side_y)
    return inside * np.sqrt(nearest) - _F(r)


def _capsule(p: Array, r: float, half: float) -> Array:
    y = p[1] - clamp(p[1], -half, half)
    return length(p[0], y, p[2]) - _F(r)


def _torus(p: Array, ring: float, tube: float) -> Array:
    return length(length(p[0], p[2]) - _F(ring), p[1]) - _F(tube)


def _arc(p: Array, ring: float, r1: float, r2: float, degrees: float) -> Array:
    span = math.radians(degrees)
    wide, narrow = max(r1, r2), min(r1, r2)
    # Halfway along the unused part of the circle, so that each end is nearest to its own side.
    angle = np.arctan2(p[1], p[0])
    angle = np.where(angle < _F(span / 2 - math.pi), angle + _F(2 * math.pi), angle)
    share = clamp(angle / _F(span), 0, 1)
    at = share * _F(span)
    x = p[0] - _F(ring) * np.cos(at)
    y = p[1] - _F(ring) * np.sin(at)
    away = length(x, y, p[2]) - (_F(r1) + _F(r2 - r1) * share)
    if wide == narrow:
        return away
    # The thicker flesh may be nearer than the nearest place of the centre line.
    slope = math.hypot(1, (wide - narrow) / (ring * span))
    inner = length(length(p[0], p[1]) - _F(ring), p[2]) - _F(wide)
    return np.where(away > _F(wide - narrow), np.maximum(inner, away * _F(0.3)), away / _F(slope))


def _helix(p: Array, coil: float, wire: float, pitch: float, turns: float) -> Array:
    q, y = length(p[0], p[2]), p[1] + _F(pitch * turns / 2)
    phase = np.arctan2(p[2], p[0]) * _F(1 / (2 * math.pi))
    own = np.rint(y / _F(pitch) - phase)
    away = np.full_like(q, np.inf)
    for other in (-1, 0, 1):
        turn = clamp(own + phase + _F(other), 0, turns)
        # At the clipped ends the coil's angle is no longer the point's own.
        off = (turn - phase) * _F(2 * math.pi)
        end = length(q - _F(coil) * np.cos(off), _F(coil) * np.sin(off), y - turn * _F(pitch))
        np.minimum(away, end, out=away)
    away -= _F(wire)
    slope = math.hypot(1, pitch / (2 * math.pi * (coil - wire)))
    # Far from the wire the tube that all turns lie in is a safer guide than the nearest turn.
    shell = length(q - _F(coil), np.maximum(np.abs(p[1]) - _F(pitch * turns / 2), _F(0))) - _F(wire)
    return np.where(away > _F(pitch / 6), np.maximum(shell, away * _F(0.4)), away / _F(slope))


def _polygon(x: Array, z: Array, sides: float, radius: float) -> Array:
    """Flat distance to a regular polygon of circumradius `radius` (short beyond the corners)."""
    sector = 2 * math.pi / sides
    angle = np.arctan2(z, x)
    angle -= _F(sector) * np.rint(angle / _F(sector))
    q = length(x, z)
    along = q * np.sin(angle)
    apothem = radius * math.cos(sector / 2)
    corner = radius * math.sin(sector / 2)
    away = q * np.cos(angle) - _F(apothem)
    beyond = np.maximum(np.abs(along) - _F(corner), _F(0))
    return np.where(away > 0, length(away, beyond), away)


def _prism(p: Array, sides: float, radius: float, half: float, r: float) -> Array:
    # A corner points along x; half a sector of turn lets a flat side face the viewer.
    return _extrude(_polygon(p[2], p[0], sides, radius), p[1], half, r)


def _star(p: Array, tips: float, outer: float, inner: float, half: float) -> Array:
    sector = 2 * math.pi / tips
    angle = np.arctan2(p[0], p[2])
    angle = np.abs(angle - _F(sector) * np.rint(angle / _F(sector)))
    q = length(p[0], p[2])
    x, y = q * np.cos(angle), q * np.sin(angle)
    # The edge from a tip (outer, 0) to the notch beside it.
    ex, ey = inner * math.cos(sector / 2) - outer, inner * math.sin(sector / 2)
    share = clamp(((x - _F(outer)) * _F(ex) + y * _F(ey)) / _F(ex * ex + ey * ey), 0, 1)
    gap = length(x - _F(outer) - _F(ex) * share, y - _F(ey) * share)
    side = (x - _F(outer)) * _F(ey) - y * _F(ex)
    return _extrude(np.where(side < 0, -gap, gap), p[1], half, half * 0.25)


def _gear(p: Array, teeth: float, radius: float, depth: float, half: float) -> Array:
    sector = 2 * math.pi / teeth
    angle = np.arctan2(p[2], p[0])
    angle -= _F(sector) * np.rint(angle / _F(sector))
    q = length(p[0], p[2])
    disc = q - _F(radius - depth / 2)
    # A tooth: a box from inside the disc to radius + depth / 2, a quarter of the pitch half wide.
    x = np.abs(q * np.cos(angle) - _F(radius - depth / 2)) - _F(depth)
    z = np.abs(q * np.sin(angle)) - _F(radius * sector / 4)
    zero = _F(0)
    tooth = length(np.maximum(x, zero), np.maximum(z, zero)) + np.minimum(np.maximum(x, z), zero)
    return _extrude(np.minimum(disc, tooth), p[1], half, half * 0.2)


def _diamond(p: Array, radius: float, half: float) -> Array:
    """A bipyramid on an eight-sided girdle."""
    sector = math.pi / 4
    angle = np.arctan2(p[2], p[0])
    angle -= _F(sector) * np.rint(angle / _F(sector))
    q = length(p[0], p[2]) * np.cos(angle)
    apothem = radius * math.cos(sector / 2)
    norm = math.hypot(half, apothem)
    return (q * _F(half / norm) + np.abs(p[1]) * _F(apothem / norm)) - _F(half * apothem / norm)


def _dome(p: Array, radius: float, cut: float) -> Array:
    rim = math.sqrt(max(radius * radius - cut * cut, 0.0))
    q, y = length(p[0], p[2]), p[1]
    ball = length(q, y) - _F(radius)
    floor = _F(cut) - y
    edge = length(q - _F(rim), y - _F(cut))
    inside = np.maximum(ball, floor)
    near_rim = (q > _F(rim)) & (y < _F(cut))
    return np.where(near_rim, edge, inside)


def _bowl(p: Array, radius: float, wall: float, cut: float) -> Array:
    middle = radius - wall / 2
    rim = math.sqrt(max(middle * middle - cut * cut, 0.0))
    q, y = length(p[0], p[2]), p[1]
    shell = np.abs(length(q, y) - _F(middle))
    edge = length(q - _F(rim), y - _F(cut))
    # Above the cone through the rim the rim is nearest, below it the shell.
    above = y * _F(rim) > q * _F(cut) if cut >= 0 else y * _F(rim) > -q * _F(-cut)
    return np.where(above, edge, shell) - _F(wall / 2)


def _leaf(p: Array, half: float, width: float, thick: float) -> Array:
    """A pointed oval: two circle arcs that meet at y = +-half, flattened to a lens in z."""
    radius = (half * half + width * width) / (2 * width)
    x, y = np.abs(p[0]), np.abs(p[1])
    away = radius - width
    flat = length(x + _F(away), y) - _F(radius)
    tip = length(x, y - _F(half))
    beyond = (y - _F(half)) * _F(away) > x * _F(half)
    flat = np.where(beyond, tip, flat)
    swell = clamp(-flat / _F(width), 0, 1)
    depth = np.abs(p[2]) - _F(thick) * (_F(0.15) + _F(0.85) * swell * (_F(2) - swell))
    zero = _F(0)
    outside = length(np.maximum(flat, zero), np.maximum(depth, zero))
    return (outside + np.minimum(np.maximum(flat, depth), zero)) * _F(
        1 / math.hypot(1, 1.7 * thick / width)
    )


SHAPES: dict[str, Callable[..., Array]] = {
    "ball": _ball,
    "ellipsoid": _ellipsoid,
    "egg": _egg,
    "box": _box,
    "cylinder": _cylinder,
    "tube": _tube,
    "cone": _cone,
    "capsule": _capsule,
    "torus": _torus,
    "arc": _arc,
    "helix": _helix,
    "prism": _prism,
    "star": _star,
    "gear": _gear,
    "diamond": _diamond,
    "dome": _dome,
    "bowl": _bowl,
    "leaf": _leaf,
}


def rope(points: NDArray[np.float64]) -> Field:
    """A rope through `[k, 4]` points (x, y, z, radius), curved by a Catmull-Rom spline."""
    fine = spline(points).astype(np.float32)
    a, edge = fine[:-1].T[:, :, None], np.diff(fine, axis=0).T[:, :, None]
    inverse = _F(1) / np.maximum((edge[:3] * edge[:3]).sum(axis=0), _F(1e-12))

    def piece(p: Array) -> Array:
        x, y, z = (p[j][None, :] - a[j] for j in range(3))
        share = clamp((x * edge[0] + y * edge[1] + z * edge[2]) * inverse, 0, 1)
        away = length(x - share * edge[0], y - share * edge[1], z - share * edge[2])
        return np.asarray((away - (a[3] + edge[3] * share)).min(axis=0))

    def distance(p: Array) -> Array:
        # Pieces small enough that a segment-by-point table stays in the cache.
        n = p.shape[1]
        return np.concatenate([piece(p[:, i : i + 2048]) for i in range(0, max(n, 1), 2048)])

    return distance


def spline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The curve through the points as a polyline, finer where it bends more."""
    if len(points) == 2:
        return points
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    fine = []
    for p0, p1, p2, p3 in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        a, b = (p2 - p0)[:3], (p3 - p1)[:3]
        cosine = a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)
        pieces = 1 + min(4, math.ceil(math.degrees(math.acos(np.clip(cosine, -1, 1))) / 16))
        for t in np.arange(pieces) / pieces:
            fine.append(
                0.5
                * (
                    2 * p1
                    + (p2 - p0) * t
                    + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                    + (3 * p1 - p0 - 3 * p2 + p3) * t**3
                )
            )
    return np.array([*fine, points[-1]])
