"""How predictions are inverted against their records."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from comp.core.errors import InputError
from comp.fwi.guesses import Newton
from comp.fwi.lbfgs import Search
from comp.fwi.wave import Solver

Precision = Literal["float32", "float64"]
_CHOICES = {"solver": Solver, "precision": Precision, "newton": Newton}


@dataclass(frozen=True)
class Settings:
    """How samples are inverted.

    Attributes:
        evaluations: simulations with gradient of one sample, at most; the start's is the first.
        tolerance: relative L2 misfit at which a sample is done.
        stall: a sample stops when its misfit fell by less than this share …
        patience: … over so many evaluations.
        reweight: the penalty's weight is set anew after so many evaluations, to the prior's share
            of the squared misfit; it never rises. A fixed weight would rule the end, where the
            misfit is small, and take height off the interfaces.
        batch: samples that advance together.
        solver: of `comp.fwi.wave.simulate`.
        precision: of the simulations; the optimiser works in float64.
        newton: Gauss-Newton for layered and smooth maps; see `comp.fwi.guesses.guesses`.
        curved: layers between bent interfaces first, where they explain the record.
        search: of the optimiser.

    Raises:
        InputError: a number below 1, an unknown solver, precision or newton.
    """

    evaluations: int = 150
    tolerance: float = 1e-5
    stall: float = 0.02
    patience: int = 30
    reweight: int = 10
    batch: int = 32
    solver: Solver = "sponge"
    precision: Precision = "float32"
    newton: Newton = "auto"
    curved: bool = True
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        for name in ("evaluations", "patience", "reweight", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in get_args(known):
                expected = " or ".join(map(repr, get_args(known)))
                raise InputError(f"{name}: got {getattr(self, name)!r}, expected {expected}")
