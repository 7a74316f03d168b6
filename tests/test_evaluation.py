"""How ImageNet nets are tested: crops of a known image, the fully convolutional form, and whole trees of photographs."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_photographs import originals, photographs  # noqa: F401
from torchvision.transforms.v2.functional import resize, ten_crop

import reslib
from reslib import evaluation, testing
from reslib.data import photographs as photos
from reslib.data.tree import Tree, decoded


@pytest.fixture(scope="module")
def net():
    """ResNet-18 whose batch normalisation has seen images."""
    torch.manual_seed(0)
    net = reslib.imagenet_resnet(18, "B", num_classes=7)
    for _ in range(3):
        net(torch.randn(4, 3, 64, 64))
    return net.eval()


def test_batches_are_pairs_of_tensors_or_arrays(net):
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    assert reslib.evaluate(net, [(images.numpy(), labels.numpy())]) == reslib.evaluate(net, [[images, labels]])
    for wrong in ((images, labels), [{"images": images}]):
        with pytest.raises(ValueError, match="a batch is a pair"):
            reslib.evaluate(net, wrong)


def test_ten_crops_of_a_known_image():
    """Each pixel says where it comes from; torchvision, which mirrors first, has the same ten."""
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


def test_probabilities_are_averages_over_the_views(net, tmp_path, monkeypatch):
    """Of a net that is tested on pixels minus a mean image."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(tmp_path / "0.png")
    tree = Tree(tmp_path, ["0.png"], np.zeros(1, np.int64), ["noise"], "")
    mean = torch.rand(3, 224, 224)
    small = resize(decoded(tmp_path / "0.png"), [256]) / 255
    assert small.shape == (3, 256, 341) and small.max() <= 1
    monkeypatch.setattr(evaluation, "SIDES", (256,))
    with torch.inference_mode():
        whole = small - torch.nn.functional.interpolate(mean[None], (256, 341), mode="bilinear")[0]
        expected = {
            "centre": net((small[:, 16:240, 58:282] - mean)[None]).softmax(1),
            "ten": net(evaluation.ten_crop(small[:, :, 42:298], 224, mean)).softmax(1).mean(0)[None],
            "scales": evaluation.score_map(net, whole[None]).mean((2, 3)).softmax(1),
        }
    for how, chances in expected.items():
        [found] = testing.tree_probabilities([testing.Entry("", net, mean)], tree, how)
        assert torch.allclose(found, chances, atol=1e-6)


def test_the_centre_crop_is_what_the_loader_gives(net, photographs):  # noqa: F811
    images, mean = photos.tree(photographs, "val"), torch.from_numpy(photos.statistics(photographs)[0]).permute(2, 0, 1)
    [chances] = testing.tree_probabilities([testing.Entry("", net, mean)], images)
    batches = reslib.loader(reslib.IMAGENET, "test", data_dir=photographs, backend="torch", workers=0)
    loss = evaluation.score(chances.log(), torch.from_numpy(images.labels))["loss"]
    assert reslib.evaluate(net.train(), batches)["loss"] == pytest.approx(loss, abs=0.02) and net.training
    net.eval()
