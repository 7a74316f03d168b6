"""paper.csv is well formed, names every quantity once, and holds what the paper prints."""

import csv
import re
from pathlib import Path

import pytest

LINES = (Path(__file__).parents[1] / "reslib" / "evidence" / "paper.csv").read_text(encoding="utf-8").splitlines()
ROWS = list(csv.DictReader(LINES))
PAPER = {row["quantity"]: row for row in ROWS}
LOCATOR = r"(Table [1-6]|Fig\. [1-7]|§\d(\.\d)?)( footnote \d| \(test set\))?"


def value(quantity):
    return float(PAPER[quantity]["value"])


def test_columns():
    assert all(list(row) == ["quantity", "value", "unit", "spread", "locator"] for row in ROWS)


def test_every_quantity_once():
    assert len(PAPER) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["quantity"])
def test_row(row):
    assert re.fullmatch(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+", row["quantity"])
    assert float(row["value"]) >= 0 and row["unit"].strip()
    assert not row["spread"] or float(row["spread"]) > 0
    assert row["locator"] == "release notes" or re.fullmatch(rf"{LOCATOR}(; {LOCATOR})*", row["locator"])
    table = re.match(r"table(\d)\.", row["quantity"])
    assert not table or row["locator"].startswith((f"Table {table[1]}", "§"))


@pytest.mark.parametrize("quantity, expected", [
    ("table1.resnet18.flops", 1.8e9), ("table1.resnet50.flops", 3.8e9), ("table1.resnet152.flops", 11.3e9),
    ("table1.resnet101.conv4_x.blocks", 23), ("table1.resnet152.conv5_x.out_channels", 2048),
    ("table2.plain18.top1_error", 27.94), ("table2.plain34.top1_error", 28.54),
    ("table3.plain34.top5_error", 10.02), ("table3.resnet34A.top5_error", 7.76), ("table3.resnet34C.top1_error", 24.19),
    ("table4.resnet152.top5_error", 4.49), ("table4.vgg_v5.top1_error", 24.4), ("table5.resnet_ensemble.top5_error", 3.57),
    ("table6.resnet20.test_error", 8.75), ("table6.resnet1202.test_error", 7.93), ("table6.highway32.test_error", 8.80),
    ("table6.resnet56.parameters", 0.85e6), ("s41.resnet34.gain_over_plain34", 3.5), ("s41.resnet34.depth_gain", 2.8),
    ("s33.plain34.share_of_vgg19_flops", 18), ("s42.milestone1", 32e3), ("s42.milestone2", 48e3), ("s42.iterations", 64e3),
    ("s42.weight_decay", 1e-4), ("s42.resnet110.warmup_until_training_error", 80), ("s34.iterations", 60e4),
    ("s41.images_train", 1.28e6), ("s41.images_validation", 50e3), ("s41.images_test", 100e3),
    ("release.resnet50.top1_error_1crop", 24.7),
])  # fmt: skip
def test_as_printed(quantity, expected):
    assert value(quantity) == pytest.approx(expected)


def test_the_only_spreads_are_those_of_repeated_runs():
    assert {q: float(row["spread"]) for q, row in PAPER.items() if row["spread"]} == {
        "table6.resnet110.test_error_mean": 0.16,
        "table6.highway19.test_error_mean": 0.16,
    }


def test_tables_2_and_3_agree():
    assert value("table2.plain34.top1_error") == value("table3.plain34.top1_error")
    assert value("table2.resnet34.top1_error") == value("table3.resnet34A.top1_error")


def test_arithmetic_of_the_paper():
    """What the text rounds follows from the tables: the gains, the 18 %, the depths 6n+2, the layers of Table 1."""
    assert value("table2.resnet18.top1_error") - value("table2.resnet34.top1_error") == pytest.approx(2.8, abs=0.06)
    assert value("table2.plain34.top1_error") - value("table2.resnet34.top1_error") == pytest.approx(3.5, abs=0.06)
    assert 100 * value("fig3.plain34.flops") / value("fig3.vgg19.flops") == pytest.approx(18, abs=0.5)
    for depth in (20, 32, 44, 56, 110, 1202):
        assert 6 * value(f"s42.resnet{depth}.n") + 2 == depth
    for depth, layers in ((18, 2), (34, 2), (50, 3), (101, 3), (152, 3)):
        blocks = sum(value(f"table1.resnet{depth}.conv{stage}_x.blocks") for stage in (2, 3, 4, 5))
        assert layers * blocks + 2 == depth
