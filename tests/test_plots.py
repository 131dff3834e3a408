"""Curves show what the results say, with text that is text, and the same bytes every time."""

import io
import itertools
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from isekai.reports import plots
from isekai.reports.lettering import readable, spread
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
from isekai.reports import plots
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


# ---------------------------------------------------------------- controls


def control(name: str, shots: int, correct: int, model: str = "knn", task: str = "twin"):
    base = result(model=model, task=task, shots=shots, correct=correct, wrong=40 - correct)
    return replace(base, control=name)


def controlled(model="knn", task="twin") -> list:
    """Four shot counts of plain episodes, and every kind of control."""
    found = [control("none", k, 20 + 2 * k, model, task) for k in (0, 1, 2, 4)]
    for name in ("blind", "swap", "words=conflict", "words=true", "words=true+swap"):
        found += [control(name, k, 21 + k, model, task) for k in (0, 1, 2, 4)]
    for rate, correct in (("0.5", 22), ("1", 9)):
        found += [control(f"false={rate}", k, correct, model, task) for k in (0, 1, 2, 4)]
    found += [control("order=3", k, 30, model, task) for k in (1, 2, 4)]
    found += [control("words=true+zero", 0, 38, model, task)]
    found += [control(f"select={name}", k, 31, model, task) for k in (1, 2, 4) for name in "ab"]
    return found


def drawn(results) -> Figure:
    return plots.draw_controls(results)


def panels(figure) -> dict[tuple[str, str], Axes]:
    return {(axes.get_title("left"), axes.get_title("right")): axes for axes in figure.axes}


def names(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def lines(axes) -> dict[str, list[float]]:
    """Name -> the heights of its line, which comes in the order of the names behind chance."""
    marked = [line for line in axes.get_lines() if line.get_marker() != "None"]
    return dict(zip(names(axes)[1:], ([*line.get_ydata()] for line in marked), strict=True))


def test_without_controls_there_is_no_plot_of_them():
    assert plots.controls(RESULTS) == {}
    assert plots.controls([]) == {}


def test_the_curves_leave_controls_out():
    assert plots.curves(controlled()) == plots.curves(
        [one for one in controlled() if one.control == "none"]
    )


def test_each_kind_of_control_has_a_panel_of_its_own():
    found = panels(drawn(controlled()))
    assert list(found) == [
        ("knn", "controls"),
        ("knn", "the true names"),
        ("false labels", "4 shots"),
        ("knn", "support selection"),
    ]
    plain = [(20 + 2 * k) / 40 for k in (0, 1, 2, 4)]
    first = lines(found["knn", "controls"])
    assert list(first) == ["plain", "blind", "swap", "words=conflict", "order=3"]
    assert first["plain"] == plain
    assert first["order=3"] == [0.75] * 3
    assert list(lines(found["knn", "the true names"])) == ["words=true", "swap", "zero"]
    assert lines(found["knn", "support selection"])["a"] == [31 / 40] * 3


def test_the_dial_starts_with_the_plain_episodes_at_a_rate_of_0():
    results = [*controlled(), *controlled(model="other")]
    axes = panels(drawn(results))["false labels", "4 shots"]
    assert list(lines(axes)) == ["knn", "other"]
    assert lines(axes)["knn"] == [28 / 40, 22 / 40, 9 / 40]
    (line, _) = [line for line in axes.get_lines() if line.get_marker() != "None"]
    assert list(line.get_xdata()) == [0, 0.5, 1]


def test_two_rates_are_no_dial_but_lines_among_the_controls():
    results = [one for one in controlled() if one.control != "false=0.5"]
    found = panels(drawn(results))
    assert ("false labels", "4 shots") not in found
    assert lines(found["knn", "controls"])["false=1"] == [9 / 40] * 4


def test_models_are_columns_and_tasks_come_one_below_the_other():
    results = [one for task in ("twin", "foil") for m in ("a", "b") for one in controlled(m, task)]
    figure = drawn(results)
    places = [axes.get_position() for axes in figure.axes if axes.get_title("left") in "ab"]
    assert len(places) == 2 * 2 * 3
    for left, right in zip(places[::2], places[1::2], strict=True):
        assert left.y0 == right.y0
        assert left.x1 < right.x0
    heights = [place.y0 for place in places[::2]]
    assert heights == sorted(heights, reverse=True)
    headings = [text.get_text() for text in figure.texts]
    assert headings[1:] == ["twin", "foil"]


LONG = "openai:org/some-long-model-name-of-2026"


@pytest.mark.parametrize("models", [1, 2, 6])
@pytest.mark.parametrize("draw", [plots.draw, plots.draw_controls])
def test_no_text_meets_another_or_leaves_the_picture(models, draw):
    results = [
        one
        for task in ("twin", "a task of a rather long name")
        for number in range(models)
        for one in controlled(f"{LONG}-{number}", task)
    ]
    figure = draw(results)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # lays out titles and labels of axes
    renderer = canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for one, box in zip(texts, boxes, strict=True):
        assert box.x0 >= 0, one
        assert box.y0 >= 0, one
        assert box.x1 <= figure.bbox.x1, one
        assert box.y1 <= figure.bbox.y1, one
    slack = [Bbox.from_extents(b.x0 + 1, b.y0 + 1, b.x1 - 1, b.y1 - 1) for b in boxes]
    for i, box in enumerate(slack):
        for j in range(i):
            assert not box.overlaps(slack[j]), (texts[i], texts[j])


def test_points_at_one_shot_count_stand_side_by_side():
    axes = drawn([control("none", 2, 30), control("blind", 2, 30), control("swap", 2, 30)]).axes[0]
    places = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() != "None"]
    assert len(set(places)) == 3
    assert np.mean(places) == pytest.approx(plots.place(2))


def test_controls_give_the_same_bytes_again_and_an_svg_that_can_be_parsed():
    hostile = controlled(model="a\x00\x1b]<&$x_1$\u202e")
    found = plots.controls(hostile)
    assert found == plots.controls(hostile)
    root = ElementTree.fromstring(found["svg"])
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "a ]<&$x_1$" in words


def test_a_name_in_a_script_that_the_font_lacks_is_text_in_the_svg():
    found = plots.curves([result(model="模型 один", correct=3, wrong=1)])
    assert "模型 один" in found["svg"].decode()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.2)), max_size=12))
def test_things_are_spread_until_they_do_not_meet_and_no_further_than_they_must(things):
    heights, sizes = [h for h, _ in things], [s for _, s in things]
    found = spread(heights, sizes)
    order = sorted(range(len(found)), key=lambda i: (heights[i], i))
    for a, b in itertools.pairwise(order):
        assert found[b] - found[a] >= (sizes[a] + sizes[b]) / 2 - 1e-9
    assert all(place >= -1e-9 for place in found)
    if sum(sizes) <= 1:
        assert all(place <= 1 + 1e-9 for place in found)
    if len(things) == 1:
        assert found == pytest.approx(heights)


def test_colours_of_names_can_be_read_on_white():
    def luminance(colour: str) -> float:
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in plots.COLOURS:
        assert 1.05 / (luminance(readable(colour)) + 0.05) >= 4.45  # hex colours are rounded
    assert readable("#0072B2").lower() == "#0072b2"
