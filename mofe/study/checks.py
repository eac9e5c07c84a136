"""What the sections of a configuration must agree on. Each check yields one sentence per fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mofe.study import harness
from mofe.study.setting import PAPER
from mofe.study.values import COMPUTED, SHOWS, task_metric

if TYPE_CHECKING:
    from mofe.study.config import Data, Sizes, Study, TableRow, Task


def faults(study: Study) -> Iterator[str]:
    """Every fault of a study whose keys are valid one by one."""
    for check in CHECKS:
        yield from check(study)


def _seeds(study: Study) -> Iterator[str]:
    if len(set(study.seeds)) != len(study.seeds):
        yield f"seeds: {study.seeds} names a seed twice; give each seed once"


def _named(study: Study) -> Iterator[str]:
    if study.world and study.study == PAPER:
        yield (
            f"study: the name '{PAPER}' is kept for the paper's own setting, and 'world' is an "
            "invented one; give the study another name"
        )
    for name in sorted(_shown(study) & study.tasks.keys()) if study.study == PAPER else ():
        if sample := study.tasks[name].sample:
            yield (
                f"tasks.{name}.sample: the study '{PAPER}' asks all questions, not {sample} of them; "
                "give the study another name"
            )


def _constants(study: Study) -> Iterator[str]:
    """A floor is read from an evaluation, which some other row of the table must have."""
    for key, table in study.tables.items():
        if not table.model_rows:
            yield (
                f"tables.{key}.rows: all rows are constant, so no evaluation tells their floors; "
                "add a row of a mixture or a model"
            )


def _shadowed(study: Study) -> Iterator[str]:
    for name in study.mixes.keys() & study.data.keys():
        yield f"mixes.{name}: a data set has this name too (data.{name}); rename the mix"
    for name in set(study.tasks) & set(SHOWS):
        yield f"tasks.{name}: this name is taken by what a table's column can show; rename the task"


def _cycles(study: Study) -> Iterator[str]:
    for name in study.models:
        chain = [name]
        while (parent := study.models[chain[-1]].from_) is not None:
            if parent in chain:
                yield f"models.{name}.from: {' <- '.join([*chain, parent])} runs in a circle"
                break
            chain.append(parent)


def _origins(study: Study) -> Iterator[str]:
    for name, model in study.models.items():
        if model.scratch and study.world is None:
            yield f"models.{name}.scratch: pretraining reads the generated world; set 'world'"
        if model.scratch:
            shape = model.scratch.shape
            for multiple, factor in (
                ("hidden_size", "num_attention_heads"),
                ("num_attention_heads", "num_key_value_heads"),
            ):
                if getattr(shape, multiple) % getattr(shape, factor):
                    yield f"models.{name}.scratch.shape: {multiple} is no multiple of {factor}"


def _chains(study: Study) -> Iterator[str]:
    for where, row in _rows(study):
        for recipe in list(row.train.values())[:-1]:
            if study.recipes[recipe].is_quantized:
                yield (
                    f"{where}.train: no stage can follow the quantised recipe '{recipe}'; make it "
                    "the last"
                )
    for name, model in study.models.items():
        for recipe in (model.train or {}).values():
            if study.recipes[recipe].is_quantized:
                yield (
                    f"models.{name}.train: recipe '{recipe}' holds weights in 4 bits, and a dense "
                    "expert is stored as a plain model; name a recipe without 'quantize'"
                )


def _rows(study: Study) -> Iterator[tuple[str, TableRow]]:
    """The rows of all tables that show a model, each with its key path."""
    for key, table in study.tables.items():
        for name, row in table.model_rows.items():
            yield f"tables.{key}.rows.{name}", row


class Trained(NamedTuple):
    """What is trained: its key path, its experts per layer (0: it is dense), its name for a
    sentence, the model whose attention it has, and its stages."""

    where: str
    experts: int
    named: str
    base: str
    stages: Mapping[str, str]


def _methods(study: Study) -> Iterator[str]:
    """A recipe's method must be able to train the mixture or the dense model."""
    for model in _trained(study):
        tied = getattr(_sizes(study, model.base), "tie_word_embeddings", False)
        for recipe in model.stages.values():
            if reason := study.recipes[recipe].misfit(model.experts, model.named, tied):
                yield f"{model.where}.train: recipe '{recipe}' {reason}"


def _lengths(study: Study) -> Iterator[str]:
    """No training may have rows that are longer than the model, where its shape is known."""
    needed, told = _needed(study), {}
    for name in needed:
        if scratch := study.models[name].scratch:
            own = scratch.training.max_length
            key = f"models.{name}.scratch.training.max_length" if own else "training.max_length"
            told[key, name] = own or study.training.max_length
    for model in _trained(study):
        if not model.where.startswith("models.") or model.where.removeprefix("models.") in needed:
            for mix, recipe in model.stages.items():
                key, length = _max_length(study, mix, recipe)
                told[key, _line(study, model.base)[-1]] = length
    for (key, name), length in told.items():
        sizes = _sizes(study, name)
        if sizes and length > sizes.max_position_embeddings:
            yield too_long(key, length, sizes.max_position_embeddings, name)


def too_long(key: str, length: int, positions: int, model: str) -> str:
    """The sentence on a longest row that a model has no positions for."""
    return f"{key}: {length} is more than the {positions} positions of models.{model}; lower it"


def _max_length(study: Study, mix: str, recipe: str) -> tuple[str, int]:
    """The longest row of a stage, and the key that says so."""
    if length := study.recipes[recipe].training.max_length:
        return f"recipes.{recipe}.training.max_length", length
    if mix in study.mixes and (length := study.mixes[mix].training.max_length):
        return f"mixes.{mix}.training.max_length", length
    return "training.max_length", study.training.max_length


def _trained(study: Study) -> Iterator[Trained]:
    for name, model in study.models.items():
        if model.train:
            yield Trained(f"models.{name}", 0, "the model", name, model.train)
    for where, row in _rows(study):
        if row.mixture:
            mixture = study.mixtures[row.mixture]
            experts, named = sum(mixture.experts.values()), f"mixture '{row.mixture}'"
            yield Trained(where, experts, named, mixture.base, row.train)
        else:
            yield Trained(where, 0, f"model '{row.model}'", row.model, row.train)


def _sizes(study: Study, model: str) -> Sizes | None:
    """The sizes that the configuration states of the model that this one comes from."""
    origin = study.models[_line(study, model)[-1]]
    return origin.scratch.shape if origin.scratch else origin.shape


def _line(study: Study, model: str) -> list[str]:
    """A model and those that it is fine-tuned from, each once, also where they run in a circle."""
    line = [model]
    while (parent := study.models[line[-1]].from_) is not None and parent not in line:
        line.append(parent)
    return line


def _needed(study: Study) -> set[str]:
    """The models that tables show, alone or in mixtures, and those that they come from."""
    mixtures = [study.mixtures[row.mixture] for _, row in _rows(study) if row.mixture]
    shown = [row.model for _, row in _rows(study) if row.model]
    shown += [name for mixture in mixtures for name in (mixture.base, *mixture.experts)]
    return {model for name in shown for model in _line(study, name)}


def _repositories(study: Study) -> Iterator[str]:
    """A repository has one folder, so everything that reads it must agree on what it holds."""
    parts = [
        (f"sources.{n}", s.repo, (s.revision, s.files, s.sample)) for n, s in study.sources.items()
    ]
    parts += [(f"models.{n}", m.hub, (m.revision,)) for n, m in study.models.items() if m.hub]
    first: dict[str, tuple] = {}
    for where, repo, content in parts:
        known, asked = first.setdefault(repo, (where, content))
        if asked != content:
            yield (
                f"{where}: {known} reads {repo} too, with another revision, 'files' or 'sample'; "
                "make them equal"
            )


def _slots(study: Study) -> Iterator[str]:
    """The mixtures that tables show. What no table shows is not merged, so it cannot fail."""
    shown = {row.mixture for _, row in _rows(study)}
    for name, mixture in study.mixtures.items():
        if name not in shown:
            continue
        total = sum(mixture.experts.values())
        merge = study.merged_by(name)
        own = mixture.merge.experts_per_token is not None
        key = f"mixtures.{name}.merge.experts_per_token" if own else "merge.experts_per_token"
        if total < merge.experts_per_token:
            yield (
                f"mixtures.{name}.experts: {total} expert(s), but {key} is "
                f"{merge.experts_per_token}; add experts, or lower "
                f"mixtures.{name}.merge.experts_per_token"
            )
        if total == 1:  # its router chooses nothing, and needs no prompts
            continue
        for expert, count in mixture.experts.items():
            have = len(study.models[expert].gates.positive)
            if count > have:
                yield (
                    f"mixtures.{name}.experts.{expert}: {count} slots, but "
                    f"models.{expert}.gates.positive has prompts for {have}; add "
                    f"{count - have} more list(s) of prompts"
                )
        yield from _empty_prompts(study, mixture.experts)
        prompts = [
            (f"models.{expert}.gates.positive.{slot}", sorted(prompts))
            for expert, count in mixture.experts.items()
            for slot, prompts in enumerate(study.models[expert].gates.positive[:count])
        ]
        for number, (where, given) in enumerate(prompts):
            twin = next((w for w, other in prompts[:number] if other == given), None)
            if twin and merge.gate_mode != "random":
                yield (
                    f"{where}: the same prompts as {twin}, so mixture '{name}' could not tell these "
                    "experts apart; give each slot prompts that end in words of its own"
                )


def _empty_prompts(study: Study, experts: Mapping[str, int]) -> Iterator[str]:
    for expert, count in experts.items():
        gates = study.models[expert].gates
        given = {
            f"positive.{slot}.{number}": prompt
            for slot, prompts in enumerate(gates.positive[:count])
            for number, prompt in enumerate(prompts)
        }
        given |= {f"negative.{number}": prompt for number, prompt in enumerate(gates.negative)}
        for key, prompt in given.items():
            if not prompt.strip():
                yield (
                    f"models.{expert}.gates.{key}: {prompt!r} is an empty prompt, from which no gate "
                    "can be made; write words that the expert will be asked about"
                )


def _folded(study: Study) -> Iterator[str]:
    """What a training takes must be of the mixture that its row names: equal frozen experts that are
    computed once take the time and memory of fewer."""
    for number, table in study.tables.items():
        shown = [heading for heading, kind in table.columns.items() if kind in COMPUTED]
        if not shown:
            continue
        rows = {name: row for name, row in table.model_rows.items() if row.mixture}
        for name, row in rows.items():
            for mix, recipe in _folding(study, row):
                own = f"mixes.{mix}" if mix in study.mixes else f"recipes.{recipe}"
                yield (
                    f"tables.{number}.rows.{name}.train: {', '.join(map(repr, shown))} would be of a "
                    f"smaller mixture, because recipe '{recipe}' computes equal frozen experts once; "
                    f"set {own}.training.fold_duplicates to false, or leave "
                    f"{'that column' if len(shown) == 1 else 'these columns'} out"
                )


def _folding(study: Study, row: TableRow) -> Iterator[tuple[str, str]]:
    """The stages of a row, each as mix and recipe, that compute equal frozen experts once."""
    experts = study.mixtures[row.mixture].experts
    frozen = [expert for expert in sorted(experts) for _ in range(experts[expert])]
    for mix, recipe in row.train.items():
        method = study.recipes[recipe]
        # experts that a stage trains or adapts differ from then on
        frozen = [] if method.adapts_any_expert else frozen[: method.frozen_experts(len(frozen))]
        own = [study.mixes[mix].training.fold_duplicates] if mix in study.mixes else []
        folds = [study.training.fold_duplicates, *own, method.training.fold_duplicates]
        if [value for value in folds if value is not None][-1] and len(set(frozen)) < len(frozen):
            yield mix, recipe


def _columns(study: Study) -> Iterator[str]:
    for number, table in study.tables.items():
        width = len(table.labels) + len(table.columns)
        if table.header and sum(n for _, n in table.header) != width:
            yield (
                f"tables.{number}.header: spans {sum(n for _, n in table.header)} columns, "
                f"the table has {width}"
            )
        for heading in table.columns.keys() & (table.beside or {}).keys():
            yield (
                f"tables.{number}.beside.{heading}: the paper's column has this heading; give ours "
                "another"
            )


def _questions(study: Study) -> Iterator[str]:
    """What is trained on must not be asked."""
    shown = _shown(study)
    for name, data in study.data.items():
        for key, task in study.tasks.items():
            if task.held_out or (key != data.task and key not in shown):
                continue
            repos = [study.sources[source].repo for source in (data.source, task.source)]
            if repos[0] == repos[1] and _is_asked(data, key, task):
                how = f", or set tasks.{key}.test_share to ask a part of it" if task.columns else ""
                yield (
                    f"data.{name}.split: {data.split!r} is what tasks.{key} asks; train on another "
                    f"split{how}"
                )
        task = study.tasks.get(data.task)
        if task is None or task.columns is None:
            continue
        same = (data.source, data.subset, data.split) == (task.source, task.subset, task.split)
        if not same and task.test_share is not None:
            yield (
                f"data.{name}: source, subset and split differ from tasks.{data.task}, which asks "
                "a share of its own split; make them alike, or leave test_share out"
            )


def _is_asked(data: Data, key: str, task: Task) -> bool:
    """Whether a task asks the rows of a data set's split, both of one source. A split that the task
    itself divides into train and test may be trained on."""
    if task.columns:
        same = (data.subset, data.split) == (task.subset, task.split)
        return same and task.test_share is None
    leaves = _leaves(key, task)
    subsets = {leaf.config.get("dataset_name") for leaf in leaves}
    # a subset that no leaf names, such as MMLU's "all", may hold them all
    apart = data.subset in subsets or data.subset in (None, "all") or None in subsets
    divided = any(leaf.name in harness.DIVIDED for leaf in leaves)
    return apart and not divided and data.split in {leaf.asked for leaf in leaves}


def _leaves(key: str, task: Task) -> list[harness.Leaf]:
    """The tasks that a task of the study stands for; none where its names have faults (`_harness`)."""
    names = task.harness or ()
    if any(harness.faults(key, names, shown=False)):
        return []
    return [leaf for name in names for leaf in harness.leaves(key, name)]


def _harness(study: Study) -> Iterator[str]:
    """Names of tasks must exist, and what tables show must have a score here, and examples if any are
    shown."""
    shown = _shown(study)
    for key, task in study.tasks.items():
        yield from harness.faults(key, task.harness or (), key in shown)
        if not study.shots or key not in shown or task.held_out:
            continue
        if task.columns:
            lacking = [] if task.test_share or task.examples else [harness.GENERIC]
            how = f"name their split in tasks.{key}.examples"
        else:
            lacking = [leaf.name for leaf in _leaves(key, task) if not leaf.has_examples]
            how = "leave the task out of 'tables'"
        if lacking:
            yield (
                f"shots: task {lacking[0]!r} of tasks.{key} has no rows to take {study.shots} examples "
                f"from; {how}, or set 'shots' to 0"
            )


def _searches(study: Study) -> Iterator[str]:
    for name, search in study.searches.items():
        rates = [f"{rate:g}" for rate in search.learning_rate]
        for rate in sorted({rate for rate in rates if rates.count(rate) > 1}):
            yield (
                f"searches.{name}.learning_rate: {rate} stands there twice (to six digits); give "
                "each rate once"
            )
        for task in search.tasks:
            if study.tasks[task].held_out is None:
                yield (
                    f"searches.{name}.tasks: '{task}' asks test questions, which must not choose a "
                    "learning rate; name a task with 'held_out'"
                )
    for name, recipe in study.recipes.items():
        if recipe.search and recipe.training.learning_rate is not None:
            yield (
                f"recipes.{name}: both 'search' and 'training.learning_rate' set its learning "
                "rate; remove one"
            )
    for name, model in study.models.items():
        for recipe in (model.train or {}).values():
            if study.recipes[recipe].search:
                yield (
                    f"models.{name}.train: recipe '{recipe}' searches its learning rate, which "
                    "only rows of tables can; name a recipe without 'search'"
                )


def _held_out(study: Study) -> Iterator[str]:
    """Rows of a training set that are asked must be rows of a task, and no training may draw
    them."""
    for name, data in study.data.items():
        if data.task and (held := study.tasks[data.task].held_out):
            yield (
                f"data.{name}.task: {data.task!r} asks rows of data.{held}; name the task that "
                "asks test questions"
            )
    for name, task in study.tasks.items():
        if task.held_out and study.data[task.held_out].task is None:
            yield (
                f"tasks.{name}.held_out: data.{task.held_out} is raw text, which asks nothing; "
                "name a set with a 'task'"
            )
        elif task.held_out and name in _shown(study):
            yield from _left(study, name)


def _left(study: Study, name: str) -> Iterator[str]:
    """Why a task cannot ask its number of rows that no training draws, as far as that is known."""
    task = study.tasks[name]
    data, where = study.data[task.held_out], f"tasks.{name}.held_out: data.{task.held_out}"
    if data.rows == "full":
        yield (
            f"{where} has 'rows: full', so training leaves none to ask; give a number there, or leave "
            "out (null) the tables that search for a learning rate with it"
        )
        return
    most = _most_rows(study, data)
    if most is not None and data.rows + task.questions > most:
        yield (
            f"tasks.{name}.questions: {task.questions} are to be asked, but training on "
            f"{data.rows} of at most {most} rows leaves {max(0, most - data.rows)}; lower one of "
            "them"
        )
    for other, also in study.data.items():
        repos = [study.sources[d.source].repo for d in (also, data)]
        same = repos[0] == repos[1] and also.split == data.split
        fewer = also.rows != "full" and also.rows <= data.rows
        alike = (also.subset, also.task) == (data.subset, data.task)
        if same and not (alike and fewer):
            yield (
                f"{where} and data.{other} draw from one split, so training on the latter may take "
                "rows that are asked; hold out rows of the one that draws more, and give both the "
                "same 'subset' and 'task'"
            )


def _most_rows(study: Study, data: Data) -> int | None:
    """How many rows a data set can have at most; None where that is not known."""
    source = study.sources[data.source]
    return study.world.most_rows(source.repo, data.split) if study.world else source.sample


def _shown(study: Study) -> set[str]:
    """The tasks that tables show, and those that the searches of their rows compare."""
    recipes = (study.recipes[recipe] for _, row in _rows(study) for recipe in row.train.values())
    searches = {recipe.search for recipe in recipes} - {None}
    shown = [
        column
        for table in study.tables.values()
        for column in (*table.columns.values(), *(table.beside or {}).values())
    ]
    compared = (task for name in searches for task in study.searches[name].tasks)
    return {*(task_metric(column, study.tasks)[0] for column in shown), *compared}


def _keys(study: Study) -> Iterator[str]:
    for index, assumption in enumerate(study.assumptions):
        try:
            value_at(study, assumption.key)
        except KeyError:
            yield f"assumptions.{index}.key: {assumption.key!r} is not a key of the configuration"
        try:
            with_values(study, assumption.evidence)
        except KeyError as unknown:
            yield (
                f"assumptions.{index}.evidence: {{{unknown.args[0]}}} is not a key of the "
                "configuration; name one, whose value is then shown, or leave the braces out"
            )


def with_values(study: Study, text: str) -> str:
    """A text with the values of the keys that it names in braces, such as {merge.dtype}. Raises
    KeyError for an unknown path."""
    return re.sub(r"\{([^{}]*)\}", lambda key: str(value_at(study, key[1])), text)


def value_at(study: Study, path: str) -> Any:
    """The value under a dotted key path, as plain data. Raises KeyError for an unknown path."""
    value: Any = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(path)
        value = value[key]
    return value


CHECKS: tuple[Callable[[Study], Iterator[str]], ...] = (
    *(_seeds, _shadowed, _cycles, _slots, _keys, _columns, _origins, _chains, _repositories),
    *(_questions, _harness, _methods, _lengths, _held_out, _named, _constants, _searches, _folded),
)
