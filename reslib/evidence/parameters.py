"""A notebook's parameters, checked before any work: an unknown name or a bad value stops the run with one sentence.

papermill itself only warns of an unknown name, and passes lists given by `-p` as text ("20,56").
"""

import re
from collections.abc import Callable
from pathlib import Path

from .. import resnet
from ..files import say, words


class ParameterError(ValueError):
    """What is wrong with a parameter, and what to do. In a notebook it shows without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def check(scope: dict, **readers: Callable) -> None:
    """Read each named variable of a notebook by its reader, in place; say so where the code beside it is not what it runs.

    scope: the notebook's `globals()`. Raises ParameterError for a bad value, or a name that papermill injected and the
    notebook does not have.
    """
    beside, used = Path.cwd().parent / "reslib" / "resnet.py", Path(resnet.__file__)
    if beside.is_file() and not beside.samefile(used):
        say(f"This notebook runs with the code and the records of {used.parents[1]}, not with those beside it: "
            f"`{words('pip', 'install', '-e', beside.parents[1])}` changes that.")  # fmt: skip
    unknown = [name for name in injected(scope.get("In", [])) if name not in readers]
    if unknown:
        raise ParameterError(f"unknown parameter {unknown[0]!r}: this notebook has {', '.join(readers)}.")
    for name, reader in readers.items():
        try:
            scope[name] = reader(scope[name])
        except TypeError:  # Python's words are about its own functions
            raise ParameterError(f"{name}: {scope[name]!r} is of the wrong kind; its cell has an example.") from None
        except (ValueError, OverflowError) as error:
            raise ParameterError(f"{name}: {error}") from None


def injected(cells: list[str]) -> list[str]:
    """The names that papermill's last injected cell assigns, given the sources of the executed cells."""
    source = next((cell for cell in reversed(cells) if cell.startswith("# Parameters\n")), "")
    return re.findall(r"^(\w+) = ", source, re.MULTILINE)


def choice(*allowed: str) -> Callable:
    """One of a few words."""

    def read(value):
        if value not in allowed:
            raise ValueError(f"{value!r} is unknown; use one of {', '.join(map(repr, allowed))}.")
        return value

    return read


def flag(value) -> bool:
    """True or False, also as words."""
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise ValueError(f"{value!r} is neither True nor False.")
    return words[str(value).lower()]


def listed(value) -> list[str]:
    """The words of a list, or of text such as "A,C" or "[0, 1]"; nothing is "none"."""
    parts = value if isinstance(value, list | tuple) else str(value).strip("[]() ").split(",")
    return ["none" if part in (None, "") else str(part).strip(" '\"") for part in parts]


def whole_numbers(value) -> tuple[int, ...]:
    """Different whole numbers of at least 0: a list, or text such as "0,1,2"."""
    try:
        numbers = tuple(map(int, listed(value)))
    except ValueError:
        raise ValueError(f"{value!r} is no list of whole numbers; write for example 0,1,2.") from None
    if len(set(numbers)) < len(numbers) or min(numbers, default=-1) < 0:
        raise ValueError(f"{value!r} must be one or more different whole numbers of at least 0.")
    return numbers


def cifar_depths(value) -> tuple[int, ...]:
    """Two or more depths of the CIFAR nets, 6n+2 layers, rising."""
    depths = whole_numbers(value)
    for depth in depths:
        resnet.cifar_blocks(depth)
    if len(depths) < 2 or list(depths) != sorted(depths):
        raise ValueError(f"{value!r} must be two or more depths, the shallowest first; write for example 20,56.")
    return depths


def several(*allowed: str, least: int = 1) -> Callable:
    """At least so many of some words, in the order of `allowed`: a list, or text such as "A,C"."""

    def read(value) -> tuple[str, ...]:
        found = listed(value)
        for word in found:
            choice(*allowed)(word)
        if len(found) < least or len(set(found)) < len(found):
            few = "one or more" if least == 1 else "two or more"
            raise ValueError(f"{value!r} must be {few} different options; write for example {','.join(allowed[-2:])}.")
        return tuple(word for word in allowed if word in found)

    return read
