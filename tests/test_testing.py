"""python -m reslib test, against the same written anew with torchvision's models and transforms, and as a user calls it."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from test_photographs import noise_tree, originals, photographs  # noqa: F401
from torchvision.transforms import v2

from reslib import IMAGENET, cifar_resnet, imagenet_resnet, testing
from reslib.data import photographs as photos
from reslib.data.cifar import from_workers
from reslib.weights import trained_net, write_weights

CLASSES = 2


def random_weights(name, path, seed, x):
    """A net of torchvision's whose statistics are random too, saved as its users save it."""
    torch.manual_seed(seed)
    net = getattr(torchvision.models, name)(num_classes=CLASSES).eval()
    for key, tensor in net.state_dict().items():
        if tensor.dim() == 1 and "fc" not in key:
            tensor.uniform_(0.5, 1.5) if key.endswith(("var", "weight")) else tensor.normal_(std=0.1)
    with torch.no_grad():  # scores of about 1, so that no probability is 0 or 1
        net.fc.weight /= net(x).std(0).mean()
        net.fc.bias -= net(x).mean(0)
    save_file(net.state_dict(), path) if path.suffix == ".safetensors" else torch.save(net.state_dict(), path)
    return net


@pytest.fixture(scope="module")
def nets(tmp_path_factory, photographs):  # noqa: F811
    """Two nets of torchvision's, by the file of their weights."""
    folder = tmp_path_factory.mktemp("weights")
    named = {"resnet18": "eighteen.pth", "resnet50": "fifty.safetensors"}
    images = photos.tree(photographs, "val")
    x = torch.stack([crop(to_tensor(Image.open(images.folder / name).convert("RGB"))) for name in images.names])
    return {folder / file: random_weights(name, folder / file, i, x) for i, (name, file) in enumerate(named.items())}


to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.uint8, scale=True)])
norm = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
crop = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224), norm])


def independent(net, image, how):
    """Softmax probabilities of a PIL image: torchvision's transforms, one photograph and one scale at a time."""
    pixels = to_tensor(image)
    if how == "scales":
        spatial = torch.nn.Sequential(*list(net.children())[:-2])  # all but pooling and the last layer
        found = []
        for side in (224, 256, 384, 480, 640):
            x = spatial(norm(v2.Resize(side, antialias=True)(pixels))[None])
            found.append(net.fc(x.permute(0, 2, 3, 1)).mean((1, 2)).softmax(1)[0])
        return torch.stack(found).mean(0)
    if how == "ten":
        steps = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(256), v2.TenCrop(224)])
        return net(torch.stack([norm(one) for one in steps(pixels)])).softmax(1).mean(0)
    return net(crop(pixels)[None]).softmax(1)[0]


@pytest.mark.parametrize("how", ["centre", "ten", "scales"])
@torch.inference_mode()
def test_probabilities_are_those_of_an_independent_implementation(photographs, nets, how):  # noqa: F811
    images = photos.source(photographs, "val")
    images = images._replace(names=images.names[:2], labels=images.labels[:2])
    tested = nets if how == "centre" else dict(list(nets.items())[:1])
    entries = [testing.entry(str(path), photographs) for path in tested]
    pictures = [Image.open(images.folder / name).convert("RGB") for name in images.names]
    for found, net in zip(testing.tree_probabilities(entries, images, how), tested.values(), strict=True):
        expected = torch.stack([independent(net, picture, how) for picture in pictures])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert found.std(0).max() > 1e-4  # they differ by photograph


def run(*words):
    return subprocess.run([sys.executable, "-m", "reslib", "test", *map(str, words)], capture_output=True, text=True)


def test_an_ensemble_averages_probabilities(photographs, nets):  # noqa: F811
    paths = list(nets)
    found = run("--weights", paths[0], "--weights", paths[1], "--data-dir", photographs, "--device", "cpu")
    assert found.returncode == 0, found.stderr
    assert "| eighteen " in found.stdout and "| fifty " in found.stdout and "95 % intervals over images" in found.stdout
    assert "stride in the 3x3 convolution" in found.stderr and "--stride-on" in found.stderr
    images = photos.source(photographs, "val")
    with torch.inference_mode():
        pictures = [Image.open(images.folder / name).convert("RGB") for name in images.names]
        chances = sum(torch.stack([independent(net, one, "centre") for one in pictures]) for net in nets.values()) / 2
    wrong = (chances.argmax(1) != torch.from_numpy(images.labels)).double().mean().item()
    line = re.search(r"\| ensemble of 2 +\| ([\d.]+) \[([\d.]+), ([\d.]+)\]", found.stdout)
    assert float(line[1]) == pytest.approx(100 * wrong, abs=0.01) and float(line[2]) < float(line[3])


def test_intervals_are_wilson_s():
    """Against the formula: of 10 wrong in 100."""
    n, p, z = 100, 0.1, 1.959964
    middle, half = (p + z**2 / 2 / n) / (1 + z**2 / n), z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / 4 / n**2) ** 0.5
    assert testing.interval(10.0, 100) == f"10.00 [{100 * (middle - half):.2f}, {100 * (middle + half):.2f}]"


def test_a_1000_class_net_on_a_part_of_imagenet(tmp_path, capsys):
    """Labels among all 1,000, by the folders' names; on other folders it is refused."""
    for part in ("train", "val"):
        for i, name in enumerate(("n01440764", "n02102040", "n03888257")):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (300, 260), (i * 80, 90, 20)).save(tmp_path / part / name / "one.png")
    images = photos.source(tmp_path, "val")
    names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert [names[i] for i in testing.labels_for(images, 1000, "net")] == ["tench", "English springer", "parachute"]
    assert testing.labels_for(images, 3, "net").tolist() == [0, 1, 2]
    assert not capsys.readouterr().err
    numbered = images._replace(classes=sorted(map(str, range(1000))))  # 0, 1, 10, 100: not ImageNet's order
    assert testing.labels_for(numbered, 1000, "net").tolist() == [0, 1, 2]
    assert "are not named as ImageNet's classes (n01440764): they count as these in the order" in capsys.readouterr().err
    with pytest.raises(ValueError, match="net tells 10 classes apart and .* holds 3"):
        testing.labels_for(images, 10, "net")


def test_a_net_of_ours_knows_its_classes_by_name(tmp_path, capsys):
    """Its weights' file holds them: a tree of others, as many, is said to be so; of a part of them each has its own number."""
    noise_tree(tmp_path)  # cat, dog
    recipe = replace(IMAGENET, depth=18, size=64)
    for own, says in ((["cat", "dog"], ""), (["ant", "bee"], "not named as net's classes (ant)")):
        net = recipe.net(2)
        net.classes = own
        write_weights(net, recipe, tmp_path / "net.safetensors")
        again = trained_net(recipe, tmp_path / "net.safetensors")
        assert again.classes == own
        assert testing.labels_for(photos.tree(tmp_path, "train"), 2, "net", again.classes).tolist() == [0] * 4 + [1] * 3
        said = capsys.readouterr().err
        assert says in said and bool(said) == bool(says)
    part = testing.labels_for(photos.tree(tmp_path, "train"), 3, "net", ["ant", "cat", "dog"])
    assert part.unique().tolist() == [1, 2]


@pytest.mark.parametrize("depth", [18, 50])
def test_what_the_tensors_tell(depth, tmp_path):
    torch.manual_seed(0)
    for option in (None, "B") if depth == 18 else ("C",):
        net = imagenet_resnet(depth, option, num_classes=3)
        torch.save({"state_dict": {f"module.{name}": t for name, t in net.state_dict().items()}}, tmp_path / "net.pth")
        again = testing.file_net(tmp_path / "net.pth", shortcut=option and "A", stride_on="1x1").eval()
        x = torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(again(x), net.eval()(x))


def test_mistakes_are_one_sentence(tmp_path, nets, monkeypatch):
    noise_tree(tmp_path)
    (tmp_path / "val").symlink_to(tmp_path / "train")
    (tmp_path / "half.pth").write_bytes(b"PK")
    torch.save(cifar_resnet(8).state_dict(), tmp_path / "cifar.pt")
    weights = next(iter(nets))
    torch.save({name: t for name, t in torch.load(weights).items() if "layer3.0.bn1" not in name}, tmp_path / "less.pt")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody is there
    cases = [
        ("nowhere.pth", {}, "nowhere.pth is no file"),
        ("nowhere.json", {"data_dir": tmp_path / "none"}, "nowhere.safetensors is no file"),
        (tmp_path / "half.pth", {}, "half.pth holds no weights that can be read"),
        (tmp_path / "cifar.pt", {}, "cifar.pt holds no net of Table 1 in torchvision's names"),
        (tmp_path / "less.pt", {}, 'less.pt fits no net of Table 1: Missing key.* "layer3.0.bn1.weight"'),
        (weights, {"how": "eleven"}, "how is 'eleven': test by 'centre'"),
        (weights, {"pixels": "raw"}, "pixels is 'raw'"),
        ("torchvision:vgg16", {}, "torchvision:vgg16 is unknown: use one of resnet18"),
        ("torchvision:resnet18:V9", {}, "use one of resnet18:IMAGENET1K_V1"),
        (weights, {"data_dir": tmp_path / "train" / "cat"}, "give an ImageFolder tree"),
    ]
    for path, words, says in cases:
        with pytest.raises((ValueError, OSError), match=says) as error:
            testing.test([str(path)], **{"data_dir": tmp_path} | words)
        assert len(str(error.value).splitlines()) == 1
    found = run("--data-dir", tmp_path, "--weights", "torchvision:resnet18")
    *downloading, said = found.stderr.strip().splitlines()
    assert found.returncode != 0 and re.search("resnet18 is not in .*hub/checkpoints, and could not be fetched", said)
    assert all(line.startswith("Downloading") for line in downloading) and not found.stdout


def test_a_photograph_that_cannot_be_read_is_named(tmp_path, nets):
    noise_tree(tmp_path)
    (tmp_path / "val").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "dog" / "zz.JPEG").write_bytes(b"no photograph")
    with pytest.raises(ValueError, match="dog/zz.JPEG cannot be decoded"):
        testing.test([str(next(iter(nets)))], tmp_path)


def test_a_strip_is_not_tested_whole(tmp_path, nets):
    noise_tree(tmp_path, 2)
    Image.new("RGB", (3000, 50)).save(tmp_path / "train" / "dog" / "strip.png")
    images, entry = photos.tree(tmp_path, "train"), testing.entry(str(next(iter(nets))), tmp_path)
    assert testing.tree_probabilities([entry], images)[0].shape == (3, CLASSES)
    with pytest.raises(ValueError, match="strip.png is 3000 x 50 pixels"):
        testing.tree_probabilities([entry], images, "scales")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="open files are not listed here")
def test_photographs_that_workers_read_keep_no_files_open(tmp_path):
    noise_tree(tmp_path, 30)
    batches = from_workers(testing._Views(photos.tree(tmp_path, "train"), "centre", 224), 30, 1, collate_fn=list)
    batch, held = next(batches), len(os.listdir("/proc/self/fd"))
    batch.clear()
    assert len(os.listdir("/proc/self/fd")) == held
    batches.close()
