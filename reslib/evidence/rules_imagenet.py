"""The rules of the extension: Fig. 4's nets, and ResNet-50, on photographs of few classes in crops of 64 pixels.

They were committed before any of the runs that they judge. What they find is a direction: the photographs are not ImageNet's
1,000 classes, and the schedule is not the paper's. The forms are those of rules.py.
"""

import numpy as np

from .comparison import Part, Runs, steps_to, test_error, train_error
from .plan import photographs
from .rules import of

REACHED = 50.0  # C7: percent of running training error to be reached; ten classes begin at 90
LEVEL = 2.0  # C7: points of test error within which plain-18 and ResNet-18 count as equally accurate


def c2(runs: Runs) -> list[Part]:
    """On other photographs: plain-34 minus plain-18 in training error and in test error, Welch, is above 0."""
    shallow, deep = (runs(photographs(depth, None)) for depth in (18, 34))
    return [Part(f"plain-34 - plain-18, {what} error:", of(measure, deep), of(measure, shallow))
            for what, measure in (("training", train_error), ("test", test_error))]  # fmt: skip


def c5(runs: Runs) -> list[Part]:
    """On other photographs: ResNet-34 minus ResNet-18 in training error and in test error, Welch, is below 0."""
    shallow, deep = (runs(photographs(depth)) for depth in (18, 34))
    return [Part(f"ResNet-34 - ResNet-18, {what} error:", of(measure, deep), of(measure, shallow), side=-1)
            for what, measure in (("training", train_error), ("test", test_error))]  # fmt: skip


def c6(runs: Runs) -> list[Part]:
    """On other photographs: plain-34 minus ResNet-34 in test error, Welch, is above 0."""
    plains, residuals = (of(test_error, runs(photographs(34, shortcut))) for shortcut in (None, "A"))
    return [Part("plain-34 - ResNet-34, test error:", plains, residuals)]


def c7a(runs: Runs) -> list[Part]:
    """On other photographs: plain-18 needs more iterations than ResNet-18 to a running training error of 50 %; log2 of the
    ratio, Welch, is above 0."""
    plains, residuals = (
        of(lambda r: np.log2(steps_to(r, REACHED)), runs(photographs(18, shortcut))) for shortcut in (None, "A")
    )
    return [Part(f"log2 of iterations to {REACHED:.0f} % training error, plain-18 - ResNet-18:", plains, residuals, margin=0.1,
                 unit="")]  # fmt: skip


def c7b(runs: Runs) -> list[Part]:
    """On other photographs: plain-18 and ResNet-18 are equally accurate, within 2 points of test error (two one-sided Welch
    tests)."""
    plains, residuals = (of(test_error, runs(photographs(18, shortcut))) for shortcut in (None, "A"))
    return [Part("plain-18 - ResNet-18, test error:", plains, residuals, threshold=LEVEL, side=0)]


def c9(runs: Runs) -> list[Part]:
    """On other photographs: ResNet-50, of bottlenecks, minus ResNet-34 in test error, Welch, is below 0."""
    deep, shallow = (of(test_error, runs(photographs(*net))) for net in ((50, "B"), (34, "A")))
    return [Part("ResNet-50 - ResNet-34, test error:", deep, shallow, side=-1)]


RULES = {"C2": c2, "C5": c5, "C6": c6, "C7a": c7a, "C7b": c7b, "C9": c9}
