"""What the paper says: its claims C1-C22 (claims.csv) and every number that it reports (paper.csv)."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: where it stands, what it says, its numbers in short, what would show it."""

    id: str
    where: str
    text: str
    paper: str
    would_show: str

    @property
    def on_imagenet(self) -> bool:
        """Whether the paper states it for ImageNet."""
        return self.where.startswith("§4.1")


def _table(name: str) -> list[dict[str, str]]:
    with files(__package__).joinpath(name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


CLAIMS = tuple(Claim(**row) for row in _table("claims.csv"))


def claim_of(rule: str) -> Claim:
    """The claim that a rule, C8a, belongs to."""
    return next(claim for claim in CLAIMS if claim.id == rule.rstrip("abc"))


@cache
def paper() -> dict[str, float]:
    """What the paper reports, by quantity: `paper()["table6.resnet20.test_error"]` is in the unit that paper.csv gives."""
    return {row["quantity"]: float(row["value"]) for row in _table("paper.csv")}
