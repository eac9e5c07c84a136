"""Which files of a model's repository are fetched."""

import glob
import json

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from mofe.data import weights
from mofe.models.files import IncompatibleModels, weight_files
from mofe.study.plan import MODEL_FILES

COMMON = [".gitattributes", "README.md", "config.json", "generation_config.json"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
LLAMA = [*TOKENIZER, "special_tokens_map.json", "tokenizer.model"]


def shards(count: int, name: str = "model", kind: str = "safetensors") -> list[str]:
    return [f"{name}-{n:05}-of-{count:05}.{kind}" for n in range(1, count + 1)]


def pickles(count: int) -> list[str]:
    return [*shards(count, "pytorch_model", "bin"), "pytorch_model.bin.index.json"]


# The files of real repositories: those that are wanted, and those that are not.
REPOSITORIES = {
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": (
        [*COMMON[2:], *LLAMA, "model.safetensors"],
        [*COMMON[:2], "pytorch_model.bin"],
    ),
    "mistralai/Mistral-7B-v0.1": (
        [*COMMON[2:], *LLAMA, weights.INDEX, *shards(2)],
        [*COMMON[:2], *pickles(2)],
    ),
    "mistralai/Mistral-7B-v0.3": (
        [*COMMON[2:], *LLAMA, weights.INDEX, "params.json", *shards(3)],
        [*COMMON[:2], "consolidated.safetensors", "tokenizer.model.v3"],
    ),
    "meta-llama/Llama-2-7b-hf": (
        [*COMMON[2:], *LLAMA, weights.INDEX, "LICENSE.txt", *shards(2)],
        [*COMMON[:2], "USE_POLICY.md", *pickles(2)],
    ),
    "meta-llama/Llama-3.2-1B": (
        [*COMMON[2:], *TOKENIZER, "special_tokens_map.json", "model.safetensors"],
        [
            *COMMON[:2],
            "LICENSE.txt.md",
            "USE_POLICY.md",
            "original/consolidated.00.pth",
            "original/params.json",
            "original/tokenizer.model",
        ],
    ),
    "Qwen/Qwen2.5-7B": (
        [*COMMON[2:], *TOKENIZER, "merges.txt", "vocab.json", weights.INDEX, *shards(4)],
        [*COMMON[:2], "LICENSE"],
    ),
    "with every other form": (
        [
            "config.json",
            "model.safetensors",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
        ],
        [
            "adapter_config.json",
            "adapter_model.safetensors",
            "model.fp16.safetensors",
            weights.INDEX,
            *shards(2),
            "model.gguf",
            "tf_model.h5",
            "flax_model.msgpack",
            "onnx/config.json",
            "onnx/model.onnx",
            "gguf/model-q4.gguf",
            "modeling.py",
            "fp8/model.safetensors",
            "optimizer.pt",
            "model.safetensors.bak",
        ],
    ),
}


def index(files: list[str]) -> str:
    return json.dumps({"weight_map": {f"w{n}": file for n, file in enumerate(files)}})


@pytest.mark.parametrize("name", REPOSITORIES)
def test_of_a_real_repository_only_the_checkpoint_is_wanted(name):
    expected, other = REPOSITORIES[name]
    named = index([file for file in expected if file.endswith(".safetensors")])
    assert weights.wanted([*other, *expected], MODEL_FILES, named) == sorted(expected)


PATHS = st.text("ab[]*?!-./", min_size=1, max_size=8).filter(lambda path: path[-1] != "/")
NAMES = st.sampled_from([f"{stem}.safetensors" for stem in ("a", "b[1]", "model-1", "x*")])


@given(st.sets(PATHS | NAMES, max_size=8), st.sets(NAMES, min_size=1, max_size=3))
def test_the_weights_are_those_that_the_index_names_and_are_there(others, named):
    paths = others | {weights.INDEX, "config.json"}
    if missing := sorted(named - paths):
        with pytest.raises(ValueError, match=r"^model.safetensors.index.json names .* lacks") as e:
            weights.wanted(paths, MODEL_FILES, index(sorted(named)))
        assert any(file in str(e.value) for file in missing)
    found = weights.wanted(paths | named, MODEL_FILES, index(sorted(named)))
    assert {path for path in found if path.endswith(".safetensors")} == named
    assert {weights.INDEX, "config.json"} <= {*found} <= paths | named


@pytest.mark.parametrize(
    ("path", "told"),
    [("shards/a.safetensors", "not beside it"), ("pytorch_model.bin", "no safetensors file")],
)
def test_weights_that_would_not_be_fetched_are_refused(path, told):
    paths = {weights.INDEX, "config.json", path}
    with pytest.raises(ValueError, match=f"names {path}, which is {told}; "):
        weights.wanted(paths, MODEL_FILES, index([path]))


def test_an_index_of_pickled_weights_is_refused_in_a_folder(tmp_path):
    for name, content in (
        (weights.INDEX, index(["pytorch_model.bin"])),
        ("pytorch_model.bin", "x"),
    ):
        (tmp_path / name).write_text(content)
    with pytest.raises(IncompatibleModels, match=r"names pytorch_model.bin, which is no safetens"):
        weight_files(tmp_path, "mine")


@given(st.sets(PATHS, max_size=8), st.data())
def test_a_path_as_a_pattern_allows_just_that_file(paths, data):
    wanted = data.draw(st.sets(st.sampled_from(sorted(paths)))) if paths else set()
    allowed = filter_repo_objects(sorted(paths), allow_patterns=[glob.escape(p) for p in wanted])
    assert {*allowed} == wanted
