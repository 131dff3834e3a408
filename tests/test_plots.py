"""Curves show what the results say, with text that is text, and the same bytes every time."""

import io
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from isekai import plots
from tests.test_report import result

RESULTS = [
    result(shots=0, abstain=40),
    result(shots=1, correct=26, wrong=14),
    result(shots=2, correct=31, wrong=9),
    result(model="a & b", shots=0, correct=20, wrong=20),
    result(model="a & b", shots=1, correct=31, wrong=9),
    result(model="a & b", shots=2, correct=31, wrong=9),
    result(model="mute", shots=2, failed=4),
    result(task="three", way=3, shots=1, correct=20, wrong=19),
]

SCRIPT = """
import sys
from isekai import plots
from tests.test_plots import RESULTS
sys.stdout.buffer.write(plots.curves(RESULTS)[sys.argv[1]])
"""


def test_the_same_results_give_the_same_bytes_in_another_process():
    here = plots.curves(RESULTS)
    for suffix in ("png", "svg"):
        there = subprocess.run(
            [sys.executable, "-c", SCRIPT, suffix], capture_output=True, check=True
        )
        assert there.stdout == here[suffix]
    assert plots.curves(RESULTS) == here


def test_the_svg_holds_its_words_as_text():
    root = ElementTree.fromstring(plots.curves(RESULTS)["svg"])
    words = {element.text.strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"twin", "three", "knn", "a & b", "chance .50", "chance .33", "shots"} <= words
    assert {"no answer: mute", "4 clusters", "0", "1", "2", ".75"} <= words


def test_the_png_is_a_picture_in_the_colours_of_the_lines():
    picture = np.asarray(Image.open(io.BytesIO(plots.curves(RESULTS)["png"])).convert("RGB"))
    for colour in plots.COLOURS[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (picture == rgb).all(axis=2).sum() > 200


def test_lines_bands_and_chance_stand_where_the_results_say():
    twin, three = plots.draw(RESULTS).axes
    knn, other = [line for line in twin.get_lines() if line.get_marker() != "None"]
    assert list(knn.get_xdata()) == [1, 2]  # no point where it only abstains
    assert list(knn.get_ydata()) == [26 / 40, 31 / 40]
    assert list(other.get_xdata()) == [0, 1, 2]
    (band, _) = twin.collections[:2]
    low = RESULTS[1].metrics["accuracy"].low
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(low)
    for axes, chance in ((twin, 1 / 2), (three, 1 / 3)):
        dashed = [line for line in axes.get_lines() if line.get_marker() == "None"]
        assert list(dashed[0].get_ydata()) == [chance, chance]


def test_doublings_stand_evenly_and_zero_a_step_before_one():
    assert [plots.place(k) for k in (0, 1, 2, 4, 8, 16)] == [0, 1, 2, 3, 4, 5]


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    models = [result(model=f"m{i}", shots=1, correct=39, wrong=1) for i in range(6)]
    axes = plots.draw(models).axes[0]
    heights = sorted(text.xy[1] for text in axes.texts)
    assert len(heights) == 7
    assert min(np.diff(heights)) > 0.06
    assert 0 <= heights[0] <= heights[-1] <= 1


def test_a_line_of_one_point_shows_its_interval():
    axes = plots.draw([result(shots=4, correct=3, wrong=2)]).axes[0]
    assert any(type(part).__name__ == "LineCollection" for part in axes.collections)


def test_a_name_with_dollars_is_a_name_and_no_formula():
    from tests.test_report import result

    drawn = plots.curves([result(model="scripted:$a_$", correct=3, wrong=1), result(correct=4)])
    assert set(drawn) == {"png", "svg"}
