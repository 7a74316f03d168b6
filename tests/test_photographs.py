"""Photographs: converted whole or not at all, read as written or refused; both backends crop and tint alike."""

import errno
import hashlib
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from test_fast import kill_one_of_two
from typer.testing import CliRunner

import reslib
from reslib import IMAGENET
from reslib.__main__ import app
from reslib.data import convert, draws, fast, sources
from reslib.data import photographs as photos
from reslib.data.tree import decoded, read

needs_ffcv = pytest.mark.skipif(not fast.available(), reason="FFCV is not installed here")
RECIPE = replace(IMAGENET, batch=5)
SIZES = [(375, 500), (500, 375), (500, 333), (640, 800), (120, 160), (600, 600), (300, 900)]  # height, width


@pytest.fixture(scope="session")
def originals(root) -> list[Path]:
    """Real photographs at full size: $RESLIB_PHOTOS, or ../shared/data; else skip."""
    folder = Path(os.environ.get("RESLIB_PHOTOS") or root.parent / "shared" / "data" / "imagenet-samples")
    found = sorted(folder.glob("*.JPEG"))
    if not found:
        pytest.skip("no photographs here: set RESLIB_PHOTOS to a folder of .JPEG files")
    return found


@pytest.fixture(scope="session")
def photographs(originals, tmp_path_factory) -> Path:
    """A tree of two classes: 16 real photographs to train on, 6 to test on."""
    top = tmp_path_factory.mktemp("photographs")
    for i, path in enumerate(originals[:22]):
        folder = top / ("train" if i < 16 else "val") / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    return top


def noise_tree(top: Path, count: int = 7) -> Path:
    """A small tree of smooth coloured noise in awkward sizes."""
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        folder = top / "train" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize(SIZES[i % len(SIZES)][::-1], Image.Resampling.BICUBIC).save(folder / f"{i}.JPEG")
    return top


@pytest.fixture(scope="session")
def converted(photographs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("converted")
    for part in ("train", "val"):
        convert.convert(photographs, out, part, "raw", 480, jobs=1)
    return out


@pytest.fixture
def small(tmp_path, request) -> Path:
    """A raw (or jpg) file of seven images, to be damaged."""
    noise_tree(tmp_path / "tree")
    return convert.convert(tmp_path / "tree", tmp_path, "train", getattr(request, "param", "raw"), 480, jobs=1)


def samples(path: Path) -> np.ndarray:
    """What FFCV's own reader says of each: mode, height, width, data_ptr, of its source source_height and source_width."""
    from ffcv.reader import Reader

    table = Reader(str(path)).metadata
    kinds = [(name, table["f0"].dtype[name]) for name in table["f0"].dtype.names]
    rows = np.zeros(len(table), [*kinds, ("source_height", "i8"), ("source_width", "i8"), ("label", "i8")])
    for name, _ in kinds:
        rows[name] = table["f0"][name]
    rows["label"], rows["source_height"], rows["source_width"] = table["f1"], table["f2"], table["f3"]
    return rows


def batches(folder, split="train", recipe=RECIPE, **arguments):
    return list(reslib.loader(recipe, split, data_dir=folder, **arguments))


# --- converting ------------------------------------------------------------------------------------------------------


@needs_ffcv
def test_ffcv_itself_reads_what_was_written(photographs, tmp_path):
    """Opened by FFCV's own Loader, in a process of its own: the same photographs, the shorter side at most 480."""
    import cv2

    path = convert.convert(photographs, tmp_path, "train", "jpg", 480, jobs=1)
    code = f"""if True:
        import numpy as np
        from ffcv.loader import Loader
        from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder
        pipelines = {{"image": [CenterCropRGBImageDecoder((224, 224), 1.0)], "label": [IntDecoder()], "height": None,
                     "width": None}}
        got = [(a.copy(), b.copy()) for a, b in Loader({str(path)!r}, 4, num_workers=1, pipelines=pipelines)]
        np.savez({str(tmp_path / "theirs.npz")!r}, x=np.concatenate([a for a, _ in got]), y=np.concatenate([b for _, b in got]))
    """
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "theirs.npz") as theirs:
        images, labels = theirs["x"], theirs["y"][:, 0]
    tree = photos.tree(photographs, "train")
    assert labels.tolist() == tree.labels.tolist()
    rows = samples(path)
    assert (np.minimum(rows["height"], rows["width"]) <= 480).all()
    for row, name, image in zip(rows, tree.names, images, strict=True):
        original = Image.open(tree.folder / name).convert("RGB")
        assert (row["source_width"], row["source_height"]) == original.size
        side = min(original.size)
        assert min(row["width"], row["height"]) == min(side, 480)
        assert abs(row["width"] / row["height"] - original.width / original.height) < 0.01
        left, top = (original.width - side) // 2, (original.height - side) // 2
        mine = np.array(original.crop((left, top, left + side, top + side)))
        mine = cv2.resize(mine, (224, 224), interpolation=cv2.INTER_AREA)  # as FFCV does
        assert np.abs(mine.astype(int) - image).mean() < (2 if side <= 480 else 10)


@needs_ffcv
def test_a_jpeg_that_needs_no_change_is_kept_as_it_is(photographs, tmp_path):
    path = convert.convert(photographs, tmp_path, "train", "jpg", 480, jobs=1)
    tree, kept = photos.tree(photographs, "train"), 0
    with open(path, "rb") as file:
        for row, name in zip(samples(path), tree.names, strict=True):
            file.seek(int(row["data_ptr"]))
            whole = (tree.folder / name).read_bytes()
            same = file.read(len(whole)) == whole
            assert same == (min(row["source_height"], row["source_width"]) <= 480)
            kept += same
    assert kept > 5


@needs_ffcv
def test_the_sidecar_and_the_files_left(converted):
    stems = [f"imagenet-{part}-raw-480.beton{end}" for part in ("train", "val") for end in ("", ".json")]
    assert sorted(os.listdir(converted / "beton")) == sorted([*stems, "imagenet-train.npz"])
    path = converted / "beton" / "imagenet-train-raw-480.beton"
    note = fast.check(path)
    assert (note["size"], note["count"], note["classes"]) == (path.stat().st_size, 16, ["cat", "dog"])
    assert note["fields"] == ["image", "label", "height", "width"] and note["versions"]["ffcv"] == "1.0.2"
    assert note["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@needs_ffcv
def test_modes_and_bad_files_are_reported(tmp_path, capsys):
    top = noise_tree(tmp_path / "tree", 3)
    folder = top / "train" / "cat"
    grey = Image.open(folder / "0.JPEG").convert("L")
    grey.save(folder / "grey.JPEG")
    grey.convert("CMYK").save(folder / "cmyk.JPEG")
    grey.convert("RGB").save(folder / "png.JPEG", "PNG")
    good = (folder / "grey.JPEG").read_bytes()
    (folder / "truncated.JPEG").write_bytes(good[: len(good) // 2])
    (folder / "empty.JPEG").touch()
    (folder / "text.JPEG").write_text("no photograph")
    (folder / "gone.JPEG").symlink_to(folder / "nowhere")
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"4 of 10 files cannot be read, .*/cat/empty\.JPEG first: .*--skip-unreadable"):
        convert.convert(top, tmp_path, "train", "raw", 480, jobs=1)
    assert time.monotonic() - start < 100 and not (tmp_path / "beton").exists()
    listed = capsys.readouterr().out
    assert all(f"unreadable: {folder / name}.JPEG (" in listed for name in ("truncated", "empty", "text", "gone"))
    for mode in ("raw", "jpg"):
        path = convert.convert(top, tmp_path, "train", mode, 480, jobs=1, skip_unreadable=True)
        note = fast.sidecar(path)
        assert (note["cmyk"], note["greyscale"], len(note["unreadable"]), note["count"]) == (1, 1, 4, 6)
    recipe = replace(RECIPE, batch=6)
    both = [batches(tmp_path, recipe=recipe, backend=name, workers=0, augment=False) for name in ("ffcv", "torch")]
    assert torch.equal(both[0][0][1], both[1][0][1])
    assert torch.allclose(both[0][0][0], both[1][0][0], atol=0.2)  # CMYK and greyscale too


@needs_ffcv
def test_the_command_line_in_two_processes(tmp_path):
    """The report, a progress bar, and the whole check afterwards."""
    top = noise_tree(tmp_path / "tree")
    command = [sys.executable, "-m", "reslib", "data", "imagenet", "--from", str(top), "--dir", str(tmp_path), "--jobs", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    path = tmp_path / "beton" / "imagenet-train-jpg-480.beton"
    assert f"{path}: 7 images of 2 classes" in run.stdout and "0 greyscale, 0 CMYK; unreadable: 0" in run.stdout
    assert "holds no val" in run.stdout and "14/14" in run.stderr
    check = ["data", "imagenet", "--check", "--dir", str(tmp_path)]
    assert "holds no .beton file" in CliRunner().invoke(app, [*check[:-1], str(top)]).stdout
    assert f"{path}: 7 images, as they were written" in CliRunner().invoke(app, check).stdout
    content = bytearray(path.read_bytes())
    content[(1 << 24) + 5] ^= 1
    path.write_bytes(content)
    error = CliRunner().invoke(app, check).exception
    assert isinstance(error, ValueError) and "is damaged" in str(error)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["imagenet"], "which photographs"),
        (["mnist"], "data set 'mnist' is unknown"),
        (["imagenet", "--from", "TREE", "--mode", "png"], "mode 'png' is not raw or jpg"),
        (["imagenet", "--from", "TREE", "--jobs", "1"], "1 of 2 files cannot be read, .*/dog/bad.JPEG first"),
    ],
)
@needs_ffcv
def test_mistakes_on_the_command_line(tmp_path, words, says):
    (noise_tree(tmp_path / "tree", 1) / "train" / "dog").mkdir()
    (tmp_path / "tree" / "train" / "dog" / "bad.JPEG").write_bytes(b"no photograph")
    words = [str(tmp_path / "tree") if word == "TREE" else word for word in words]
    result = CliRunner().invoke(app, ["data", *words, "--dir", str(tmp_path / "out")])
    assert isinstance(result.exception, ValueError) and re.search(says, str(result.exception))
    assert not (tmp_path / "out").exists()


@needs_ffcv
def test_a_tree_without_parts_is_both(tmp_path):
    noise_tree(tmp_path / "tree")
    path = convert.convert(tmp_path / "tree" / "train", tmp_path, "train", "raw", 256, jobs=1)
    rows = samples(path)
    assert len(rows) == 7 and np.minimum(rows["width"], rows["height"]).max() == 256
    assert len(photos.tree(tmp_path / "tree" / "train", "val").names) == 7


@pytest.mark.parametrize(
    ("make", "says"), [(lambda top: top, "is no folder"), (lambda top: top.mkdir(), "holds no photographs")]
)
def test_no_tree_is_one_sentence(tmp_path, make, says):
    make(tmp_path / "tree")
    with pytest.raises(FileNotFoundError, match=says):
        photos.tree(tmp_path / "tree", "train")


def test_a_class_that_only_val_has(tmp_path):
    noise_tree(tmp_path)
    shutil.copytree(tmp_path / "train" / "cat", tmp_path / "val" / "emu")
    with pytest.raises(ValueError, match=r"val/emu is a class that .*train does not have:"):
        photos.tree(tmp_path, "val")
    (tmp_path / "val" / "emu").rename(tmp_path / "val" / "e\u0301mu")  # as a Mac writes it
    shutil.copytree(tmp_path / "train" / "cat", tmp_path / "train" / "\u00e9mu")
    with pytest.raises(ValueError, match="does not have but for how its accents are encoded"):
        photos.tree(tmp_path, "val")


@needs_ffcv
@pytest.mark.parametrize("limit", [1000, (16 << 20) + 100])
def test_full_disk(tmp_path, limit):
    top, before = noise_tree(tmp_path / "tree"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=r"imagenet-train-raw-480\.beton could not be written, and no part .*File too large"):
            convert.convert(top, tmp_path, "train", "raw", 480, jobs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "beton").exists()
    assert convert.convert(top, tmp_path, "train", "raw", 480, jobs=1).exists()


@needs_ffcv
def test_a_killed_process_while_photographs_are_read_is_an_error(tmp_path):
    top = noise_tree(tmp_path / "tree")
    for i in range(3_000):  # many seconds of work
        os.link(top / "train" / "cat" / "0.JPEG", top / "train" / "cat" / f"again-{i}.JPEG")
    killing = threading.Thread(target=kill_one_of_two, args=(1,), daemon=True)
    killing.start()
    with pytest.raises(OSError, match=r"killed, or out of memory, near .*\.JPEG"):
        convert.convert(top, tmp_path / "out", "train", "raw", 480, jobs=1)
    killing.join()
    assert not (tmp_path / "out").exists()


# --- what a folder of photographs may hold ---------------------------------------------------------------------------


@needs_ffcv
def test_hidden_folders_are_no_classes_and_a_changed_list_is_said(tmp_path, capsys):
    top = noise_tree(tmp_path / "tree", 4)
    shutil.copytree(top / "train", top / "val")
    for part in ("train", "val"):
        convert.convert(top, tmp_path, part, "raw", 480, jobs=1)
    (top / "train" / ".ipynb_checkpoints").mkdir()
    (top / "train" / "beton").mkdir()  # a class of that name is one
    shutil.copy(top / "train" / "cat" / "0.JPEG", top / "train" / "beton")
    assert photos.tree(top, "train").classes == ["beton", "cat", "dog"]
    convert.convert(top, tmp_path, "train", "raw", 480, jobs=1)
    with pytest.raises(ValueError, match=r"train-raw-480.beton and imagenet-val-raw-480.beton are of different classes"):
        batches(tmp_path, "val", backend="ffcv")
    convert.convert(top, tmp_path, "val", "raw", 480, jobs=1)
    (_, y), *_ = batches(tmp_path, "val", backend="ffcv")
    assert set(y.tolist()) == {1, 2}


def test_what_is_left_out_is_said(tmp_path, capsys):
    top = noise_tree(tmp_path / "tree", 2)
    (top / "train" / "cat" / "a.txt").touch()
    (top / "train" / "cat" / "deeper").mkdir()
    (top / "train" / "emu").mkdir()
    (top / "train" / "cat" / "._0.JPEG").touch()
    os.mkfifo(top / "train" / "cat" / "pipe.JPEG")  # to read it would take for ever
    assert len(photos.tree(top, "train").names) == 2
    assert "4 entries are not used, 'cat/a.txt' first" in capsys.readouterr().err
    (top / "valid").mkdir()
    with pytest.raises(FileNotFoundError, match=r"val is no folder \(.* holds train, valid\)"):
        photos.tree(top, "val")
    (top / "val" / "cat" / "images").mkdir(parents=True)
    shutil.copy(top / "train" / "cat" / "0.JPEG", top / "val" / "cat" / "images")
    with pytest.raises(FileNotFoundError, match=r"no photographs in folders of classes \(.*'cat/images' first"):
        photos.tree(top, "val")


def test_folders_that_are_no_part_and_hidden_ones_are_said(tmp_path, capsys):
    top = noise_tree(tmp_path / "tree", 2)
    for name in ("valid/cat", "train/.hidden", "beton", "train/cat/.empty"):
        (top / name).mkdir(parents=True)
    for name in ("valid/cat", "train/.hidden"):
        shutil.copy(top / "train" / "cat" / "0.JPEG", top / name)
    assert len(photos.tree(top, "train").names) == 2
    assert f"{top}/train: 2 entries are not used, '.hidden/' first" in capsys.readouterr().err


@needs_ffcv
def test_names_in_latin_1_and_a_panorama(tmp_path):
    top = tmp_path / "my tree"
    (folder := top / "train" / os.fsdecode(b"caf\xe9")).mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 20_000, 3), dtype=np.uint8)).save(folder / os.fsdecode(b"\xe9.png"))
    (folder / os.fsdecode(b"\xe8.png")).write_bytes(b"nothing")
    command = ["data", "imagenet", "--from", top, "--dir", tmp_path, "--mode", "raw", "--jobs", "1", "--skip-unreadable"]
    done = subprocess.run([sys.executable, "-m", "reslib", *command], capture_output=True, text=True)
    assert done.returncode == 0 and r"caf\udce9/\udce8.png (cannot be decoded" in done.stdout, done.stderr
    assert "1 images of 1 classes" in done.stdout
    assert samples(tmp_path / "beton" / "imagenet-train-raw-480.beton")["width"].tolist() == [20_000]
    assert batches(tmp_path, recipe=replace(RECIPE, batch=1), backend="ffcv", augment=False)[0][0].shape == (1, 3, 224, 224)
    (folder / "new.png").touch()
    with pytest.raises(ValueError, match="is not as it was when .* was made of it: run `") as error:
        photos.source(tmp_path, "train")
    _, _, _, *words = shlex.split(re.search("`(.*)`", str(error.value))[1])
    assert words == [*map(str, command[:-3]), "--short-side", "480", "--skip-unreadable"]
    (folder / "new.png").unlink()
    assert CliRunner().invoke(app, words).exit_code == 0


@needs_ffcv
def test_two_conversions_at_once(tmp_path):
    noise_tree(tmp_path / "tree", 3)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: convert.convert(tmp_path / "tree", tmp_path, "train", "jpg", jobs=1), range(2)))
    assert paths[0] == paths[1] and fast.check(paths[0])["count"] == 3
    names = [paths[0].name, paths[0].name + ".json", "imagenet-train.npz"]
    assert sorted(os.listdir(tmp_path / "beton")) == sorted(names)


@needs_ffcv
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_conversion_that_is_stopped_leaves_nothing_or_what_the_next_one_clears_away(tmp_path, number):
    noise_tree(tmp_path / "tree")
    command = [sys.executable, "-m", "reslib", "data", "imagenet", "--from", tmp_path / "tree", "--dir", tmp_path / "out"]
    with subprocess.Popen([*command, "--jobs", "1"], stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("out/beton/*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert (tmp_path / "out").exists() == (number == signal.SIGKILL)
    if number == signal.SIGKILL:
        convert.convert(tmp_path / "tree", tmp_path / "out", "train", jobs=1)
        assert len(os.listdir(tmp_path / "out" / "beton")) == 3  # photographs, sidecar, mean image


@pytest.mark.parametrize("kind", ["webp", "bmp", "tif", "png"])
def test_other_formats_are_read(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "train" / "cat" / f"0.{kind}", lossless=True)
    [name] = photos.tree(tmp_path, "train").names
    assert np.array_equal(read(tmp_path / "train" / name)[0], pixels)


def test_pixels_are_taken_as_they_are_stored_whatever_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6  # lies on its side
    Image.linear_gradient("L").crop((0, 0, 20, 30)).save(tmp_path / "side.jpg", exif=exif)
    with Image.open(tmp_path / "side.jpg") as image:
        assert image.getexif()[0x112] == 6 and np.array_equal(read(tmp_path / "side.jpg")[0], np.array(image.convert("RGB")))


def test_a_disk_s_error_is_not_a_damaged_photograph(tmp_path, monkeypatch):
    """A server that fails for a moment must not cost photographs, as --skip-unreadable would have it."""
    names, read_bytes = [f.name for f in (noise_tree(tmp_path) / "train" / "cat").iterdir()], Path.read_bytes

    def fails(path):
        if path.name == names[1]:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match=f"Stale file handle.*{names[1]}"):
        convert.look(tmp_path / "train" / "cat", names)


def test_too_little_memory_is_not_blamed_on_the_photograph(tmp_path, monkeypatch):
    def full(_):
        raise MemoryError

    (tmp_path / "good.jpg").touch()
    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(OSError, match="good.jpg could not be decoded: there is too little memory"):
        read(tmp_path / "good.jpg")


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(read(tmp_path / "ramp.png")[0][..., 0], np.rint(ramp / 257).astype(np.uint8))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif cannot be decoded \(its pixels are floating-point"):
        read(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 255, np.int32)).save(tmp_path / "long.tif")  # white, or nearly black?
    with pytest.raises(ValueError, match=r"long\.tif cannot be decoded .*of 32 bits"):
        read(tmp_path / "long.tif")


@needs_ffcv
def test_a_jpeg_that_its_decoder_complains_of_is_refused(originals, tmp_path):
    """Random bytes put into the compressed data: PIL makes an image of most."""
    rng, folder = np.random.default_rng(0), tmp_path / "tree" / "train" / "cat"
    folder.mkdir(parents=True)
    for i, path in enumerate(originals[:20]):
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data) // 2, len(data) - 20))
        data[place : place + 16] = rng.bytes(16)
        (folder / f"{i}.JPEG").write_bytes(data)
    found = convert.look(folder, sorted(os.listdir(folder)))[0]
    complaints = [wrong for _, wrong, *_ in found if wrong == "its JPEG data are damaged"]
    assert len(complaints) >= 3
    with pytest.raises(ValueError, match="files cannot be read, .*--skip-unreadable"):
        convert.convert(tmp_path / "tree", tmp_path / "out", "train", "jpg", 480, jobs=1)


def grey_tree(top: Path, value: int) -> None:
    (top / "train" / "cat").mkdir(parents=True, exist_ok=True)
    for i in range(6):
        Image.new("RGB", (256, 256), (value,) * 3).save(top / "train" / "cat" / f"{i}.png")


def test_the_mean_follows_the_photographs(tmp_path):
    for value in (50, 200):
        grey_tree(tmp_path, value)
        images, _ = batches(tmp_path, backend="torch", workers=0, augment=False)[0]
        assert images.abs().max() < 1e-6
    assert np.allclose(photos.statistics(tmp_path)[0], 200 / 255, atol=1e-6)


def test_more_images_in_a_batch_than_there_are(tmp_path):
    grey_tree(tmp_path, 50)
    with pytest.raises(ValueError, match="a batch of 7 is more than the training set holds"):
        batches(tmp_path, recipe=replace(RECIPE, batch=7), backend="torch")


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESLIB_DATA", "~/data")
    assert photos.folder_of() == sources.data_folder() == tmp_path / "data"
    assert sources.data_folder("~/x") == tmp_path / "x"


# --- reading ---------------------------------------------------------------------------------------------------------


@needs_ffcv
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_number_of_workers_changes_nothing(converted, workers):
    for (x, y), (u, v) in zip(
        batches(converted, epoch=2, workers=2), batches(converted, epoch=2, workers=workers), strict=True
    ):
        assert torch.equal(x, u) and torch.equal(y, v)
        assert x.shape == (5, 3, 224, 224) and x.is_contiguous(memory_format=torch.channels_last)


@needs_ffcv
def test_resuming_at_a_batch_continues_the_epoch(converted):
    whole = batches(converted, epoch=3, workers=1)
    rest = batches(converted, epoch=3, workers=1, start_batch=2)
    assert len(whole) == 3 and len(rest) == 1 and torch.equal(whole[2][0], rest[0][0])


@needs_ffcv
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_backends_use_the_same_rectangles_and_colours(converted, photographs, split, monkeypatch):
    """Both are recorded where they are used; and the pixels differ as little as two ways to resize do."""
    seen, original = {"ffcv": [], "torch": []}, photos.rectangle
    for name, found in seen.items():

        def spy(*arguments, found=found):
            place = original(*arguments)
            found.append(np.stack([np.atleast_1d(a) for a in place], 1))
            return place

        monkeypatch.setattr(photos, "rectangle", spy)
        seen[name] = batches(converted, split, backend=name, workers=0, epoch=1), found
    (ours, rectangles), (theirs, others) = seen["ffcv"], seen["torch"]
    assert np.array_equal(np.concatenate(rectangles), np.concatenate(others))
    for (x, y), (u, v) in zip(ours, theirs, strict=True):
        assert torch.equal(y, v) and x.stride() == u.stride()
        assert (x - u).abs().mean() < 6 / 255
        assert ((x - u).mean((2, 3))).abs().max() < 2 / 255  # a colour vector of its own would show


@needs_ffcv
def test_pixels_are_what_the_paper_says(converted, photographs):
    """A crop of the resized photograph, minus the mean image, mirrored, plus the tint: computed here from scratch."""
    draw = draws.photo_draws(0, 4, 16, (256, 480), 0.1)
    mean, covariance = photos.statistics(converted)
    values, vectors = np.linalg.eigh(covariance)
    vectors = vectors * np.sign(vectors.sum(0))
    tree = photos.tree(photographs, "train")
    x, y = batches(converted, epoch=4, backend="torch", workers=0)[0]
    for k, i in enumerate(draw.order[:5]):
        image = Image.open(tree.folder / tree.names[i]).convert("RGB")
        scale = int(draw.scale[i]) / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
        top, left = (int(f) * (n - 223) >> 32 for f, n in ((draw.top[i], image.height), (draw.left[i], image.width)))
        crop = np.asarray(image)[top : top + 224, left : left + 224] / 255 - mean
        crop = crop[:, ::-1] if draw.flip[i] else crop
        crop = crop + vectors @ (draw.colour[i] * values[::-1])[::-1]
        assert np.abs(x[k].permute(1, 2, 0).numpy() - crop).mean() < 1 / 255 and y[k] == tree.labels[i]


@needs_ffcv
def test_the_fused_kernel_is_the_reference_bit_for_bit():
    rng = np.random.default_rng(0)
    pixels, flip = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), np.array([0, 1, 1, 0], np.uint8)
    mean, shift = rng.random((8, 8, 3), np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    out = photos.flip_subtract_tint(pixels, flip, mean, shift)
    for b in range(4):
        image = torch.from_numpy(pixels[b]) / 255 - torch.from_numpy(mean)
        image = image.flip(1) if flip[b] else image
        assert torch.equal(out[b].permute(1, 2, 0), image + torch.from_numpy(shift[b]))


def test_a_rectangle_is_a_pure_function_and_lies_inside():
    rng = np.random.default_rng(0)
    height, width = rng.integers(1, 3000, (2, 5000))
    scale, (top, left) = rng.integers(256, 481, 5000), rng.integers(0, 2**32, (2, 5000))
    place = photos.rectangle(scale, top, left, height, width, 224)
    assert (np.minimum(place.height, place.width) == scale).all()
    for begin, size in ((place.top, place.height), (place.left, place.width)):
        assert (begin >= 0).all() and (begin + 224 <= size).all()
    one = photos.rectangle(scale[7], top[7], left[7], height[7], width[7], 224)
    assert all(a == b[7] for a, b in zip(one, place, strict=True))
    ends = [photos.rectangle(256, f, f, 256, 256, 224).top for f in (0, photos.MIDDLE, 2**32 - 1)]
    assert ends == [0, 16, 32]


def test_the_mean_image_and_the_colour_components(photographs, tmp_path):
    """Without a converted file they are computed from the tree, once; the components are those of the covariance."""
    shutil.copytree(photographs / "train", tmp_path / "train")
    mean, covariance = photos.statistics(tmp_path)
    assert mean.shape == (224, 224, 3) and mean.dtype == np.float32 and 0.3 < mean.mean() < 0.7
    tree = photos.tree(tmp_path, "train")
    crops = torch.stack([centre_crop(decoded(tree.folder / name)) for name in tree.names])
    assert np.allclose(crops.mean(0).permute(1, 2, 0), mean, atol=1e-5)
    assert np.allclose(np.cov(crops.permute(1, 0, 2, 3).reshape(3, -1).numpy()), covariance, atol=1e-4)
    again = photos.statistics(tmp_path)
    assert np.array_equal(mean, again[0])
    values, vectors = photos.components(covariance)
    assert values[0] > values[1] > values[2] > 0
    assert np.allclose(covariance @ vectors, vectors * values) and np.allclose(vectors.T @ vectors, np.eye(3))


def centre_crop(image: torch.Tensor) -> torch.Tensor:
    """The middle 224x224 (half pixels rounded down) at a shorter side of 256, by torchvision's own class, in [0, 1]."""
    from torchvision.transforms import v2

    image = v2.Resize(256)(image) / 255
    top, left = ((n - 224) // 2 for n in image.shape[1:])
    return image[:, top : top + 224, left : left + 224]


@needs_ffcv
def test_statistics_of_both_ways_agree(converted, photographs, tmp_path):
    shutil.copytree(photographs / "train", tmp_path / "train")
    (mean, covariance), (other, another) = photos.statistics(converted), photos.statistics(tmp_path)
    assert np.abs(mean - other).mean() < 0.01 and np.allclose(covariance, another, rtol=0.05, atol=1e-3)


# --- mistakes --------------------------------------------------------------------------------------------------------


@needs_ffcv
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(backend="array"), "backend 'array' holds the whole set in memory"),
        (dict(backend="numpy"), "backend 'numpy' is unknown"),
        (dict(workers=-1), "workers is -1"),
    ],
)
def test_bad_arguments_are_one_sentence(converted, arguments, says):
    with pytest.raises(ValueError, match=says):
        batches(converted, **arguments)


@needs_ffcv
def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m reslib data imagenet --from DIR --dir .*backend='torch'"):
        batches(tmp_path, backend="ffcv")


@needs_ffcv
def test_a_file_of_256_serves_only_nets_without_scale_augmentation(photographs, tmp_path):
    convert.convert(photographs, tmp_path, "train", "raw", 256, jobs=1)
    assert len(batches(tmp_path, recipe=replace(RECIPE, short_side=None), backend="ffcv")) == 3
    with pytest.raises(FileNotFoundError, match="shorter side of 480"):
        batches(tmp_path, backend="ffcv")


def test_a_broken_photograph_is_named_by_the_reference(tmp_path):
    top = noise_tree(tmp_path)
    photos.statistics(top)
    (top / "train" / "cat" / "0.JPEG").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cat/0\.JPEG cannot be decoded"):
        batches(top, backend="torch", workers=0, augment=False)


# --- damage ----------------------------------------------------------------------------------------------------------


def refused(path: Path) -> bool:
    with pytest.raises(ValueError, match=rf"{path.name} is damaged \(.*delete it"):
        batches(path.parents[1], workers=1, backend="ffcv", augment=False)
    return True


@needs_ffcv
def test_every_flipped_byte_of_header_and_tables_is_refused(small):
    rng, note = np.random.default_rng(0), fast.sidecar(small)
    parts = [(0, 24), (24, note["head"]), (note["table"], note["size"])]
    with open(small, "r+b", buffering=0) as file:
        for first, last in parts * 40:
            place = int(rng.integers(first, last))
            file.seek(place)
            was = file.read(1)[0]
            file.seek(place)
            file.write(bytes([was ^ int(rng.integers(1, 256))]))
            assert refused(small)
            file.seek(place)
            file.write(bytes([was]))
    assert len(batches(small.parents[1], backend="ffcv", augment=False)) == 2


@needs_ffcv
@pytest.mark.parametrize("small", ["jpg"], indirect=True)
def test_a_jpeg_that_cannot_be_decoded_is_refused(small):
    row = samples(small)[0]
    with open(small, "r+b") as file:
        file.seek(int(row["data_ptr"]))
        file.write(bytes(100))
    assert refused(small)


@needs_ffcv
def test_truncations_sidecars_and_statistics_are_refused(small):
    good, note = small.read_bytes(), Path(f"{small}.json").read_bytes()
    for size in (0, 1, 23, 24, 2106, 1 << 24, (1 << 24) + 5, len(good) - 1):
        small.write_bytes(good[:size])
        assert refused(small)
    small.write_bytes(good)
    for text in ("", "{", "[]", "null", '{"schema": 2}', "\x00\xff"):
        Path(f"{small}.json").write_text(text)
        assert refused(small)
    Path(f"{small}.json").unlink()
    assert refused(small)
    Path(f"{small}.json").write_bytes(note)
    path = small.with_name("imagenet-train.npz")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"imagenet-train\.npz is damaged"):
        batches(small.parents[1], backend="ffcv")


# --- how it ends -----------------------------------------------------------------------------------------------------


def resident() -> float:
    """MB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@needs_ffcv
@pytest.mark.parametrize("how", ["break", "error"])
def test_a_hundred_epochs_left_early_leave_nothing(small, how):
    recipe = replace(RECIPE, batch=1)

    def epoch():
        for _ in reslib.loader(recipe, "train", data_dir=small.parents[1], backend="ffcv", workers=2):
            if how == "break":
                break
            raise KeyError

    for k in range(105):
        if k == 5:
            threads, files, memory = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd")), 0, resident()
            threads, files = threads
        try:
            epoch()
        except KeyError:
            pass
    until = time.monotonic() + 5
    while len(os.listdir("/proc/self/task")) > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) <= threads and len(os.listdir("/proc/self/fd")) <= files
    assert resident() - memory < 30


@needs_ffcv
def test_an_error_in_a_thread_reaches_the_caller(small, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("in the kernel")

    monkeypatch.setattr("reslib.data.cifar.kernel", lambda: fails)
    with pytest.raises(ZeroDivisionError, match="in the kernel"):
        batches(small.parents[1], backend="ffcv", workers=2)


@needs_ffcv
def test_threads_of_torch_stay_and_batches_may_be_kept(converted):
    before = torch.get_num_threads()
    kept = batches(converted, workers=3)
    copies = [x.clone() for x, _ in kept]
    batches(converted, workers=3, epoch=1)
    assert torch.get_num_threads() == before and all(torch.equal(x, c) for (x, _), c in zip(kept, copies, strict=True))
    got = iter(reslib.loader(RECIPE, "train", data_dir=converted))
    assert len(list(got)) == 3
    with pytest.raises(StopIteration):
        next(got)


@needs_ffcv
def test_two_live_iterators_do_not_meet_under_numbas_worst_threading_layer(converted, cifar, tmp_path):
    """Its "workqueue" aborts the interpreter when two of FFCV's loaders run at once."""
    (tmp_path / "cifar-10-batches-py").symlink_to(cifar / "cifar-10-batches-py")
    code = f"""if True:
        import torch, reslib
        from dataclasses import replace
        recipe = replace(reslib.IMAGENET, batch=5)
        one, two = (iter(reslib.loader(recipe, "train", data_dir={str(converted)!r}, epoch=e, workers=2)) for e in (0, 0))
        cifar = iter(reslib.loader(reslib.CIFAR.at("pocket"), "train", data_dir={str(tmp_path)!r}, backend="ffcv", workers=2))
        for _ in range(3):
            (x, _), (u, _), (c, _) = next(one), next(two), next(cifar)
            assert torch.equal(x, u) and c.shape == (128, 3, 16, 16)
    """
    environ = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=120)
    assert run.returncode == 0, run.stderr


@needs_ffcv
def test_evaluation_loses_no_image_and_ids_are_checked(converted):
    assert [len(y) for _, y in batches(converted, augment=False)] == [5, 5, 5, 1]
    path = photos.stored(converted, "train", 480)
    file = fast.opened(path, 224)
    for bad in (-1, 16):
        zero = np.zeros(1, np.uint8)
        plan = photos.Plan(np.array([bad]), zero.astype(np.uint16) + 256, zero, zero, zero, np.zeros((1, 3), np.float32))
        with pytest.raises(ValueError, match="ids are not from 0 to 15"):
            photos.ffcv_batches(file, path, plan, np.zeros((224, 224, 3), np.float32), 1, 1)


# --- distributions ---------------------------------------------------------------------------------------------------


def test_colour_vectors_have_the_covariance_of_the_data(converted):
    """alpha is N(0, 0.1), so tints are normal with variance (0.1 lambda)^2 along each component: 20,000 of them."""
    values, vectors = photos.components(photos.statistics(converted)[1])
    tints = (draws.photo_draws(3, 5, 20_000, (256, 480), 0.1).colour * values) @ vectors.T
    for along, value in zip((tints @ vectors).T, values, strict=True):
        assert stats.kstest(along / (0.1 * value), "norm").pvalue > 1e-3
    across = np.corrcoef((tints @ vectors).T)[np.triu_indices(3, 1)]
    assert np.abs(across).max() < 4 / np.sqrt(20_000)
