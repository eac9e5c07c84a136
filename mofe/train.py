"""Training: one loop for every method and scale, to be read in one sitting.

AdamW with linear decay on the mean loss over the answers' tokens of the global batch (section 4.1).
The loop is ours, on accelerate, because the Trainer of transformers drops a Mixtral's experts when
it resumes and ends with exit code 0 on a loss that is not a number.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from mofe import methods, models, provenance
from mofe.data import sources, tokens
from mofe.files import write_atomic


class AnswerLoss(nn.Module):
    """A causal language model's summed cross-entropy over the labelled tokens.

    Logits are computed at the labelled positions only: of a multiple-choice row, one or two.
    """

    def __init__(self, model: nn.Module, router_aux_loss: float = 0.0):
        super().__init__()
        self.model, self.router_aux_loss = model, router_aux_loss

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """int64 (rows, length) each, labels -100 where there is no loss -> a float32 scalar.

        Rows are padded on the right and attention is causal, so padding cannot reach a row: the
        mask only keeps it out of the router's auxiliary loss.

        The router's auxiliary loss, a mean over tokens, counts once for each labelled token, so
        that dividing by their number leaves both terms as they are meant.
        """
        plain = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        balanced = self.router_aux_loss > 0 and hasattr(plain.config, "num_local_experts")
        extra = {"output_router_logits": True} if balanced else {}
        out = plain.model(input_ids=input_ids, use_cache=False, **extra)
        targets = labels[:, 1:]
        picked = targets != tokens.IGNORED
        logits = plain.lm_head(out.last_hidden_state[:, :-1][picked])
        loss = F.cross_entropy(logits.float(), targets[picked], reduction="sum")
        if balanced:
            config = plain.config
            loss += (
                self.router_aux_loss
                * picked.sum()
                * load_balancing_loss_func(
                    out.router_logits,
                    config.num_local_experts,
                    config.num_experts_per_tok,
                    attention_mask,
                )
            )
        return loss


def fit(
    model: nn.Module, rows: tokens.Rows, training: Mapping[str, Any], seed: int, pad: int, log: Path
) -> dict[str, Any]:
    """Train the parameters that require gradients, in place.

    training: the resolved `training` keys. log: gets one JSON line an optimiser step (step, loss:
    mean over the global batch's answer tokens, learning_rate, tokens: seen so far, seconds).
    Returns the run's record (seconds by this loop's own clock). Raises FloatingPointError where
    the loss or the gradient's norm is not finite, ValueError where warm-up takes every step.
    """
    on_gpu = models.device().type == "cuda"
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision="bf16" if on_gpu else "no")
    steps = tokens.count_steps(len(rows), training["epochs"], training["global_batch"])
    optimizer = torch.optim.AdamW(
        _decay_groups(model, training["weight_decay"]), lr=training["learning_rate"]
    )
    warmup = training["warmup_steps"]
    if warmup >= steps:
        raise ValueError(
            f"training.warmup_steps: {warmup} steps of warm-up leave none of the {steps} steps; "
            "lower it"
        )

    def decay(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / (steps - warmup)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
    objective = AnswerLoss(model, training["router_aux_loss"])
    objective, optimizer = accelerator.prepare(objective, optimizer)
    objective.train()

    plan = tokens.schedule(
        rows.lengths, seed, training["epochs"], training["global_batch"], training["micro_batch"]
    )
    answers, lengths = rows.answers, rows.lengths
    seen = seen_answers = 0
    loss = float("nan")
    started = time.perf_counter()
    with open(log, "w") as lines:
        for number, micro_batches in enumerate(plan, 1):
            everything = [index for batch in micro_batches for index in batch]
            answer_tokens = sum(answers[i] for i in everything)
            seen += sum(lengths[i] for i in everything)
            seen_answers += answer_tokens
            total = torch.zeros((), device=accelerator.device)
            for batch in micro_batches:
                inputs = tokens.collate(rows, batch, pad)
                part = objective(**{k: v.to(accelerator.device) for k, v in inputs.items()})
                accelerator.backward(part / answer_tokens)
                total += part.detach()
            loss = (total / answer_tokens).item()
            norm = accelerator.clip_grad_norm_(objective.parameters(), training["max_grad_norm"])
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"training.learning_rate: at step {number} the loss is {loss} and the gradient's "
                    f"norm {norm:g} with {training['learning_rate']}; lower it"
                )
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - started
            record = {"step": number, "loss": loss, "learning_rate": rate, "tokens": seen}
            lines.write(json.dumps({**record, "seconds": round(seconds, 3)}) + "\n")
            lines.flush()
            left = seconds / number * (steps - number)
            print(f"step {number}/{steps}  loss {loss:.4f}  {left:.0f} s left", flush=True)
    return {
        "seconds": time.perf_counter() - started,
        "steps": steps,
        "rows": len(rows),
        "dropped_rows": rows.dropped,
        "tokens": seen,
        "answer_tokens": seen_answers,
        "final_loss": loss,
    }


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: norms and biases are excluded from weight decay, as is customary."""
    trained = methods.trained(model).values()
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


# --------------------------------------------------------------------------- what jobs call


def train_variant(
    *,
    merge: str,
    data: Sequence[str],
    parents: Sequence[str],
    chain: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    names: Mapping[str, str],
    seed: int,
    delta: Path,
    record: Path,
    log: Path,
) -> str:
    """Train one stage of a variant and store what was trained, with its record.

    merge: the merge's folder; parents, chain: deltas and methods of the stages before, first stage
    first; params: Plan.stage_params; names: of merge and stages, for the record. Returns a line
    for the user. Raises RuntimeError where a frozen parameter changed.
    """
    set_seed(seed)
    model = models.load_variant(merge, chain, parents)
    if chain:
        model = methods.fold(model)
    model = methods.apply(model, params)
    result = _fit_recorded(
        model, merge, tokens.read(data), params, seed, log, chain=list(chain), names=dict(names)
    )
    stored = torch.bfloat16 if models.device().type == "cuda" else torch.float32
    models.store_delta(model, delta, stored)
    write_atomic(record, json.dumps({**names, **result}, indent=2) + "\n")
    return _summary(result)


def train_dense(
    *, origin: str, data: Sequence[str], params: Mapping[str, Any], name: str, seed: int, out: Path
) -> str:
    """Fine-tune a dense model into an expert: a checkpoint, train.json and log.jsonl in `out`."""
    set_seed(seed)
    model = methods.apply(models.load(origin), params)
    out.mkdir(parents=True, exist_ok=True)
    result = _fit_recorded(model, origin, tokens.read(data), params, seed, out / "log.jsonl")
    return _store_dense(methods.fold(model), origin, {"model": name, **result}, out)


def pretrain(*, world: str, params: Mapping[str, Any], name: str, out: Path) -> str:
    """Pretrain a small Llama on the generated world's corpus: the mini study's base model."""
    set_seed(params["seed"])
    origin = f"{world}/mofe/tokenizer"
    tokenizer = models.tokenizer(origin)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        tie_word_embeddings=False,
        **params["shape"],
    )
    out.mkdir(parents=True, exist_ok=True)
    model = LlamaForCausalLM(config)
    corpus = sources.load({"repo": "mofe/corpus"}, None, "train", mirror=world)
    params = {"recipe": "pretraining", **params}
    pairs = [("", text) for text in corpus["text"]]
    result = _fit_recorded(model, origin, pairs, params, params["seed"], out / "log.jsonl")
    return _store_dense(model, origin, {"model": name, **result}, out)


def _fit_recorded(model, origin, pairs, params, seed, log, **hashed) -> dict[str, Any]:
    """Fit, and the record of train.json: counts, seconds, hashes, provenance. `hashed` is what
    else the result depends on, for its config_hash."""
    training, tokenizer = params["training"], models.tokenizer(origin)
    rows = tokens.tokenize(pairs, tokenizer, training["max_length"])
    counts = {
        "trainable_parameters": sum(p.numel() for p in methods.trained(model).values()),
        "total_parameters": total_parameters(model),
    }
    model = models.place(model)
    log.parent.mkdir(parents=True, exist_ok=True)
    before = provenance.hash_tensors(methods.frozen(model))
    result = fit(model, rows, training, seed, tokenizer.pad_token_id, log)
    after = provenance.hash_tensors(methods.frozen(model))
    if before != after:
        raise RuntimeError(f"a frozen parameter changed during training: {before} became {after}")
    return {
        "recipe": params["recipe"],
        "seed": seed,
        **counts,
        **result,
        "frozen_sha256": {"before": before, "after": after},
        "config_hash": provenance.hash_config({**params, "seed": seed, **hashed}),
        **provenance.stamp(),
    }


def total_parameters(model: nn.Module) -> int:
    """All parameters, a 4-bit one counted by the weights it stands for."""
    return sum(
        p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel()
        for p in model.parameters()
    )


def _store_dense(model: nn.Module, origin: str, record: Mapping[str, Any], out: Path) -> str:
    model.save_pretrained(out)
    models.tokenizer(origin).save_pretrained(out)
    write_atomic(out / "train.json", json.dumps(record, indent=2) + "\n")
    return _summary(record)


def _summary(record: Mapping[str, Any]) -> str:
    return (
        f"{record['steps']} steps in {record['seconds']:.1f} s, final loss "
        f"{record['final_loss']:.3f}, {record['trainable_parameters']:,} parameters trained"
    )
