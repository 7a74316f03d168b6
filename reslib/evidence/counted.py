"""The paper's claims that are counted, not measured: C10, C11, C17 to C20, and half of C21.

A rule is a function of the paper's numbers (`claims.paper()`) that returns what was counted, statement by statement, each with
whether it bears the claim out; its docstring is the rule.
"""

from collections.abc import Callable
from functools import cache

import torchvision
from torch import nn

from ..record import load
from ..resnet import Bottleneck, cifar_plain, cifar_resnet, imagenet_plain, imagenet_resnet
from .counts import layers, multiply_adds, parameters, shape_of

Counted = list[tuple[str, bool]]


@cache
def giga(make: Callable[..., nn.Module], *args) -> float:
    """10^9 multiply-adds of a net for an image of 224 pixels."""
    return multiply_adds(shape_of(make, *args), 224) / 1e9


@cache
def vgg(depth: int) -> tuple[float, float]:
    """10^9 multiply-adds of VGG-16 or -19 (torchvision's modules): with its fully connected layers, and without."""
    frame = layers(shape_of(getattr(torchvision.models, f"vgg{depth}"), init_weights=False), 224)
    return frame.multiply_adds.sum() / 1e9, frame.multiply_adds[frame.kind != "fc"].sum() / 1e9


def c10(p: dict) -> Counted:
    """ResNet-152 has fewer multiply-adds than VGG-16 and VGG-19: all layers counted, and fully connected ones left out."""
    ours, (v16, v16_conv), (v19, v19_conv) = giga(imagenet_resnet, 152), vgg(16), vgg(19)
    return [
        (f"{ours:.2f} G against {v16:.2f} and {v19:.2f} G", ours < min(v16, v19)),
        (f"VGG's fully connected layers left out: against {v16_conv:.2f} and {v19_conv:.2f} G", ours < min(v16_conv, v19_conv)),
    ]


def c11(p: dict) -> Counted:
    """Option A has exactly the parameters and the multiply-adds of the plain net: ImageNet 18, 34, CIFAR 20 to 110 layers."""
    pairs = [(imagenet_plain, imagenet_resnet, d, 224) for d in (18, 34)]
    pairs += [(cifar_plain, cifar_resnet, d, 32) for d in (20, 32, 44, 56, 110)]
    more, added = {"parameters": 0, "multiply-adds": 0}, []
    for plain, residual, depth, size in pairs:
        a, b = shape_of(plain, depth), layers(shape_of(residual, depth, "A"), size)
        more["parameters"] += abs(b.parameters.sum() - parameters(a))
        more["multiply-adds"] += abs(b.multiply_adds.sum() - multiply_adds(a, size))
        sums = b[b.kind == "add"]
        added.append((sums.channels * sums["size"] ** 2).sum() / b.multiply_adds.sum())
    return [
        (f"{more['parameters']} parameters more in {len(pairs)} pairs of nets", more["parameters"] == 0),
        (f"{more['multiply-adds']} multiply-adds more (the additions: at most {100 * max(added):.2f} % as many)",
         more["multiply-adds"] == 0),
    ]  # fmt: skip


def c17(p: dict) -> Counted:
    """Plain-34 has less than a fifth of VGG-19's multiply-adds; the share is within one point of the paper's."""
    plain, vgg19 = giga(imagenet_plain, 34), vgg(19)[0]
    share = 100 * plain / vgg19
    holds = share < 20 and abs(share - p["s33.plain34.share_of_vgg19_flops"]) < 1
    return [(f"{plain:.2f} of {vgg19:.2f} G, {share:.1f} %", holds)]


def c18(p: dict) -> Counted:
    """A projection instead of the identity takes a bottleneck's parameters and multiply-adds to between 1.75 and 2.25 times."""
    identity, projection = (layers(shape_of(Bottleneck, 256, 64, 1, option), 56, 256) for option in "AC")
    ratios = {name: projection[name].sum() / identity[name].sum() for name in ("parameters", "multiply_adds")}
    return [(f"{name.replace('_', '-')} times {ratio:.3f} a block", 1.75 < ratio < 2.25) for name, ratio in ratios.items()]


def c19(p: dict) -> Counted:
    """ResNet-110 has fewer parameters than each FitNet and Highway net of Table 6. (The other half, its error, is C13's.)"""
    ours = parameters(shape_of(cifar_resnet, 110)) / 1e6
    others = {"FitNet, 19 layers": "fitnet19", "Highway, 19 layers": "highway19", "Highway, 32 layers": "highway32"}
    millions = {name: p[f"table6.{key}.parameters"] / 1e6 for name, key in others.items()}
    return [(f"{ours:.2f} M, {'fewer' if ours < theirs else 'more'} than {name} ({theirs:.2f} M)", ours < theirs)
            for name, theirs in millions.items()]  # fmt: skip


def c20(p: dict) -> Counted:
    """By the paper's own tables, not by runs: a single ResNet-152 (Table 4) has a lower top-5 error than each earlier ensemble
    of Table 5, and the ensemble of ResNets the lowest. Table 4 is on the validation images (but for VGG's entry of ILSVRC'14,
    on the test images), Table 5 on the test images: validation is compared with test, as the paper does.
    """
    names = {"VGG (ILSVRC'14)": "vgg_ilsvrc14", "GoogLeNet": "googlenet", "VGG (v5)": "vgg_v5", "PReLU-net": "prelu_net",
             "BN-inception": "bn_inception"}  # fmt: skip
    earlier = {name: p[f"table5.{key}.top5_error"] for name, key in names.items()}
    single, ensemble = p["table4.resnet152.top5_error"], p["table5.resnet_ensemble.top5_error"]
    told, best = ", ".join(f"{name} {error:g}" for name, error in earlier.items()), min(earlier.values())
    return [
        (f"{single:.2f} % (validation) against ensembles (test) {told} %", single < best),
        (f"{ensemble:.2f} % (test) against {best:.2f} %, the best of these", ensemble < best),
    ]


def c21(p: dict) -> Counted:
    """The half of the claim that is an identity: in every recorded run of a plain net of fewer than 56 layers, the net extended
    to 56 by identities has the training error of the trained one, within 0.01 points. (That training from scratch ends above it
    is judged by rule.)
    """
    found = [(r.final["train_error"], r.final["identity_extension"]) for r in load() if "identity_extension" in r.final]
    equal = sum(abs(error - extended["train_error"]) <= 0.01 for error, extended in found)
    changed = max((extended["logit_difference"] for _, extended in found), default=0.0)
    text = f"equal training error in {equal} of {len(found)} runs (largest change of a logit {changed:.1g})"
    return [(text, equal == len(found))] if found else []


COUNTED: dict[str, Callable[[dict], Counted]] = {
    "C10": c10, "C11": c11, "C17": c17, "C18": c18, "C19": c19, "C20": c20, "C21": c21,
}  # fmt: skip


def judge(claim: str, p: dict) -> dict:
    """For the table of claims: ours, n, verdict. p: the paper's numbers, `claims.paper()`."""
    parts = COUNTED[claim](p)
    held = [holds for _, holds in parts]
    verdict = "holds" if all(held) else "holds in part" if any(held) else "does not hold"
    return {"ours": "; ".join(text for text, _ in parts), "n": "exact", "verdict": verdict if parts else "no evidence"}
