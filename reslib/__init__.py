"""reslib: the replication book of "Deep Residual Learning for Image Recognition" (He, Zhang, Ren, Sun, 2015).

from dataclasses import replace
import reslib
record = reslib.train(replace(reslib.CIFAR, depth=56, shortcut=None).at("pocket"))
"""

import os
import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while `python -m reslib` is imported, Ctrl-C ends it in silence
try:
    os.getcwd()
except FileNotFoundError:  # torch would end the process with words of its own libraries
    raise SystemExit("The working directory has been deleted, and PyTorch cannot be loaded there: change to another.") from None

# Before torch is loaded: OpenMP's threads sleep while they wait. Spinning, their default, is a fifth faster on an idle machine
# and several times slower beside any other job (two runs on two cores: 4 times).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .data import loader
from .evaluation import evaluate
from .recipes import CIFAR, IMAGENET, Recipe
from .record import Record, curves, records, replay
from .resnet import cifar_plain, cifar_resnet, imagenet_plain, imagenet_resnet
from .trainer import train

__version__ = "0.1.0"
__all__ = [
    "CIFAR", "IMAGENET", "Recipe", "Record", "cifar_plain", "cifar_resnet", "curves", "evaluate", "imagenet_plain",
    "imagenet_resnet", "loader", "records", "replay", "train",
]  # fmt: skip
