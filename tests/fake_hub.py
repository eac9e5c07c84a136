"""A hub on this machine that speaks as much of the hub's protocol as huggingface_hub needs."""

import hashlib
import json
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

LARGE = (".parquet", ".safetensors", ".bin")  # stored in LFS: the hub tells their sha256


@dataclass
class Hub:
    """Repositories by (kind, name): what revisions stand for, and the files of each commit.

    requests: how many there were, by "METHOD kind". served: bytes of files sent, by path.
    cut: how many bytes of a file each connection sends before it breaks. held: while it is unset,
    no file is sent. most: the most files that were sent at the same time.
    lies: paths whose sha256 is told wrongly. answers: for a kind of request ("revision", "tree",
    "file"), what is answered first, one after the other: status, headers and body.
    """

    revisions: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    commits: dict[tuple[str, str, str], dict[str, bytes]] = field(default_factory=dict)
    served: Counter = field(default_factory=Counter)
    requests: Counter = field(default_factory=Counter)
    cut: dict[str, int] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    held: Event = field(default_factory=Event)
    sending: set[str] = field(default_factory=set)
    most: int = 0
    url: str = ""

    def __post_init__(self):
        self.held.set()

    def publish(self, kind: str, repo: str, revision: str, files: dict[str, bytes]) -> str:
        """Make `revision` stand for these files; returns the commit."""
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else digest
        self.revisions.setdefault((kind, repo), {}).update({revision: commit, commit: commit})
        self.commits[kind, repo, commit] = files
        return commit

    def entries(self, kind: str, repo: str, commit: str, folder: str, recursive: bool) -> list:
        found, folders = [], set()
        for path, content in self.commits[kind, repo, commit].items():
            if folder and not path.startswith(folder + "/"):
                continue
            rest = path[len(folder) + 1 if folder else 0 :]
            if "/" in rest and not recursive:
                folders.add((folder + "/" if folder else "") + rest.split("/")[0])
                continue
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": self.sha256(path, content), "size": len(content)}
                entry["lfs"]["pointerSize"] = 100
            found.append(entry)
        return found + [{"type": "directory", "path": f, "oid": "0" * 40} for f in folders]

    def sha256(self, path: str, content: bytes) -> str:
        return hashlib.sha256(b"?" if path in self.lies else content).hexdigest()


def blob(content: bytes) -> str:
    """The hash that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self):
        address = urlsplit(self.path)
        if api := re.fullmatch(
            r"/api/(dataset|model)s/([^/]+/[^/]+)/(revision|tree)/([^/]+)(?:/(.+))?", address.path
        ):
            kind, repo, what, revision, folder = api.groups()
            self.hub.requests[f"{self.command} {what}"] += 1
            if self.hub.answers.get(what):
                status, headers, body = self.hub.answers[what].pop(0)
                return self._answer(status, body, headers)
            commit = self.hub.revisions.get((kind, repo), {}).get(unquote(revision))
            if (kind, repo) not in self.hub.revisions:
                self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif commit is None:
                self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif what == "revision":
                self._answer(200, json.dumps({"id": repo, "sha": commit, "siblings": []}).encode())
            else:
                recursive = "recursive=true" in address.query.lower()
                entries = self.hub.entries(kind, repo, commit, unquote(folder or ""), recursive)
                self._answer(200, json.dumps(entries).encode())
            return None
        file = re.fullmatch(
            r"(/large)?/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", address.path
        )
        if not file:
            return self._answer(400, f"not understood: {self.path}".encode())
        self.hub.requests[f"{self.command} file"] += 1
        if self.hub.answers.get("file"):
            status, headers, body = self.hub.answers["file"].pop(0)
            return self._answer(status, body, headers)
        kind, path = "dataset" if file[2] else "model", unquote(file[5])
        commit = self.hub.revisions[kind, file[3]][unquote(file[4])]
        files = self.hub.commits[kind, file[3], commit]
        if path not in files:
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob(files[path])}"'}
        if path.endswith(LARGE) and not file[1]:  # the hub sends the client to where it is stored
            headers["X-Linked-Etag"] = f'"{self.hub.sha256(path, files[path])}"'
            headers["X-Linked-Size"] = str(len(files[path]))
            headers["Location"] = f"{self.hub.url}/large{self.path}"
            return self._answer(302, b"", headers)
        return self._send(path, files[path], headers)

    do_HEAD = do_GET

    def _send(self, path: str, content: bytes, headers: dict[str, str]):
        start, end, status = 0, len(content), 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, status = int(wanted[1]), min(int(wanted[2] or end - 1) + 1, end), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end]
        if self.command == "HEAD":
            return self._answer(status, body, headers)
        self.hub.sending.add(path)
        self.hub.most = max(self.hub.most, len(self.hub.sending))
        self.hub.held.wait(60)
        sent = body[: self.hub.cut.get(path, len(body))]
        self.hub.served[path] += len(sent)
        self._answer(status, sent, headers, length=len(body))
        self.hub.sending.discard(path)
        self.close_connection = len(sent) < len(body)
        return None

    def _answer(self, status: int, body: bytes, headers=(), length: int | None = None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def running():
    """A hub that answers at `hub.url` until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
