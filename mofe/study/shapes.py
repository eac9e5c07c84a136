"""A model's shape, and what follows from it alone: its parameters and its FLOPs.

A shape is a Llama's or a Mistral's, or that of the Mixtral which mergekit makes of them: every layer
has attention, two norms, and one FFN or a router with its experts. Counts are exact; a test holds
them against the modules of transformers and the methods of mofe/models/methods.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

FAMILIES = ("llama", "mistral", "mixtral")  # `model_type` of the configurations that are understood


@dataclass(frozen=True)
class Shape:
    """A model's sizes, by the names that a checkpoint's config.json has for them.

    head_dim: None stands for hidden_size / num_attention_heads. num_local_experts: 0 for a dense
    model; num_experts_per_tok: the experts that a token passes through.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    num_local_experts: int = 0
    num_experts_per_tok: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """The shape in a config.json. Raises ValueError for an architecture of another family."""
        kind = config.get("model_type", "llama")
        if kind not in FAMILIES:
            raise ValueError(f"model_type is {kind!r}; only {', '.join(FAMILIES)} are understood")
        given = {f.name: config[f.name] for f in fields(cls) if config.get(f.name) is not None}
        given.setdefault("num_key_value_heads", given["num_attention_heads"])
        if kind != "mixtral":
            given.pop("num_local_experts", None)
            given.pop("num_experts_per_tok", None)
        return cls(**given)

    def mixture(self, experts: int, top_k: int) -> "Shape":
        """The Mixtral of this dense model with so many experts; its attention has no biases."""
        return replace(
            self, num_local_experts=experts, num_experts_per_tok=top_k, attention_bias=False
        )

    @property
    def dense(self) -> "Shape":
        """The dense model that a mixture has for its base and for each of its experts."""
        return replace(self, num_local_experts=0, num_experts_per_tok=0)

    # -------------------------------------------------------------------------------- sizes

    @property
    def head(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_size(self) -> int:
        """Width of the queries, and of attention's output."""
        return self.num_attention_heads * self.head

    @property
    def key_size(self) -> int:
        """Width of the keys, and of the values."""
        return self.num_key_value_heads * self.head

    @property
    def active(self) -> int:
        """The number of FFNs that a token passes through in a layer."""
        return self.num_experts_per_tok if self.num_local_experts else 1

    # --------------------------------------------------------------------------- parameters

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of a decoder layer that adapters can be put on: (inputs, outputs)."""
        hidden, ffn = self.hidden_size, self.intermediate_size
        attention = {
            "q_proj": (hidden, self.query_size),
            "k_proj": (hidden, self.key_size),
            "v_proj": (hidden, self.key_size),
            "o_proj": (self.query_size, hidden),
        }
        if self.num_local_experts:  # packed experts are no linear layers
            return attention
        return (
            attention
            | dict.fromkeys(("gate_proj", "up_proj"), (hidden, ffn))
            | {"down_proj": (ffn, hidden)}
        )

    @property
    def attention(self) -> int:
        """The projections of one layer's attention, with their biases."""
        weights = 2 * self.hidden_size * (self.query_size + self.key_size)
        biases = self.query_size + 2 * self.key_size + self.hidden_size
        return weights + (biases if self.attention_bias else 0)

    @property
    def ffn(self) -> int:
        """One FFN: one expert of one layer."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def router(self) -> int:
        return self.num_local_experts * self.hidden_size

    @property
    def ffns(self) -> int:
        """The FFNs of one layer, the router without."""
        return max(1, self.num_local_experts) * self.ffn

    def shared_evenly(self, processes: int) -> bool:
        """Whether every process gets as much of each expert (mofe/training/parallel.py)."""
        return self.hidden_size % processes == self.intermediate_size % processes == 0

    @property
    def layer(self) -> int:
        return self.attention + 2 * self.hidden_size + self.ffns + self.router

    @property
    def embeddings(self) -> int:
        """Embeddings, final norm and lm_head: what is outside of the layers."""
        tables = 1 if self.tie_word_embeddings else 2
        return tables * self.vocab_size * self.hidden_size + self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters of the plain model."""
        return self.num_hidden_layers * self.layer + self.embeddings

    def adapters(self, settings: Mapping[str, Any]) -> int:
        """The parameters that a method (Plan.method_params) adds: LoRA's matrices, DoRA's norms."""
        if settings["method"] != "lora":
            return 0
        layer = sum(
            settings["rank"] * (inputs + outputs) + (outputs if settings.get("dora") else 0)
            for name, (inputs, outputs) in self.linears.items()
            if name in settings["targets"]
        )
        return self.num_hidden_layers * layer

    def total(self, settings: Mapping[str, Any]) -> int:
        """All parameters under a method, as train.json counts them."""
        return self.parameters + self.adapters(settings)

    def frozen_experts(self, settings: Mapping[str, Any]) -> int:
        """The experts of a layer that a method leaves as they are."""
        if settings["method"] == "full":
            return 0
        if settings.get("frozen", "all") == "all":
            return self.num_local_experts
        return settings["frozen"]

    def trainable(self, settings: Mapping[str, Any]) -> int:
        """The parameters that a method trains."""
        if settings["method"] == "lora":
            return self.adapters(settings)
        frozen = self.frozen_experts(settings) * self.ffn * self.num_hidden_layers
        return self.parameters - frozen

    # -------------------------------------------------------------------------------- FLOPs

    def forward_flops(self, context: float, labelled: float) -> float:
        """FLOPs of a token's way through the model, two for each multiplication with its addition.

        context: the length of its row in tokens; attention is causal, so a token sees half of it on
        average. labelled: the share of tokens whose logits are computed (mofe.training.loop.AnswerLoss).
        """
        return sum(self._products(context, labelled).values())

    def step_flops(self, settings: Mapping[str, Any], context: float, labelled: float) -> float:
        """FLOPs of a token in training by a method: forward, and backward.

        Backward takes every product once for the gradient of its input, and once more for the
        gradient of its weight where that is trained. So frozen experts cost two thirds of trained
        ones. What is not a product (norms, softmax, AdamW, dequantising NF4) is left out.
        """
        products = self._products(context, labelled)
        lora = settings["method"] == "lora"
        experts = max(1, self.num_local_experts)
        ffn_trained = 0.0 if lora else 1 - self.frozen_experts(settings) / experts
        trained = {
            "attention": 0.0 if lora else 1.0,
            "scores": 1.0,  # a product of two activations: both have a gradient
            "router": 0.0 if lora else 1.0,
            "ffn": ffn_trained,
            "lm_head": 0.0 if lora else 1.0,
        }
        flops = sum(amount * (2 + trained[part]) for part, amount in products.items())
        return flops + 3 * 2 * self.adapters(settings)

    def _products(self, context: float, labelled: float) -> dict[str, float]:
        layers = self.num_hidden_layers
        return {
            "attention": 2 * layers * 2 * self.hidden_size * (self.query_size + self.key_size),
            "scores": 2 * layers * 2 * self.query_size * context / 2,
            # in the last layer at the labelled tokens only (mofe/layers/positions.py)
            "router": 2 * (layers - 1 + labelled) * self.router,
            "ffn": 2 * (layers - 1 + labelled) * self.active * self.ffn,
            "lm_head": 2 * labelled * self.vocab_size * self.hidden_size,
        }
