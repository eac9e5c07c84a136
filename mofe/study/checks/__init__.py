"""What the sections of a configuration must agree on. Each check yields one sentence per fault.

A model, a recipe, a data set or a task that nothing shows forbids nothing: checks of what is
trained, read and asked look at the plan.
"""

from collections.abc import Callable, Iterator

from mofe.study.checks import models, names, rows, tables, training
from mofe.study.config import Study
from mofe.study.plan import Plan

OF_STUDY: tuple[Callable[[Study], Iterator[str]], ...] = (
    names.seeds,
    names.replicated,
    names.shadowed,
    names.cycles,
    models.slots,
    names.assumed,
    tables.columns,
    training.chains,
    names.papers_name,
    tables.constants,
    tables.folded,
)
OF_PLAN: tuple[Callable[[Plan], Iterator[str]], ...] = (
    names.addresses,
    models.origins,
    rows.repositories,
    rows.questions,
    rows.known,
    training.methods,
    training.quantized_experts,
    training.lengths,
    rows.held_out,
    rows.metrics,
    training.searches,
    rows.drawn,
    training.warm_up,
    training.recorded,
    training.unfreezing,
    training.replayed,
    rows.too_few_questions,
    rows.small_samples,
    rows.whole_tests,
)


def faults(study: Study) -> Iterator[str]:
    """Every fault of a study whose keys are valid one by one."""
    for check in OF_STUDY:
        yield from check(study)
    if not list(names.cycles(study)):  # else nothing can be planned
        plan = Plan(study, on_demand=True)
        for check_of_plan in OF_PLAN:
            yield from check_of_plan(plan)
