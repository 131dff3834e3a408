"""The words of a sketch: its shapes and what their sizes mean, its materials and its patterns.

The procedural source gives them form; spec files and invented groups may use no others.
"""

SHAPES: dict[str, tuple[str, ...]] = {
    "ball": ("radius",),
    "ellipsoid": ("half x", "half y", "half z"),
    "egg": ("foot radius", "top radius", "distance between"),
    "box": ("half x", "half y", "half z", "rounding"),
    "cylinder": ("radius", "half height", "rounding"),
    "tube": ("radius", "wall", "half height"),
    "cone": ("foot radius", "top radius", "half height", "rounding"),
    "capsule": ("radius", "half length"),
    "torus": ("ring radius", "tube radius"),
    "arc": ("ring radius", "first radius", "last radius", "degrees"),
    "path": (),
    "helix": ("coil radius", "wire radius", "pitch", "turns"),
    "prism": ("sides", "radius", "half height", "rounding"),
    "star": ("tips", "outer radius", "inner radius", "half height"),
    "gear": ("teeth", "radius", "tooth depth", "half height"),
    "diamond": ("radius", "half height"),
    "dome": ("radius", "cut"),
    "bowl": ("radius", "wall", "cut"),
    "leaf": ("half length", "half width", "half thickness"),
}
"""Shape -> its `size`, in order. Lengths in sketch units; every shape stands along y.

`torus` lies flat (its axis is y). `arc` lies in the xy plane: it starts at +x and turns towards
+y for `degrees`, tapering from the first radius to the last. `path` takes `points`
(x, y, z, radius) instead of a size. `dome` keeps the part of a ball above y = cut; `bowl` is the
hollow part of a ball below y = cut. `leaf` is long in y, wide in x, thin in z.
"""

MATERIALS = ("matte", "satin", "glossy", "metal", "glass", "wax", "glow")

PATTERNS = (
    "stripes",  # bands across y
    "rings",  # wood-like shells around y
    "ribs",  # lengthwise bands around y
    "checks",
    "dots",
    "speckle",
    "marble",
    "cells",  # Voronoi: scales, cobbles
    "cracks",  # the seams of cells, painted in paint2
    "bricks",
    "knit",
    "mesh",  # a square grid of wires
    "planks",
    "fuzz",
)

PAINTS = ("body", "second", "accent", "dark", "light")
