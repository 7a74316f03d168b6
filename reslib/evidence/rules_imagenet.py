"""The rules of the extension: Fig. 4's nets, and ResNet-50, on photographs of few classes in crops of 64 pixels.

They were committed before any of the runs that they judge. What they find is a direction: the photographs are not ImageNet's
1,000 classes, and the schedule is not the paper's. The forms are those of rules.py.
"""

from .comparison import Part, Runs
from .plan import photographs
from .rules import errors, log_steps

REACHED = 50.0  # C7: percent of running training error to be reached; ten classes begin at 90
LEVEL = 2.0  # C7: points of test error within which plain-18 and ResNet-18 count as equally accurate


def c2(runs: Runs) -> list[Part]:
    """On other photographs: plain-34 minus plain-18 in training error and in test error, Welch, is above 0."""
    nets = photographs(34, None), photographs(18, None)
    return [errors(runs, which, *nets) for which in ("training", "test")]


def c5(runs: Runs) -> list[Part]:
    """On other photographs: ResNet-34 minus ResNet-18 in training error and in test error, Welch, is below 0."""
    return [errors(runs, which, photographs(34), photographs(18), side=-1) for which in ("training", "test")]


def c6(runs: Runs) -> list[Part]:
    """On other photographs: plain-34 minus ResNet-34 in test error, Welch, is above 0."""
    return [errors(runs, "test", photographs(34, None), photographs(34))]


def c7a(runs: Runs) -> list[Part]:
    """On other photographs: plain-18 needs more iterations than ResNet-18 to a running training error of 50 %; log2 of the
    ratio, Welch, is above 0. (Margin: 0.1.)"""
    return [log_steps(runs, REACHED, photographs(18, None), photographs(18))]


def c7b(runs: Runs) -> list[Part]:
    """On other photographs: plain-18 and ResNet-18 are equally accurate, within 2 points of test error (two one-sided Welch
    tests)."""
    return [errors(runs, "test", photographs(18, None), photographs(18), threshold=LEVEL, side=0)]


def c9(runs: Runs) -> list[Part]:
    """On other photographs: ResNet-50, of bottlenecks, minus ResNet-34 in test error, Welch, is below 0."""
    return [errors(runs, "test", photographs(50, "B"), photographs(34), "ResNet-50 - ResNet-34", side=-1)]


RULES = {"C2": c2, "C5": c5, "C6": c6, "C7a": c7a, "C7b": c7b, "C9": c9}
