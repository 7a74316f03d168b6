"""The audit of published nets: weights in any wrapping, option A's two paddings, sources described or not, known values."""

import json
import random
import struct
import subprocess
import sys
from argparse import Namespace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from reslib import cifar_plain, cifar_resnet
from reslib.data import Images
from reslib.evidence import audit as auditing
from reslib.evidence.audit import MEASURED, audit_folder, audits, measure, read_audit, write_audit
from reslib.evidence.published import describe, reported
from reslib.evidence.weights import departures, readings, zeros_last
from reslib.record import unpack
from reslib.resnet import ZeroPadding
from reslib.weights import read_weights


def random_net(shortcut="A", depth=8, seed=0):
    """A net whose BN statistics and scales are random too, so that no two channels are alike."""
    torch.manual_seed(seed)
    net = cifar_resnet(depth, shortcut)
    for name, tensor in net.state_dict().items():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else tensor.normal_()
    return net.eval()


def safetensors(tensors, path):
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in sorted(tensors.items()):
        raw = tensor.contiguous().numpy().tobytes()
        kind = "F32" if tensor.dtype == torch.float32 else "I64"
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)


class ZerosAround(ZeroPadding):
    """Option A as some sources have it: half of the zero channels on each side of the copied ones."""

    def forward(self, x):
        half = (self.channels - x.shape[1]) // 2
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


def test_zero_channels_on_both_sides_are_the_same_net_but_for_the_order_of_its_channels():
    net, x = random_net(depth=14).double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for block in (net.layer2[0], net.layer3[0]):
        block.downsample.__class__ = ZerosAround
    expected = net(x)
    for block in (net.layer2[0], net.layer3[0]):
        block.downsample.__class__ = ZeroPadding
    assert (net(x) - expected).abs().max() > 1e-3
    torch.testing.assert_close(zeros_last(net)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shortcut", [None, "A", "B", "C"])
def test_weights_are_found_in_any_wrapping(shortcut, tmp_path):
    net, x = random_net(shortcut), torch.randn(2, 3, 32, 32)
    own = net.state_dict()
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in own))
    forms = {
        "plain.pt": own,
        "module.th": {"state_dict": {f"module.{name}": t for name, t in own.items()}, "best_prec1": 91.5},
        "other.ckpt": {"epoch": 3, "best": np.float64(91), "args": Namespace(lr=0.1), "model": {
            f"model.module.layer_{modules.index(n.rpartition('.')[0])}.{n.rpartition('.')[2]}": t for n, t in own.items()}},
        "averaged.pkl": {"n_averaged": torch.tensor(3)} | own | {"conv1.total_ops": torch.zeros(1)},
        "half.pth": {"net": {name: t.half() for name, t in own.items()}, "best_acc": 0.915},
    }  # fmt: skip
    for name, form in forms.items():
        torch.save(form, tmp_path / name)
    safetensors(own, tmp_path / "net.safetensors")
    for name in (*forms, "net.safetensors"):
        tensors, best = read_weights(tmp_path / name)
        found = {(option, zeros): net for option, zeros, net in readings(tensors)}
        plain_or_a = {(None, None), ("A", "last"), ("A", "around")}
        assert set(found) == (plain_or_a if shortcut in (None, "A") else {(shortcut, None)})
        again = found[shortcut, "last" if shortcut == "A" else None]
        torch.testing.assert_close(again(x), net(x), rtol=0, atol=0.2 if name == "half.pth" else 0)
        assert best == (8.5 if name in ("module.th", "half.pth") else None)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (torch.nn.Linear(2, 2), "no weights that can be read without running its code"),
        ({"epoch": 3}, "holds no state dict"),
        ({"fc.weight": torch.tensor([[float("nan")]])}, "holds NaN or infinity"),
        (b"version https://git-lfs.github.com/spec/v1", "no weights that can be read"),
    ],
)
def test_what_is_no_weights_is_refused(form, says, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(form) if isinstance(form, bytes) else torch.save(form, path)
    with pytest.raises(ValueError, match=f"net.pt.*{says}") as error:
        read_weights(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("shortcut", [None, "A", "B", "C"])
def test_modules_are_paired_by_their_names_in_whatever_order_they_stand(shortcut):
    net, x = random_net(shortcut, depth=68), torch.randn(2, 3, 8, 8)
    own = {name: t for name, t in net.state_dict().items() if t.dim()}
    biased = dict(own)
    for conv in [name.removesuffix(".weight") for name, t in own.items() if t.dim() == 4]:
        mean = f"{conv.replace('conv', 'bn').replace('downsample.0', 'downsample.1')}.running_mean"
        biased[f"{conv}.bias"] = torch.randn(len(own[mean]))
        biased[mean] = own[mean] + biased[f"{conv}.bias"]
    shuffled = list(biased)
    random.Random(0).shuffle(shuffled)
    forms = {
        "shuffled": {name: own[name] for name in shuffled if name in own},
        "with biases": {name.replace("layer", "stage.block_"): biased[name] for name in shuffled},
        "as in a .safetensors file": {name.replace("conv1", "c1").replace("bn", "b"): own[name] for name in sorted(own)},
        "under two names": own | {name.replace("conv", "seq.").replace("bn", "seq.1"): t for name, t in own.items()},
    }
    for form, tensors in forms.items():
        again = {option: net for option, zeros, net in readings(tensors) if zeros != "around"}[shortcut]
        torch.testing.assert_close(again(x), net(x), rtol=1e-3, atol=1e-3, msg=form)


def test_weights_of_another_net_fit_none():
    own = {name: t for name, t in random_net("A", 20).state_dict().items() if t.dim()}
    blocks = [f"layer{stage}.{i}.{name}" for stage in (1, 2, 3) for i in range(3) for name in ("bn1", "conv1", "bn2", "conv2")]
    modules = dict(zip(dict.fromkeys(name.rpartition(".")[0] for name in own), ("conv", *blocks, "bn", "fc"), strict=True))
    for wrong in (
        own | {"extra": torch.zeros(3)}, own | {"fc.mask": torch.ones(10, 64)}, own | {"layer1.0.gate": torch.tensor(0.5)},
        own | {"fc.weight": torch.zeros(100, 64), "fc.bias": torch.zeros(100)}, {"fc.weight": torch.zeros(10, 64)},
        {f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": t for name, t in own.items()},  # it normalises first
    ):  # fmt: skip
        with pytest.raises(ValueError, match="fits no CIFAR net of reslib"):
            list(readings(wrong))


def test_a_source_is_described_by_its_own_file_before_all_else(tmp_path):
    folder = tmp_path / "a-martyn+resnet"
    folder.mkdir()
    known = describe(folder)
    assert (known["mean"], known["std"], known["licence"]) == ([0.49187, 0.49186, 0.49186], [0.24697], "BSD-3-Clause")
    (folder / "source.toml").write_text('mean = "image"\nstd = 1\nlicence = "MIT"\n')
    assert [describe(folder)[key] for key in ("mean", "std", "licence")] == ["image", 1, "MIT"]
    for line in (
        "mean = 125\nstd = 1", "std = 0", "std = [1, 2]", 'mean = "photograph"', "colour = 1", "std =", "reported.x = 1",
    ):  # fmt: skip
        (folder / "source.toml").write_text(line)
        with pytest.raises(ValueError, match=r"^a-martyn/resnet is not described \(.*write .*source.toml") as error:
            describe(folder)
        assert len(str(error.value).splitlines()) == 1


def test_a_source_is_described_by_the_files_beside_it(tmp_path):
    folder = tmp_path / "some+where"
    (folder / "models").mkdir(parents=True)
    with pytest.raises(ValueError, match="some/where is not described .*mean.*std.*: write"):
        describe(folder)
    (folder / "LICENSE").write_text("MIT License\n\nCopyright")
    (tmp_path / "README.md").write_text(
        "- `else+where/`: mean 0, 0, 0, std 9, 9, 9.\n"
        "- `some+where/` (MIT): Mean std of responses 0.8. Mean 0.49, 0.48, 0.45, std 0.2, 0.3, 0.25.\n- more"
    )
    (tmp_path / "reruns.csv").write_text(
        "source,commit,licence,has_weights,stat,test_error_percent\n"
        'some/where,abc,,"models/r.pt, 9",unclear,8.1\nelse/where,x,y,models/r.pt,final,9'
    )
    source = describe(folder)
    assert (source["mean"], source["std"]) == ([0.49, 0.48, 0.45], [0.2, 0.3, 0.25])
    assert (source["commit"], source["licence"]) == ("abc", "MIT License")
    assert reported(source, folder, folder / "models" / "r.pt") == {"stated": 8.1}
    (folder / "r.csv").write_text("epoch,train_acc,test_acc\n1,0.5,0.5\n2,0.9,0.915\n3,0.9,0.91\n4,0.9,none\n")
    assert reported(source, folder, folder / "models" / "r.pt") == {"stated": 8.1, "final": 9.0, "best": 8.5}
    (folder / "models" / "r.csv").write_text("test_err\n7\n")  # nearer
    assert reported(source, folder, folder / "models" / "r.pt") == {"stated": 8.1, "final": 7, "best": 7}
    assert reported(source, folder, folder / "else" / "r.pt") == {}  # which of the two is its log?
    told = source | {"reported": {"final": {"r": 9, "models/r": 8}}}
    assert [reported(told, folder, folder / name / "r.pt")["final"] for name in ("models", "else")] == [8, 9]
    (folder / "models" / "r.csv").unlink()
    told = source | {"reported": {"best": {"r": 8.4, "s": 1}}}
    assert reported(told, folder, folder / "models" / "r.pt") == {"stated": 8.1, "final": 9.0, "best": 8.4}


@pytest.fixture
def few(monkeypatch):
    """300 random images in place of CIFAR-10, so that a net is measured in a second."""
    rng = np.random.default_rng(0)

    def some(recipe, *, train, data_dir=None):
        n = 200 if train else 100
        part = "train" if train else "test"
        return Images(f"random-{part}", rng.integers(0, 256, (n, 32, 32, 3), np.uint8), np.arange(n) % 10, part, None)

    parts = {train: some(None, train=train) for train in (True, False)}
    monkeypatch.setattr("reslib.data.cifar._images", lambda data, size, train, folder: parts[train])
    return parts


def test_sources_are_measured_one_by_one_and_errors_stop_nothing(few, tmp_path):
    source = tmp_path / "in" / "new+source"
    source.mkdir(parents=True)
    (tmp_path / "in" / "undescribed+source").mkdir()
    (tmp_path / "in" / "a-martyn+resnet").mkdir()  # described, and empty
    (source / "source.toml").write_text("mean = [0.4, 0.5, 0.6]\nstd = 0.25\n")
    nets = {"plain": random_net(None), "resnet8": random_net("A")}
    for name, net in nets.items():
        torch.save({"state_dict": {f"module.{k}": t for k, t in net.state_dict().items()}}, source / f"{name}.th")
    torch.save(torch.nn.Linear(3, 3).state_dict(), source / "mlp.pt")
    found = list(audit_folder(tmp_path / "in"))
    errors, made = ([f for f in found if isinstance(f, kind)] for kind in (ValueError, dict))
    assert [str(e).partition(" ")[0] for e in errors] == [
        str(tmp_path / "in" / "a-martyn+resnet"), str(source / "mlp.pt"), "undescribed/source"]  # fmt: skip
    assert [tuple(a[key] for key in ("net", "zero_channels", "agrees_with", "reported")) for a in made] == [
        ("plain8", None, None, {}), ("resnet8-A", "last", None, {})]  # fmt: skip
    pixels = torch.from_numpy(few[False].pixels).permute(0, 3, 1, 2) / 255
    x = (pixels - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.25
    for a, net in zip(made, nets.values(), strict=True):
        logits = net(x)
        predictions = unpack(a["test_predictions"])
        assert (predictions == logits.argmax(1).numpy()).mean() > 0.97
        wrong = 100 * (predictions != few[False].labels).mean()
        assert a["measured"]["test_error"] == pytest.approx(wrong) and list(a["measured"]) == list(MEASURED)
        assert len(a["probes"]["response_gradient"]) == 7
        path = write_audit(a, tmp_path / "out")
        assert path.name == f"new+source-{a['net']}-{a['weights_sha256'][:8]}.json" and read_audit(path) == a
    table = audits(tmp_path / "out")
    assert table.net.tolist() == ["plain8", "resnet8-A"] and table.shortcut.tolist() == ["none", "A"]
    assert table.audit[0] == made[0]
    assert [a["net"] for a in audit_folder(source) if isinstance(a, dict)] == ["plain8", "resnet8-A"]


SOURCE = {"mean": 0.5, "std": 0.25, "commit": None, "licence": None, "reported": {}}


def test_what_the_name_leaves_open_the_training_images_decide(few, tmp_path, monkeypatch):
    folder = tmp_path / "new+source"
    folder.mkdir()
    torch.save(random_net("A").state_dict(), folder / "net.pt")
    assert measure(folder / "net.pt", folder, SOURCE)["net"] == "resnet8-A"  # none is good: the first
    tensors, _ = read_weights(folder / "net.pt")
    x, error = torch.randn(4, 3, 8, 8), 49.0
    monkeypatch.setattr(
        auditing.evaluation, "evaluate", lambda net, few: {"top1_error": error, "loss": (net(x) - few).abs().max().item()}
    )
    for option, zeros, net in readings(tensors):
        assert auditing.choose("explained/resnet.pt", tensors, net(x))[:2] == (option, zeros)
        for what, other in departures(net):
            with pytest.raises(ValueError, match=f"fits the training images better with {what}"):
                auditing.choose("resnet.pt", tensors, other(x))
    error = 50.0  # the path decides
    assert auditing.choose("resnet.pt", tensors, net(x))[:2] == ("A", "last")
    assert auditing.choose("resnets/plain8/last.pt", tensors, other(x))[0] is None


def test_audits_that_were_changed_are_refused(few, tmp_path):
    folder = tmp_path / "new+source"
    folder.mkdir()
    torch.save(cifar_plain(8).state_dict(), folder / "plain8.pt")
    found = measure(folder / "plain8.pt", folder, SOURCE | {"mean": "image"})
    path = write_audit(found, tmp_path)
    good = json.loads(path.read_text())
    changes = [
        ({"schema": 2}, "its kind and schema"), ({"kind": "run"}, "its kind and schema"), ({"depth": 14}, "its probes"),
        ({"net": "plain14"}, "its name"), ({"measured": {}}, "what was measured is numbers"),
        ({"agrees_with": "best"}, "its agrees_with"), ({"data": {}}, "'test'"), ({"environment": {}}, "a commit"),
        ({"data": {"test": 7}}, "its predictions"), ({"test_predictions": "eJwD"}, "is not a readable audit"),
        ({"measured": good["measured"] | {"train_loss": float("nan")}}, "it holds NaN"),
    ]  # fmt: skip
    for change, says in changes:
        path.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=f"{found['net']}.*{says}") as error:
            read_audit(path)
        assert len(str(error.value).splitlines()) == 1
    for broken in ("", "[]", "{}", '{"kind": "audit", "schema": 1}'):
        path.write_text(broken)
        with pytest.raises(ValueError, match="is not a readable audit"):
            audits(tmp_path)
    with pytest.raises(ValueError, match="NaN or infinity and was not written"):
        write_audit(found | {"measured": found["measured"] | {"test_loss": float("inf")}}, tmp_path)


def test_the_command_says_what_is_wrong_in_a_sentence(cifar, tmp_path, reslib_main, monkeypatch):
    (tmp_path / "no+weights").mkdir()
    torch.save({"w": torch.zeros(3)}, tmp_path / "no+weights" / "net.pt")
    monkeypatch.setenv("RESLIB_DATA", str(cifar))

    def called(*words):
        return subprocess.run([sys.executable, "-m", "reslib", *words], capture_output=True, text=True)

    for run, folder, says in ((called, tmp_path, "is not described"), (reslib_main, tmp_path / "none", "no sources")):
        found = run("audit", folder, "--out", tmp_path / "out")
        assert found.returncode == 1 and says in found.stderr and len(found.stderr.splitlines()) == 1 and not found.stdout


@pytest.fixture
def published(root):
    folder = root.parent / "shared" / "data" / "reruns"
    if not folder.is_dir():
        pytest.skip("the published weights are not here: ../shared/data/reruns")
    return folder


@pytest.mark.parametrize(
    ("source", "file", "net", "final", "best"),
    [("a-martyn+resnet", "pretrained/plainnet20.pt", "plain20", 9.69, 9.5),
     ("akamaster+pytorch_resnet_cifar10", "pretrained_models/resnet20-12fca82f.th", "resnet20-A", 8.27, 8.22)],
)  # fmt: skip
def test_published_nets_predict_what_their_recorded_audits_say(cifar, published, source, file, net, final, best):
    """Both preprocessings, both paddings of option A. (That the audits' errors are those reported: the last test.)"""
    folder, path = published / source, published / source / file
    about = describe(folder)
    tensors, noted = read_weights(path)
    said = {"best": noted} | reported(about, folder, path)
    assert (said["final"], said["best"]) == (final, best)
    test = auditing.data.images(auditing.CIFAR, train=False, data_dir=cifar)
    first = list(islice(auditing.batches(test, about), 8))
    logits, _ = auditing.evaluation.predict(auditing.choose(file, tensors, first[:1])[2], first)
    table = audits().set_index(["source", "net"])
    recorded = unpack(table.audit[source.replace("+", "/"), net]["test_predictions"])[: len(logits)]
    assert (logits.argmax(1).numpy() != recorded).sum() <= 1  # another processor adds up in another order


REPORTED = {
    "a-martyn/resnet": {"plain20": 9.69, "plain32": 10.04, "plain44": 11.56, "plain56": 13.07,
                        "resnet20-A": 8.04, "resnet32-A": 7.79, "resnet44-A": 7.51, "resnet56-A": 7.46},
    "akamaster/pytorch_resnet_cifar10": {"resnet20-A": 8.27, "resnet32-A": 7.37, "resnet44-A": 6.9, "resnet56-A": 6.61},
    "AngelG23/FeatureExtractor": {"plain20": 9.12, "plain56": 14.92, "resnet20-A": 8.35, "resnet56-A": 7.14},
    "m-shahbaz-kharal/resnet": {"resnet20-A": 8.12, "resnet56-A": 6.86},
    "AidenTag/nsn-final": {"plain20": 9.09, "plain56": 13.09, "resnet20-A": 8.27, "resnet56-A": 6.78},
    "wooyeolBaek/deep-residual-learning": {"plain20": 9.74, "plain56": 11.86, "resnet20-A": 9.18, "resnet56-A": 7.1},
}  # fmt: skip
NEAR = {"wooyeolBaek/deep-residual-learning": 0.025, "AidenTag/nsn-final": 0.025}
"""Two images of 10,000: the first subtracts the mean image of 45,000 images, which it does not publish."""


def test_recorded_audits_are_of_committed_code_and_meet_what_was_reported():
    table = audits()
    nets = {(source, net) for source, of in REPORTED.items() for net in of}
    assert nets == {pair for pair in zip(table.source, table.net, strict=True) if pair[0] in REPORTED}
    for row in table.itertuples():
        if row.source in REPORTED:
            near = NEAR.get(row.source, 0.005)
            assert row.test_error == pytest.approx(REPORTED[row.source][row.net], abs=near)
            assert row.agrees_with == "final" or near > 0.005
        else:
            assert row.source == "FrankZhang869/Resnet_CIFAR10_Reproduction" and not row.audit["reported"]
        assert row.audit["environment"]["dirty"] is False
        assert row.train_error < 10 and len(unpack(row.audit["test_predictions"])) == 10_000
    assert max(path.stat().st_size for path in (auditing.records_folder() / "audits").iterdir()) < 60_000
