"""What comes from the hub, through huggingface_hub's own client and a hub on this machine."""

import hashlib
import io
import json
import os
import signal
from pathlib import Path
from threading import Event, Thread

import fake_hub
import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import CONFIG, snakemake
from datasets import Dataset
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from mofe import stops, tasks
from mofe.data import hub, mirror, sampling, schema, sources, weights
from mofe.data.refusals import Unreachable
from mofe.models import files as model_files
from mofe.models import load
from mofe.models.files import IncompatibleModels
from mofe.stages import prepare
from mofe.study.load import read_study
from mofe.study.plan import MODEL_FILES, Plan
from mofe.study.values import ConfigError

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def online(monkeypatch):
    with fake_hub.running() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's waits between tries
        yield server


def wanted(repo="org/name", kind="dataset", revision="main", files=("*.parquet",), sample=None):
    return {"repo": repo, "kind": kind, "revision": revision, "files": files, "sample": sample}


def until(state) -> None:
    while not state():
        Event().wait(0.01)  # time.sleep does not wait here


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def parquet(rows: list[str], group: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": rows}), sink, row_group_size=group)
    return sink.getvalue()


# ------------------------------------------------------------------------------------ fetching


def test_the_manifest_has_the_commit_and_every_files_hash(online, tmp_path):
    files = {"a/x.parquet": noise(1000), "README.md": b"---\n---\n", "load.py": b"import os"}
    commit = online.publish("dataset", "org/name", "refs/convert/parquet", files)
    line = hub.fetch(wanted(revision="refs/convert/parquet"), tmp_path / "org" / "name.json")
    record = json.loads((tmp_path / "org" / "name.json").read_text())
    assert commit in line
    assert record == {
        "repo": "org/name",
        "kind": "dataset",
        "revision": "refs/convert/parquet",
        "commit": commit,
        "files": [
            {"path": p, "size": len(files[p]), "sha256": hashlib.sha256(files[p]).hexdigest()}
            for p in ("README.md", "a/x.parquet")
        ],
    }
    folder = tmp_path / "org" / "name"
    here = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert here == {"README.md", "a/x.parquet"}


def test_a_cut_connection_is_resumed_where_it_ended(online, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    files = {"a.parquet": noise(3000), "b.parquet": noise(10_000)}
    online.publish("dataset", "org/name", "main", files)
    online.cut["b.parquet"] = 4000
    hub.fetch(wanted(), tmp_path / "org" / "name.json")
    assert online.served == {"a.parquet": 3000, "b.parquet": 10_000}
    assert (tmp_path / "org/name/b.parquet").read_bytes() == files["b.parquet"]


def test_complete_files_outlive_a_cut_connection(online, tmp_path):
    files = {"a.parquet": noise(3000), "b.parquet": noise(5000)}
    online.publish("dataset", "org/name", "main", files)
    online.cut["b.parquet"] = 0
    manifest = tmp_path / "org" / "name.json"
    with pytest.raises(ConnectionError, match=r"was cut off.*snakemake --profile ... prefetch"):
        hub.fetch(wanted(), manifest)
    assert not manifest.exists() and not (tmp_path / "org/name/b.parquet").exists()
    assert online.served["a.parquet"] == 3000

    (stated,) = hub.sizes([wanted()], tmp_path)
    assert stated["present"] == 3000 and stated["bytes"] == 8000
    (tmp_path / "org/name/.parts/.cache/huggingface/download/x.incomplete").write_bytes(b"killed")

    online.cut.clear()
    online.served.clear()
    hub.fetch(wanted(), manifest)
    assert online.served == {"b.parquet": 5000}, "what was missing and nothing else"
    assert (tmp_path / "org/name/b.parquet").read_bytes() == files["b.parquet"]
    assert here(tmp_path / "org/name") == set(files)


def test_files_are_fetched_at_the_same_time(online, tmp_path):
    online.publish("dataset", "org/name", "main", {f"{n}.parquet": noise(9, n) for n in range(4)})
    online.held.clear()
    done = Thread(target=hub.fetch, args=(wanted(), tmp_path / "org/name.json"))
    done.start()
    until(lambda: len(online.sending) == 4)
    online.held.set()
    done.join()
    assert len(here(tmp_path / "org/name")) == 4


def test_two_calls_for_one_repository_fetch_it_once(online, tmp_path):
    online.publish("dataset", "org/name", "main", {"a.parquet": noise(500)})
    online.held.clear()
    calls = [Thread(target=hub.fetch, args=(wanted(), tmp_path / "org/name.json")) for _ in "ab"]
    for call in calls:
        call.start()
    until(lambda: online.sending and online.requests["GET tree"] >= 3)
    online.held.set()
    for call in calls:
        call.join()
    assert online.served == {"a.parquet": 500} and here(tmp_path / "org/name") == {"a.parquet"}


def test_a_signal_ends_a_download_with_what_it_is_about_to_fetch(online, tmp_path, monkeypatch):
    """The library waits for its threads, which would go on with files of many gigabytes."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    online.publish("dataset", "org/name", "main", {"a.parquet": noise(50_000)})
    online.held.clear()

    def stop():
        until(lambda: online.sending)
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)  # once it is heeded
        online.held.set()

    Thread(target=stop, daemon=True).start()
    with stops.heeded(), pytest.raises(stops.Stopped, match="SIGTERM"):
        hub.fetch(wanted(), tmp_path / "org/name.json")
    assert not here(tmp_path / "org/name") & {".parts/a.parquet", "a.parquet"}
    hub.fetch(wanted(), tmp_path / "org/name.json")
    assert here(tmp_path / "org/name") == {"a.parquet"}


def test_a_disk_without_room_is_told_before_a_byte_is_fetched(online, tmp_path, monkeypatch):
    online.publish("dataset", "org/name", "main", {"a.parquet": noise(5000)})
    monkeypatch.setattr("mofe.disk.free", lambda place: 4000)
    with pytest.raises(ValueError, match=r"^hub: .*name needs 5 kB more, .* has 4 kB free; set"):
        hub.fetch(wanted(), tmp_path / "org/name.json")
    assert not online.served


def test_a_branch_that_moved_is_followed_and_its_old_files_go(online, tmp_path):
    manifest = tmp_path / "org" / "name.json"
    same = noise(500)
    first = online.publish("dataset", "org/name", "main", {"a.parquet": b"old", "b.parquet": same})
    hub.fetch(wanted(), manifest)
    assert json.loads(manifest.read_text())["commit"] == first
    new = {"a.parquet": b"new", "c/b.parquet": same}
    second = online.publish("dataset", "org/name", "main", new)
    hub.fetch(wanted(), manifest)
    record = json.loads(manifest.read_text())
    assert second != first and record["commit"] == second
    for path, content in new.items():
        assert (tmp_path / "org/name" / path).read_bytes() == content
    assert not (tmp_path / "org/name/b.parquet").exists()


def test_a_file_with_another_hash_is_refused(online, tmp_path):
    online.publish("dataset", "org/name", "main", {"a.parquet": noise(500)})
    online.lies.add("a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet is not what the hub says"):
        hub.fetch(wanted(), tmp_path / "org" / "name.json")
    assert not [p for p in tmp_path.rglob("*.parquet") if p.is_file()]


def test_a_damaged_file_is_fetched_again(online, tmp_path):
    files = {"a.parquet": noise(500), "b.csv": b"x,y\n1,2\n"}
    online.publish("dataset", "org/name", "main", files)
    (tmp_path / "org/name").mkdir(parents=True)
    for path, content in files.items():
        (tmp_path / "org/name" / path).write_bytes(b"\0" * len(content))
    hub.fetch(wanted(files=("*.parquet", "*.csv")), tmp_path / "org" / "name.json")
    for path, content in files.items():
        assert (tmp_path / "org/name" / path).read_bytes() == content


def test_of_a_model_only_what_is_safe_is_fetched(online, tmp_path):
    files = ["model.safetensors", "config.json", "tokenizer.model", "model.bin", "code.py"]
    content = {name: name.encode() for name in [*files, "onnx/config.json"]}
    content["model.safetensors"] = tensors = save({"a": torch.ones(2)})
    online.publish("model", "org/name", REVISION, content)
    model = wanted(kind="model", revision=REVISION, files=MODEL_FILES)
    hub.fetch(model, tmp_path / "org" / "name.json")
    record = json.loads((tmp_path / "org/name.json").read_text())
    assert [f["path"] for f in record["files"]] == sorted(files[:3])
    out = tmp_path / "linked"
    params = {"hub": "org/name", "revision": REVISION, "mirror": str(tmp_path)}
    model_files.link(params, out)
    assert (out / "model.safetensors").read_bytes() == tensors
    content["model.safetensors"] = save({"a": torch.tensor([1.0, float("nan")])})
    online.publish("model", "org/diverged", REVISION, content)
    hub.fetch(model | {"repo": "org/diverged"}, tmp_path / "org" / "diverged.json")
    told = "org/diverged: .*diverged/model.safetensors: 1 of the 2 numbers in a are NaN"
    with pytest.raises(IncompatibleModels, match=told):
        model_files.link(params | {"hub": "org/diverged"}, tmp_path / "refused")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_fetched_file_that_is_damaged_is_named_and_not_read(online, tmp_path, damage):
    online.publish("dataset", "org/name", "main", {"data/a.csv": b"n\n1\n", "data/b.csv": b"n\n"})
    manifest = tmp_path / "org" / "name.json"
    hub.fetch(wanted(files=["data/*"]), manifest)
    file = tmp_path / "org/name/data/a.csv"
    assert set(mirror.files(file.parents[1])) == {"data/a.csv", "data/b.csv"}
    content, state = file.read_bytes(), file.stat()
    file.unlink()
    if damage != "remove":
        file.write_bytes(content[:-1] if damage == "cut" else content.replace(b"1", b"2"))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises((FileNotFoundError, ValueError), match=f"^{file} .*put the file back"):
        mirror.files(file.parents[1])
    assert set(mirror.files(file.parents[1], ["*b.csv"])) == {"data/b.csv"}, "of what is read"
    hub.fetch(wanted(files=["data/*"]), manifest)
    assert mirror.files(file.parents[1])["data/a.csv"].read_bytes() == content


def test_only_the_checkpoints_weights_are_fetched_and_linked(online, tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    content = {"model-1.safetensors": save({"a": torch.ones(2)}), "old.safetensors": b"old"}
    content |= {weights.INDEX: index, "config.json": b"{}", "chat_template.jinja": b"x"}
    content |= {"merges.txt": b"m", "vocab.json": b"{}", "run.py": b"", "model.bin": b""}
    online.publish("model", "org/name", "main", content)
    hub.fetch(wanted(kind="model", files=MODEL_FILES), tmp_path / "org" / "name.json")
    expected = {weights.INDEX, "model-1.safetensors", "config.json", "chat_template.jinja"}
    expected |= {"merges.txt", "vocab.json"}
    assert {file.name for file in (tmp_path / "org/name").iterdir()} == expected
    for mine in ("old.safetensors", "model.safetensors", "mine.json"):
        (tmp_path / "org/name" / mine).write_bytes(b"by hand")
    params = {"hub": "org/name", "revision": "main", "mirror": str(tmp_path)}
    model_files.link(params, tmp_path / "linked")
    assert {file.name for file in (tmp_path / "linked").iterdir()} == expected
    (tmp_path / "org/name/model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-1.safetensors is missing; put .* back"):
        model_files.link(params, tmp_path / "again")
    (tmp_path / "org/name.json").unlink()  # a user's own mirror has no manifest
    (tmp_path / "org/name/model.safetensors").unlink()
    with pytest.raises(IncompatibleModels, match=r"org/name: .* lacks model-1.safetensors"):
        model_files.link(params, tmp_path / "again")


def test_what_an_index_names_and_the_repository_lacks_is_told_before_a_download(online, tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "../b.safetensors"}})
    online.publish(
        "model", "org/name", "main", {weights.INDEX: index.encode(), "config.json": b"{}"}
    )
    told = r"org/name at revision main: model.safetensors.index.json names ../b.safetensors, which"
    with pytest.raises(ValueError, match=told):
        hub.fetch(wanted(kind="model", files=MODEL_FILES), tmp_path / "org/name.json")
    online.publish("model", "org/name", "main", {weights.INDEX: b"[]", "config.json": b"{}"})
    with pytest.raises(ValueError, match=r"org/name at revision main: .*lists no files of weights"):
        hub.fetch(wanted(kind="model", files=MODEL_FILES), tmp_path / "org/name.json")


def test_a_model_without_safetensors_is_refused(online, tmp_path):
    files = {"pytorch_model.bin": b"x", "config.json": b"{}"}
    online.publish("model", "org/name", "main", files)
    with pytest.raises(
        ValueError, match=r"org/name at revision main: it has no weights as safetensors"
    ):
        hub.fetch(wanted(kind="model", files=MODEL_FILES), tmp_path / "org/name.json")
    (tmp_path / "org/name/config.json").parent.mkdir(parents=True)
    with pytest.raises(IncompatibleModels, match=r"org/name: .* has no weights as safetensors"):
        model_files.link(
            {"hub": "org/name", "revision": "x", "mirror": str(tmp_path)}, tmp_path / "o"
        )


@pytest.mark.parametrize("repo, revision", [("org/none", "main"), ("org/name", "other")])
def test_what_the_hub_lacks_is_one_sentence(online, tmp_path, repo, revision):
    online.publish("dataset", "org/name", "main", {"a.parquet": b"x"})
    told = "no such dataset" if repo == "org/none" else "no such revision"
    with pytest.raises(
        ConnectionError, match=f"{repo} at revision {revision} cannot be had.*{told}"
    ):
        hub.fetch(wanted(repo, revision=revision), tmp_path / "org" / "name.json")
    with pytest.raises(ValueError, match=r"no file that matches \['b/\*'\]"):
        hub.fetch(wanted(files=["b/*"]), tmp_path / "org" / "name.json")


def here(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_fetch_leaves_what_no_fetch_has_made(online, tmp_path):
    """Neither a file beside the fetched ones, nor one through a link, nor one in the way is lost."""
    folder, own = tmp_path / "hub/org/name", tmp_path / "own"
    (folder / "runs").mkdir(parents=True)
    own.mkdir()
    (own / "far.bin").write_bytes(b"far")
    (folder / "linked").symlink_to(own)
    (folder / "runs/weights.bin").write_bytes(b"mine")
    (folder / "a.parquet").write_bytes(b"tuned")
    online.publish("dataset", "org/name", "main", {"a.parquet": b"hub's"})
    told = hub.fetch(wanted(), tmp_path / "hub/org/name.json")
    assert (folder / "a.parquet").read_bytes() == b"hub's"
    assert (folder / "a.parquet.yours").read_bytes() == b"tuned" and "a.parquet.yours" in told
    online.publish("dataset", "org/name", "main", {"b.parquet": b"moved"})
    hub.fetch(wanted(), tmp_path / "hub/org/name.json")
    assert here(folder) == {"b.parquet", "a.parquet.yours", "runs/weights.bin"}
    assert (own / "far.bin").read_bytes() == b"far"


def test_a_folder_that_is_a_link_is_fetched_into_and_keeps_its_own(online, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    (tmp_path / "org").mkdir()
    (tmp_path / "org/name").symlink_to(own)
    online.publish("dataset", "org/name", "main", {"a.parquet": b"x"})
    hub.fetch(wanted(), tmp_path / "org/name.json")
    online.publish("dataset", "org/name", "main", {"b.parquet": b"y"})
    os.remove(tmp_path / "org/name.json")  # as Snakemake does before a job
    hub.fetch(wanted(), tmp_path / "org/name.json")
    assert here(own) == {"notes.txt", "b.parquet"}


def test_studies_that_fetch_other_files_share_a_folder(online, tmp_path):
    rows = {f"{name}.parquet": parquet([name], 1) for name in ("train-a", "train-b", "test")}
    online.publish("dataset", "org/name", "main", rows)
    manifest = tmp_path / "org/name.json"
    for files in (["train-a*"], ["train-b*", "test*"], ["train-a*"]):
        hub.fetch(wanted(files=files), manifest)
        manifest.unlink()  # as Snakemake does before a job
    hub.fetch(wanted(files=["train-a*"]), manifest)
    assert here(tmp_path / "org/name") == set(rows)
    (tmp_path / "org/name/train-c.parquet").write_bytes(parquet(["foreign"], 1))
    for files, texts in ((["train-a*"], ["train-a"]), (["train-*"], ["train-a", "train-b"])):
        source = {"repo": "org/name", "revision": "main", "files": files}
        assert sources.load(source, None, "train", str(tmp_path))["text"][:] == texts
    with pytest.raises(ValueError, match=r"was fetched at revision main .* reads revision v2"):
        sources.load({"repo": "org/name", "revision": "v2"}, None, "train", str(tmp_path))


def test_a_sample_is_neither_lost_nor_read_for_the_whole(online, tmp_path):
    files = {f"data/en-{n:05}-of-00002.parquet": parquet(list("abcdef"), 2) for n in range(2)}
    online.publish("dataset", "org/name", "main", files | {"data/es.parquet": parquet(["z"], 1)})
    manifest, en = tmp_path / "org/name.json", ["data/en-*.parquet"]
    drawn = {"files": en, "rows": 4, "seed": 1}
    sampled = {"repo": "org/name", "revision": "main", "sample": drawn, "files": en}
    whole = {"repo": "org/name", "revision": "main", "files": en}
    hub.fetch(wanted(files=en, sample={"rows": 4, "seed": 1}), manifest)
    first = sources.load(sampled, None, "en", str(tmp_path))["text"][:]
    hub.fetch(wanted(files=["data/es*"]), manifest)  # another study's
    assert sources.load(sampled, None, "en", str(tmp_path))["text"][:] == first
    with pytest.raises(ValueError, match=r"holds a sample of 4 rows by seed 1, which is not what"):
        sources.load(whole, None, "en", str(tmp_path))
    hub.fetch(wanted(files=en), manifest)  # a third's, of all rows
    assert len(sources.load(whole, None, "en", str(tmp_path))) == 12
    hub.fetch(wanted(files=en, sample={"rows": 4, "seed": 1}), manifest)
    assert sources.load(sampled, None, "en", str(tmp_path))["text"][:] == first
    assert len(sources.load(whole, None, "en", str(tmp_path))) == 12


GATED = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}, b"")
PAGE = (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")


@pytest.mark.parametrize("request_", ["revision", "tree", "file"])
@pytest.mark.parametrize(
    "answer, told",
    [
        (
            GATED,
            r"is gated; accept its licence on http\S+/datasets/org/name, .*`hf auth login`.*HF_T",
        ),
        ((401, {}, b""), r"it answers 401: .* private or gated.*accept its licence.*HF_TOKEN"),
        ((403, {}, b"no"), r"it answers 403: .* private or gated.*accept its licence.*HF_TOKEN"),
    ],
)
def test_what_is_gated_says_what_to_do(online, tmp_path, request_, answer, told):
    online.publish("dataset", "org/name", "main", {"a.parquet": b"x"})
    online.answers[request_] = [answer]
    with pytest.raises(ConnectionError, match=told) as raised:
        hub.fetch(wanted(), tmp_path / "org/name.json")
    assert len(str(raised.value).splitlines()) == 1


def test_a_proxys_page_is_not_taken_for_the_hub(online, tmp_path):
    for request_ in ("revision", "tree"):
        online.publish("dataset", "org/name", "main", {"a.parquet": b"x"})
        online.answers[request_] = [PAGE]
        with pytest.raises(ConnectionError, match="not the hub, such as a proxy's sign-in page"):
            hub.fetch(wanted(), tmp_path / "org/name.json")


@pytest.mark.parametrize("request_", ["revision", "tree", "file"])
def test_a_busy_hub_is_asked_again(online, tmp_path, request_):
    online.publish("dataset", "org/name", "main", {"a.parquet": b"content"})
    online.answers[request_] = [(429, {"Retry-After": "1"}, b""), (503, {}, b""), (502, {}, b"")]
    hub.fetch(wanted(), tmp_path / "org/name.json")
    assert (tmp_path / "org/name/a.parquet").read_bytes() == b"content"
    os.remove(tmp_path / "org/name/a.parquet")
    online.answers[request_] = [(503, {}, b"")] * 20
    with pytest.raises(ConnectionError, match=r"is busy and answered 503; run it again"):
        hub.fetch(wanted(), tmp_path / "org/name.json")


# ------------------------------------------------------------------------------------ a sample


def corpus(shards: int = 3, rows: int = 4000) -> dict[str, bytes]:
    length = 600  # characters a row
    long = [noise(rows * length // 2, seed=s).hex() for s in range(shards)]
    texts = [[text[i : i + length] for i in range(0, len(text), length)] for text in long]
    return {
        f"data/en-{s:05}-of-{shards:05}.parquet": parquet(t, 100) for s, t in enumerate(texts)
    } | {"data/es-00000-of-00001.parquet": noise(10**6)}


def drawn(seed: int, rows: int = 450) -> dict:
    source = {"files": ["data/en-*.parquet"], "rows": rows, "seed": seed}
    return {"repo": "org/name", "revision": "main", "sample": source}


def test_a_sample_that_was_cut_off_goes_on_with_the_next_file(online, tmp_path, monkeypatch):
    online.publish("dataset", "org/name", "main", corpus())
    repository = wanted(files=["data/en-*.parquet"], sample={"rows": 450, "seed": 7})
    manifest, read, asked = tmp_path / "org" / "name.json", sampling.Shards.read, []

    def cut_off(shards, piece):
        asked.append(piece.shard)
        if piece.shard == 2 and 2 not in asked[:-1]:
            raise httpx2.ReadError("the connection was lost")
        return read(shards, piece)

    monkeypatch.setattr(sampling.Shards, "read", cut_off)
    with pytest.raises(ConnectionError, match="complete files are kept"):
        hub.fetch(repository, manifest)
    assert set(asked) == {0, 1, 2} and not manifest.exists()
    before = len(asked)
    hub.fetch(repository, manifest)
    assert set(asked[before:]) == {2}
    rows = sources.load(drawn(7), None, "en", str(tmp_path))
    assert len(set(rows["text"])) == 450


def test_a_repository_that_cannot_be_had_does_not_keep_others_back(online, tmp_path):
    online.publish("dataset", "org/name", "main", {"a.parquet": b"abc"})
    stated = hub.sizes([wanted("org/none"), wanted()], tmp_path)
    assert stated[1]["bytes"] == 3
    told = hub.table(stated).splitlines()
    assert told[-2] == "to download: 3 B"
    assert told[-1].startswith("not to be had: org/none at revision main cannot be had from")


def test_a_hub_that_cannot_be_reached_is_asked_for_one_repository(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    commit = hub._commit
    monkeypatch.setattr(hub, "_commit", lambda *of: (asked.append(of), commit(*of))[1])
    with pytest.raises(Unreachable, match=r"org/name at revision main cannot be had from .*:9: "):
        hub.sizes([wanted(), wanted("org/other")], tmp_path)
    assert len(asked) == 1


def test_a_sample_is_fetched_without_the_rest(online, tmp_path):
    files = corpus()
    online.publish("dataset", "org/name", "main", files)
    size = sum(len(content) for path, content in files.items() if "/en-" in path)
    sample = {"rows": 450, "seed": 7}
    repository = wanted(files=["data/en-*.parquet"], sample=sample)
    hub.fetch(repository, tmp_path / "hub" / "org" / "name.json")
    assert sum(online.served.values()) < size / 5, "450 of 12,000 rows, and the footers"
    record = json.loads((tmp_path / "hub/org/name.json").read_text())
    assert record["sample"]["of_rows"] == 12000
    assert sum(group["rows"] for group in record["sample"]["groups"]) == 450
    assert {group["file"] for group in record["sample"]["groups"]} == {
        path for path in files if "/en-" in path
    }, "the sample spreads over all shards"

    for path, content in files.items():
        (tmp_path / "mirror/org/name" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror/org/name" / path).write_bytes(content)
    fetched = sources.load(drawn(7), None, "en", str(tmp_path / "hub"))
    mirrored = sources.load(drawn(7), None, "en", str(tmp_path / "mirror"))
    another = sources.load(drawn(8), None, "en", str(tmp_path / "mirror"))
    assert len(set(fetched["text"])) == 450
    assert fetched["text"][:] == mirrored["text"][:], "a mirror's sample is the hub's"
    assert len(another) == 450 and set(another["text"]) != set(fetched["text"])


footers = st.lists(st.lists(st.integers(0, 20), max_size=6), min_size=1, max_size=5)


@given(footers, st.integers(1, 150), st.integers(0, 3))
def test_a_sample_is_as_large_as_asked_and_a_sample_of_it_is_itself(groups, rows, seed):
    pieces = sampling.draw(groups, rows, seed)
    assert sum(p.rows for p in pieces) == min(rows, sum(map(sum, groups)))
    assert len({(p.shard, p.group) for p in pieces}) == len(pieces)
    assert all(0 < p.rows <= groups[p.shard][p.group] for p in pieces)
    kept = [
        [p.rows for p in pieces if p.shard == s] for s in dict.fromkeys(p.shard for p in pieces)
    ]
    again = sampling.draw(kept, rows, seed + 1)
    assert [p.rows for p in again] == [p.rows for p in pieces]


def test_a_sample_of_another_format_is_a_fault_of_the_configuration():
    bad = {"medical_corpus": {"files": ["data/en.jsonl.gz"]}}
    with pytest.raises(ConfigError, match=r"sources.medical_corpus.*'sample' draws from parquet"):
        read_study(CONFIG, sources=bad)


def test_a_repository_at_two_revisions_is_a_fault_of_the_configuration():
    with pytest.raises(ConfigError, match=r"sources.again: sources.mmlu reads cais/mmlu too"):
        again = {"again": {"repo": "cais/mmlu", "revision": "main"}}
        read_study(CONFIG, sources=again, data={"sujet": {"source": "again"}})


# ------------------------------------------------------------------------------- rows and schemas


def test_a_parquet_conversion_is_read_without_a_card(tmp_path):
    folder = tmp_path / "alexfabbri/multi_news"
    for split, rows in (("train", ["a ||||| b", "c"]), ("test", ["d"])):
        (folder / "default" / split).mkdir(parents=True)
        table = pa.table({"document": rows, "summary": ["s"] * len(rows)})
        pq.write_table(table, folder / "default" / split / "0000.parquet")
    source = {"repo": "alexfabbri/multi_news", "revision": "refs/convert/parquet"}
    assert sources.load(source, None, "train", str(tmp_path))["document"][:] == ["a ||||| b", "c"]


def test_a_subset_is_read_without_the_cards_other_subsets(tmp_path):
    """As PubMedQA's card on the hub has it: the first subset's files are not fetched."""
    folder = tmp_path / "org/name"
    names = ("artificial", "labeled")
    card = {
        "configs": [
            {"config_name": n, "data_files": [{"split": "train", "path": f"{n}/train-*"}]}
            for n in names
        ]
    }
    (folder / "labeled").mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# A set\n")
    pq.write_table(pa.table({"x": [1, 2]}), folder / "labeled/train-00000-of-00001.parquet")
    source = {"repo": "org/name"}
    assert sources.load(source, "labeled", "train", str(tmp_path))["x"][:] == [1, 2]
    with pytest.raises(ValueError, match=r"org/name: there is no split 'test'; there are train"):
        sources.load(source, "labeled", "test", str(tmp_path))


def test_an_answer_that_looks_like_none_is_an_answer(tmp_path):
    """Sujet is a CSV: of these only the empty answer is missing."""
    folder = tmp_path / "sujet-ai/Sujet-Finance-Instruct-177k"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# A card without a header\n")
    answers = ["None", "NA", "null", "nan", "", "yes"]
    lines = [f'{n},"question {n}",{a},,d,qa' for n, a in enumerate(answers)]
    head = ",inputs,answer,conversation_id,dataset,task_type"
    (folder / "all.csv").write_text("\n".join([head, *lines]) + "\n")
    plan = Plan(read_study(CONFIG, mirror=str(tmp_path)))
    params = plan.params.task("finance")
    rows = sources.load(params["source"], None, "train", str(tmp_path))
    assert rows["answer"][:] == answers
    whole = tasks.complete(params, rows)
    assert whole["answer"][:] == [a for a in answers if a]
    assert len(list(tasks.training_rows(params, rows))) == len(tasks.training_part(params, whole))


MMLU = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2}
MEDMCQA = {"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 0}
PUBMEDQA = {"question": "q", "context": {"contexts": ["c"]}, "final_decision": "yes"}
SUJET = {"inputs": "i", "answer": "a", "dataset": "d", "task_type": "qa"}


@pytest.mark.parametrize(
    "benchmark, row, fault, told",
    [
        ("qiaojin/PubMedQA", PUBMEDQA, {"question": " "}, "'question' of row 1 is empty"),
        ("cais/mmlu", MMLU, {"question": None}, "'question' of row 1 is None, not text"),
        ("cais/mmlu", MMLU, {"choices": ["a"]}, "'choices' of row 1 has 1 choices, not 4"),
        ("cais/mmlu", MMLU, {"answer": 4}, "'answer' of row 1 is 4, not a label from 0 to 3"),
        ("openlifescienceai/medmcqa", MEDMCQA, {"opb": None}, "'opb' of row 1 is None, not text"),
        ("openlifescienceai/medmcqa", MEDMCQA, {"cop": -2}, "'cop' of row 1 is -2, not a label"),
        ("qiaojin/PubMedQA", PUBMEDQA, {"final_decision": "so"}, "of row 1 is 'so', not one of"),
        ("qiaojin/PubMedQA", PUBMEDQA, {"context": {"contexts": []}}, "row 1 has no list of texts"),
        ("sujet-ai/Sujet-Finance-Instruct-177k", SUJET, {"answer": ""}, "'answer' of row 1 is"),
    ],
)
def test_a_row_that_breaks_its_schema_is_named(benchmark, row, fault, told):
    rows = Dataset.from_list([row, {**row, **fault}])
    with pytest.raises(ValueError, match=f"my/set: column .*{told}"):
        schema.check(benchmark, rows, "my/set", labelled=False)
    good = Dataset.from_list([row, row])
    assert schema.check(benchmark, good, "my/set", labelled=True) is good
    column = next(iter(fault))
    with pytest.raises(ValueError, match=f"my/set: there is no column '{column}'; there are"):
        schema.check(benchmark, good.remove_columns(column), "my/set", labelled=False)


def test_a_test_question_without_a_label_is_named():
    rows = Dataset.from_list([MEDMCQA, {**MEDMCQA, "cop": -1}])
    schema.check("openlifescienceai/medmcqa", rows, "my/set", labelled=False)
    with pytest.raises(ValueError, match="row 1 has no label"):
        schema.check("openlifescienceai/medmcqa", rows, "my/set", labelled=True)


def test_every_row_of_a_training_set_is_accounted_for(tmp_path):
    folder = tmp_path / "openlifescienceai/medmcqa/data"
    folder.mkdir(parents=True)
    rows = [{**MEDMCQA, "question": f"q{n}"} for n in range(10)]
    train = [*rows, rows[3], {**MEDMCQA, "question": "none", "cop": -1}]
    train += [{**MEDMCQA, "question": nothing} for nothing in (" ", None)]
    for split, part in (("train", train), ("validation", [rows[0], rows[1]])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{split}-00000-of-00001.parquet")
    plan = Plan(read_study(CONFIG, mirror=str(tmp_path), data={"medmcqa": {"rows": 5}}))
    out = tmp_path / "rows.parquet"
    prepare.prepare(plan.params.data("medmcqa"), out, tmp_path / "counts.json")
    counts = json.loads((tmp_path / "counts.json").read_text())
    sampled = pq.read_table(out).to_pylist()
    assert counts == {
        "read": 14,
        "incomplete": 2,
        "held_out": 0,
        "left_by_task": 0,
        "made_by_task": 0,
        "unlabelled": 1,
        "duplicate": 1,
        "also_in_test": 2,
        "nearly_in_test": 0,
        "usable": 8,
        "sampled": 5,
        "characters": sum(len(row["prompt"] + row["answer"]) for row in sampled),
    }


# --------------------------------------------------------------------------------- the workflow


def publish_world(server: fake_hub.Hub, tiny: Path, plan: Plan) -> None:
    """The generated world's data sets and a tiny Llama, at the addresses that the study pins."""
    for name, repository in plan.repositories.items():
        folder = tiny / "a" if repository.kind == "model" else tiny / "world" / name
        files = {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }
        if repository.revision == "refs/convert/parquet":
            (content,) = (files[p] for p in files if p.startswith("data/train-"))
            files = {"default/train/0000.parquet": content}
        server.publish(repository.kind, name, repository.revision, files)


def test_prefetch_then_everything_without_the_hub(tiny, tmp_path, monkeypatch):
    """The paper's own study: no GPU is asked for, and offline nodes find all that they read."""
    plan = Plan(read_study(CONFIG))
    overlay = tmp_path / "overlay.yaml"
    names = ("medical_corpus", "multi_news")
    changed = {"study": "few", "data": {name: {"rows": 10} for name in names}}
    changed["models"] = {"tinyllama": {"shape": None}}  # the stand-in's is its own
    overlay.write_text(yaml.safe_dump(changed))
    run = ["--cores", "2", "--configfile", str(CONFIG), str(overlay)]
    run += ["--config", f"results={tmp_path}/r", f"hub={tmp_path}/hub", "--"]
    with fake_hub.running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as on a cluster; the prefetch lifts it
        publish_world(server, tiny, plan)
        told = snakemake(*run, "prefetch").stderr
        assert told.index("to download: ") < told.index("rule fetch_repository"), "sizes come first"
        stated = json.loads((tmp_path / "hub/sizes.json").read_text())
        assert {s["repo"] for s in stated} == set(plan.repositories)
        assert "prefetch: 7 repositories are here" in told
        for repo in plan.repositories:
            record = json.loads((tmp_path / f"hub/{repo}.json").read_text())
            assert record["commit"] and record["files"]
        before = server.requests.copy()
        snakemake(*run, "prefetch")
        assert server.requests == before, "what was fetched is not asked for again"
    prepared = [f"{tmp_path}/r/data/{name}.parquet" for name in names]
    snakemake(*run, *prepared, f"{tmp_path}/r/experts/tinyllama")
    assert all(Path(file).is_file() for file in prepared)
    load.checkpoint(tmp_path / "r/experts/tinyllama")

    os.remove(tmp_path / "hub/openlifescienceai/medmcqa.json")
    done = snakemake(*run, "prefetch", check=False)
    assert done.returncode != 0
    assert "openlifescienceai/medmcqa at revision 91c6572c" in done.stderr
    assert "snakemake --profile ... prefetch" in done.stderr
    assert "rule fetch_repository" not in done.stderr, "it is said before a job starts"


def test_a_mirror_that_lacks_a_repository_is_told_before_any_job(tmp_path):
    (tmp_path / "mirror/openlifescienceai").mkdir(parents=True)
    run = ["--cores", "1", "--config", f"results={tmp_path}/r", f"mirror={tmp_path}/mirror", "--"]
    told = snakemake(*run, "prefetch").stderr
    assert f"nothing to download: data and models are read from {tmp_path}/mirror" in told
    done = snakemake(*run, f"{tmp_path}/r/data/mmlu.parquet", check=False)
    assert done.returncode != 0
    assert "lacks cais/mmlu (revision c30699e8356da336a370243923dbaf21066bb9fe)" in done.stderr
    assert "snakemake --profile ... prefetch" in done.stderr
    assert not (tmp_path / "r/data").exists()
