"""The addresses of everything that a study makes, below its `results` folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mofe.study.config import Study
from mofe.study.variants import Dense, Moe, Variant


@dataclass(frozen=True)
class Addresses:
    """The addresses of a study's files and folders, relative to where the workflow is called."""

    study: Study

    @property
    def root(self) -> str:
        return self.study.results

    @property
    def world(self) -> str:
        return f"{self.root}/world"

    @property
    def mirror(self) -> str:
        """The folder that data sets are read from, as {org}/{name}: the generated world, the user's
        mirror, or what was fetched from the hub."""
        return self.world if self.study.world else self.model_mirror

    @property
    def model_mirror(self) -> str:
        """The folder that the hub's models are read from, as {org}/{name}. No world generates
        models."""
        return self.study.mirror or self.study.hub

    def manifest(self, repo: str) -> str:
        """The manifest of a repository that was fetched. Its files are in the folder of this
        name."""
        return f"{self.study.hub}/{repo}.json"

    def model_dir(self, name: str, seed: int | str | None = None) -> str:
        """A dense model's folder. seed: that of the row which the model is for. Models that the
        study does not make from others are the same for every seed, and need none."""
        folder = self.study.models[name].path or f"{self.root}/experts/{name}"
        return self._of_seed(folder, [name], seed)

    def moe_dir(self, moe: Moe, seed: int | str | None = None) -> str:
        """A merge's folder: of a seed if one of its models is, else the same for every seed."""
        return self._of_seed(f"{self.root}/moe/{moe.name}", moe.models, seed)

    def origin_dir(self, variant: Variant, seed: int | str) -> str:
        """The merge or the dense model that a variant is made from."""
        origin = variant.origin
        if isinstance(origin, Dense):
            return self.model_dir(origin.base, seed)
        return self.moe_dir(origin, seed)

    def _of_seed(self, folder: str, models: Sequence[str], seed: int | str | None) -> str:
        """The folder of what is made from dense models. Raises ValueError where they are of a seed
        and none is named."""
        if not self.study.is_per_seed(models):
            return folder
        if seed is None:
            raise ValueError(f"{folder}: there is one for each seed; name the seed")
        return f"{folder}/s{seed}"

    def data_file(self, dataset: str) -> str:
        return f"{self.root}/data/{dataset}.parquet"

    def data_counts(self, dataset: str) -> str:
        return f"{self.root}/data/{dataset}.json"

    def search_json(self, variant: Variant) -> str:
        """What the search for a variant's learning rate found."""
        return f"{self.root}/variants/{variant.key}/search.json"

    def variant_dir(self, variant: Variant, seed: int | str) -> str:
        return f"{self.root}/variants/{variant.key}/s{seed}"

    def trained(self, variant: Variant, seed: int | str) -> str:
        return f"{self.variant_dir(variant, seed)}/trained.safetensors"

    def loss_log(self, variant: Variant, seed: int | str) -> str:
        return f"{self.variant_dir(variant, seed)}/log.jsonl"

    def train_json(self, variant: Variant, seed: int | str) -> str:
        return f"{self.variant_dir(variant, seed)}/train.json"

    def eval_json(self, variant: Variant, seed: int | str, task: str) -> str:
        return f"{self.root}/evals/{variant.key}/s{seed}/{task}.json"

    def answers(self, variant: Variant, seed: int | str, task: str) -> str:
        """The record of every question beside an evaluation's JSON."""
        return self.eval_json(variant, seed, task).removesuffix(".json") + ".questions.jsonl.gz"

    def questions(self, variant: Variant, task: str) -> str:
        """A task's questions in the tokens of a variant's tokenizer, which is its base's."""
        return f"{self.root}/questions/{self.study.tokenizer(variant.origin.base)}/{task}.parquet"

    def tokens(self, variant: Variant, seed: int | str, task: str) -> str:
        """The page of a few of a task's questions, with the experts of each token."""
        return f"{self.root}/tokens/{variant.key}/s{seed}/{task}.html"

    def export_dir(self, variant: Variant, seed: int | str) -> str:
        return f"{self.root}/models/{variant.key}/s{seed}"

    def pushed(self, variant: Variant, seed: int | str) -> str:
        """The record of an exported model's upload."""
        return f"{self.root}/pushed/{variant.key}/s{seed}.json"

    def preflight(self, model: str) -> str:
        return f"{self.root}/preflight/{model}.json"

    def log(self, output: str) -> str:
        """The log of the job that makes this file or folder (its first output)."""
        fetched = output.startswith(f"{self.study.hub}/")  # it may be inside the results
        inside = output.removeprefix(f"{self.study.hub if fetched else self.root}/")
        name = re.sub(
            r"(/train|/trained)?\.(json|parquet|tex|pdf|html|zip|safetensors)$", "", inside
        )
        return f"{self.root}/logs/{'hub/' if fetched else ''}{name}.log"

    def table(self, number: int | str, kind: str) -> str:
        """A table's file: tableC1.tex, or E3.tex for one that is made on demand."""
        prefix = "" if self.study.tables[number].on_demand else "table"
        return f"{self.root}/{prefix}{number}.{kind}"

    def partial(self, name: str) -> str:
        """A file of the tables of what there is."""
        return f"{self.root}/partial/{name}"

    @property
    def config(self) -> str:
        """The merged configuration of the last run, for people and for `compare`."""
        return f"{self.root}/config.yaml"

    def compared(self, kind: str) -> str:
        """Two results compared, cell by cell."""
        return f"{self.root}/compare.{kind}"

    @property
    def check(self) -> str:
        """What the rule `check` found, as JSON."""
        return f"{self.root}/check.json"

    def figure(self, name: str, kind: str) -> str:
        return f"{self.root}/figures/{name}.{kind}"

    def claim(self, claim: str) -> str:
        return f"{self.root}/claims/{claim}.json"

    def claims(self, kind: str) -> str:
        return f"{self.root}/claims.{kind}"

    def replications(self, kind: str) -> str:
        """Claims asked in several studies."""
        return f"{self.root}/replications.{kind}"

    @property
    def claims_paper(self) -> str:
        """The verdicts on the paper's own numbers."""
        return f"{self.root}/claims_paper.md"

    @property
    def report(self) -> str:
        return f"{self.root}/report.html"

    @property
    def pdf(self) -> str:
        """All tables and figures in one PDF."""
        return f"{self.root}/tables.pdf"

    @property
    def archive(self) -> str:
        return f"{self.root}/archive.zip"
