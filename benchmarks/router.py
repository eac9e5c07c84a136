"""What recording a mixture's routers costs (`training.record_router`).

    python benchmarks/router.py             to benchmarks/results/router.json
    python benchmarks/router.py --quick     whether it works, in a minute

A mixture of four different experts is trained by MoFE twice in each turn: without recording, and with
every second step recorded. `step` is the ratio of a recorded step to the step after it, which is not
recorded: neighbours in one training, so a machine that is slow for a second is slow for both. `run` is
the ratio of the two trainings. Both are of CPU seconds (with a GPU, of seconds by the clock). What
every n-th step costs is a n-th of what a recorded step costs. Losses must be equal, or it fails.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from common import forked, preload, ratio, stamped, start_over, write
from training import PRELOAD, SIZES, Size, at_once, build, has_gpu, make_rows

SHOWN = (1, 10, 50)  # record_router
# One optimiser step has the rows of the study's own: a small batch is the worst case.
STUDIES = {
    "mini": replace(SIZES["mini"], rows=32, steps=300),
    "rows": replace(SIZES["rows"], rows=16, steps=20),
}
ON_GPU = {"tinyllama": replace(SIZES["tinyllama"], rows=128, steps=50)}
EXPERTS = 4
WARM_UP = 2  # steps that are left out


def train(size: Size, rows, every: int | None) -> dict:
    """mofe.training.loop.fit: CPU seconds and seconds of each step, and its loss."""
    import torch
    from memory import METHODS

    from mofe.layers import experts
    from mofe.models import devices, methods
    from mofe.records import LossStep, read_lines
    from mofe.training.checkpoint import Checkpoint
    from mofe.training.loop import fit

    class Timed(Checkpoint):
        """A checkpoint that notes when each step was reached."""

        def reached(self, progress) -> None:
            super().reached(progress)
            if progress.step == len(at):  # a step is noted again when its state is saved
                at.append((progress.cpu_seconds, progress.seconds))

    at = [(0.0, 0.0)]
    model = build(size.shape.mixture(EXPERTS, 2), identical=False)
    model.set_experts_implementation(experts.GROUPED)
    model = devices.to_device(methods.apply(model, METHODS["mofe"]))
    training, _ = at_once(size, size.shape.mixture(EXPERTS, 2), "mofe")
    with (
        tempfile.TemporaryDirectory() as folder,
        Timed(Path(folder) / "checkpoint", "benchmark") as checkpoint,
    ):
        torch.manual_seed(0)
        fit(model, rows, training | {"record_router": every}, 0, 0, checkpoint)
        losses = [step.loss for step in read_lines(checkpoint.log, LossStep)]
    clock = int(torch.cuda.is_available())
    took = [after[clock] - before[clock] for before, after in pairwise(at)]
    return {"seconds": took[WARM_UP:], "losses": losses}


def compare(size: Size, rows, turns: int) -> dict:
    """The ratios of recorded steps to others, and of trainings with recording to those without."""
    steps, runs, seconds = [], [], []
    for turn in range(turns):
        order = (None, 2) if turn % 2 else (2, None)
        found = {every: forked(train, size, rows, every) for every in order}
        if found[None]["losses"] != found[2]["losses"]:
            raise RuntimeError("recording changes the losses")
        plain, recorded = found[None]["seconds"], found[2]["seconds"]
        seconds.append(statistics.median(plain))
        # what is left after the warm-up begins with a step that is not recorded, and so does a pair
        pairs = list(zip(recorded[1::2], recorded[2::2], strict=False))
        steps.append(sum(one for one, _ in pairs) / sum(other for _, other in pairs))
        runs.append(sum(recorded) / sum(plain))
    cost = statistics.median(steps) - 1
    return {
        "steps": size.steps,
        "rows": size.rows,
        "seconds_per_step": seconds,
        "step": summary(steps),
        "run": summary(runs),
        "cost_of_every": {str(every): cost / every for every in SHOWN},
    }


def summary(ratios: list[float]) -> dict:
    return ratio(ratios, [1.0] * len(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", help="of " + ", ".join([*STUDIES, *ON_GPU]))
    parser.add_argument("--quick", action="store_true", help="one turn of few steps")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    start_over(arguments.threads)
    preload(*PRELOAD)
    sizes = ON_GPU if forked(has_gpu) else STUDIES
    record = {"experts": EXPERTS, "method": "mofe", "threads": arguments.threads, "sizes": {}}
    for name in arguments.sizes or sizes:
        size = (STUDIES | ON_GPU)[name]
        if arguments.quick:
            size = replace(size, steps=min(size.steps, 12))
        with tempfile.TemporaryDirectory() as folder:
            rows, vocabulary = forked(make_rows, size, Path(folder))
        size = replace(size, shape=replace(size.shape, vocab_size=vocabulary))
        record["sizes"][name] = compare(size, rows, 1 if arguments.quick else arguments.turns)
        print(name, {key: record["sizes"][name][key] for key in ("step", "run", "cost_of_every")})
    if not arguments.quick:
        write("router-gpu" if sizes is ON_GPU else "router", stamped(record))


if __name__ == "__main__":
    main()
