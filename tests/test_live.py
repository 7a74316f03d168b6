"""The page "One net, live": what it computes in Chromium is what PyTorch computes, and what it shows follows its switches."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from test_book import CHROMIUM, Browser

import reslib
from reslib.resnet import Block

TOLERANCE = 1e-4  # of the largest logit: both add float32 products, in another order


@pytest.fixture(scope="module")
def live(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "book"))
        import live

        yield live


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on scikit-learn's digits, its weights beside its record."""
    recipe = dataclasses.replace(reslib.CIFAR, depth=8).at("demo")
    return reslib.train(recipe, out_dir=tmp_path_factory.mktemp("runs"), device="cpu", backend="array")


@pytest.fixture(scope="module")
def browser(root, live, run, tmp_path_factory):
    """A page with the net of that run in it, open."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    page = tmp_path_factory.mktemp("page") / "page.html"
    page.with_name("net.js").write_text(live.script(run))
    for script in ("resnet.js", "pictures.js", "live.js"):
        page.with_name(script).write_text((root / "book" / "_live" / script).read_text())
    scripts = "".join(f'<script src="{name}.js"></script>' for name in ("net", "resnet", "pictures", "live"))
    page.write_text(f'<!doctype html><meta charset="utf-8"><div id="live"></div>{scripts}')
    made = Browser(tmp_path_factory.mktemp("chromium"))
    made.open(page.as_uri())
    assert not made.complaints()
    yield made
    made.close()


def said(browser):
    return browser.run("document.querySelector('.live-said').innerText")


def cut(net, out):
    """Take shortcuts ("x3") and residual functions ("F3") out of a net."""
    for block, name in (
        (b, f"{kind}{i}") for i, b in enumerate(m for m in net.modules() if isinstance(m, Block)) for kind in "xF"
    ):
        if name in out and name[0] == "x":
            block.downsample = None
        elif name in out:
            block.F = lambda x: 0.0


@pytest.mark.parametrize("out", [(), ("x0",), ("F0",), ("F1",), ("x1", "F2"), ("x0", "x1", "x2")], ids=str)
def test_the_page_computes_what_pytorch_computes(live, run, browser, out):
    net, responses = live.eight_bits(run.net())[0], []
    cut(net, out)
    for name, module in net.named_modules():
        if re.fullmatch(net.responses, name):
            module.register_forward_hook(lambda module, x, y: responses.append(y.std().item()))
    images = reslib.data.images(run.recipe, train=False).pixels[:6]
    for image in images:
        pixels = np.float32(image.transpose(2, 0, 1)) / 255
        responses.clear()
        with torch.no_grad():
            ours = net(torch.from_numpy(pixels - reslib.data.mean_image(run.recipe).transpose(2, 0, 1))[None])[0]
        theirs = browser.run(f"""(() => {{ const pixels = new Float32Array({json.dumps(pixels.ravel().tolist())});
            return compute(layersOf(NET), pixels, new Set({json.dumps(out)})); }})()""")
        assert np.abs(ours.numpy() - theirs["logits"]).max() < TOLERANCE * ours.abs().max()
        assert np.allclose(ours.softmax(0), theirs["probabilities"], atol=1e-4)
        assert np.allclose(responses, [std for std in theirs["responses"] if std is not None], rtol=1e-3)


def test_errors_are_measured_of_the_net_in_8_bits(live, run):
    told = json.loads(live.script(run).partition("const NET = ")[2].rstrip(";\n"))
    assert abs(told["error"]["whole"] - run.final["test_error"]) < 2
    net = live.eight_bits(run.net())[0]
    cut(net, ("x1",))
    assert told["error"]["x"][1] == pytest.approx(
        reslib.evaluate(net, reslib.loader(run.recipe, "test"))["top1_error"], abs=0.01
    )
    assert len(told["error"]["x"]) == len(told["error"]["F"]) == 3 and told["weights_sha256"] == run.weights_sha256


def test_what_is_shown_follows_the_switches(browser):
    browser.run("document.querySelector('.live-samples button').click()")
    before = browser.run("[...document.querySelectorAll('.live-bar span')].map(e => e.innerText)")
    assert "the whole net" in said(browser)
    browser.run("document.querySelector('input[name=x1]').focus()")
    for kind in ("keyDown", "keyUp"):  # by the space bar
        browser.send(
            "Input.dispatchKeyEvent", type=kind, key=" ", code="Space", windowsVirtualKeyCode=32, text=" " * (kind == "keyDown")
        )
    assert "the net without the shortcut of block 2. Its test error is" in said(browser)
    after = browser.run("[...document.querySelectorAll('.live-bar span')].map(e => e.innerText)")
    assert after[:10] != before[:10] and after[10:15] == before[10:15] and after[15:] != before[15:]
    browser.run("document.querySelector('input[name=F2]').click()")
    assert "the shortcut of block 2 and F of block 3. Its test error was not measured" in said(browser)
    assert browser.run("[...document.querySelectorAll('.live-bar span')].filter(e => e.innerText === 'out').length") == 2
    press = "[...document.querySelectorAll('button')].find(b => b.innerText === '{}').click()".format
    browser.run(press("Take all shortcuts out"))
    assert "without all shortcuts. Its test error is" in said(browser)
    browser.run(press("Put all in"))
    assert browser.run("[...document.querySelectorAll('.live-bar span')].map(e => e.innerText)") == before


def test_a_picture_may_be_dropped(browser):
    told = "document.querySelector('.live-picture').ariaLabel + document.querySelector('.live-said').innerText"
    drop = f"""(async (blob, name) => {{ const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([blob], name, {{ type: 'image/png' }}));
        document.querySelector('#live').dispatchEvent(new DragEvent('drop', {{ cancelable: true, dataTransfer }}));
        for (let i = 0; i < 200 && !({told}).includes(name); i++) await new Promise(done => setTimeout(done, 50)); }})"""
    browser.run(f"{drop}(new Blob(['no picture']), 'no.png')")
    assert "no.png is no picture" in said(browser)
    browser.run(f"""(async () => {{ const wide = Object.assign(document.createElement('canvas'), {{ width: 60, height: 20 }});
        const context = wide.getContext('2d'); context.fillStyle = '#f00'; context.fillRect(20, 0, 20, 20);
        return {drop}(await new Promise(done => wide.toBlob(done)), 'mine.png'); }})()""")
    assert "mine.png" in browser.run("document.querySelector('.live-picture').ariaLabel")
    assert "says the whole net" in said(browser)
    left = browser.run("[...document.querySelector('.live-picture').getContext('2d').getImageData(2, 8, 1, 1).data]")
    assert left == [255, 0, 0, 255]  # the middle square


def test_the_book_s_net_is_of_a_recorded_run(root, live):
    told = json.loads(live.NET.read_text(encoding="utf-8").partition("const NET = ")[2].rstrip(";\n"))
    record = json.loads((root / "notebooks" / "records" / f"{told['name']}.json").read_text())
    assert record["weights_sha256"] == told["weights_sha256"] and live.NET.stat().st_size < 1_000_000
    assert round(record["final"]["test_error"], 2) == told["recorded"] and abs(told["recorded"] - told["error"]["whole"]) < 0.5
