"""Training: one loop for every method and scale, to be read in one sitting.

AdamW with linear decay minimises the mean loss over the answer tokens of the global batch (section
4.1). The loop is ours, on accelerate, because the Trainer of transformers loses a Mixtral's experts
when it resumes, and ends with exit code 0 when the loss is not a number.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from mofe import processes, records
from mofe.layers import parameters, positions, vocabulary
from mofe.layers.domains import told
from mofe.progress import Progress as Bar
from mofe.study.hardware import Sharding
from mofe.training import drift, parallel, routing, tokens, track
from mofe.training.checkpoint import Checkpoint
from mofe.training.saved import Progress
from mofe.training.unfreezing import Schedule, Unfrozen


class OutOfMemory(RuntimeError):
    """Memory does not suffice for a training's rows at once."""


class DamagedModel(FloatingPointError):
    """A model has values that are not finite before it is trained."""


class AnswerLoss(nn.Module):
    """A causal language model's summed cross-entropy over the labelled tokens, with the router's
    auxiliary loss.

    auxiliary: the part of the last result that is the auxiliary loss, without a gradient; zero
    where there is none. Logits and the last layer's FFN are computed at the labelled positions
    only: a multiple-choice row has one or two.
    """

    def __init__(self, model: nn.Module, router_aux_loss: float = 0.0):
        super().__init__()
        self.model, self.router_aux_loss = model, router_aux_loss
        self.auxiliary = torch.zeros(())

    @property
    def plain(self) -> nn.Module:
        """The causal language model with its adapters, without peft's wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def is_balanced(self) -> bool:
        """Whether there is an auxiliary loss. It needs the routers of all positions."""
        return self.router_aux_loss > 0 and hasattr(self.plain.config, "num_local_experts")

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        attention_mask: torch.Tensor,
        domains: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Three int64 (rows, length) -> a float32 scalar. Labels are -100 where there is no loss.
        domains: int64 (rows,), for routers that go by them (mofe.layers.domains).

        Rows are padded on the right and attention is causal, so no row's tokens see padding: the
        mask only keeps padding out of the router's auxiliary loss.

        That auxiliary loss is a mean over tokens. It is added once per labelled token, because the
        caller divides the sum by the number of labelled tokens.
        """
        plain, balanced = self.plain, self.is_balanced
        extra = {"output_router_logits": True} if balanced else {}
        targets, read = labels[:, 1:], tokens.predicting(labels)
        picked = read[:, :-1]
        with ExitStack() as within:
            if not balanced:  # the auxiliary loss needs all positions
                within.enter_context(positions.only_at(plain.model, read))
            if domains is not None:
                of_tokens = domains[:, None].expand_as(input_ids)
                within.enter_context(told(plain.model, of_tokens, None if balanced else read))
            out = plain.model(input_ids=input_ids, use_cache=False, **extra)
        logits = plain.lm_head(out.last_hidden_state[:, :-1][picked])
        loss = F.cross_entropy(logits.float(), targets[picked], reduction="sum")
        self.auxiliary = torch.zeros_like(loss)
        if not balanced:
            return loss
        config = plain.config
        balance = load_balancing_loss_func(
            *(out.router_logits, config.num_local_experts, config.num_experts_per_tok),
            attention_mask,
        )
        auxiliary = self.router_aux_loss * picked.sum() * balance
        self.auxiliary = auxiliary.detach()
        return loss + auxiliary


def fit(
    model: nn.Module,
    rows: tokens.Rows,
    training: Mapping[str, Any],
    seed: int,
    pad: int,
    checkpoint: Checkpoint,
    sharding: Sharding = "none",
    watched: track.Watched | None = None,
    unfrozen: Sequence[Unfrozen] = (),
) -> records.Run:
    """Train the parameters that require gradients, in place, in all processes of this job.

    training: the resolved `training` keys, with micro_batch a number. checkpoint: the state to go
    on from, entered; the loop saves to it from time to time, on a signal, and after the last step.
    Its log gets one LossStep per optimiser step. sharding: how several processes share the work. It
    changes neither the rows of a step nor the loss. Where memory does not suffice, the step is
    computed again with half the rows at once, which changes neither. watched: who is told of each
    step besides, if anyone; it changes nothing either. unfrozen: those of the parameters that stay
    as they are until a part of the training is done.

    Returns what it measured (seconds by its own clock) and counted. Raises FloatingPointError where
    the loss or the gradient's norm is not finite, ValueError where warm-up or what is to stay as it
    is takes every step, RuntimeError where that changed, OutOfMemory where one row at once is too
    much, Interrupted after a signal.
    """
    accelerator = parallel.accelerator(**track.arguments(watched))
    steps = tokens.count_steps(len(rows), training["epochs"], training["global_batch"])
    rate = _decay(training, steps)
    losses = AnswerLoss(model, training["router_aux_loss"])
    objective = parallel.prepare(losses, accelerator, sharding)
    objective.train()
    trained = parameters.trained(model)
    before = drift.Before(model, checkpoint.folder, sharded=sharding == "fsdp")
    phases = Schedule(unfrozen, trained, steps)
    optimizer = torch.optim.AdamW(_decay_groups(trained, training["weight_decay"]), fused=True)
    every = training.get("record_router")
    recorder = routing.Recorder(losses.plain.model, rows, every, steps, losses.is_balanced)
    answers, lengths = rows.answers, rows.lengths
    on_cpu = accelerator.device.type == "cpu"
    # without a look, in each step, for every kind of accelerator that there may be
    seeded = torch.default_generator.manual_seed if on_cpu else torch.manual_seed

    def schedule(done: int, rows_at_once: int) -> Iterator[list[list[int]]]:
        """The micro-batches of each step after `done`."""
        every = tokens.schedule(
            lengths,
            seed,
            training["epochs"],
            training["global_batch"],
            most_tokens=rows_at_once * training["max_length"],
            processes=parallel.processes(),
            starting=tokens.STARTING[accelerator.device.type],
        )
        return islice(every, done, None)

    def gradients(step: list[list[int]], number: int) -> tuple[float, float, float]:
        """The gradients of an optimiser step. Returns loss, auxiliary loss and gradient's norm."""
        answer_tokens = sum(answers[i] for batch in step for i in batch)
        # what a step draws (dropout) depends only on the step's number, also after a restart
        seeded(_step_seed(seed, number))
        total = torch.zeros(2, device=accelerator.device)  # of the answers, and the router's
        recorder.begin(number, total.device)
        mine = parallel.assign(step, parallel.processes(), parallel.rank())
        for turn, (batch, counts) in enumerate(mine, 1):
            inputs = tokens.collate(rows, batch, pad, counts)
            with parallel.no_sync(objective, accelerator, last=turn == len(mine)):
                seen = recorder.seeing(batch, inputs) if counts else nullcontext()
                with seen, accelerator.autocast():
                    part = objective(**{k: v.to(total.device) for k, v in inputs.items()})
                # gradients are averaged over the processes, but should be summed
                accelerator.backward(part * parallel.processes() / answer_tokens)
            total += torch.stack([part.detach() - losses.auxiliary, losses.auxiliary])
            del part  # and its graph, which holds the weights' bfloat16 copies
            checkpoint.stop_if_asked(save)
        loss, auxiliary = (accelerator.reduce(total) / answer_tokens).tolist()
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), training["max_grad_norm"])
        return loss, auxiliary, parallel.full_tensor(norm).item()

    def reach(done: int) -> None:
        """Train what is trained after so many steps."""
        nonlocal objective
        if phases.reach(done) and sharding == "ddp":
            objective = parallel.prepared_again(losses, accelerator)

    def save() -> None:
        nonlocal progress
        # the system keeps the most so far, so that no step need ask for it
        most = max(progress.peak_memory_bytes, _peak_memory())
        progress = progress.model_copy(update={"peak_memory_bytes": most})
        checkpoint.reached(progress)
        checkpoint.save(trained, optimizer)

    progress = checkpoint.restore(trained, optimizer, steps)
    reach(progress.step)
    micro_batch = checkpoint.rows_at_once(training["micro_batch"])
    restored, started = progress, time.perf_counter()
    computed = time.process_time()
    alone = parallel.processes() == 1 and on_cpu
    with (
        checkpoint.protected(),
        checkpoint.logging() as log,
        vocabulary.summed_in_place(model) if alone else nullcontext(),
        track.told(accelerator, watched, progress, {**training, "seed": seed}) as tell,
        Bar(total=steps, initial=progress.step, unit="steps") as bar,
    ):
        upcoming = schedule(progress.step, micro_batch)
        while progress.step < steps:
            number, step = progress.step + 1, next(upcoming)
            reach(progress.step)
            try:
                loss, auxiliary, norm = gradients(step, number)
                fits = True
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                # what the error holds is freed only behind this block
                fits, lacked = False, str(error).splitlines()[0]
            if not fits:
                _free(model, optimizer)
                micro_batch = _fewer(checkpoint, micro_batch, save, lacked)
                upcoming = schedule(progress.step, micro_batch)
                continue
            if not all(map(math.isfinite, (loss, auxiliary, norm))):
                _refuse_damaged(model)
                raise FloatingPointError(
                    f"training.learning_rate: at step {number} the loss is {loss + auxiliary} and "
                    f"the gradient's norm {norm:g} with {training['learning_rate']}; lower it"
                )
            for group in optimizer.param_groups:
                group["lr"] = rate(number - 1)
            optimizer.step()
            parameters.stepped(model)
            optimizer.zero_grad(set_to_none=True)
            indices = [index for batch in step for index in batch]
            passed = time.perf_counter() - started
            computing = parallel.summed(time.process_time() - computed)
            progress = Progress(
                step=number,
                tokens=progress.tokens + sum(lengths[i] for i in indices),
                answer_tokens=progress.answer_tokens + sum(answers[i] for i in indices),
                seconds=restored.seconds + passed,
                device_seconds=restored.device_seconds + passed * parallel.processes(),
                cpu_seconds=restored.cpu_seconds + computing,
                peak_memory_bytes=progress.peak_memory_bytes,
                resumed=progress.resumed,
            )
            checkpoint.reached(progress)
            reached = records.LossStep(
                step=number,
                loss=loss,
                auxiliary_loss=auxiliary,
                learning_rate=rate(number - 1),
                tokens=progress.tokens,
                seconds=round(progress.seconds, 3),
                **recorder.found(),
            )
            log(reached)
            tell(reached, norm)
            bar.update(1, _said(reached))
            if parallel.any_of(checkpoint.due()) or number == steps:
                save()
        checkpoint.stop_if_asked(save)
    # what has a default is written only where it says something (records.write)
    found = {"unfrozen": phases.records()} if unfrozen else {}
    found |= {"replayed_rows": rows.replayed} if rows.replayed else {}
    found["drift"] = before.drift()
    return _run(progress, steps, rows, checkpoint, sharding, micro_batch, found)


def _said(line: records.LossStep) -> str:
    """What a line of progress says of a step."""
    auxiliary = f" + {line.auxiliary_loss:.4f} auxiliary" if line.auxiliary_loss else ""
    return f"loss {line.loss:.4f}{auxiliary}"


def _run(
    progress: Progress,
    steps: int,
    rows: tokens.Rows,
    checkpoint: Checkpoint,
    sharding: Sharding,
    micro_batch: int,
    more: Mapping[str, Any],
) -> records.Run:
    """What a training that is done has measured and counted. more: further fields."""
    last = checkpoint.last_line
    return records.Run(
        seconds=progress.seconds,
        device_seconds=progress.device_seconds,
        cpu_seconds=progress.cpu_seconds,
        steps=steps,
        rows=len(rows),
        dropped_rows=rows.dropped,
        tokens=progress.tokens,
        answer_tokens=progress.answer_tokens,
        final_loss=last.loss,
        final_auxiliary_loss=last.auxiliary_loss,
        segments=checkpoint.segments(),
        resumed=progress.resumed,
        processes=parallel.processes(),
        sharding=sharding,
        micro_batch=micro_batch,
        peak_memory_bytes=progress.peak_memory_bytes,
        **more,
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: a GPU's, or the machine's."""
    # torch has no class for its CPU allocator's error
    words = ("can't allocate memory", "Cannot allocate memory")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(word in str(error) for word in words)


def _free(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Drop what a step that failed left: gradients, and what modules computed from parameters."""
    optimizer.zero_grad(set_to_none=True)
    parameters.stepped(model)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fewer(checkpoint: Checkpoint, rows: int, save: Callable[[], None], lacked: str) -> int:
    """Half the rows at once, after memory did not suffice for these. lacked: torch's words.

    Raises OutOfMemory where there is no half, and in several processes, which wait for each other
    in the middle of the step and must be started again (mofe/jobs/launch.py).
    """
    if rows == 1:
        raise OutOfMemory(
            f"training.max_length: memory does not suffice for one row at once ({lacked}); lower "
            "it, or give the job more memory or more GPUs (docs/slurm.md)"
        )
    told = f"memory does not suffice for {rows} rows at once ({lacked}); going on with {rows // 2}"
    if parallel.processes() > 1:
        checkpoint.halve()
        raise OutOfMemory(told)
    print(told, flush=True)
    save()
    return checkpoint.halve()


def _refuse_damaged(model: nn.Module) -> None:
    """Raises FloatingPointError where a parameter is not finite. A step changes parameters only
    after a finite loss with finite gradients, so it was not when the training began."""
    for name, parameter in model.named_parameters():
        part = parameters.floats(parameter)
        part = part.to_local() if hasattr(part, "to_local") else part
        if part.is_floating_point() and not part.isfinite().all():
            raise DamagedModel(
                f"{name} has values that are not finite (NaN or infinite), and had them when the "
                "training began"
            )


def _decay(training: Mapping[str, Any], steps: int) -> Callable[[int], float]:
    """The learning rate of each step, from 0: linear warm-up, then linear decay to zero."""
    warmup, highest = training["warmup_steps"], training["learning_rate"]
    if warmup >= steps:
        raise ValueError(
            f"training.warmup_steps: {warmup} steps of warm-up leave none of the {steps} steps; "
            "lower it"
        )

    def rate(step: int) -> float:
        if step < warmup:
            return highest * ((step + 1) / (warmup + 1))
        return highest * ((steps - step) / (steps - warmup))

    return rate


def _decay_groups(trained: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: as is customary, weight decay leaves out norms and biases."""
    parameters = trained.values()
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _step_seed(seed: int, step: int) -> int:
    """A seed for this step in this process."""
    words = np.random.SeedSequence([seed, step, parallel.rank()]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def _peak_memory() -> int:
    """The most memory that this process has had so far, in bytes: on its GPU, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return processes.peak_memory()
