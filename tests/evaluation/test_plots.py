import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.image import imread

from jaxrl_reg.evaluation import plots


def curve(label, level, baseline=False, points=4):
    x = np.arange(1, points + 1) * 1000
    y = level + np.arange(points, dtype=float)
    return plots.Curve(label, x, y, y - 1, y + 1, baseline)


def texts(figure):
    legend = figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def line(figure, label):
    return next(line for line in figure.axes[0].get_lines() if line.get_label() == label)


def test_learning_curves_draw_the_given_numbers():
    curves = [curve("a=0.1", 5.0), curve("bc", 1.0, baseline=True)]
    figure = plots.learning_curves(curves, references={"data": 3.0})
    assert texts(figure) == ["a=0.1", "bc", "data"]
    np.testing.assert_array_equal(line(figure, "a=0.1").get_ydata(), [5, 6, 7, 8])
    np.testing.assert_array_equal(line(figure, "data").get_ydata(), [3, 3])
    assert line(figure, "bc").get_linestyle() == "--"
    bands = figure.axes[0].collections
    assert len(bands) == 2
    assert bands[0].get_paths()[0].get_extents().ymin == 4.0


def test_ordered_settings_are_coloured_along_their_values_and_not_by_rank():
    curves = [curve("a=1", 5.0), curve("a=0.01", 4.0), curve("a=0.1", 3.0)]
    figure = plots.learning_curves(curves, ordered=True)
    assert texts(figure) == ["a=0.01", "a=0.1", "a=1"]
    brightness = [sum(line(figure, f"a={value}").get_color()[:3]) for value in ("0.01", "0.1", "1")]
    assert brightness == sorted(brightness)


def test_more_settings_than_colours_become_grey_with_one_legend_entry():
    curves = [curve(f"a={i}", float(-i)) for i in range(plots.MOST_COLOURS + 3)]
    figure = plots.learning_curves(curves)
    assert "3 other settings" in texts(figure)
    assert len(texts(figure)) == plots.MOST_COLOURS + 1
    assert line(figure, "3 other settings").get_color() == plots.LIGHT.faint


def test_a_single_evaluation_is_a_point_with_its_interval():
    figure = plots.learning_curves([curve("a", 5.0, points=1)])
    assert line(figure, "a").get_marker() == "o"
    (segment,) = figure.axes[0].collections[0].get_segments()
    assert segment[:, 1].tolist() == [4.0, 6.0]


def test_tuning_curve_takes_a_logarithmic_axis_for_large_budgets():
    def budget(count):
        return plots.Curve("a", np.arange(1, count + 1), np.linspace(0, 1, count))

    assert plots.tuning_curve([budget(10)]).axes[0].get_xscale() == "linear"
    assert plots.tuning_curve([budget(500)]).axes[0].get_xscale() == "log"


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_encode_gives_a_readable_png_and_a_transparent_svg(theme):
    figure = plots.performance_profile([curve("a", 0.0)], theme=theme)
    image = imread(io.BytesIO(plots.encode(figure)))
    assert image.shape[0] > 500
    background = [int(theme.background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    np.testing.assert_allclose(image[0, 0, :3], background, atol=1e-3)
    root = ET.fromstring(plots.encode(figure, "svg"))
    assert root.tag.endswith("svg")
    assert "text" not in {element.tag.split("}")[1] for element in root.iter()}  # outlines: no font is needed


def test_the_same_numbers_give_the_same_bytes():
    def draw():
        return plots.data_uri(plots.histogram(np.arange(30.0), xlabel="return"))

    assert draw() == draw()
    assert draw().startswith("data:image/svg+xml;base64,")


def test_large_update_counts_are_shortened():
    assert [plots._thousands(value) for value in (0, 500, 9000, 20_000, 1_500_000)] == [
        "0",
        "500",
        "9000",
        "20k",
        "1.5M",
    ]


def test_a_lineage_draws_every_step_from_the_one_it_came_from_and_the_line_of_the_best():
    values = np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.16], [0.1, 0.08, 0.16]])
    parents = np.array([[0, 1, 1], [0, 0, 2], [0, 1, 2]])
    figure = plots.lineage(values, parents, np.array([0, 0, 1]), ylabel="learning rate")
    assert texts(figure) == ["goes on", "copies and explores", "line of the best"]
    np.testing.assert_array_equal(line(figure, "line of the best").get_ydata(), [0.1, 0.1, 0.08])
    drawn = {(tuple(one.get_xdata()), tuple(one.get_ydata())) for one in figure.axes[0].get_lines()}
    assert ((1, 2), (0.2, 0.16)) in drawn  # the third member took over the second's state and went on from 0.16
    assert ((2, 3), (0.1, 0.08)) in drawn
    assert ((1, 2), (0.4, 0.16)) not in drawn
    assert figure.axes[0].get_yscale() == "log"


def test_a_matrix_writes_its_numbers_and_shades_each_task_by_itself():
    scores = np.array([[1.0, -200.0], [0.5, -100.0], [np.nan, -150.0]])
    figure = plots.matrix(scores, ["before", "plain", "held"], ["stand", "spin"], by_column=True, places=1)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1.0", "-200.0", "0.5", "-100.0", "-150.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["before", "plain", "held"]
    (image,) = axes.images
    np.testing.assert_allclose(np.asarray(image.get_array())[:2], [[1.0, 0.0], [0.0, 1.0]])
    together = plots.matrix(scores, ["a", "b", "c"], ["stand", "spin"]).axes[0].images[0].get_array()
    np.testing.assert_allclose(np.asarray(together)[0], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"expected \[3, 1\]"):
        plots.matrix(scores, ["a", "b", "c"], ["stand"])
