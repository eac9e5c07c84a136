"""The rows that are trained on and asked: there are enough, and no training sees what is asked."""

from collections.abc import Iterator

from mofe import paper
from mofe.study import harness
from mofe.study.config import Data, Study, Task
from mofe.study.plan import Plan
from mofe.study.setting import PAPER
from mofe.study.values import task_metric

# What two sets of one split must share, so that the larger one draws the smaller one's rows too.
SAME = ("subset", "task", "text", "separator", "chunk_words")


# What is measured of questions, by lm-eval's name of their kind.
MEASURED = {
    "multiple_choice": ("acc", "acc_norm", "perplexity", "entropy"),
    "generate_until": ("f1", "exact"),
}


def asked(plan: Plan) -> set[str]:
    """The tasks that are asked: those of tables, and those that searches compare."""
    return {task for tasks in plan.tasks.values() for task in tasks}


def _read(plan: Plan) -> list[str]:
    """The training sets that are prepared, or whose rows are asked."""
    held_out = [plan.study.tasks[name].held_out for name in sorted(asked(plan))]
    return list(dict.fromkeys([*plan.datasets, *filter(None, held_out)]))


def _sources(plan: Plan) -> set[str]:
    """The repositories of data that are read, also for the test set of a training set's task."""
    study = plan.study
    data = [study.data[name] for name in _read(plan)]
    tasks = asked(plan) | {d.task for d in data if d.task}
    return {d.source for d in data} | {study.tasks[name].source for name in tasks} - {None}


def repositories(plan: Plan) -> Iterator[str]:
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


def questions(plan: Plan) -> Iterator[str]:
    """What is trained on must not be asked."""
    study = plan.study
    for name, data in ((name, study.data[name]) for name in _read(plan)):
        for key in sorted(asked(plan) | ({data.task} - {None})):
            task = study.tasks[key]
            if task.held_out:
                continue
            repos = [study.sources[source].repo for source in (data.source, task.source)]
            if repos[0] == repos[1] and _is_asked(data, key, task):
                how = f", or set tasks.{key}.test_share to ask a part of it" if task.columns else ""
                yield (
                    f"data.{name}.split: {data.split!r} is what tasks.{key} asks; train on another "
                    f"split{how}"
                )
        task = study.tasks.get(data.task)
        if task is None or task.columns is None or task.test_share is None:
            continue
        if (data.source, data.subset, data.split) != (task.source, task.subset, task.split):
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
    """The tasks that a task of the study stands for; none where its names have faults (`known`)."""
    names = task.harness or ()
    if any(harness.faults(key, names, shown=False)):
        return []
    return [leaf for name in names for leaf in harness.leaves(key, name)]


def known(plan: Plan) -> Iterator[str]:
    """Names of tasks must exist, and what tables show must have a score here, and examples if any
    are shown."""
    study, shown = plan.study, asked(plan)
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
                f"shots: task {lacking[0]!r} of tasks.{key} has no rows to take {study.shots} "
                f"examples from; {how}, or set 'shots' to 0"
            )


def held_out(plan: Plan) -> Iterator[str]:
    """Rows of a training set that are asked must be drawn by no training."""
    study = plan.study
    for name, data in ((name, study.data[name]) for name in _read(plan)):
        if data.task and (held := study.tasks[data.task].held_out):
            yield (
                f"data.{name}.task: {data.task!r} asks rows of data.{held}; name the task that "
                "asks test questions"
            )
    for name in sorted(asked(plan)):
        task = study.tasks[name]
        if task.held_out and task.cluster and study.asks_text(name):
            yield (
                f"tasks.{name}.cluster: data.{task.held_out} is raw text, whose texts of one "
                "document are alike; leave 'cluster' out"
            )
        if task.held_out:
            yield from _left(plan, name)


def metrics(plan: Plan) -> Iterator[str]:
    """A column can show only a metric that its task's kind of questions has."""
    study = plan.study
    for number, spec in study.tables.items():
        for heading, shown in (spec.columns | (spec.beside or {})).items():
            name, metric = task_metric(shown, study.tasks)
            there = _measured(study, name) if metric else ()
            if there and metric not in there:
                yield (
                    f"tables.{number}: column {heading!r} shows {shown}, but evaluations of "
                    f"tasks.{name} measure {', '.join(there)}; show one of these"
                )


def _measured(study: Study, name: str) -> tuple[str, ...]:
    """The metrics that a task can have, by its kind of questions; none where that is not known."""
    if study.asks_text(name):
        return ("perplexity",)
    held = study.tasks[name].held_out
    asks = study.data[held].task if held else name
    kinds = {leaf.kind for leaf in _leaves(asks, study.tasks[asks])}
    return MEASURED.get(kinds.pop(), ()) if len(kinds) == 1 else ()


def _left(plan: Plan, name: str) -> Iterator[str]:
    """Why training leaves too few rows for a task that asks them, as far as that is known."""
    study = plan.study
    task = study.tasks[name]
    data, where = study.data[task.held_out], f"tasks.{name}.held_out: data.{task.held_out}"
    if data.rows == "full":
        yield (
            f"{where} has 'rows: full', so training leaves none to ask; give a number there, or "
            "leave out (null) the tables that search for a learning rate with it"
        )
        return
    most = None if data.text else _most_rows(study, data)  # raw text is cut into more
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
        alike = all(getattr(also, key) == getattr(data, key) for key in SAME)
        if same and not (alike and fewer):
            yield (
                f"{where} and data.{other} draw from one split, so training on the latter may take "
                "rows that are asked; hold out rows of the one that draws more, and give both the "
                "same 'subset' and 'task', or cuts of raw text"
            )


def _most_rows(study: Study, data: Data) -> int | None:
    """How many rows a data set can have at most; None where that is not known."""
    source = study.sources[data.source]
    return study.world.most_rows(source.repo, data.split) if study.world else source.sample


def drawn(plan: Plan) -> Iterator[str]:
    """No more rows can be drawn than a set has, where that is known. Raw text is cut into more."""
    for name in plan.datasets:
        data, most = plan.study.data[name], _most_rows(plan.study, plan.study.data[name])
        if most is not None and data.task and data.rows != "full" and data.rows > most:
            limit = "world.train_rows" if plan.study.world else f"sources.{data.source}.sample"
            yield (
                f"data.{name}.rows: {data.rows} are to be drawn, but {limit} leaves at most "
                f"{most}; "
                "lower 'rows', or raise that"
            )


def too_few_questions(plan: Plan) -> Iterator[str]:
    """A standard error needs two questions. `questions` of a test set is an estimate."""
    for name in sorted(asked(plan)):
        task = plan.study.tasks[name]
        key = "questions" if task.held_out else "sample"
        if getattr(task, key) == 1:
            yield f"tasks.{name}.{key}: 1 question has no standard error; ask two or more"


def small_samples(plan: Plan) -> Iterator[str]:
    """No sample is larger than its test set, where that size is known."""
    world = plan.study.world
    for name in sorted(asked(plan)):
        task = plan.study.tasks[name]
        there, key = task.questions, f"tasks.{name}.questions"
        if world:
            there, key = world.test_questions, "world.test_questions"
        if task.sample and there and task.sample > there:
            yield (
                f"tasks.{name}.sample: {task.sample} questions are to be asked, but by {key} there "
                f"are {there}; lower it, or set it to null to ask them all"
            )


def whole_tests(plan: Plan) -> Iterator[str]:
    """The paper's study asks whole test sets for the paper's columns, as the paper does. Columns of
    our own may be of a sample."""
    tasks = plan.study.tasks
    printed = {(cell.table, cell.column) for cell in paper.cells().values()}
    papers = {
        task_metric(shown, tasks)[0]
        for number, spec in plan.study.tables.items()
        for heading, shown in spec.columns.items()
        if (number, heading) in printed
    }
    for name in sorted(asked(plan) & papers) if plan.study.study == PAPER else ():
        if sample := tasks[name].sample:
            yield (
                f"tasks.{name}.sample: the study '{PAPER}' asks all questions for the paper's "
                f"columns, not {sample} of them; give the study another name"
            )
