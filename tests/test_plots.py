"""The figures, as a page gets them: SVG that light and dark pages can show, told in words, with the data of their lines."""

import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import reslib
from reslib.evidence import counts, plots

sys.path.append(str(Path(__file__).parents[1] / "book" / "_trace"))
import drawn as svg


@pytest.fixture(autouse=True)
def clean():
    with plt.rc_context():
        plots.style()
        yield
    plt.close("all")


def curves():
    """Two nets, two seeds each, whose error halves over 21 steps."""
    rows = [
        {"shortcut": shortcut, "depth": depth, "seed": seed, "step": step, "train_error": (80 + 4 * seed) / 2 ** (step / 2000)}
        for shortcut, depth in (("none", 56), ("A", 20)) for seed in (0, 1) for step in range(0, 2001, 100)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def two_panels():
    figure, axes = plt.subplots(1, 2, sharey=True)
    for ax in axes:
        plots.learning_curve(curves(), "train_error", ax)
    return figure


def test_colours_stand_out_from_both_pages():
    for palette in (plots.PALETTE, plots.PLAIN):
        levels = [svg.luminance(colour) for colour in palette.values()]
        assert levels == sorted(levels, reverse=True)  # the deeper the darker
        for a, b in zip(levels, levels[1:], strict=False):
            assert a / b > 1.15
        for colour in palette.values():
            assert svg.contrast(svg.luminance(colour), 1) >= 3
            assert svg.contrast(svg.luminance(svg.dark(colour)), svg.DARK_PAGE) >= 3


@pytest.mark.parametrize("light, dark", [("#000000", "#ffffff"), ("#ffffff", "#181818")])
def test_black_and_white_change_places(light, dark):
    assert svg.dark(light) == dark


def test_letters_can_be_read_on_both_pages():
    drawn = svg.html(two_panels())
    styles = [rule for rule in re.findall(r"\{([^}]*)\}|style=\"([^\"]*)\"", drawn) for rule in rule if "font-size" in rule]
    pairs = [re.search(r"light-dark\((#\w{6}), (#\w{6})\)", style).groups() for style in styles]
    assert pairs
    for light, dark in pairs:
        assert svg.contrast(svg.luminance(light), 1) >= 4.5
        assert svg.contrast(svg.luminance(dark), svg.DARK_PAGE) >= 4.5


def test_a_figure_without_an_authors_words_is_told_by_its_axes():
    told = re.search(r'aria-label="([^"]*)"', svg.html(two_panels()))[1]
    assert told.startswith("A figure of 2 panels: running training error (%) over iterations; running")
    plots.architecture({"plain-8": counts.layers(counts.shape_of(reslib.cifar_plain, 8), 32)}, ax=plt.figure().gca())
    assert svg.told(plt.gcf()).startswith("Nets side by side, a box a layer")


def test_the_data_of_the_lines_are_in_the_page():
    found = json.loads(re.search(r'<script type="application/json">(.*?)</script>', svg.html(two_panels()))[1])
    lines = {(line["net"], line["seed"]): line for line in found[0]["lines"]}
    assert len(found) == 2 and set(lines) == {(net, seed) for net in ("plain-56", "ResNet-20") for seed in ("", "0", "1")}
    assert found[0]["xs"][lines["plain-56", ""]["x"]] == list(range(0, 2001, 100))
    assert lines["plain-56", "1"]["y"][-1] == 42 and lines["plain-56", ""]["y"][-1] == 41
    assert lines["plain-56", ""]["dash"] and not lines["ResNet-20", ""]["dash"]


def test_a_narrow_drawing_stacks_the_panels_and_the_figure_is_left_as_it_was():
    figure = two_panels()
    figure.axes[1].label_outer()
    before = figure.get_size_inches().tolist(), [ax.get_ylabel() for ax in figure.axes]
    drawn = svg.html(figure)
    wide, narrow = ([*map(float, view.split()[2:])] for view in re.findall(r'viewBox="([^"]*)"', drawn))
    assert wide[0] > wide[1] and narrow[1] > narrow[0] and narrow[0] < 72 * plots.NARROW + 20
    assert before == (figure.get_size_inches().tolist(), [ax.get_ylabel() for ax in figure.axes])
    assert all(ax.get_legend().get_visible() for ax in figure.axes)
    assert drawn == svg.html(figure)  # the same bytes each time


def test_stacked_panels_have_the_labels_that_they_shared():
    figure, axes = plt.subplots(2, 2, sharex=True, sharey=True)
    for row, error in zip(axes, ("training error", "test error"), strict=True):
        for ax in row:
            plots.learning_curve(curves(), "train_error", ax)
            ax.set(ylabel=error)
            ax.label_outer()
    narrow = svg.svg(figure, "plot-narrow", narrow=True)
    assert [narrow.count(f">{label}</text>") for label in ("training error", "test error", "iterations")] == [2, 2, 4]


def test_lines_that_could_not_be_seen_are_darkened():
    plt.plot([1, 2], color="#56b4e9")  # 2.3 to 1 on white
    drawn = svg.html(plt.gcf())
    assert "#56b4e9" not in drawn and f"stroke: {svg.tinted('#56b4e9', 0.298)}" in drawn


def test_ids_are_unique_and_what_is_referred_to_is_there():
    drawn = svg.html(two_panels())
    ids = re.findall(r'\bid="([^"]*)"', drawn)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', drawn)) <= {(i, "") for i in ids} | {("", i) for i in ids}


@pytest.mark.parametrize("path, short", [
    ("M 505.56 198.55 L 517.5 198.55 L 517.5 134.27 L 505.56 134.27 z ", "m505.6 198.6h11.9v-64.3h-11.9z"),
    ("M 0 0.04 L 0.04 0.04 L 0.08 0.13 L 0.12 0.22", "m0 0h0l.1 .1v.1"),  # errors do not add up
    ("M 0 2 C 0.6 2 1.2 2 1.6 1.6 Q 2 3 -1 0 M 4 4 L 5 6 L 9 9 M 1 1 M 2 2",
     "m0 2c.6 0 1.2 0 1.6-.4q.4 1.4-2.6-1.6m5 4l1 2 4 3m-8-8m1 1"),
])  # fmt: skip
def test_a_path_is_written_in_steps_of_a_tenth(path, short):
    assert re.sub(r' d="([^"]*)"', svg._path, f' d="{path}"') == f' d="{short}"'


def test_lines_are_named_at_their_ends():
    drawn = svg.svg(two_panels(), "plot-wide")
    ends = [
        re.search(r'<text[^>]*x="([\d.]+)"', part) for part in re.findall(r"<text[^>]*>(?:plain-56|ResNet-20)</text>", drawn)
    ]
    assert len(ends) == 4  # once a panel, and no legend


def test_photographs_become_small_pictures():
    figure, ax = plt.subplots()
    noise = np.random.default_rng(0).normal(0.5, 0.05, (256, 256, 3))  # a grey wall, as a camera sees it
    ax.imshow(noise.clip(0, 1), interpolation="none")
    ax.plot([10, 200], [10, 200], color="#ffffff")  # seen on the picture, whatever the page
    drawn = svg.html(figure)
    assert "stroke: #ffffff; stroke-width" in drawn and "light-dark(#ffffff" not in drawn
    assert "data:image/webp;base64" in drawn


def test_a_layer_of_an_architecture_tells_its_shape_and_cost():
    frame = counts.layers(counts.shape_of(reslib.imagenet_plain, 18), 224)
    plots.architecture({"plain-18": frame})
    titles = re.findall(r'class="layer"><title>([^<]*)', svg.html(plt.gcf()))
    assert "plain-18: conv1, output 64 x 112 x 112, 9,408 parameters, 118,013,952 multiply-adds" in titles
    assert len([t for t in titles if "conv" in t]) == 17


def test_nets_stand_one_below_the_other_where_there_is_no_room():
    frame = counts.layers(counts.shape_of(reslib.cifar_plain, 8), 32)
    plots.architecture({"one": frame, "another": frame}, ax=plt.figure(figsize=(7, 4)).add_subplot())
    drawn = svg.html(plt.gcf())
    assert re.findall(r'<svg class="([^"]*)"', drawn) == ["plot-wide", "plot-narrow", "plot-narrow"]
    assert all("9 layers and 0 shortcuts" in told for told in re.findall(r'aria-label="(.*?)"', drawn))


def test_names_may_stand_on_an_axis():
    _, ax = plt.subplots()
    ax.plot(["CIFAR, 20 layers", "CIFAR, 56 layers", "ImageNet"], [1.0, 2.0, 3.0], label="option B")
    ax.plot([1.0, 2.0, 3.0], ["CIFAR, 20 layers", "CIFAR, 56 layers", "ImageNet"], "o")
    ax.legend()
    assert svg.html(ax.figure).count("<svg") == 2


def test_a_map_with_a_colour_bar_is_a_picture():
    _, ax = plt.subplots()
    mesh = ax.pcolormesh(np.arange(4.0).reshape(2, 2), cmap="Blues")
    ax.figure.colorbar(mesh)
    drawn = svg.svg(ax.figure, "plot-wide")
    assert drawn.count("<image") == 2 and not mesh.get_rasterized()
