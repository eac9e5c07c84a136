"""What is trained and evaluated: mixtures after their stages of training, and their names."""

from dataclasses import dataclass

UNTUNED = "none"


@dataclass(frozen=True)
class Stage:
    """Training on one mix by one recipe."""

    mix: str
    recipe: str

    @property
    def name(self) -> str:
        return f"{self.mix}_{self.recipe}"


@dataclass(frozen=True)
class Moe:
    """A merged mixture: the base model and the expert of every slot, in slot order."""

    base: str
    experts: tuple[str, ...]

    @property
    def name(self) -> str:
        counts = {e: self.experts.count(e) for e in self.experts}
        return f"{self.base}_" + "-".join(f"{n}{e}" for e, n in counts.items())


@dataclass(frozen=True)
class Variant:
    """A mixture after its stages of training; without stages it is the merge itself."""

    moe: Moe
    stages: tuple[Stage, ...] = ()

    @property
    def name(self) -> str:
        return ".".join(s.name for s in self.stages) or UNTUNED

    @property
    def key(self) -> str:
        """Its part of every address: merge/stages."""
        return f"{self.moe.name}/{self.name}"

    @property
    def parents(self) -> tuple["Variant", ...]:
        """The trained variants that this one starts from, first stage first."""
        return tuple(Variant(self.moe, self.stages[:n]) for n in range(1, len(self.stages)))
