"""Greedy texts of many prompts at once.

A step gives every text its next token, by a cache of fixed size. On a GPU such a step is hundreds
of small kernels, which take longer to start than to compute; so it is recorded once as a CUDA graph
and replayed (docs/benchmarks.md, "Answers in words on a GPU"). A model whose shapes depend on what
its router chooses cannot be recorded; its steps are computed one by one.

Shapes. B: texts. K: slots of the cache, which a prompt's tokens and the text's fill in order.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, StaticLayer

from mofe.layers import experts
from mofe.models import finite

REPLAYED = 16  # steps of a graph between two looks at the texts
WARM_UP = 2  # steps before one is recorded: libraries set themselves up in their first calls

Head = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def greedy(
    model: nn.Module,
    head: Head,
    prompts: Sequence[Sequence[int]],
    length: int,
    pad: int,
    is_over: Callable[[list[list[int]]], bool],
    at_once: int,
    window: int | None = None,
) -> list[list[int]]:
    """The token ids that follow each prompt: `length` of them, or fewer where the texts were over
    before.

    model: without its head; head: gives float32 logits (B, 1, vocabulary) of hidden states.
    is_over: whether no text needs more tokens, given all of them so far. at_once: how many tokens
    of each prompt are read by one forward pass. window: how many tokens attention looks back, the
    token itself among them; None for all. Raises finite.NotFinite where a token has no largest
    logit.
    """
    texts = _Texts(model, head, prompts, length, pad, window)
    texts.read_prompts(at_once)
    long = length > WARM_UP + 1
    recorded = long and texts.device.type == "cuda" and _can_be_recorded(model)
    step = texts.recorded_step() if recorded else texts.step
    looks = REPLAYED if recorded else 1
    while texts.count < length:
        if texts.count % looks == 0 and is_over(texts.written()):
            break
        step()
        texts.count += 1
    if not texts.finite:
        raise finite.NotFinite("scores of the next token")
    return texts.written()


def _can_be_recorded(model: nn.Module) -> bool:
    """Whether a step does the same on the GPU whatever its tokens are. Some rotations change with
    the longest text."""
    rotation = getattr(getattr(model, "rotary_emb", None), "rope_type", "default")
    changes = "dynamic" in rotation or rotation == "longrope"
    return not changes and not experts.waits_for_gpu(model)


class _Slots(StaticLayer):
    """A layer's cache. Under autocast keys and values may differ in dtype; attention would cast
    them to autocast's."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        kind = key_states.device.type
        low = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if low else key_states.dtype
        return super().update(key_states.to(dtype), value_states.to(dtype), *args, **kwargs)


class _Texts:
    """The texts of a batch, and the tensors that a step changes in place, as a graph's must be."""

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        prompts: Sequence[Sequence[int]],
        length: int,
        pad: int,
        window: int | None,
    ):
        self.model, self.head, self.window = model, head, window
        self.device = next(model.parameters()).device
        ids = [torch.tensor(prompt) for prompt in prompts]
        side = {"batch_first": True, "padding_side": "left"}
        self.prompts = pad_sequence(ids, padding_value=pad, **side).to(self.device)
        texts, longest = self.prompts.shape
        slots = longest + length
        layers = range(model.config.num_hidden_layers)
        self.cache = Cache(layers=[_Slots(max_cache_len=slots) for _ in layers])
        padding = torch.tensor([longest - len(prompt) for prompt in prompts])
        # a slot's position in its text; below 0 for padding
        self.position_BK = (torch.arange(slots) - padding[:, None]).to(self.device)
        self.next_B1 = self.position_BK[:, longest : longest + 1].clone()  # the next position
        self.token_B1 = self.prompts[:, -1:].clone()
        self.written_BT = torch.full((texts, length), pad, device=self.device)
        self.place = torch.zeros(1, dtype=torch.int64, device=self.device)  # in written_BT
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.count = 0  # tokens of each text

    def read_prompts(self, at_once: int) -> None:
        """Fill the cache, and write each text's first token."""
        positions = self.position_BK[:, : self.prompts.shape[1]]
        for ids, position in zip(
            self.prompts.split(at_once, 1), positions.split(at_once, 1), strict=True
        ):
            hidden = self._read(ids, position)
        self._write(hidden)
        self.count = 1

    def step(self) -> None:
        """Write each text's next token."""
        self._write(self._read(self.token_B1, self.next_B1))
        self.next_B1.add_(1)

    def recorded_step(self) -> Callable[[], None]:
        """What replays a step, after WARM_UP steps."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(min(WARM_UP, self.written_BT.shape[1] - self.count)):
                self.step()
                self.count += 1
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def written(self) -> list[list[int]]:
        """The texts so far."""
        return self.written_BT[:, : self.count].tolist()

    def _read(self, ids_BQ: torch.Tensor, position_BQ: torch.Tensor) -> torch.Tensor:
        """The hidden states (B, 1, D) at the last of these tokens, which go into the cache."""
        hidden = self.model(
            input_ids=ids_BQ,
            position_ids=position_BQ.clamp(min=0),
            attention_mask=self._seen(position_BQ)[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden[:, -1:]

    def _write(self, hidden_B1D: torch.Tensor) -> None:
        """Write the tokens that follow."""
        logits = self.head(hidden_B1D)
        self.finite.logical_and_(logits.isfinite().all())
        self.token_B1.copy_(logits.argmax(-1))
        self.written_BT.index_copy_(1, self.place, self.token_B1)
        self.place.add_(1)

    def _seen(self, position_BQ: torch.Tensor) -> torch.Tensor:
        """(B, Q, K) bool: which slots each token attends to. Padding, which nobody attends to,
        attends to all, because attention to nothing is not a number."""
        back = position_BQ[:, :, None] - self.position_BK[:, None]
        seen = (back >= 0) & (self.position_BK >= 0)[:, None]
        if self.window:
            seen &= back < self.window
        return seen | (position_BQ < 0)[:, :, None]
