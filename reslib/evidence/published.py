"""What a published source says of itself: preprocessing, licence, commit, and the test errors that it reports.

A source is a folder <owner>+<repo> with weights, perhaps logs, and perhaps source.toml, whose fields are `Source`'s.
"""

import csv
import glob
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Source:
    """What the weights do not tell. Only mean and std are needed. Raises ValueError for a wrong value."""

    mean: list | float | str  # subtracted from pixels in [0, 1]: a number, one a channel, or "image": the training set's mean
    std: list | float  # then divided by
    commit: str | None = None
    licence: str | None = None
    zero_channels: str | None = None  # option A's: "last", or "around": half on each side of the copied ones
    log: str = "**/{stem}.csv"  # where the log of {stem}.pt is: a CSV file with a column such as test_err or test_acc
    reported: dict = field(default_factory=dict)  # {"final" | "best" | "stated": {stem: test error in percent}}

    def __post_init__(self):
        if self.mean != "image":
            np.broadcast_to(np.asarray(self.mean, float), 3)
        if not (np.broadcast_to(np.asarray(self.std, float), 3) > 0).all():
            raise ValueError(f"std is {self.std}: it must be above 0")
        if self.zero_channels not in (None, "last", "around"):
            raise ValueError(f"zero_channels is {self.zero_channels!r}: use 'last' or 'around'")
        if not all(isinstance(table, dict) for table in self.reported.values()):
            raise ValueError("reported must have the form {final = {name-of-the-weights = 8.27}}")


def describe(folder: Path) -> Source:
    """A source's facts: LICENSE, README.md and reruns.csv beside it, reslib's own table, its source.toml; the last wins.

    Raises ValueError, naming the file to write, if mean and std are found nowhere or a field is wrong.
    """
    facts = {"licence": text(folder / "LICENSE").strip().partition("\n")[0] or None}
    about = text(folder.parent / "README.md").partition(f"`{folder.name}/`")[2].partition("\n- ")[0]
    if stated := re.search(r"\bmean\s+([\d., ]+),\s+std\s+([\d., ]+)", about, re.IGNORECASE):
        facts |= {key: [float(x) for x in re.findall(r"[\d.]*\d", part)]
                  for key, part in zip(("mean", "std"), stated.groups(), strict=True)}  # fmt: skip
    for row in rerun_rows(folder):
        facts |= {key: row[key] for key in ("commit", "licence") if row.get(key)}
    known = tomllib.loads(text(Path(__file__).with_name("published.toml")))
    try:
        return Source(**facts | known.get(name_of(folder), {}) | tomllib.loads(text(folder / "source.toml")))
    except (TypeError, ValueError) as error:
        reason, optional = str(error).replace("Source.__init__() ", ""), ", ".join(f.name for f in fields(Source)[2:])
        raise ValueError(
            f"{name_of(folder)} is not described ({reason}): write {folder / 'source.toml'} with `mean = [r, g, b]`, what is "
            'subtracted from pixels in [0, 1] ("image": the training set\'s mean image), and `std = [r, g, b]`, what they are '
            f"then divided by; optional: {optional}."
        ) from None


def name_of(folder: Path) -> str:
    """owner/repo of a source's folder, owner+repo."""
    return folder.name.replace("+", "/", 1)


def text(path: Path) -> str:
    """A text file's contents; nothing where it is missing."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def rerun_rows(folder: Path) -> list[dict]:
    """The rows about a source in reruns.csv beside it."""
    rows = csv.DictReader(text(folder.parent / "reruns.csv").splitlines())
    return [row for row in rows if row.get("source") == name_of(folder)]


def reported(source: Source, folder: Path, path: Path) -> dict[str, float]:
    """The test errors in percent that a source reports of one file of weights: from reruns.csv, its log, its description.

    "final": of the last epoch; "best": the lowest of all epochs; "stated": a number of which neither is known.
    """
    found = {}
    for row in rerun_rows(folder):
        weights, stat, error = (row.get(key) or "" for key in ("has_weights", "stat", "test_error_percent"))
        if weights.partition(",")[0] == path.relative_to(folder).as_posix() and error:
            found[stat if stat in ("final", "best") else "stated"] = float(error)
    for log in sorted(folder.glob(source.log.format(stem=glob.escape(path.stem))))[:1]:
        table = pd.read_csv(log)
        for column in [name for name in table if re.search("test.*(err|acc)", name.lower())][:1]:
            errors = pd.to_numeric(table[column], errors="coerce").dropna().to_numpy()
            errors = errors * (100 if max(errors, default=0) <= 1 else 1)
            errors = 100 - errors if "acc" in column.lower() else errors
            found |= {"final": round(float(errors[-1]), 4), "best": round(float(min(errors)), 4)} if len(errors) else {}
    return found | {stat: table[path.stem] for stat, table in source.reported.items() if path.stem in table}
