"""What is trained and evaluated, and its name: mixtures and dense models after their stages of
training."""

from dataclasses import dataclass, replace

UNTUNED = "none"


@dataclass(frozen=True)
class Stage:
    """Training on one mix by one recipe.

    rate: of a search's candidate, the learning rate that it tries.
    """

    mix: str
    recipe: str
    rate: float | None = None

    @property
    def name(self) -> str:
        tried = "" if self.rate is None else f"-{self.rate:g}"
        return f"{self.mix}_{self.recipe}{tried}"


@dataclass(frozen=True)
class Moe:
    """A merged mixture: the base model and the expert of every slot, in slot order.

    gate_mode, prompts, experts_per_token: where they differ from the study's `merge`.
    """

    base: str
    experts: tuple[str, ...]
    gate_mode: str | None = None
    prompts: str | None = None
    experts_per_token: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The dense models that it is merged from, the base first, each once."""
        return tuple(dict.fromkeys((self.base, *self.experts)))

    @property
    def name(self) -> str:
        counts = {e: self.experts.count(e) for e in self.experts}
        parts = [self.base, "-".join(f"{n}{e}" for e, n in counts.items())]
        parts += [part for part in (self.gate_mode, self.prompts) if part]
        parts += [f"top{self.experts_per_token}"] if self.experts_per_token else []
        return "_".join(parts)


@dataclass(frozen=True)
class Dense:
    """A dense model, which a table shows beside mixtures."""

    base: str
    experts: tuple[()] = ()

    @property
    def models(self) -> tuple[str, ...]:
        return (self.base,)

    @property
    def name(self) -> str:
        return self.base


@dataclass(frozen=True)
class Variant:
    """A mixture or a dense model after its stages of training; without stages, as it is."""

    origin: Moe | Dense
    stages: tuple[Stage, ...] = ()

    @property
    def name(self) -> str:
        return ".".join(s.name for s in self.stages) or UNTUNED

    @property
    def key(self) -> str:
        """The variant's part of an address: origin/stages."""
        return f"{self.origin.name}/{self.name}"

    @property
    def parents(self) -> tuple["Variant", ...]:
        """The trained variants that this one starts from, first stage first."""
        return tuple(Variant(self.origin, self.stages[:n]) for n in range(1, len(self.stages)))

    @property
    def is_candidate(self) -> bool:
        """Whether it tries a learning rate of a search."""
        return bool(self.stages) and self.stages[-1].rate is not None

    def at(self, rate: float) -> "Variant":
        """The candidate that trains the last stage at this learning rate."""
        return Variant(self.origin, (*self.stages[:-1], replace(self.stages[-1], rate=rate)))
