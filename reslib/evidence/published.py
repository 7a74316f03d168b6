"""What a published source says of itself: preprocessing, licence, commit, and the test errors that it reports.

A source is a folder <owner>+<repo> with weights, perhaps logs, and perhaps source.toml:

    mean = [0.49, 0.48, 0.45]         # subtracted from pixels in [0, 1]; "image": the training set's mean image
    std = [0.25, 0.24, 0.26]          # what they are then divided by
    commit = "..."                    # optional, as are licence, and the test errors in percent that no log has:
    reported.final = {resnet20 = 8.27, "resnet32/last" = 7.51}
"""

import csv
import glob
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

FIELDS = ("mean", "std", "commit", "licence", "reported")


def describe(folder: Path) -> dict:
    """A source's FIELDS, by its LICENSE, README.md beside it, reruns.csv, and its own source.toml; the last wins.

    Raises ValueError, naming the file to write, if mean and std are found nowhere or a field is wrong.
    """
    source = {"commit": None, "licence": text(folder / "LICENSE").strip().partition("\n")[0] or None, "reported": {}}
    about = text(folder.parent / "README.md").partition(f"`{folder.name}/`")[2].partition("\n- ")[0]
    for row in rerun_rows(folder):
        source |= {key: row[key].removesuffix(" (LICENSE)") for key in ("commit", "licence") if row.get(key)}
        about += f" {row.get('pixels')}"
    if stated := re.search(r"\bmean\s+([\d., ]+),\s+std\s+([\d., ]+)", about, re.IGNORECASE):
        source["mean"], source["std"] = ([float(x) for x in re.findall(r"[\d.]*\d", part)] for part in stated.groups())
    try:
        source |= tomllib.loads(text(folder / "source.toml"))
        check(source)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name_of(folder)} is not described ({error}): write {folder / 'source.toml'} with `mean = [r, g, b]`, what is "
            'subtracted from pixels in [0, 1] ("image": the training set\'s mean image), and `std = [r, g, b]`, what they are '
            f"then divided by; optional: {', '.join(FIELDS[2:])}."
        ) from None
    return source


def check(source: dict) -> None:
    """Raises ValueError or TypeError, saying what is wrong with a source's fields."""
    if wrong := set(source) ^ set(FIELDS):
        raise ValueError(f"{', '.join(sorted(wrong))}: missing or unknown")
    if source["mean"] != "image" and not (abs(np.broadcast_to(np.asarray(source["mean"], float), 3)) <= 1).all():
        raise ValueError(f"mean is {source['mean']}: it must be of pixels in [0, 1]")
    if not (np.broadcast_to(np.asarray(source["std"], float), 3) > 0).all():
        raise ValueError(f"std is {source['std']}: it must be above 0")
    if not all(isinstance(table, dict) for table in source["reported"].values()):
        raise ValueError("reported must have the form {final = {name-of-the-weights = 8.27}}")


def name_of(folder: Path) -> str:
    """owner/repo of a source's folder, owner+repo."""
    return folder.name.replace("+", "/", 1)


def text(path: Path) -> str:
    """A text file's contents; nothing where it is missing."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def rerun_rows(folder: Path) -> list[dict]:
    """The rows about a source in the project's own reruns.csv, and in one beside it."""
    tables = files(__package__).joinpath("reruns.csv").read_text(encoding="utf-8"), text(folder.parent / "reruns.csv")
    rows = [row for table in tables for row in csv.DictReader(table.splitlines())]
    return [row for row in rows if row.get("source") == name_of(folder)]


def reported(source: dict, folder: Path, path: Path) -> dict[str, float]:
    """The test errors in percent that a source reports of one file of weights: by reruns.csv, its log, source.toml.

    "final": of the last epoch; "best": the lowest of all epochs; "stated": a number of which neither is known. A log is a CSV
    file with the name of the weights, beside them or the only one, and a column such as test_err or test_acc.
    """
    found = {}
    for row in rerun_rows(folder):
        weights, stat, error = (row.get(key) or "" for key in ("has_weights", "stat", "test_error_percent"))
        if weights.partition(",")[0] == path.relative_to(folder).as_posix() and error:
            found[stat if stat in ("final", "best") else "stated"] = float(error)
    logs = [log for log in (path.with_suffix(".csv"),) if log.is_file()] or list(folder.rglob(f"{glob.escape(path.stem)}.csv"))
    for log in logs if len(logs) == 1 else ():
        table = pd.read_csv(log)
        for column in [name for name in table if re.search("test.*(err|acc)", name.lower())][:1]:
            errors = pd.to_numeric(table[column], errors="coerce").dropna()
            errors = errors * (100 if errors.max() <= 1 else 1)
            errors = 100 - errors if "acc" in column.lower() else errors
            found |= {"final": round(float(errors.iloc[-1]), 4), "best": round(float(errors.min()), 4)} if len(errors) else {}
    names = path.stem, path.relative_to(folder).with_suffix("").as_posix()
    return found | {stat: table[name] for stat, table in source["reported"].items() for name in names if name in table}
