"""What tables show: their columns, and floors that some row must tell."""

from collections.abc import Iterator

from mofe.study.config import Study, TableRow
from mofe.study.values import COMPUTED


def shown_rows(study: Study) -> Iterator[tuple[str, TableRow]]:
    """The rows of all tables that show a model, each with its key path."""
    for key, table in study.tables.items():
        for name, row in table.model_rows.items():
            yield f"tables.{key}.rows.{name}", row


def columns(study: Study) -> Iterator[str]:
    """A header spans all columns, and no column beside the paper's has the heading of one of
    them."""
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


def constants(study: Study) -> Iterator[str]:
    """A floor is read from an evaluation, which some other row of the table must have."""
    for key, table in study.tables.items():
        if not table.model_rows:
            yield (
                f"tables.{key}.rows: all rows are constant, so no evaluation tells their floors; "
                "add a row of a mixture or a model"
            )


def folded(study: Study) -> Iterator[str]:
    """What a training takes must be of the mixture that its row names: equal frozen experts that
    are computed once take the time and memory of fewer."""
    for number, table in study.tables.items():
        shown = [heading for heading, kind in table.columns.items() if kind in COMPUTED]
        if not shown:
            continue
        rows = {name: row for name, row in table.model_rows.items() if row.mixture}
        for name, row in rows.items():
            for mix, recipe in _folding(study, row):
                own = f"mixes.{mix}" if mix in study.mixes else f"recipes.{recipe}"
                yield (
                    f"tables.{number}.rows.{name}.train: {', '.join(map(repr, shown))} would be of "
                    f"a smaller mixture, because recipe '{recipe}' computes equal frozen experts "
                    f"once; set {own}.training.fold_duplicates to false, or leave "
                    f"{'that column' if len(shown) == 1 else 'these columns'} out"
                )


def _folding(study: Study, row: TableRow) -> Iterator[tuple[str, str]]:
    """The stages of a row, each as mix and recipe, that compute equal frozen experts once."""
    experts = study.mixtures[row.mixture].experts
    slots = [expert for expert in sorted(experts) for _ in range(experts[expert])]
    still = set(range(len(slots)))
    for mix, recipe in row.train.items():
        method = study.recipes[recipe].in_slots(slots)
        # experts that a stage trains or adapts differ from then on
        still &= set() if method.adapts_any_expert else {*method.frozen_slots(len(slots))}
        frozen = [slots[slot] for slot in still]
        own = [study.mixes[mix].training.fold_duplicates] if mix in study.mixes else []
        folds = [study.training.fold_duplicates, *own, method.training.fold_duplicates]
        if [value for value in folds if value is not None][-1] and len(set(frozen)) < len(frozen):
            yield mix, recipe
