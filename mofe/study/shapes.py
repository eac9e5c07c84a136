"""A model's shape: its sizes, and the counts of parameters that follow from them alone.

A shape is that of a Llama, of a Mistral, or of the Mixtral that mergekit makes from them: every
layer has attention, two norms, and one FFN or a router with experts. Counts are exact; a test
compares them with the modules of transformers. What a method adds or trains is in
mofe/study/methods.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

# The parts of a model that a method can train, besides its FFNs.
EMBEDDINGS, HEAD = "embed_tokens", "lm_head"  # each is one table; tied ones are the same
ATTENTION, NORMS = "attention", "norms"
ROUTER = "router"  # also the name of a mixture's router among a layer's linear layers
FAMILIES = ("llama", "mistral", "mixtral")  # `model_type` of the configurations that are understood
WINDOWED = ("mistral", "mixtral")  # of these, those whose attention may have a sliding window
# What transformers assumes where a config.json lacks the key; of a Llama, Shape's own defaults.
ASSUMED = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131_072},
    "mixtral": {"num_key_value_heads": 8, "max_position_embeddings": 131_072},
}


@dataclass(frozen=True)
class Shape:
    """A model's sizes, by the names that a checkpoint's config.json has for them.

    head_dim: None means hidden_size / num_attention_heads. num_local_experts: 0 for a dense model.
    num_experts_per_tok: the experts that compute each token.
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
        config = ASSUMED[kind] | dict(config)
        given = {f.name: config[f.name] for f in fields(cls) if config.get(f.name) is not None}
        given.setdefault("num_key_value_heads", given["num_attention_heads"])
        if kind != "mixtral":
            given.pop("num_local_experts", None)
            given.pop("num_experts_per_tok", None)
        return cls(**given)

    def mixture(self, experts: int, top_k: int) -> "Shape":
        """The Mixtral of this dense model with `experts` experts, of which `top_k` compute each
        token. Its attention has no biases."""
        return replace(
            self, num_local_experts=experts, num_experts_per_tok=top_k, attention_bias=False
        )

    @property
    def dense(self) -> "Shape":
        """The shape of the dense models that a mixture is made from."""
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
    def number_of_ffns(self) -> int:
        """FFNs per layer: the experts, or the one of a dense model."""
        return self.num_local_experts or 1

    @property
    def active(self) -> int:
        """FFNs per layer that compute each token."""
        return self.num_experts_per_tok if self.num_local_experts else 1

    # --------------------------------------------------------------------------- parameters

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of a decoder layer, with (inputs, outputs). A mixture's packed experts
        are none: `in_ffn` has the matrices of each."""
        hidden = self.hidden_size
        attention = {
            "q_proj": (hidden, self.query_size),
            "k_proj": (hidden, self.key_size),
            "v_proj": (hidden, self.key_size),
            "o_proj": (self.query_size, hidden),
        }
        return attention if self.num_local_experts else attention | self.in_ffn

    @property
    def in_ffn(self) -> dict[str, tuple[int, int]]:
        """The matrices of one FFN, which is one expert of one layer, with (inputs, outputs)."""
        hidden, ffn = self.hidden_size, self.intermediate_size
        return {"gate_proj": (hidden, ffn), "up_proj": (hidden, ffn), "down_proj": (ffn, hidden)}

    @property
    def attention(self) -> int:
        """Parameters of the projections of one layer's attention, with their biases."""
        weights = 2 * self.hidden_size * (self.query_size + self.key_size)
        biases = self.query_size + 2 * self.key_size + self.hidden_size
        return weights + (biases if self.attention_bias else 0)

    @property
    def ffn(self) -> int:
        """Parameters of one FFN, which is one expert of one layer."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def router(self) -> int:
        return self.num_local_experts * self.hidden_size

    @property
    def ffns(self) -> int:
        """Parameters of all FFNs of one layer, without the router."""
        return self.number_of_ffns * self.ffn

    def shared_evenly(self, processes: int) -> bool:
        """Whether each expert can be divided equally among processes
        (mofe/training/parallel.py)."""
        return self.hidden_size % processes == self.intermediate_size % processes == 0

    @property
    def layer(self) -> int:
        return self.attention + 2 * self.hidden_size + self.ffns + self.router

    @property
    def table(self) -> int:
        """Parameters of the embeddings alone, which are those of lm_head."""
        return self.vocab_size * self.hidden_size

    @property
    def embeddings(self) -> int:
        """Parameters outside the layers: embeddings, final norm and lm_head."""
        tables = 1 if self.tie_word_embeddings else 2
        return tables * self.table + self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters of the model without adapters."""
        return self.num_hidden_layers * self.layer + self.embeddings
