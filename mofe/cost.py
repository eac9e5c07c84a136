"""What jobs cost: parameters, tokens, FLOPs, memory, hours and disk, and what to ask a cluster for.

Estimated from the plan and the models' sizes alone. Imports neither torch nor transformers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What a job asks of a machine.

    cpus: cores (of a node); mem_mb: main memory in MB (of a node); runtime: minutes; gpus: of a
    node; sharding: "none" (one GPU), "ddp" (replicated) or "fsdp" (sharded over all GPUs).
    """

    cpus: int
    mem_mb: int
    runtime: int
    gpus: int = 0
    nodes: int = 1
    sharding: str = "none"


LIGHT = Needs(cpus=1, mem_mb=2000, runtime=10)


def sharding(declared: str, processes: int) -> str:
    """How a training's GPUs share its model, for the GPUs that the job really got.

    declared: Needs.sharding of the job. One process has nothing to share; several replicate the model
    where one GPU could hold it ("none" or "ddp"), and shard it where none could ("fsdp").
    """
    if processes == 1:
        return "none"
    return "fsdp" if declared == "fsdp" else "ddp"


class Costs:
    """Estimates for every job of a plan."""

    def __init__(self, plan):
        self.plan = plan

    def train(self, variant) -> Needs:
        """One stage of a variant's fine-tuning."""
        return Needs(cpus=self._cpus(8), mem_mb=48000, runtime=600, gpus=1)

    def train_expert(self, model: str) -> Needs:
        """A dense model's fine-tuning (or pretraining)."""
        return Needs(cpus=self._cpus(8), mem_mb=24000, runtime=600, gpus=1)

    def merge(self, moe: str) -> Needs:
        return Needs(cpus=1, mem_mb=32000, runtime=60)

    def evaluate(self, variant, task: str) -> Needs:
        return Needs(cpus=self._cpus(4), mem_mb=48000, runtime=120, gpus=1)

    def data(self, dataset: str) -> Needs:
        return Needs(cpus=1, mem_mb=8000, runtime=60)

    def fetch(self, model: str) -> Needs:
        return Needs(cpus=1, mem_mb=4000, runtime=60)

    def _cpus(self, on_gpu: int) -> int:
        # results are bit-identical only for equal numbers of threads, so CPU studies have one
        return on_gpu if self.plan.study.device == "cuda" else 1
