"""A study's claims.json, made up from the paper's numbers, for tests of the page and the figures."""

from mofe.records import ClaimRecord, ClaimsRecord, Comparison, Judgement, LeastEffect

BAND = {"MMLU": 0.0192, "MedMCQA": 0.0558, "Medicine": 0.0558}

# Name, column, the sentence, and for the paper's numbers and the miniature: difference, low and high in
# points (of times: ratios), p and the verdict.
CLAIMS = (
    ("C1", "Trainable Parameters", "MoFE's trainable parameters are constant, those of full grow.",
     (0, 0, 0, None, "exact"), (0, 0, 0, None, "exact")),
    ("C2", "Training Time(hr)", "MoFE's training time is fixed, whatever the number of experts.",
     (1, 0.85, 1.18, None, "beyond its noise"), (None, 0, 0, None, "cannot be asked here")),
    ("C4", "Training Time(hr)", "Small MoFE requires less than half the time of full fine-tuning.", (0.43, 0.38, 0.48, None, "beyond its noise"),
     (None, 0, 0, None, "cannot be asked here")),
    ("C5", "MMLU", "Both approaches, full fine-tuning and MoFE, improve performance.",
     (6.4, 2.1, 10.6, 0.006, "beyond its noise"), (44, 40, 48, 0.00001, "same here")),
    ("C6", "mean", "Full fine-tuning generally outperforms MoFE.",
     (1.1, -0.6, 2.9, 0.186, "inside its noise"), (7.1, 5.5, 8.8, 0.0001, "same here")),
    ("C7a", "MMLU", "MoFE surpasses full fine-tuning on MMLU for the medium model.",
     (0.2, -1.9, 2.4, 0.82, "inside its noise"), (-7.6, -10.7, -4.6, 0.001, "other way here")),
    ("C7b", "MedMCQA", "MoFE surpasses full fine-tuning on MedMCQA for the large model.",
     (0.6, -5.2, 6.3, 0.84, "inside its noise"), (-7.6, -9.5, -5.7, 0.001, "other way here")),
    ("C8", "MedMCQA", "MoFE outperforms LoRA, QLoRA and DoRA in all model sizes, on both tasks.",
     (1.5, -4.3, 7.3, 0.58, "inside its noise"), (27, 22, 31, 0.0001, "same here")),
    ("C10", "MedMCQA", "Performance on MedMCQA improves as the number of medical experts increases.",
     (0.5, -5.3, 6.3, 0.86, "inside its noise"), (0.3, -0.3, 0.8, 0.3, "undecided here")),
    ("C11f", "Finance", "Domain-specific experts enhance task performance in finance.",
     (2.4, 0.4, 4.5, 0.026, "inside its noise"), (3.9, 1.1, 6.7, 0.018, "undecided here")),
    ("C14", "Medicine", "Post-pretraining before instruction-tuning performs worst, on both tasks.",
     (9.4, 3.6, 15.2, 0.004, "beyond its noise"), (None, 0, 0, None, "cannot be asked here")),
)  # fmt: skip
OURS = (
    ("C18", "MMLU", "Sizes of identical frozen experts are one function.",
     (0, 0, 0, None, "exact"), (0, 0, 0, None, "exact")),
    ("K1", "PubMedQA", "The best row of Table 6 is better than the untuned model on PubMedQA.",
     (-1.4, -7, 4.2, 0.6, "inside its noise"), (-3.1, -6, -0.2, 0.04, "other way here")),
)  # fmt: skip
REASON = "A model this small spends most of a step elsewhere."


def comparison(column: str, values: tuple, seeds: int) -> Comparison:
    difference, low, high, p, _ = values
    timed, counted = column.startswith("Training"), column.startswith("Trainable")
    scale = 1 if timed or counted else 100
    test = "rounding" if timed else "count" if counted else "crossed" if seeds else "printed"
    known = test == "crossed" and low != high
    return Comparison(
        column=column,
        first="Medium | MoFE",
        second="Medium | LoRA",
        test=test,
        difference=difference / scale,
        low=low / scale,
        high=high / scale,
        stderr=None,
        df=None,
        p=p,
        seeds=seeds,
        identical=test == "crossed" and low == high,
        these_low=(low + 0.3) / scale if known else None,
        these_high=(high - 0.3) / scale if known else None,
        least=0.045 if known else None,
    )


def judgement(column: str, values: tuple, seeds: int) -> Judgement:
    *_, p, verdict = values
    if values[0] is None:
        return Judgement(verdict=verdict, reason=REASON)
    part = comparison(column, values, seeds)
    holm = None if p is None else min(1.0, 2 * p)
    return Judgement(verdict=verdict, p=p, p_holm=holm, summary=part, parts=(part,))


def claim(row: tuple, in_paper: bool, scale: str, root: str) -> ClaimRecord:
    name, column, says, printed, here = row
    exact = here[4] == "exact"
    return ClaimRecord(
        claim=name,
        says=says,
        quote="As the paper says it.",
        place="Section 4.2, Table 1",
        section="4.2",
        kind="all",
        in_paper=in_paper,
        tables=(1,),
        study="mini",
        scale=scale,
        margin=0.02,
        printed=judgement(column, printed, 0),
        printed_again=judgement(column, (4.2, 0.6, 7.8, 0.026, "beyond its noise"), 0)
        if name == "C8"
        else None,
        paper_scale=Judgement(verdict="exact" if exact else "not run"),
        here=None if scale == "paper" else judgement(column, here, 3),
        files=tuple(f"{root}/evals/{name}/s{seed}/mmlu.json" for seed in range(3)),
    )


def example(scale: str = "miniature", root: str = "results/mini") -> ClaimsRecord:
    """Thirteen claims, two of them ours, in a study of three seeds."""
    claims = [claim(row, True, scale, root) for row in CLAIMS]
    claims += [claim(row, False, scale, root) for row in OURS]
    printed = [row[3][4] for row in CLAIMS]
    at_scale = ["exact" if row[4][4] == "exact" else "not run" for row in CLAIMS]
    return ClaimsRecord(
        study="mini",
        scale=scale,
        seeds=3,
        margin=0.02,
        printed_counts={verdict: printed.count(verdict) for verdict in dict.fromkeys(printed)},
        paper_scale_counts={v: at_scale.count(v) for v in dict.fromkeys(at_scale)},
        claims=tuple(claims),
        least=tuple(
            LeastEffect(task=task, questions=n, seeds=seeds, new=new, these=these)
            for task, n, new_by_seed, these_by_seed in LEAST
            for seeds, new, these in zip(SEEDS, new_by_seed, these_by_seed, strict=True)
        ),
        noise=BAND,
    )


SEEDS = (1, 3, 5, 10, 20, 100, None)
LEAST = (
    ("mmlu", 14042, (0.029, 0.020, 0.015, 0.012, 0.011, 0.0101, 0.010),
     (0.028, 0.019, 0.013, 0.008, 0.006, 0.003, 0.0)),
    ("medmcqa", 4183, (0.080, 0.053, 0.038, 0.029, 0.023, 0.019, 0.017),
     (0.079, 0.053, 0.036, 0.023, 0.016, 0.007, 0.0)),
    ("pubmedqa", 500, (0.102, 0.072, 0.063, 0.056, 0.053, 0.051, 0.050),
     (0.1, 0.06, 0.04, 0.03, 0.02, 0.01, 0.0)),
)  # fmt: skip
