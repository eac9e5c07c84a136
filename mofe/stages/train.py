"""The trainings of a study: a stage of a variant, a dense expert, and the mini study's base
model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from mofe import checksums, provenance, records
from mofe.data import sources
from mofe.estimate import flops, memory
from mofe.files import write_atomic
from mofe.layers import experts, parameters
from mofe.models import devices, load, manifest, methods, store
from mofe.study import hardware
from mofe.study.checks.training import too_long
from mofe.study.hardware import Sharding
from mofe.study.methods import Full, Method, parse
from mofe.study.shapes import Shape
from mofe.training import loop, parallel, routing, tokens, track
from mofe.training.checkpoint import Checkpoint


def train_variant(
    *,
    merge: str,
    data: Sequence[str],
    parents: Sequence[str],
    chain: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    names: Mapping[str, str],
    seed: int,
    trained: Path,
    record: Path,
    log: Path,
    checkpoint: Path,
    search: Sequence[str] = (),
    sharding: Sharding = "none",
    config_hash: str | None = None,
    watched: Mapping[str, Any] | None = None,
    replay: Sequence[str] = (),
) -> str:
    """Train one stage of a variant, and store the trained parameters and the record.

    merge: the merge's folder. parents, chain: the files of trained parameters and the methods of
    the stages before, first stage first. params: Plan.params.stage. names: of merge and stages, for
    the record. checkpoint: a folder for this training alone, from which an interrupted training
    goes on; it is left there, for the caller to remove once the result is safe. search: the
    search.json that has the learning rate, where `params` has none. config_hash: of all that the
    training depends on (mofe.study.identity); without one, that of these parameters. watched: the
    values of a mofe.training.track.Watched, where the training is watched. replay: the training
    sets that rows are replayed from, of which `params` then says how many.

    Every process of the job calls this; the first one writes. Returns a line for the user. Raises
    RuntimeError where a frozen parameter changed, and Interrupted on a signal.
    """
    with Checkpoint(checkpoint) as kept:
        set_seed(seed)
        params = _with_learning_rate(params, search)
        method = parse(params)
        model = load.variant(merge, [parse(stage) for stage in chain], parents)
        if chain:
            model = methods.merge_and_unload(model)
        model = methods.apply(model, method)
        inputs = [*manifest.files(merge), *data, *replay, *parents]
        found = _fit_recorded(
            *(model, method, merge, tokens.read(data), params, seed, kept, inputs, sharding),
            config_hash or _own_hash(params, seed, chain=list(chain), names=dict(names)),
            watched,
            tokens.read(replay),
            tokens.sets([*data, *replay]),
        )
        share = routing.token_share(kept.steps(), method.updated_experts(_shape(model)))
        result = records.TrainRecord(**names, **found, **share)
        with kept.protected():
            store.trained(model, trained)
            if parallel.rank() == 0:
                _write(result, kept, record, log)
    return _summary(result)


def _with_learning_rate(params: Mapping[str, Any], search: Sequence[str]) -> Mapping[str, Any]:
    """The training's parameters with the best learning rate of its search, if it has one."""
    for file in search:
        best = records.read(file, records.SearchRecord).best
        params = {**params, "training": {**params["training"], "learning_rate": best}}
    return params


def train_dense(
    *,
    origin: str,
    data: Sequence[str],
    params: Mapping[str, Any],
    name: str,
    seed: int,
    out: Path,
    checkpoint: Path,
    sharding: Sharding = "none",
    config_hash: str | None = None,
    watched: Mapping[str, Any] | None = None,
    replay: Sequence[str] = (),
) -> str:
    """Fine-tune a dense model into an expert: a checkpoint, train.json and log.jsonl in `out`.

    Arguments as in train_variant.
    """
    with Checkpoint(checkpoint) as kept:
        set_seed(seed)
        method = parse(params)
        model = methods.apply(load.checkpoint(origin), method)
        inputs = [*manifest.files(origin), *data, *replay]
        found = _fit_recorded(
            *(model, method, origin, tokens.read(data), params, seed, kept, inputs, sharding),
            config_hash or _own_hash(params, seed),
            watched,
            tokens.read(replay),
        )
        result = records.DenseTrainRecord(model=name, **found)
        _store_dense(model, method, params, origin, result, kept, out)
    return _summary(result)


def pretrain(
    *,
    world: str,
    params: Mapping[str, Any],
    name: str,
    out: Path,
    checkpoint: Path,
    config_hash: str | None = None,
    watched: Mapping[str, Any] | None = None,
) -> str:
    """Pretrain a small Llama on the generated world's corpus: the mini study's base model.
    config_hash, watched as in train_variant."""
    with Checkpoint(checkpoint) as kept:
        set_seed(params["seed"])
        origin = f"{world}/mofe/tokenizer"
        tokenizer = load.tokenizer(origin)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
            tie_word_embeddings=False,
            **params["shape"],
        )
        model, method = LlamaForCausalLM(config), Full()
        corpus = sources.load({"repo": "mofe/corpus"}, None, "train", mirror=world)
        params = {"recipe": "pretraining", **params}
        pairs = [("", text) for text in corpus["text"]]
        found = _fit_recorded(
            *(model, method, origin, pairs, params, params["seed"], kept, [], "none"),
            config_hash or _own_hash(params, params["seed"]),
            watched,
        )
        result = records.DenseTrainRecord(model=name, **found)
        _store_dense(model, method, params, origin, result, kept, out)
    return _summary(result)


def _shape(model: nn.Module) -> Shape:
    return Shape.of(model.config.to_dict())


def _own_hash(params: Mapping[str, Any], seed: int, **more: Any) -> str:
    """The hash of a training's own parameters."""
    return provenance.hash_config({**params, "seed": seed, **more})


def _fit_recorded(
    model,
    method,
    origin,
    pairs,
    params,
    seed,
    kept,
    inputs,
    sharding,
    config_hash,
    watched,
    replay=(),
    sets=None,
) -> dict[str, Any]:
    """Train a model. Returns the values of train.json (a TrainRecord without its names). kept: the
    training's Checkpoint, entered. inputs: the files that it is made from. watched as in
    train_variant. replay: the (prompt, answer) pairs that rows are replayed from. sets: the number
    of the training set of each pair, those of `replay` last; None where there is one set."""
    told_to = track.Watched(**watched) if watched else None
    track.arguments(told_to)  # a program that is missing is told before anything is computed
    stamp = provenance.stamp()  # first, so that a failure comes before the training
    length, positions = params["training"]["max_length"], model.config.max_position_embeddings
    if length > positions:
        raise ValueError(too_long("training.max_length", length, positions, Path(origin).name))
    tokenizer = load.tokenizer(origin)
    rows = _rows(pairs, replay, sets, tokenizer, params)
    training = _with_micro_batch(model, method, params["training"], rows, sharding)
    counts = {
        "trainable_parameters": sum(p.numel() for p in parameters.trained(model).values()),
        "total_parameters": parameters.total(model),
    }
    shape = _shape(model)
    if training["fold_duplicates"]:
        model = experts.fold_duplicates(model)
        if experts.holds_one(model):
            shape = replace(shape, num_experts_per_tok=1)
    model = devices.to_device(model, sharded=sharding == "fsdp")
    # the rows in their order, and the learning rate, which a search may have found: a training
    # never goes on with others
    made_from = parallel.from_first(lambda: checksums.together(inputs))
    kept.key = f"{config_hash} {training['learning_rate']} {rows.digest} {made_from}"
    before = provenance.hash_tensors(parameters.frozen(model))
    try:
        pad = tokenizer.pad_token_id
        later = methods.unfrozen(model, method)
        run = loop.fit(model, rows, training, seed, pad, kept, sharding, told_to, later)
    except loop.DamagedModel as error:
        raise loop.DamagedModel(f"{origin}: {error}; make it again, or fetch it again") from error
    after = provenance.hash_tensors(parameters.frozen(model))
    if before != after:
        raise RuntimeError(f"a frozen parameter changed during training: {before} became {after}")
    found = {
        "recipe": params["recipe"],
        "seed": seed,
        "learning_rate": training["learning_rate"],
        **counts,
        **{
            name: getattr(run, name)
            for name in type(run).model_fields
            if name in run.model_fields_set
        },
        "flops": _flops(shape, method, run, training["epochs"]),
        "frozen_sha256": records.Frozen(before=before, after=after),
        "config_hash": config_hash,
        **stamp,
    }
    return found


def _rows(pairs, replay, sets, tokenizer, params: Mapping[str, Any]) -> tokens.Rows:
    """The rows of each epoch: those of the mix, and those that are replayed with them."""
    how = tokenizer, params["training"]["max_length"], params.get("add_bos_token", True)
    own, others = (None, None) if sets is None else (sets[: len(pairs)], sets[len(pairs) :])
    rows = tokens.tokenize(pairs, *how, own)
    if "replay" in params:
        drawn = params["replay"]
        replayed = tokens.tokenize(replay, *how, others)
        rows = tokens.with_replay(rows, replayed, drawn["share"], drawn["seed"])
    return replace(rows, domains=params["domains"]) if "domains" in params else rows


def _write(
    record: records.TrainRecord | records.DenseTrainRecord, kept: Checkpoint, file: Path, log: Path
) -> None:
    """Write a training's log and, last of all, its record. The two must agree."""
    write_atomic(log, "".join(kept.lines))
    records.training_log(log, record)
    records.write(file, record)


def _flops(shape: Shape, method: Method, run: records.Run, epochs: int) -> float:
    """FLOPs of a training's matrix products. shape: of what it computes."""
    length = run.tokens / (epochs * run.rows)
    return run.tokens * flops.step(shape, method, length, run.answer_tokens / run.tokens)


def _with_micro_batch(
    model: nn.Module,
    method: Method,
    training: Mapping[str, Any],
    rows: tokens.Rows,
    sharding: Sharding,
) -> dict[str, Any]:
    """The training's keys with a number for micro_batch "auto", chosen as in the plan but for the
    GPUs that this job got. The job's parameters keep "auto", so other GPUs do not make it another
    job."""
    device, usable = devices.current(), None
    if device.type == "cuda":
        usable = hardware.usable(torch.cuda.get_device_properties(device).total_memory)
    shape = _shape(model)
    # A micro-batch may consist of the rows with the largest share of labelled tokens, since rows
    # are batched by length and rows of one kind have similar lengths.
    shares = (a / n for a, n in zip(rows.answers, rows.lengths, strict=True))
    labelled = max(shares, default=memory.CHOICES)
    processes = parallel.processes()
    fixed, _ = parallel.from_first(
        lambda: memory.choose_micro_batch(
            shape, method, training, labelled, usable, processes, sharding
        )
    )
    return fixed


def _store_dense(
    model: nn.Module,
    method: Method,
    params: Mapping[str, Any],
    origin: str,
    record: records.DenseTrainRecord,
    kept: Checkpoint,
    out: Path,
) -> None:
    with kept.protected():
        if record.sharding == "fsdp":
            model = store.unsharded(model, lambda: methods.apply(load.checkpoint(origin), method))
        if parallel.rank() == 0:
            out.mkdir(parents=True, exist_ok=True)
            # Only merges read an expert. Its dtype is float32 or theirs (Plan.params.expert_dtype),
            # so a merge's weights are the same whether they are rounded here or there.
            dtype = getattr(torch, params.get("dtype", "float32"))
            store.checkpoint(methods.merge_and_unload(model).to(dtype), out)
            load.save_tokenizer(origin, out)
            _write(record, kept, out / "train.json", out / "log.jsonl")


def _summary(record: records.TrainRecord | records.DenseTrainRecord) -> str:
    together = f" by {record.processes} processes" if record.processes > 1 else ""
    return (
        f"{record.steps} steps in {record.seconds:.1f} s{together}, final loss "
        f"{record.final_loss:.3f}, {record.trainable_parameters:,} parameters trained"
    )
