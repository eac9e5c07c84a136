"""A trained variant as a standard checkpoint that others can load, and its model card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from mofe import provenance
from mofe.files import write_atomic
from mofe.layers.experts import QuantizedStack, SplitExperts
from mofe.layers.nf4 import expanded
from mofe.models import load, manifest, methods
from mofe.models.files import TOKENIZER_FILES

SHARD_SIZE = "5GB"
PAPER = """@article{seo2025mofe,
  title = {{MoFE}: Mixture of Frozen Experts Architecture},
  author = {Seo, Jean and Kim, Jaeyoon and Shin, Hyopil},
  journal = {arXiv preprint arXiv:2503.06491},
  year = {2025}
}"""
READ_FROM = {
    "hub": "from the hub, at the commits that were fetched",
    "mirror": "from a mirror of these repositories, whose revisions are its own",
    "world": "generated rows of an invented world under these repositories' names",
}
ROUNDED = (
    "It was trained over weights in NF4 (QLoRA). This file holds those weights after NF4, in "
    "{dtype}, with the adapters merged in: it computes what was evaluated up to rounding, in four "
    "times the memory."
)


def export(
    *,
    merge: str,
    trained: Sequence[str],
    params: Mapping[str, Any],
    names: Mapping[str, Any],
    out: Path,
) -> str:
    """Write a variant as a Mixtral, or a dense model, checkpoint: sharded safetensors, configuration, tokenizer, card.

    merge, trained as in evaluate_variant; params: Plan.params.export; names: of merge, stages and
    seed. Weights are stored in the merge's dtype. Returns a line for the user.
    """
    model = plain(merge, params["chain"], trained)
    total = sum(p.numel() for p in model.parameters())
    out.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, params["dtype"])).save_pretrained(out, max_shard_size=SHARD_SIZE)
    for name in TOKENIZER_FILES:
        if (file := Path(merge) / name).exists():
            shutil.copy(file, out / name)
    settings = manifest.settings(merge) if manifest.exists(merge) else None
    write_atomic(out / "README.md", card(params, names, total, settings))
    return f"{total:,} parameters in {params['dtype']}"


def plain(merge: str, chain: Sequence[Mapping[str, Any]], trained: Sequence[str]) -> nn.Module:
    """The variant as a Mixtral without adapters or split experts, in float32, on the CPU.

    A quantised last stage has no plain form of equal weights; its NF4 weights are expanded, which
    changes no value, and what was trained is laid over or merged into those.
    """
    if not (chain and chain[-1].get("quantize")):
        return methods.merge_and_unload(load.variant(merge, chain, trained))
    model = load.variant(merge, chain[:-1], trained[:-1])
    model = _through_nf4(methods.merge_and_unload(model), chain[-1])
    unquantised = {key: value for key, value in chain[-1].items() if key != "quantize"}
    model = methods.apply(model, unquantised)
    load.copy_trained(model, trained[-1])
    return methods.merge_and_unload(model)


def _through_nf4(model: nn.Module, settings: Mapping[str, Any]) -> nn.Module:
    """The model with the values that its weights have once the method has quantised them."""
    import bitsandbytes as bnb  # costs seconds to import, and only QLoRA needs it

    weights = dict(model.named_parameters())
    quantised = methods.apply(model, dict(settings))
    if hasattr(quantised, "get_base_model"):
        quantised = quantised.get_base_model()
    for name, module in quantised.named_modules():
        # peft wraps a target's layer: "...q_proj.base_layer" is the "...q_proj" of the plain model
        name = name.removesuffix(".base_layer")
        if isinstance(module, SplitExperts):
            for part in ("gate_up", "down"):
                stacks = [_plain_stack(stack, part) for stack in module.stacks]
                weights[f"{name}.{part}_proj"] = torch.cat(stacks)
        elif isinstance(module, bnb.nn.Linear4bit) and f"{name}.weight" in weights:
            weights[f"{name}.weight"] = expanded(module)
    return _filled(quantised.config, weights)


def _plain_stack(stack: nn.Module, part: str) -> torch.Tensor:
    """A stack's matrices of a part, (experts, out, in)."""
    if isinstance(stack, QuantizedStack):
        return torch.stack([expanded(layer) for layer in getattr(stack, f"{part}s")])
    return getattr(stack, part).detach()


def _filled(config, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """A Mixtral of this configuration with these weights, none of which may be missing."""
    model = load.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise ValueError(f"export: weights missing {missing[:3]} or unknown {unexpected[:3]}")
    return model


# --------------------------------------------------------------------------------- model card


def card(
    params: Mapping[str, Any],
    names: Mapping[str, Any],
    total: int,
    merge: Mapping[str, Any] | None,
) -> str:
    """The model card (README.md), from the records of the trainings and evaluations that exist.

    params: Plan.params.export; total: number of parameters; merge: what its merge was made with
    (mofe.models.manifest.settings), None for a dense model.
    """
    trainings = [json.loads(Path(file).read_text()) for file in params["trainings"]]
    scores = [json.loads(Path(f).read_text()) for f in params["evaluations"] if Path(f).exists()]
    dense, commits = params["models"], _commits(params["manifests"])
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": params["license"] or "unknown",
        "tags": ["mixtral", "moe", "mofe"] if merge else ["mofe"],
        "base_model": list(dict.fromkeys(m["hub"] for m in dense.values() if m.get("hub"))),
        # the generated world bears the names of the real data sets
        "datasets": list(dict.fromkeys(data["source"]["repo"] for data in params["data"]))
        if params["read_from"] != "world"
        else [],
    }
    kind, made_from = "dense model", f"Dense model: {params['base']}."
    if merge:
        slots = ", ".join(f"{n} x {expert}" for expert, n in params["experts"].items())
        kind = "mixture of experts"
        made_from = (
            f"Base: {params['base']}. Experts: {slots}. Router: {merge['gate_mode']} gates, "
            f"{merge['experts_per_token']} experts a token."
        )
    lines = [
        "---",
        yaml.safe_dump({k: v for k, v in front.items() if v}, sort_keys=False).strip(),
        "---",
        f"# {names['moe']}, {names['stages']}, seed {names['seed']}",
        "",
        (
            f"A {kind} of the study `{params['study']}` of [MoFE: Mixture of Frozen Experts]"
            "(https://arxiv.org/abs/2503.06491), reproduced. "
            f"{total:,} parameters, stored in {params['dtype']}."
        ),
        "",
        *(
            [ROUNDED.format(dtype=params["dtype"]), ""]
            if trainings and params["chain"][-1].get("quantize")
            else []
        ),
        "## Made from",
        "",
        made_from,
        "",
        *_table(["Model", "Origin"], [[name, _origin(it, commits)] for name, it in dense.items()]),
        "",
        "## Training",
        "",
        *(
            _stages(params, trainings, commits)
            if trainings
            else [f"None: this is the {'merge' if merge else 'model'} as it is."]
        ),
        "",
        "## Scores",
        "",
        *(_scores(scores) if scores else ["Not evaluated when this card was written."]),
        "",
        "## Provenance",
        "",
        *_provenance(trainings),
        "",
        "## Licence",
        "",
        *(
            [f"Stated by who exported it: {params['license']}."]
            if params["license"]
            else [
                (
                    "Not stated. The weights derive from the models above and were trained on the data "
                    "above; their licences hold, and this project has not checked them."
                )
            ]
        ),
        "",
        "## Citation",
        "",
        "```bibtex",
        PAPER,
        "```",
        "",
    ]
    return "\n".join(lines)


def _origin(model: Mapping[str, Any], commits: Mapping[str, str]) -> str:
    if model.get("hub"):
        return f"{model['hub']} at {commits.get(model['hub'], model['revision'])}"
    if model.get("from"):
        (mix, recipe), *_ = model["train"].items()
        return f"{model['from']}, fine-tuned on {mix} by {recipe}"
    return "pretrained by the study" if model.get("scratch") else "a folder of the user's"


def _commits(manifests: Sequence[str]) -> dict[str, str]:
    """The commit that was really fetched of each of the hub's repositories, by their manifests."""
    fetched = [json.loads(Path(file).read_text()) for file in manifests if Path(file).exists()]
    return {manifest["repo"]: manifest["commit"] for manifest in fetched}


def _stages(
    params: Mapping[str, Any], trainings: Sequence[Mapping], commits: Mapping[str, str]
) -> list[str]:
    lines = _table(
        ["Stage", "Method", "Trained parameters", "Rows", "Steps", "Final loss"],
        [
            [
                number,
                ", ".join(f"{k} {v}" for k, v in chain.items()),
                f"{record['trainable_parameters']:,}",
                f"{record['rows']:,}",
                f"{record['steps']:,}",
                f"{record['final_loss']:.4f}",
            ]
            for number, (chain, record) in enumerate(
                zip(params["chain"], trainings, strict=True), 1
            )
        ],
    )
    rows = [
        [
            data["name"],
            data["source"]["repo"],
            commits.get(data["source"]["repo"], data["source"]["revision"]),
            "/".join(filter(None, (data["subset"], data["split"]))),
            data["rows"],
        ]
        for data in params["data"]
    ]
    lines += ["", f"Data, the dense models' too: {READ_FROM[params['read_from']]}."]
    lines += ["", *_table(["Data", "Repository", "Revision", "Split", "Rows asked for"], rows)]
    for number, training in enumerate(params["training"], 1):
        settings = ", ".join(f"{key} {value}" for key, value in training.items())
        lines += ["", f"Stage {number}: {settings}."]
    return lines


def _scores(scores: Sequence[Mapping]) -> list[str]:
    return _table(
        ["Task", "Metric", "Value", "Standard error", "Questions"],
        [
            [s["task"], metric, f"{it['value']:.4f}", f"{it['stderr']:.4f}", f"{s['n']:,}"]
            for s in scores
            for metric, it in s["metrics"].items()
        ],
    )


def _provenance(trainings: Sequence[Mapping]) -> list[str]:
    lines = [f"- exported by commit {provenance.git_revision()}"]
    for number, record in enumerate(trainings, 1):
        hardware = ", ".join(record["hardware"]["gpus"]) or record["hardware"]["cpu"]
        lines.append(
            f"- stage {number}: commit {record['git_revision']}, configuration "
            f"{record['config_hash'][:16]}, on {hardware}"
        )
    versions = (trainings[-1] if trainings else provenance.stamp())["versions"]
    return [*lines, "- " + ", ".join(f"{name} {number}" for name, number in versions.items())]


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    line = "| " + " | ".join("{}" for _ in headings) + " |"
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [line.format(*headings), "|" + "---|" * len(headings), *(line.format(*c) for c in cells)]


# --------------------------------------------------------------------------------------- push


def push(*, model: str, repo: str, out: Path) -> str:
    """Upload an exported model to a private repository of the user's, with the user's own token.

    Raises PermissionError where there is no token.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise PermissionError(
            f"export.push: no token to push {repo} with; log in with `hf auth login` or set HF_TOKEN"
        )
    api = HfApi()
    api.create_repo(repo, private=True, exist_ok=True)
    commit = api.upload_folder(repo_id=repo, folder_path=model, commit_message="Exported by mofe")
    write_atomic(out, json.dumps({"repo": repo, "commit": commit.oid}, indent=2) + "\n")
    return f"{repo} at {commit.oid}"
