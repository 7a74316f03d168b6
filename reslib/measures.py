"""What a record says of the net: probes along the way, passes over the test images, the final ones, fingerprints."""

import hashlib
from dataclasses import replace

from torch import nn

from . import data, evaluation, probes
from .checkpoint import State
from .recipes import Recipe
from .record import pack

PROBE_PIXELS = 2**16  # of the images probed, in all: 256 of 16x16, 64 of 32x32
FIRST_STEPS = (1, 2, 4, 8, 16)  # probed too: what the first steps do to a deep net
TEST_BATCH = 1_000  # images of a pass on a GPU; a CPU takes the recipe's batch


def probe_steps(recipe: Recipe) -> set[int]:
    """Iterations after which responses and gradients are probed; only the ends for very deep nets, to keep records small."""
    if recipe.depth > 200:
        return {0, recipe.steps}
    return {0, *FIRST_STEPS, *(recipe.steps * percent // 100 for percent in (1, 10, 50, 75, 100))}


def whole(recipe: Recipe, split: str, still: dict):
    """All images of a split, not augmented, in their order."""
    wide = {} if still["device"].type == "cpu" else {"batch": TEST_BATCH, "bn_batch": None}
    return data.loader(replace(recipe, **wide), split, **still)


def probe(recipe: Recipe, net: nn.Module, step: int, still: dict) -> dict:
    """`probes.probe` on the first training images, not augmented."""
    few = replace(recipe, batch=PROBE_PIXELS // recipe.size**2)
    images, labels = next(iter(data.loader(few, "train", **still)))
    values = probes.probe(net, images, labels)
    return {"step": step} | {k: v if k == "layer" else [short(x) for x in v] for k, v in values.items()}


def finish(recipe: Recipe, net: nn.Module, state: State, still: dict) -> tuple[dict, str]:
    """The final passes, with moving-average and with recomputed BN statistics; returns (final, packed predictions)."""
    everything, test = (whole(recipe, split, still) for split in ("train", "test"))
    logits, labels = evaluation.predict(net, test)
    tested, trained = evaluation.score(logits, labels), evaluation.evaluate(net, everything)
    recomputed = evaluation.evaluate(evaluation.recomputed_bn(net, everything), test)
    note_test(state, tested["top1_error"], tested["loss"])
    final = {
        "step": state.step,
        "train_error": trained["top1_error"], "train_loss": trained["loss"],
        "train_error_running": state.curve["train_error"][-1], "train_loss_running": state.curve["train_loss"][-1],
        "test_error": tested["top1_error"], "test_loss": tested["loss"],
        "test_error_recomputed_bn": recomputed["top1_error"], "test_loss_recomputed_bn": recomputed["loss"],
    }  # fmt: skip
    if recipe.split != "50k":
        final["val_error"] = evaluation.evaluate(net, whole(recipe, "val", still))["top1_error"]
    if recipe.warmup_lr is not None:
        final["warmup_steps"] = state.warm_at
    if recipe.shortcut is None and recipe.layers == 2 and recipe.depth < probes.EXTENDED_DEPTH:
        deep = probes.extend_by_identity(net, probes.EXTENDED_DEPTH)
        final["identity_extension"] = {
            "depth": probes.EXTENDED_DEPTH,
            "train_error": short(evaluation.evaluate(deep, everything)["top1_error"]),
            "logit_difference": short((evaluation.predict(deep, test)[0] - logits).abs().max().item()),
        }
    final = {k: short(v) if isinstance(v, float) else v for k, v in final.items()}
    return final, pack(logits.argmax(1).numpy())


def short(x: float) -> float:
    """Six significant digits: enough for any figure, and records stay small."""
    return float(f"{x:.6g}")


def weights_sha256(net: nn.Module) -> str:
    """Of all parameters and buffers, in the order of the state dict."""
    tensors = (t.detach().cpu().contiguous().numpy().tobytes() for t in net.state_dict().values())
    digest = hashlib.sha256()
    for chunk in tensors:
        digest.update(chunk)
    return digest.hexdigest()


def describe_data(recipe: Recipe, data_dir) -> dict:
    """Name, fingerprint of the bytes used, and counts."""
    train, test = (data.images(recipe, train=part, data_dir=data_dir) for part in (True, False))
    n = len(data.split_ids(recipe, "train", len(train.labels)))
    sha256 = hashlib.sha256((train.sha256 + test.sha256).encode()).hexdigest()
    name = train.name.removesuffix("-train")
    return {"name": name, "sha256": sha256, "train": n, "val": len(train.labels) - n, "test": len(test.labels)}


def note_test(state: State, error: float, loss: float) -> None:
    """Put a pass over the test images into the curve's last row, and keep the best."""
    state.curve["test_error"][-1], state.curve["test_loss"][-1] = short(error), short(loss)
    if not state.best or error < state.best["test_error"]:
        state.best = {"step": state.step, "test_error": short(error)}
