"""Photographs: converted whole or not at all, read as written or refused; both backends crop and tint alike."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

import reslib
from reslib import IMAGENET, beton, convert, draws, ffcv_backend, imagenet, photos
from reslib.__main__ import app

needs_ffcv = pytest.mark.skipif(not ffcv_backend.available(), reason="FFCV is not installed here")
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
        pipelines = {{"image": [CenterCropRGBImageDecoder((224, 224), 1.0)], "label": [IntDecoder()]}}
        got = [(a.copy(), b.copy()) for a, b in Loader({str(path)!r}, 4, num_workers=1, pipelines=pipelines)]
        np.savez({str(tmp_path / "theirs.npz")!r}, x=np.concatenate([a for a, _ in got]), y=np.concatenate([b for _, b in got]))
    """
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "theirs.npz") as theirs:
        images, labels = theirs["x"], theirs["y"][:, 0]
    tree = photos.tree(photographs, "train")
    assert labels.tolist() == tree.labels.tolist()
    rows = beton.opened(path)
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
        for row, name in zip(beton.opened(path), tree.names, strict=True):
            file.seek(int(row["ptr"]))
            same = file.read(int(row["size"])) == (tree.folder / name).read_bytes()
            assert same == (min(row["source_height"], row["source_width"]) <= 480)
            kept += same
    assert kept > 5


@needs_ffcv
def test_the_sidecar_and_the_files_left(converted):
    names = sorted(os.listdir(converted / "beton"))
    stems = [f"imagenet-{part}-raw-480.beton{end}" for part in ("train", "val") for end in ("", ".json", ".rows")]
    assert names == sorted([*stems, "imagenet-train.checked.json", "imagenet-val.checked.json", "imagenet-train.npz"])
    path = converted / "beton" / "imagenet-train-raw-480.beton"
    note = json.loads(Path(f"{path}.json").read_bytes())
    assert (note["size"], note["count"], note["classes"]) == (path.stat().st_size, 16, ["cat", "dog"])
    assert note["fields"] == ["image", "label"] and note["versions"]["ffcv"] == "1.0.2" and len(note["source"]) == 64
    assert note["sha256"] == hashlib.sha256(Path(f"{path}.rows").read_bytes()).hexdigest()


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
    assert time.monotonic() - start < 10 and not (tmp_path / "beton").exists()
    listed = capsys.readouterr().out
    assert all(f"unreadable: {folder / name}.JPEG (" in listed for name in ("truncated", "empty", "text", "gone"))
    for mode in ("raw", "jpg"):
        path = convert.convert(top, tmp_path, "train", mode, 480, jobs=1, skip_unreadable=True)
        report = beton.sidecar(path)["report"]
        assert (report["cmyk"], report["greyscale"], len(report["unreadable"])) == (1, 1, 4)
        assert len(beton.opened(path)) == 6
    recipe = replace(RECIPE, batch=6)
    both = [batches(tmp_path, recipe=recipe, backend=name, workers=0, augment=False) for name in ("ffcv", "torch")]
    assert torch.equal(both[0][0][1], both[1][0][1])
    assert torch.allclose(both[0][0][0], both[1][0][0], atol=0.2)  # CMYK and greyscale too


@needs_ffcv
def test_the_command_line_in_two_processes(tmp_path):
    """The report, sizes for all of ImageNet, a progress bar."""
    top = noise_tree(tmp_path / "tree")
    command = [sys.executable, "-m", "reslib", "data", "imagenet", "--from", str(top), "--dir", str(tmp_path), "--jobs", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    path = tmp_path / "beton" / "imagenet-train-jpg-480.beton"
    assert f"{path}: 7 images of 2 classes" in run.stdout and "0 greyscale, 0 CMYK; unreadable: 0" in run.stdout
    assert "--mode raw --short-side 480:" in run.stdout and "Recommended: jpg" in run.stdout and "7/7" in run.stderr
    assert len(beton.opened(path)) == 7


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
    rows = beton.opened(path)
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
    with pytest.raises(ValueError, match=r"val/emu is a class that .*train does not have"):
        photos.tree(tmp_path, "val")


@needs_ffcv
@pytest.mark.parametrize("limit", [1000, 3 << 20, (32 << 20) + 100])
def test_full_disk(tmp_path, limit, monkeypatch):
    monkeypatch.setattr(convert, "SHARD", 2)
    top, before = noise_tree(tmp_path / "tree"), resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(convert, "check", lambda images, *_: photos.look(images.folder, images.names))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(
                OSError, match=r"imagenet-train-raw-480\.beton could not be written, and no part .*File too large"
            ):
                convert.convert(top, tmp_path, "train", "raw", 480, jobs=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path / "beton") == []
    assert convert.convert(top, tmp_path, "train", "raw", 480, jobs=1).exists()


@needs_ffcv
def test_a_killed_worker_is_an_error_in_seconds(tmp_path, monkeypatch):
    """And what was finished is kept: the next call writes the same file as one that was never disturbed."""
    monkeypatch.setattr(convert, "SHARD", 1)
    top, out = noise_tree(tmp_path / "tree"), tmp_path / "out"
    convert.check(photos.tree(top, "train"), "train", out / "beton", 1)
    (top / "train" / "cat" / "0.JPEG").rename(tmp_path / "aside")
    os.mkfifo(top / "train" / "cat" / "0.JPEG")  # a worker that opens it waits for ever

    def kill():
        parts = out / "beton" / "imagenet-train-raw-480.parts"
        while len(list(parts.glob("*.npz"))) < 6:
            time.sleep(0.05)
        import multiprocessing

        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    monkeypatch.setattr(convert, "check", lambda *_, **__: [[h, w, "RGB", ""] for h, w in SIZES])
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        OSError, match=r"raw-480\.beton is not finished: a worker died .* near .*/cat/0\.JPEG; .*parts are kept"
    ):
        convert.convert(top, out, "train", "raw", 480, jobs=2)
    killer.join()
    left = {p.suffix for p in out.rglob("*") if p.is_file()}
    assert left <= {".json", ".npz", ".pages", ""} and not list(out.rglob("*.part"))
    os.unlink(top / "train" / "cat" / "0.JPEG")
    (tmp_path / "aside").rename(top / "train" / "cat" / "0.JPEG")


@needs_ffcv
def test_resumed_after_a_kill_it_is_the_same_file(tmp_path, monkeypatch):
    """SIGKILL at two moments of the work, one after the other; then the last call finishes it."""
    top = noise_tree(tmp_path / "tree", 12)
    whole = convert.convert(top, tmp_path / "whole", "train", "raw", 480, jobs=1)
    monkeypatch.setattr(convert, "SHARD", 2)
    shard = convert._shard
    for count, end in ((1, signal.SIGKILL), (3, signal.SIGKILL), (2, 0)):
        left = iter(range(count))

        def counted(*task, left=left):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            shard(*task)

        monkeypatch.setattr(convert, "_shard", counted)
        with warnings.catch_warnings(action="ignore"):  # Python does not like to fork beside threads
            child = os.fork()
        if not child:
            convert.convert(top, tmp_path / "out", "train", "raw", 480, jobs=1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == end
    path = tmp_path / "out" / "beton" / whole.name
    rows, others = beton.opened(path), beton.opened(whole)
    same = [name for name in beton.ROW.names if name not in ("ptr", "room")]
    assert (rows[same] == others[same]).all()
    assert not list(path.parent.glob("*.parts"))


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
    seen, original = {"ffcv": [], "torch": []}, imagenet.rectangle
    for name, found in seen.items():

        def spy(*arguments, found=found):
            place = original(*arguments)
            found.append(np.stack([np.atleast_1d(a) for a in place], 1))
            return place

        monkeypatch.setattr(imagenet, "rectangle", spy)
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
    mean, covariance = imagenet.statistics(converted)
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
    out = np.empty(pixels.shape, np.float32)
    imagenet.kernel()(pixels, flip, mean, shift, out)
    for b in range(4):
        image = torch.from_numpy(pixels[b]) / 255 - torch.from_numpy(mean)
        image = image.flip(1) if flip[b] else image
        assert torch.equal(torch.from_numpy(out[b]), image + torch.from_numpy(shift[b]))


def test_a_rectangle_is_a_pure_function_and_lies_inside():
    rng = np.random.default_rng(0)
    height, width = rng.integers(1, 3000, (2, 5000))
    scale, (top, left) = rng.integers(256, 481, 5000), rng.integers(0, 2**32, (2, 5000))
    place = imagenet.rectangle(scale, top, left, height, width, 224)
    assert (np.minimum(place.height, place.width) == scale).all()
    for begin, size in ((place.top, place.height), (place.left, place.width)):
        assert (begin >= 0).all() and (begin + 224 <= size).all()
    one = imagenet.rectangle(scale[7], top[7], left[7], height[7], width[7], 224)
    assert all(a == b[7] for a, b in zip(one, place, strict=True))
    ends = [imagenet.rectangle(256, f, f, 256, 256, 224).top for f in (0, imagenet.MIDDLE, 2**32 - 1)]
    assert ends == [0, 16, 32]


def test_the_mean_image_and_the_colour_components(photographs, tmp_path):
    """Without a converted file they are computed from the tree, once; the components are AlexNet's within a few degrees."""
    shutil.copytree(photographs / "train", tmp_path / "train")
    mean, covariance = imagenet.statistics(tmp_path)
    assert mean.shape == (224, 224, 3) and mean.dtype == np.float32 and 0.3 < mean.mean() < 0.7
    tree = photos.tree(tmp_path, "train")
    crops = torch.stack([centre_crop(imagenet.decoded(tree.folder / name)) for name in tree.names])
    assert np.allclose(crops.mean(0).permute(1, 2, 0), mean, atol=1e-5)
    assert np.allclose(np.cov(crops.permute(1, 0, 2, 3).reshape(3, -1).numpy()), covariance, atol=1e-4)
    again = imagenet.statistics(tmp_path)
    assert np.array_equal(mean, again[0])
    values, vectors = photos.components(covariance)
    assert values[0] > values[1] > values[2] > 0
    assert np.abs((vectors * photos.PUBLISHED).sum(0)).min() > 0.95


def centre_crop(image: torch.Tensor) -> torch.Tensor:
    """The middle 224x224 (half pixels rounded down) at a shorter side of 256, by torchvision's own class, in [0, 1]."""
    from torchvision.transforms import v2

    image = v2.Resize(256)(image) / 255
    top, left = ((n - 224) // 2 for n in image.shape[1:])
    return image[:, top : top + 224, left : left + 224]


@needs_ffcv
def test_statistics_of_both_ways_agree(converted, photographs, tmp_path):
    shutil.copytree(photographs / "train", tmp_path / "train")
    (mean, covariance), (other, another) = imagenet.statistics(converted), imagenet.statistics(tmp_path)
    assert np.abs(mean - other).mean() < 0.01 and np.allclose(covariance, another, rtol=0.05, atol=1e-3)


# --- mistakes --------------------------------------------------------------------------------------------------------


@needs_ffcv
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(backend="array"), "backend 'array' holds the whole set in memory"),
        (dict(backend="numpy"), "backend 'numpy' is unknown"),
        (dict(recipe=replace(RECIPE, size=64)), "size is 64"),
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
    imagenet.statistics(top)
    (top / "train" / "cat" / "0.JPEG").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cat/0\.JPEG cannot be decoded"):
        batches(top, backend="torch", workers=0, augment=False)


# --- damage ----------------------------------------------------------------------------------------------------------


def refused(path: Path) -> bool:
    """Whether a damaged file is refused, by a sentence that names it, before all of its images were given."""
    with pytest.raises(ValueError, match=rf"{path.name} is damaged \(.*delete it"):
        batches(path.parents[1], workers=1, backend="ffcv", augment=False)
    return True


@needs_ffcv
@pytest.mark.parametrize("small", ["raw", "jpg"], indirect=True)
def test_every_flipped_byte_is_refused(small):
    rng, size = np.random.default_rng(0), small.stat().st_size
    rows = beton.opened(small)
    start = beton.head_size(len(rows))
    parts = [(0, 24), (24, 2106), (2106, 2106 + 7 * 24), (2400, start), (start, size - 7 * 24), (size - 7 * 24, size)]
    within = [(int(r["ptr"]), int(r["ptr"]) + int(r["size"])) for r in rows]
    with open(small, "r+b", buffering=0) as file:
        for first, last in (*parts * 8, *within * 8):
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
@pytest.mark.parametrize("size", [0, 1, 23, 24, 2106, 1 << 24, (1 << 24) + 5, -1])
def test_every_truncation_is_refused(small, size):
    os.truncate(small, size % small.stat().st_size)
    assert refused(small)


@needs_ffcv
@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "\x00\xff"])
def test_an_unreadable_sidecar_is_refused(small, text):
    Path(f"{small}.json").write_text(text)
    assert refused(small)


@needs_ffcv
@pytest.mark.parametrize("name", [".json", ".rows"])
def test_a_missing_companion_is_refused_and_made_again(small, name):
    Path(f"{small}{name}").unlink()
    assert refused(small)
    if name == ".json":
        again = convert.convert(small.parents[1] / "tree", small.parents[1], "train", "raw", 480, jobs=1)
        assert len(beton.opened(again)) == 7


@needs_ffcv
def test_flipped_rows_are_refused(small):
    rows, rng = Path(f"{small}.rows"), np.random.default_rng(0)
    good = rows.read_bytes()
    for place in rng.integers(0, len(good), 50):
        bad = bytearray(good)
        bad[place] ^= int(rng.integers(1, 256))
        rows.write_bytes(bad)
        assert refused(small)


@needs_ffcv
def test_damaged_statistics_are_refused(small):
    path = small.with_name("imagenet-train.npz")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"imagenet-train\.npz is damaged"):
        batches(small.parents[1], backend="ffcv")


@needs_ffcv
def test_truncated_after_opening(small):
    """With a memory map the interpreter would be killed by SIGBUS."""
    got = iter(reslib.loader(replace(RECIPE, batch=1), "train", data_dir=small.parents[1], backend="ffcv", augment=False))
    next(got)
    os.truncate(small, 5000)
    with pytest.raises(ValueError, match="it ends early"):
        list(got)


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
def test_an_error_in_a_thread_reaches_the_caller_and_a_stuck_one_is_given_up(small, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("in the kernel")

    monkeypatch.setattr(imagenet, "kernel", lambda: fails)
    with pytest.raises(ZeroDivisionError, match="in the kernel"):
        batches(small.parents[1], backend="ffcv", workers=2)
    release = threading.Event()
    monkeypatch.setattr(imagenet, "kernel", lambda: lambda *_: release.wait(30))
    monkeypatch.setattr(ffcv_backend, "PATIENCE", 1.0)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"imagenet-train-raw-480\.beton"):
        batches(small.parents[1], backend="ffcv")
    assert time.monotonic() - start < 10
    release.set()


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
    path = imagenet.stored(converted, "train", 480)
    rows = beton.opened(path)
    for bad in (-1, 16):
        zero = np.zeros(1, np.uint8)
        plan = imagenet.Plan(np.array([bad]), zero.astype(np.uint16) + 256, zero, zero, zero, np.zeros((1, 3), np.float32))
        with pytest.raises(ValueError, match="ids are not from 0 to 15"):
            next(imagenet.ffcv_batches(path, rows, plan, np.zeros((224, 224, 3), np.float32), 1, 1))


# --- distributions ---------------------------------------------------------------------------------------------------


def test_colour_vectors_have_the_covariance_of_the_data(converted):
    """alpha is N(0, 0.1), so tints are normal with variance (0.1 lambda)^2 along each component: 20,000 of them."""
    values, vectors = photos.components(imagenet.statistics(converted)[1])
    tints = (draws.photo_draws(3, 5, 20_000, (256, 480), 0.1).colour * values) @ vectors.T
    for along, value in zip((tints @ vectors).T, values, strict=True):
        assert stats.kstest(along / (0.1 * value), "norm").pvalue > 1e-3
    across = np.corrcoef((tints @ vectors).T)[np.triu_indices(3, 1)]
    assert np.abs(across).max() < 4 / np.sqrt(20_000)
