"""C22 before any training: recorded slopes are computed again, and the verdict follows from them."""

import json

import numpy as np
import pytest
from scipy import stats

from reslib.evidence import start

FILE = "notebooks/records/start/slopes.json"


def made_up(forward=0.0, backward=0.0, spread=1e-3):
    """Values as `compute` gives them, He and BN in plain nets alone; slopes spread round a mean."""
    about = np.linspace(-spread, spread, len(start.SEEDS))
    net = dict(zip(start.NAMES, ("He", True, None, "zeros"), strict=True))
    rows = [net | {"depth": d, "forward": list(forward + about), "backward": list(backward + about)} for d in start.DEPTHS]
    return start.table({"seeds": list(start.SEEDS), "rows": rows})


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ({}, "supported"),
        ({"backward": 0.009}, "supported"),
        ({"backward": 0.0102}, "undecided"),
        ({"backward": 0.06}, "contradicted"),
        ({"forward": -0.06}, "contradicted"),
        ({"spread": 0.05}, "undecided"),
        ({"backward": 0.06, "spread": 0.05}, "undecided"),  # too wide to have shown that a gradient is kept
    ],
)
def test_the_rule(slopes, verdict):
    row = start.judge(made_up(**slopes))
    assert row["verdict"] == f"{verdict} at initialisation" and row["n"] == 10


def test_missing_draws_or_depths_leave_it_incomplete():
    frame = made_up(backward=0.06)
    for some in (frame[frame.seed < start.SEEDS[-1]], frame[frame.depth < 110]):
        assert start.judge(some)["verdict"] == "incomplete"


def test_no_file_no_evidence(tmp_path, monkeypatch):
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path))
    assert start.table().empty and start.judge()["verdict"] == "no evidence"
    values = {"seeds": [1], "rows": [{"depth": 20, "init": "He", "bn": True, "shortcut": "A", "padding": "zeros",
                                      "forward": [0.0], "backward": [0.1]}]}  # fmt: skip
    start.write(values, tmp_path / "start")
    assert start.table().to_dict("records") == start.table(values).to_dict("records") and len(start.table()) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": [{}], "seeds": [0]}'])
def test_a_damaged_file_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(start, "folder", lambda: tmp_path)
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "slopes.json").write_text(content)
    with pytest.raises(ValueError, match=r"slopes.json is damaged \(.*\): `python -m reslib start --write .*` makes it again"):
        start.table()


def test_padding_and_scale_of_untrained_nets():
    naive, he = (start.untrained(20, init, True, None, "circular", 3) for init in ("naive", "He"))
    ratio = naive.layer1[0].conv1.weight / he.layer1[0].conv1.weight
    assert ratio.min().item() == pytest.approx(0.01 / (2 / 144) ** 0.5) == pytest.approx(ratio.max().item())
    assert {m.padding_mode for m in he.modules() if hasattr(m, "padding_mode")} == {"circular"}


@pytest.mark.skipif(not start.folder().joinpath("start", "slopes.json").is_file(), reason="not recorded")
def test_recorded_slopes_are_those_of_the_nets(root, cifar):
    recorded = json.loads((root / FILE).read_text())
    settings = [("He", True, None, "zeros"), ("He", False, None, "circular"), ("naive", False, None, "zeros")]
    again = start.compute(cifar, depths=(20,), seeds=(100, 109), settings=settings)
    assert again["data"] == recorded["data"] and recorded["environment"]["dirty"] is False
    for row in again["rows"]:
        theirs = next(r for r in recorded["rows"] if all(r[k] == row[k] for k in ("depth", *start.NAMES)))
        for way in ("forward", "backward"):
            assert row[way] == pytest.approx([theirs[way][0], theirs[way][-1]], rel=1e-3, abs=1e-5)


@pytest.mark.skipif(not start.folder().joinpath("start", "slopes.json").is_file(), reason="not recorded")
def test_the_verdict_follows_from_the_file(root):
    recorded = json.loads((root / FILE).read_text())
    assert recorded["seeds"] == list(start.SEEDS) and len(recorded["rows"]) == len(start.SETTINGS) * len(start.DEPTHS)
    nets = [r for r in recorded["rows"] if (r["init"], r["bn"], r["shortcut"], r["padding"]) == ("He", True, None, "zeros")]
    values = [row[way] for row in nets for way in ("forward", "backward")]
    held = [max(stats.ttest_1samp(v, -0.01, alternative="greater").pvalue,
                stats.ttest_1samp(v, 0.01, alternative="less").pvalue) < 0.05 for v in values]  # fmt: skip
    beyond = sorted(min(stats.ttest_1samp(v, 0.01, alternative="greater").pvalue,
                        stats.ttest_1samp(v, -0.01, alternative="less").pvalue) for v in values)  # fmt: skip
    expected = "supported" if all(held) else "contradicted" if beyond[0] < 0.025 / 10 else "undecided"
    assert start.judge()["verdict"] == f"{expected} at initialisation"


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(reslib_main):
    found = reslib_main("start", "--write", __file__)
    assert found.returncode and "is a file" in " ".join(found.stderr.replace("│", " ").split())
