"""Recipes: the published protocol, scales, ids that stay, and what is refused."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from reslib import CIFAR, IMAGENET, Recipe
from reslib.evidence.claims import paper


def test_the_published_protocols():
    p = paper()
    published = {"batch": CIFAR.batch, "lr": CIFAR.lr, "momentum": CIFAR.momentum, "weight_decay": CIFAR.weight_decay}
    published |= {"iterations": CIFAR.steps, "pad": CIFAR.pad, "crop": CIFAR.size, "milestone1": CIFAR.milestones[0]}
    published |= {"milestone2": CIFAR.milestones[1], "resnet110.warmup_until_training_error": CIFAR.warmup_until}
    assert published == {name: p[f"s42.{name}"] for name in published}
    assert (IMAGENET.batch, IMAGENET.short_side, IMAGENET.steps) == (
        p["s34.batch"],
        (p["s34.scale_min"], p["s34.scale_max"]),
        p["s34.iterations"],
    )


def test_ids_do_not_change(root):
    """Recorded runs are found by them."""
    assert replace(CIFAR, depth=56, shortcut=None).at("pocket").name == "cifar10-plain56-pocket-s0-5a68e56a"
    assert replace(CIFAR, seed=2).at("pocket").name.startswith("cifar10-resnet20-A-pocket-s2-")
    for file in sorted((root / "notebooks" / "records").glob("*.json")):
        recorded = json.loads(file.read_text())
        assert Recipe.from_dict(recorded["recipe"]).id == recorded["recipe_id"] == file.stem[-8:]
    assert len({replace(CIFAR, seed=s, depth=d).at(k).id for s in (0, 1) for d in (20, 56) for k in ("pocket", "paper")}) == 8


def test_scales_and_back():
    recipe = replace(CIFAR, depth=56, shortcut=None, seed=3)
    pocket = recipe.at("pocket")
    assert (pocket.size, pocket.steps, pocket.milestones, pocket.pad) == (16, 1600, (800, 1200), 2)
    assert (recipe.at("night").steps, recipe.at("night").milestones) == (16_000, (8_000, 12_000))
    assert recipe.at("demo").data == "digits" and not recipe.at("demo").flip
    assert pocket.at("paper") == recipe == recipe.at("demo").at("paper")


def test_a_recipe_survives_json():
    recipe = replace(CIFAR, depth=110, warmup_lr=0.01, seed=7).at("night")
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    with pytest.raises(ValueError, match="a recipe has no field 'colour_jitter'"):
        Recipe.from_dict({"colour_jitter": 1})


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        CIFAR.depth = 56


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(depth=21), r"6n\+2"),
        (dict(shortcut="D"), "shortcut is 'D': it must be None, 'A', 'B' or 'C'"),
        (dict(split="40k"), "split is '40k'"),
        (dict(scale="huge"), "scale is 'huge'"),
        (dict(steps=0), "steps is 0"),
        (dict(seed=-1), "seed is -1"),
        (dict(milestones=(48_000, 32_000)), "must rise"),
        (dict(milestones=(64_000,)), "below steps"),
        (dict(log_every=300), "must divide"),
        (dict(data="imagenet", depth=20), "Table 1"),
        (dict(lr="abc"), "lr is 'abc': it must be a valid number"),
        (dict(lr=float("nan")), "lr is nan"),
        (dict(lr=10**400), "it must be a valid number"),
        (dict(warmup_lr="slow"), "warmup_lr is 'slow': it must be a valid number"),
        (dict(warmup_until=None), "warmup_until is None"),
        (dict(warmup_until=70), "warmup_until is 70.0: a recipe like this has no use for it, and leaves it 80.0"),
        (dict(milestones=5), r"milestones is 5: it must be whole numbers, as \[3, 4\]"),
        (dict(milestones=["a"]), "milestones is"),
        (dict(pad=1.5), "pad is 1.5: it must be a valid integer"),
        (dict(bn_batch=2.0), "bn_batch is 2.0"),
        (dict(flip="maybe"), "flip is 'maybe': it must be a valid boolean"),
        (dict(depth=True), "depth is True"),
        (dict(seed=2**64), "must be less than 9223372036854775808"),
        (dict(plateau=True), "plateau is True: a recipe like this has no use for it"),
        (dict(clip=0), "clip is 0: it must be greater than 0"),
        (dict(clip=float("inf")), "clip is inf: it must be a finite number"),
        (dict(layers=True), "layers is True: it must be a valid integer"),
        (dict(shortcut=["A"]), "it must be None, 'A'"),
        (dict(lr=-0.1), "lr is -0.1: it must be greater than or equal to 0"),
        (dict(warmup_lr=-0.1), "warmup_lr is -0.1"),
        (dict(short_side=[256]), "short_side is .256,.: Tuple should have at least 2 items"),
        (dict(milestones=(-5,)), "must rise, from 1 or more"),
        (dict(fc_std=-0.01), "fc_std is -0.01: it must be greater than 0"),
        (dict(init="fan_both"), "init is 'fan_both': it must be 'fan_in', 'fan_out', 'fan_out_conv' or 'fan_out_fc'"),
    ],
)
def test_wrong_recipes_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(CIFAR, **changes)


def test_unknown_scales_are_refused():
    with pytest.raises(ValueError, match="scale 'huge' is unknown for cifar10: use one of 'demo', 'pocket', 'night', 'paper'"):
        CIFAR.at("huge")
    with pytest.raises(ValueError, match="is unknown for cifar10"):
        CIFAR.at(["pocket"])
    with pytest.raises(ValueError, match="unknown for imagenet: use one of .paper., .extension."):
        IMAGENET.at("pocket")


def test_a_whole_number_is_the_same_rate():
    """0 and 0.0, 1 and 1.0: one run, one id."""
    for name, value in (("weight_decay", 0), ("lr", 1), ("clip", 2), ("momentum", 0), ("warmup_lr", 1)):
        one, other = (replace(CIFAR, **{name: kind(value)}) for kind in (int, float))
        assert one.id == other.id and one.name == other.name
    assert replace(CIFAR, weight_decay=-0.0).id == replace(CIFAR, weight_decay=0).id


def test_a_field_s_form_is_not_its_value():
    """Numbers of numpy, out of a DataFrame, and lists: the same recipe, which can be hashed."""
    own = dict(depth=np.int64(56), lr=np.float64(0.1), milestones=[3, 4], flip=np.bool_(True), shortcut=np.str_("A"))
    same = replace(CIFAR, depth=56, lr=0.1, milestones=(3, 4))
    assert replace(CIFAR, **own) == same and replace(CIFAR, **own).id == same.id
    assert {replace(IMAGENET, short_side=[256, 480])} == {IMAGENET}


@pytest.mark.parametrize("idle", [dict(pad=4), dict(stride_on="3x3"), dict(plateau=False, plateau_drops=1), dict(layers=1)])
def test_a_field_that_changes_nothing_is_refused(idle):
    """Else one run would have two ids."""
    with pytest.raises(ValueError, match="has no use for it"):
        replace(IMAGENET, **idle)


def test_a_scale_that_sets_changed_fields_anew_says_so(capsys):
    replace(CIFAR, steps=4_000, milestones=(100,), depth=56).at("pocket")
    assert "at 'pocket' sets steps, milestones anew: replace fields after at()" in capsys.readouterr().err
    assert replace(CIFAR, depth=56, seed=7).at("pocket").at("paper") and not capsys.readouterr().err
