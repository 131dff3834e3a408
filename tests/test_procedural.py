"""The procedural source: reproducible pictures that show what matters and nothing else."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from isekai import spec
from isekai.protocols import Rejected
from isekai.sources.procedural import ProceduralSource
from isekai.sources.procedural.march import Rays, cast
from isekai.sources.procedural.picture import render
from isekai.sources.procedural.scene import VISIBLE, HiddenPart, bounds, compose
from isekai.sources.procedural.solid import loose
from isekai.types import Concept, ImageRequest, Part, Sketch

GROUPS = spec.load()
CONCEPTS = [concept for group in GROUPS for concept in group.concepts]
BALL = Part(name="ball", shape="ball", size=(0.8,))


def concept(*parts: Part, diagnostic: tuple[str, ...] = ()) -> Concept:
    return Concept(
        id="g/c", name="c", role="novel", sketch=Sketch(parts=parts, diagnostic=diagnostic)
    )


def requests(concept: Concept, count: int, size: int = 40) -> list[ImageRequest]:
    return [
        ImageRequest(concept=concept, index=i, size=size, seed=spec.seed(concept.id, i, 0))
        for i in range(count)
    ]


def pixels(wanted: list[ImageRequest]) -> list[bytes]:
    return [image.tobytes() for image in ProceduralSource().draw(wanted)]  # type: ignore[union-attr]


# ---------------------------------------------------------------- reproducible


def test_order_and_batch_never_change_a_picture():
    wanted = requests(CONCEPTS[0], 3) + requests(CONCEPTS[4], 2)
    together = pixels(wanted)
    assert pixels(wanted[::-1]) == together[::-1]
    assert [pixels([one])[0] for one in wanted] == together
    assert len(set(together)) == len(together)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_another_process_with_other_threads_draws_the_same_bytes(threads: str):
    code = (
        "import hashlib\n"
        "from tests.test_procedural import CONCEPTS, pixels, requests\n"
        "drawn = pixels(requests(CONCEPTS[1], 2))\n"
        "print(hashlib.sha256(b''.join(drawn)).hexdigest())"
    )
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONHASHSEED": threads,
    }
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(b"".join(pixels(requests(CONCEPTS[1], 2)))).hexdigest()
    assert there.stdout.strip() == here


def test_pictures_are_square_rgb_of_the_size_asked_for():
    (image,) = ProceduralSource().draw(requests(CONCEPTS[2], 1, size=50))
    assert not isinstance(image, Rejected)
    assert (image.mode, image.size) == ("RGB", (50, 50))


# ---------------------------------------------------------------- visible


def test_a_part_that_no_view_shows_is_refused_with_its_name():
    inside = Part(name="seed", shape="ball", size=(0.2,))
    hidden = concept(BALL, inside, diagnostic=("seed",))
    (answer,) = ProceduralSource().draw(requests(hidden, 1))
    assert isinstance(answer, Rejected)
    assert "seed" in answer.reason
    with pytest.raises(HiddenPart):
        compose(hidden.sketch, np.random.default_rng(0))  # type: ignore[arg-type]


def test_a_part_on_one_side_turns_the_view_towards_it():
    """The nose points away from the middle view; every picture shows it all the same."""
    nose = Part(name="nose", shape="cone", size=(0.22, 0.02, 0.3, 0.01), at=(0.95, 0, 0),
                turn=(0, 0, -90))  # fmt: skip
    sketch = Sketch(parts=(BALL, nose), diagnostic=("nose",))
    for seed in range(12):
        scene = compose(sketch, np.random.default_rng(seed))
        assert shares(scene)[1] >= VISIBLE * 0.6


def shares(scene) -> np.ndarray:
    """Share of the concept's pixels that each part has, measured at 96 pixels."""
    from isekai.sources.procedural.picture import _look

    step = (np.arange(96, dtype=np.float32) + 0.5) / 96 * 2 - 1
    u, v = (m.ravel() for m in np.meshgrid(step, step))
    part = _look(scene, u, v).hits.part
    own = part[(part >= 0) & (part < len(scene.parts))]
    counts = np.bincount(own, minlength=len(scene.parts))
    return counts / counts.sum()


def test_edges_are_smooth():
    """Across the outline of a light ball in front of a dark wall there are colours in between."""
    image = render(compose(Sketch(parts=(BALL,)), np.random.default_rng(3)), 96).astype(int)
    steps = np.abs(np.diff(image.sum(axis=2), axis=1))
    # A staircase would jump at once; here the largest jumps come with a neighbour of half a step.
    row = np.unravel_index(steps.argmax(), steps.shape)[0]
    jump = steps[row].max()
    assert ((steps[row] > jump * 0.05) & (steps[row] < jump * 0.95)).sum() >= 2


def test_the_ground_is_where_the_lowest_part_ends():
    box = bounds(Sketch(parts=(BALL,)))
    assert box.low[1] == pytest.approx(-0.8, abs=0.01)
    assert box.high[0] == pytest.approx(0.8, abs=0.03)
    standing = compose(Sketch(parts=(BALL,)), np.random.default_rng(0))
    lifted = compose(Sketch(parts=(BALL,), lift=0.5), np.random.default_rng(0))
    assert standing.ground - lifted.ground == pytest.approx(0.5)


def test_a_ray_hits_the_nearest_of_several_parts():
    far = Part(name="far", shape="ball", size=(0.3,), at=(0, 0, -1.0))
    near = Part(name="near", shape="box", size=(0.2, 0.2, 0.2, 0.0), at=(0, 0, 1.0))
    origin = np.float32([[0], [0], [5]])
    direction = np.float32([[0.0], [0.0], [-1.0]])
    for parts in ((far, near), (near, far)):
        hits = cast(parts, Rays(origin=origin, direction=direction))
        assert parts[hits.part[0]].name == "near"
        assert hits.t[0] == pytest.approx(3.8, abs=0.01)
        np.testing.assert_allclose(hits.normal[:, 0], [0, 0, 1], atol=1e-3)


def test_melting_parts_become_one_solid_with_a_fillet():
    a = Part(name="a", shape="ball", size=(0.4,), at=(-0.35, 0, 0), melt=0.2)
    b = Part(name="b", shape="ball", size=(0.4,), at=(0.35, 0, 0), melt=0.2)
    origin, direction = np.float32([[0], [0], [5]]), np.float32([[0.0], [0.0], [-1.0]])
    sharp = [Part(name=p.name, shape=p.shape, size=p.size, at=p.at) for p in (a, b)]
    melted = cast((a, b), Rays(origin=origin, direction=direction)).t[0]
    seam = cast(sharp, Rays(origin=origin, direction=direction)).t[0]
    assert melted < seam - 0.03


# ---------------------------------------------------------------- the sixty concepts


def test_the_built_in_spec_has_twenty_groups_of_two_novel_concepts_and_a_foil():
    assert len(GROUPS) == 20
    for group in GROUPS:
        assert [c.role for c in group.concepts] == ["novel", "novel", "foil"]
    kinds = {c.novelty for c in CONCEPTS if c.role == "novel"}
    assert kinds == {"blend", "material", "form"}


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda c: c.id)
def test_every_concept_hangs_together_and_can_be_seen(concept: Concept):
    assert concept.sketch is not None
    assert loose(concept.sketch) == ()
    seen = shares(compose(concept.sketch, np.random.default_rng(spec.seed(concept.id, 0, 0))))
    for i, part in enumerate(concept.sketch.parts):
        if part.name in concept.sketch.diagnostic:
            assert seen[i] >= VISIBLE * 0.6, part.name


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda c: c.id)
def test_every_concept_has_varied_prompts_and_a_definition(concept: Concept):
    prompts = [spec.expand(concept, index) for index in range(32)]
    assert len(set(prompts)) >= 20
    assert all("{" not in prompt and "  " not in prompt for prompt in prompts)
    assert concept.definition.endswith(".")
    if concept.role == "novel":
        assert concept.sketch is not None
        assert concept.sketch.diagnostic
        assert concept.negative_prompt


def test_overall_colour_does_not_tell_concepts_of_a_group_apart():
    """Logistic regression on colour moments and histograms of whole pictures, within each group.

    Accuracy over the 20 groups stays within its 95 % interval (t, groups as clusters) of chance.
    """
    from scipy import stats
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    per_concept = 12
    source = ProceduralSource()
    features = {
        c.id: np.stack([colours(im) for im in source.draw(requests(c, per_concept, 32))])
        for c in CONCEPTS
    }
    for pair in ((0, 1), (0, 2)):
        accuracy = []
        for group in GROUPS:
            x = np.concatenate([features[group.concepts[i].id] for i in pair])
            y = np.repeat([0, 1], per_concept)
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
            folds = StratifiedKFold(6, shuffle=True, random_state=0)
            accuracy.append(cross_val_score(model, x, y, cv=folds).mean())
        error = np.std(accuracy, ddof=1) / np.sqrt(len(accuracy))
        reach = stats.t.ppf(0.975, len(accuracy) - 1) * error
        assert abs(np.mean(accuracy) - 0.5) <= reach, f"{np.mean(accuracy):.3f} ± {reach:.3f}"


def colours(image) -> np.ndarray:
    """Means, covariances and 8-bin histograms of red, green and blue."""
    x = np.asarray(image, dtype=np.float64).reshape(-1, 3) / 255
    bins = [np.histogram(x[:, k], 8, (0, 1))[0] / len(x) for k in range(3)]
    return np.concatenate([x.mean(axis=0), np.cov(x.T)[np.triu_indices(3)], *bins])
