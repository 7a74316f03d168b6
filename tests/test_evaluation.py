"""How ImageNet nets are tested: crops of a known image, the fully convolutional form, and whole trees of photographs."""

import shutil

import pytest
import torch
from test_photographs import converted, noise_tree, originals, photographs  # noqa: F401

import reslib
from reslib import evaluation
from reslib.data import photographs as photos


@pytest.fixture(scope="module")
def net():
    """ResNet-18 whose batch normalisation has seen images."""
    torch.manual_seed(0)
    net = reslib.imagenet_resnet(18, "B", num_classes=7)
    for _ in range(3):
        net(torch.randn(4, 3, 64, 64))
    return net.eval()


def test_ten_crops_of_a_known_image():
    """Each pixel says where it comes from; torchvision, which mirrors first, has the same ten."""
    from torchvision.transforms.v2.functional import ten_crop

    y, x = torch.meshgrid(torch.arange(10), torch.arange(14), indexing="ij")
    image = torch.stack([y, x, torch.zeros_like(x)]).float()
    crops = evaluation.ten_crop(image, 4)
    assert crops[:5, :2, 0, 0].tolist() == [[0, 0], [0, 10], [6, 0], [6, 10], [3, 5]]
    assert crops[5:, :2, 0, 0].tolist() == [[0, 3], [0, 13], [6, 3], [6, 13], [3, 8]]
    assert torch.equal(crops[[0, 1, 2, 3, 4, 6, 5, 8, 7, 9]], torch.stack(ten_crop(image, [4, 4])))
    mean = torch.rand(3, 4, 4)
    assert torch.equal(evaluation.ten_crop(image, 4, mean)[7], (image[:, 6:, :4] - mean).flip(2))


def test_the_fully_convolutional_form_at_224_is_the_ordinary_forward(net):
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        scores = evaluation.score_map(net, x)
        assert scores.shape == (2, 7, 7, 7)
        assert torch.allclose(scores.mean((2, 3)), net(x), atol=1e-5)
        assert evaluation.score_map(net, torch.randn(1, 3, 640, 853)).shape == (1, 7, 20, 27)


def test_probabilities_are_averages_over_the_views(net):
    image, mean = torch.randint(256, (3, 300, 400), dtype=torch.uint8), torch.rand(3, 224, 224)
    small = evaluation.shorter(image, 256)
    assert small.shape == (3, 256, 341) and small.max() <= 1
    with torch.inference_mode():
        one = net((small[:, 16:240, 58:282] - mean)[None]).softmax(1)[0]
        ten = net(evaluation.ten_crop(small[:, :, 42:298], 224, mean)).softmax(1).mean(0)
    assert torch.allclose(evaluation.probabilities(net, image, mean, "centre"), one, atol=1e-6)
    assert torch.allclose(evaluation.probabilities(net, image, mean, "ten"), ten, atol=1e-6)


def test_scales_of_a_square_image_of_224_begin_with_the_ordinary_forward(net, monkeypatch):
    monkeypatch.setattr(evaluation, "SIDES", (224,))
    image, mean = torch.randint(256, (3, 224, 224), dtype=torch.uint8), torch.rand(3, 224, 224)
    with torch.inference_mode():
        ordinary = net((image / 255 - mean)[None]).softmax(1)[0]
    assert torch.allclose(evaluation.probabilities(net, image, mean, "scales"), ordinary, atol=1e-5)


@pytest.mark.parametrize("how", ["centre", "ten", "scales"])
def test_a_tree_of_photographs(net, photographs, converted, tmp_path, how, monkeypatch):  # noqa: F811
    monkeypatch.setattr(evaluation, "SIDES", (224, 256))
    (tmp_path / "train").symlink_to(photographs / "train")
    for file in sorted((photographs / "val" / "cat").iterdir())[:2]:
        (tmp_path / "val" / "cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / "cat" / file.name).symlink_to(file)
    shutil.copytree(converted / "beton", tmp_path / "beton", ignore=lambda _, names: [n for n in names if n[-3:] != "npz"])
    result = evaluation.evaluate_photographs(net.train(), tmp_path, how)
    assert result["n"] == 2 and 0 <= result["top5_error"] <= result["top1_error"] <= 100 and result["loss"] > 0
    assert net.training
    net.eval()
    if how == "centre":  # as the loader gives them
        recipe = reslib.IMAGENET
        batches = reslib.loader(recipe, "test", data_dir=tmp_path, backend="torch", workers=0)
        assert reslib.evaluate(net, batches)["loss"] == pytest.approx(result["loss"], abs=0.02)


def test_mistakes(net, tmp_path):
    with pytest.raises(ValueError, match="how is 'eleven'"):
        evaluation.evaluate_photographs(net, tmp_path, "eleven")
    noise_tree(tmp_path)
    photos.statistics(tmp_path)
    with pytest.raises(FileNotFoundError, match="val is no folder"):
        evaluation.evaluate_photographs(net, tmp_path)
