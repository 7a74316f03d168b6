"""The commands that error messages advise, carried out as they are told: after them, what had failed works."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import pytest
from test_photographs import needs_ffcv, noise_tree
from typer.testing import CliRunner

import reslib
from reslib import CIFAR, IMAGENET
from reslib.__main__ import app
from reslib.bench import loading
from reslib.data import sources

RECIPE = replace(IMAGENET.at("extension"), batch=8)


def carry_out(error, **places) -> None:
    """The command between backticks; places: what stands for a word such as DIR."""
    command = re.search("`(python -m reslib .*?)`", str(error.value))[1]
    words = [str(places.get(word, word)) for word in shlex.split(command)[3:]]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture
def tree(tmp_path):
    """Photographs to train on, in a folder whose name has a space."""
    return noise_tree(tmp_path / "my photographs")


def first(folder):
    return next(iter(reslib.loader(RECIPE, "train", data_dir=folder, augment=False, backend="ffcv")))


@needs_ffcv
def test_photographs_are_converted_where_no_file_is_and_anew_where_it_is_damaged_or_older_than_they_are(tree, tmp_path):
    out = tmp_path / "ready made"
    out.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no imagenet-train file") as error:
        first(out)
    carry_out(error, DIR=tree)
    assert len(first(out)[1]) == 7

    (path,) = out.glob("beton/*.beton")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"delete it and {path.name}.json") as error:
        first(out)
    for left in (path, path.with_name(f"{path.name}.json")):
        left.unlink()
    carry_out(error, DIR=tree)
    assert len(first(out)[1]) == 7

    shutil.copy(tree / "train" / "cat" / "0.JPEG", tree / "train" / "cat" / "another.JPEG")
    with pytest.raises(ValueError, match="is not as it was") as error:
        list(reslib.loader(RECIPE, "train", data_dir=out, augment=False, backend="torch"))
    carry_out(error)
    assert len(first(out)[1]) == 8


def test_cifar_is_fetched_where_it_is_missing_or_damaged(cifar, tmp_path, monkeypatch):
    def downloads(root, download):
        shutil.copytree(cifar / sources.FOLDER, root / sources.FOLDER)

    downloads.filename = "cifar-10-python.tar.gz"
    monkeypatch.setattr("torchvision.datasets.CIFAR10", downloads)
    folder = tmp_path / "my data"
    with pytest.raises(FileNotFoundError, match="is no folder") as error:
        reslib.loader(CIFAR, "test", data_dir=folder, backend="array")
    carry_out(error)
    assert len(reslib.loader(CIFAR, "test", data_dir=folder, backend="array")) == 79

    other = tmp_path / "damaged"
    shutil.copytree(folder, other)
    with open(other / sources.FOLDER / "test_batch", "ab") as file:
        file.write(b"1")
    with pytest.raises(ValueError, match="test_batch is damaged") as error:
        reslib.loader(CIFAR, "test", data_dir=other, backend="array")
    shutil.rmtree(other / sources.FOLDER)  # as the sentence says first
    carry_out(error)
    assert len(reslib.loader(CIFAR, "test", data_dir=other, backend="array")) == 79


def test_a_benchmark_is_recorded_where_there_is_none(tmp_path, monkeypatch):
    recorded = json.loads(loading.newest().read_text())
    monkeypatch.setattr(loading, "run", lambda *_: recorded)  # measuring takes minutes
    (tmp_path / "my records").mkdir()
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path / "my records"))
    with pytest.raises(FileNotFoundError, match="no benchmark in") as error:
        loading.newest()
    carry_out(error)
    assert loading.read(loading.newest()) == recorded
