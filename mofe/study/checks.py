"""What the sections of a configuration must agree on. Each check yields one sentence per fault.

A model, a recipe, a data set or a task that nothing shows forbids nothing: checks of what is trained,
read and asked look at the plan.
"""

import math
from collections.abc import Callable, Iterable, Iterator

from mofe.study.config import Data, Study, TableRow
from mofe.study.plan import Plan
from mofe.study.setting import PAPER
from mofe.study.values import SHOWS
from mofe.study.variants import Stage
from mofe.study.words import quoted

LONGEST = 200  # characters of a file's or folder's name; most disks take 255 bytes


def faults(study: Study) -> Iterator[str]:
    """Every fault of a study whose keys are valid one by one."""
    for check in CHECKS:
        yield from check(study)
    if not list(_cycles(study)):  # else nothing can be planned
        plan = Plan(study)
        for check_of_plan in CHECKS_OF_PLAN:
            yield from check_of_plan(plan)


def _seeds(study: Study) -> Iterator[str]:
    if len(set(study.seeds)) != len(study.seeds):
        yield f"seeds: {study.seeds} names a seed twice; give each seed once"


def _named(study: Study) -> Iterator[str]:
    if study.world and study.study == PAPER:
        yield (
            f"study: the name '{PAPER}' is kept for the paper's own setting, and 'world' is an "
            "invented one; give the study another name"
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
                yield f"models.{name}.from: {' <- '.join([*chain, parent])} runs in a circle; start from another"
                break
            chain.append(parent)


def _origins(plan: Plan) -> Iterator[str]:
    study = plan.study
    for name, model in ((name, study.models[name]) for name in plan.models):
        if model.scratch and study.world is None:
            yield f"models.{name}.scratch: pretraining reads the generated world; set 'world'"
        if model.scratch:
            shape = model.scratch.shape
            for multiple, factor in (
                ("hidden_size", "num_attention_heads"),
                ("num_attention_heads", "num_key_value_heads"),
            ):
                if getattr(shape, multiple) % getattr(shape, factor):
                    yield (
                        f"models.{name}.scratch.shape.{multiple}: {getattr(shape, multiple)} is no "
                        f"multiple of {factor}, {getattr(shape, factor)}; change one of them"
                    )


def _chains(study: Study) -> Iterator[str]:
    for where, row in _rows(study):
        for recipe in list(row.train.values())[:-1]:
            if study.recipes[recipe].is_quantized:
                yield (
                    f"{where}.train: no stage can follow the quantised recipe '{recipe}'; make it "
                    "the last"
                )


def _rows(study: Study) -> Iterator[tuple[str, TableRow]]:
    """The rows of all tables that show a model, each with its key path."""
    for key, table in study.tables.items():
        for name, row in table.model_rows.items():
            yield f"tables.{key}.rows.{name}", row


def _methods(plan: Plan) -> Iterator[str]:
    """A recipe's method must be able to train the mixture or the dense model."""
    for where, experts, named, recipes in _trained(plan):
        for recipe in recipes:
            if reason := plan.study.recipes[recipe].misfit(experts, named):
                yield f"{where}.train: recipe '{recipe}' {reason}"


def _trained(plan: Plan) -> Iterator[tuple[str, int, str, Iterable[str]]]:
    """What is trained: its key path, its experts per layer (0: it is dense), its name for a
    sentence, and the recipes of its stages."""
    study = plan.study
    for name in plan.models:
        yield f"models.{name}", 0, "the model", (study.models[name].train or {}).values()
    for where, row in _rows(study):
        if row.mixture:
            experts = sum(study.mixtures[row.mixture].experts.values())
            yield where, experts, f"mixture '{row.mixture}'", row.train.values()
        else:
            yield where, 0, f"model '{row.model}'", row.train.values()


def _repositories(plan: Plan) -> Iterator[str]:
    """A repository has one folder, so everything that reads it must agree on what it holds."""
    sources = [(n, s) for n, s in plan.study.sources.items() if n in _sources(plan)]
    models = [(name, plan.study.models[name]) for name in plan.models]
    parts = [(f"sources.{n}", s.repo, (s.revision, s.files, s.sample)) for n, s in sources]
    parts += [(f"models.{n}", m.hub, (m.revision,)) for n, m in models if m.hub]
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


def _asked(plan: Plan) -> set[str]:
    """The tasks that are asked: those of tables, and those that searches compare."""
    return {task for tasks in plan.tasks.values() for task in tasks}


def _read(plan: Plan) -> list[str]:
    """The training sets that are prepared, or whose rows are asked."""
    asked = [plan.study.tasks[name].held_out for name in sorted(_asked(plan))]
    return list(dict.fromkeys([*plan.datasets, *filter(None, asked)]))


def _sources(plan: Plan) -> set[str]:
    """The repositories of data that are read, also for the test set of a training set's task."""
    study = plan.study
    data = [study.data[name] for name in _read(plan)]
    tasks = _asked(plan) | {d.task for d in data if d.task}
    return {d.source for d in data} | {study.tasks[name].source for name in tasks} - {None}


def _columns(study: Study) -> Iterator[str]:
    for number, table in study.tables.items():
        width = len(table.labels) + len(table.columns)
        if table.header and sum(n for _, n in table.header) != width:
            yield (
                f"tables.{number}.header: spans {sum(n for _, n in table.header)} columns, "
                f"the table has {width}; correct its numbers"
            )
        for heading in table.columns.keys() & (table.beside or {}).keys():
            yield (
                f"tables.{number}.beside.{heading}: the paper's column has this heading; give ours "
                "another"
            )


def _questions(plan: Plan) -> Iterator[str]:
    study = plan.study
    for name, data in ((name, study.data[name]) for name in _read(plan)):
        task = study.tasks.get(data.task)
        if task is None or task.columns is None:
            continue
        same = (data.source, data.subset, data.split) == (task.source, task.subset, task.split)
        if same and task.test_share is None:
            yield (
                f"data.{name}.split: {data.split!r} is what tasks.{data.task} asks; train on "
                f"another split, or set tasks.{data.task}.test_share to ask a part of it"
            )
        if not same and task.test_share is not None:
            yield (
                f"data.{name}: source, subset and split differ from tasks.{data.task}, which asks "
                "a share of its own split; make them alike, or leave test_share out"
            )


def _searches(plan: Plan) -> Iterator[str]:
    study = plan.study
    recipes = {recipe for _, row in _rows(study) for recipe in row.train.values()}
    used = {study.recipes[recipe].search for recipe in recipes} - {None}
    for name, search in ((name, study.searches[name]) for name in sorted(used)):
        rates = [f"{rate:g}" for rate in search.learning_rate]
        for rate in sorted({rate for rate in rates if rates.count(rate) > 1}):
            yield (
                f"searches.{name}.learning_rate: {rate} stands there twice (to six digits); give "
                "each rate once"
            )
        for task in sorted({task for task in search.tasks if search.tasks.count(task) > 1}):
            yield f"searches.{name}.tasks: '{task}' stands there twice; name each task once"
        for task in search.tasks:
            if study.tasks[task].held_out is None:
                yield (
                    f"searches.{name}.tasks: '{task}' asks test questions, which must not choose a "
                    "learning rate; name a task with 'held_out'"
                )
    for name, recipe in ((name, study.recipes[name]) for name in sorted(recipes)):
        if recipe.search and recipe.training.learning_rate is not None:
            yield (
                f"recipes.{name}: both 'search' and 'training.learning_rate' set its learning "
                "rate; remove one"
            )
    for name in plan.models:
        for recipe in (study.models[name].train or {}).values():
            if study.recipes[recipe].search:
                yield (
                    f"models.{name}.train: recipe '{recipe}' searches its learning rate, which "
                    "only rows of tables can; name a recipe without 'search'"
                )


def _held_out(plan: Plan) -> Iterator[str]:
    """Rows of a training set that are asked must be rows of a task, and no training may draw
    them."""
    study = plan.study
    for name, data in ((name, study.data[name]) for name in _read(plan)):
        if data.task and (held := study.tasks[data.task].held_out):
            yield (
                f"data.{name}.task: {data.task!r} asks rows of data.{held}; name the task that "
                "asks test questions"
            )
    for name in sorted(_asked(plan)):
        task = study.tasks[name]
        if task.held_out and study.data[task.held_out].task is None:
            yield (
                f"tasks.{name}.held_out: data.{task.held_out} is raw text, which asks nothing; "
                "name a set with a 'task'"
            )
        elif task.held_out:
            yield from _left(plan, name)


def _left(plan: Plan, name: str) -> Iterator[str]:
    """Why a task cannot ask its number of rows that no training draws, as far as that is known."""
    study = plan.study
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
    for other, also in ((other, study.data[other]) for other in plan.datasets):
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


def _drawn(plan: Plan) -> Iterator[str]:
    """No more rows can be drawn than a set has, where that is known. Raw text is cut into more."""
    for name in plan.datasets:
        data, most = plan.study.data[name], _most_rows(plan.study, plan.study.data[name])
        if most is not None and data.task and data.rows != "full" and data.rows > most:
            limit = "world.train_rows" if plan.study.world else f"sources.{data.source}.sample"
            yield (
                f"data.{name}.rows: {data.rows} are to be drawn, but {limit} leaves at most {most}; "
                "lower 'rows', or raise that"
            )


def _warm_up(plan: Plan) -> Iterator[str]:
    """A warm-up must end before its training does, as far as the number of rows is known: raw text
    is cut into more rows, and `full` takes all."""
    study = plan.study
    stages = [s for v in plan.trained.values() for s in v.stages[-1:]]
    trains = [study.models[name].train or {} for name in plan.models]
    stages += [Stage(mix, recipe) for train in trains for mix, recipe in train.items()]
    for stage in dict.fromkeys(stages):
        sets = [study.data[name] for name in plan.mix(stage.mix)]
        if any(data.text or data.rows == "full" for data in sets):
            continue
        training = plan.params.stage(stage)["training"]
        rows = sum(data.rows for data in sets)
        steps = training["epochs"] * math.ceil(rows / training["global_batch"])
        if training["warmup_steps"] >= steps:
            yield (
                f"{_set_by(study, stage, 'warmup_steps')}: {training['warmup_steps']} steps of "
                f"warm-up leave none of the {steps} steps of recipe '{stage.recipe}' on mix "
                f"'{stage.mix}'; lower it"
            )


def _set_by(study: Study, stage: Stage, key: str) -> str:
    """The path of the key that decides a setting of a stage's training."""
    mix, recipe = study.mixes.get(stage.mix), study.recipes[stage.recipe]
    if getattr(recipe.training, key) is not None:
        return f"recipes.{stage.recipe}.training.{key}"
    by_mix = mix is not None and getattr(mix.training, key) is not None
    return f"mixes.{stage.mix}.training.{key}" if by_mix else f"training.{key}"


def _too_few_questions(plan: Plan) -> Iterator[str]:
    """A standard error needs two questions. `questions` of a test set is an estimate."""
    for name in sorted(_asked(plan)):
        task = plan.study.tasks[name]
        if task.held_out and task.questions == 1:
            yield f"tasks.{name}.questions: 1 question has no standard error; ask two or more"


def _names(plan: Plan) -> Iterator[str]:
    yield from plan.equal_names()
    parts = {part for key in plan.variants for part in key.split("/")}
    for part in sorted(part for part in parts if len(part) > LONGEST):
        yield (
            f"tables: a model would be stored as {part[:40]}..., a name of {len(part)} characters; "
            f"shorten the names of its models, mixes or recipes until it has {LONGEST}"
        )


def _keys(study: Study) -> Iterator[str]:
    for index, assumption in enumerate(study.assumptions):
        try:
            study.value_at(assumption.key)
        except KeyError:
            yield (
                f"assumptions.{index}.key: {quoted(assumption.key)} is not a key of the "
                "configuration; correct it, or remove the item"
            )


CHECKS: tuple[Callable[[Study], Iterator[str]], ...] = (
    *(_seeds, _shadowed, _cycles, _slots, _keys, _columns, _chains, _named, _constants),
)
CHECKS_OF_PLAN: tuple[Callable[[Plan], Iterator[str]], ...] = (
    *(_names, _origins, _repositories, _questions, _methods, _held_out, _searches),
    *(_drawn, _warm_up, _too_few_questions),
)
