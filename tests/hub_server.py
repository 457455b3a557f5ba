"""A Hub on loopback: what the real `huggingface_hub` client asks for, answered from memory.

It keeps repositories as histories of commits, checks tokens and metadata, and can be told to answer
badly: a status, a connection that ends, an upload that is cut off. It knows the LFS protocol and
not xet's, so clients run with HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE_BYTES = 10_000
"""Longer files, and all tars and weights, go through LFS."""
WRITE_TOKEN, READ_TOKEN = "hf_write", "hf_read"
OWNER = "owner"

_LFS = re.compile(r"\.(tar|safetensors|bin|gguf|onnx)$")
_API = re.compile(r"/api/(model|dataset|space)s/([^/]+/[^/]+)(?:/(.*))?$")
_RESOLVE = re.compile(r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
_BATCH = re.compile(r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch$")
_LICENCES = {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "other"}


@dataclass(frozen=True)
class File:
    """A file of a repository."""

    content: bytes
    is_lfs: bool

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def described(self, path: str) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.blob_id}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass
class Repository:
    """Every state that a repository has had, the newest last."""

    private: bool
    states: dict[str, dict[str, File]] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    """Paths that each commit added or deleted."""

    @property
    def head(self) -> str:
        return list(self.states)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return {path: file.content for path, file in self.states[self.head].items()}

    def commit(self, files: dict[str, File], changed: list[str]) -> str:
        name = secrets.token_hex(20)  # clients keep what they have read by the commit's name
        self.states[name] = files
        if changed:
            self.commits.append(changed)
        return name

    def at(self, revision: str) -> dict[str, File] | None:
        return self.states.get(self.head if revision == "main" else revision)


@dataclass
class Fault:
    """What goes wrong: a status, `drop` for a connection that ends, `cut` in the middle of it."""

    action: int | str
    when: Callable[[str, str], bool]
    """Of method and path."""
    times: float = 1
    headers: dict[str, str] = field(default_factory=dict)


class HubServer:
    """The server with what it holds and what it was asked."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploads: list[str] = []
        """SHA-256 of each large file that was sent."""
        self.faults: list[Fault] = []
        self.tokens = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def repository(self, repo_id: str, kind: str = "dataset") -> Repository:
        return self.repositories[kind, repo_id]

    def create(self, repo_id: str, kind: str = "dataset", private: bool = True) -> Repository:
        made = Repository(private=private)
        made.commit({".gitattributes": File(b"*.tar filter=lfs\n", is_lfs=False)}, [])
        self.repositories[kind, repo_id] = made
        return made

    def fail(
        self,
        action: int | str,
        when: Callable[[str, str], bool] = lambda *_: True,
        times: float = 1,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Let the next requests that fit go wrong."""
        self.faults.append(Fault(action, when, times, headers or {}))

    def fault(self, method: str, path: str) -> Fault | None:
        """Take note of a request; return what shall go wrong with it."""
        with self.lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times > 0 and fault.when(method, path):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serving() -> Iterator[HubServer]:
    """Run a server until the block ends."""
    server = HubServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16  # head and body leave together

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        self._handle()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    # What is sent back.

    def answer(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.answer(status, {"error": message or code}, {"X-Error-Code": code} if code else {})

    # What is asked.

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        fault = self.server_state.fault(self.command, path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault and isinstance(fault.action, str):
            if fault.action == "cut":
                self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.body = self._read_chunked() if self._is_chunked() else self.rfile.read(length)
        if fault:
            self.answer(int(fault.action), {"error": "on purpose"}, fault.headers)
            return
        with self.server_state.lock:
            self._route(path)

    def _is_chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def _read_chunked(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _role(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.server_state.tokens.get(token)

    def _route(self, path: str) -> None:
        if path == "/api/whoami-v2":
            self._whoami()
        elif path == "/api/repos/create":
            self._create(json.loads(self.body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(self.body))
        elif path.startswith("/lfs/"):
            self._store(path.removeprefix("/lfs/"))
        elif path == "/lfs-verify":
            asked = json.loads(self.body)
            held = self.server_state.objects.get(asked["oid"])
            self.answer(200 if held is not None and len(held) == asked["size"] else 404)
        elif found := _BATCH.match(path):
            if self._found(found[1], found[2], write=True):
                self._batch(json.loads(self.body))
        elif found := _RESOLVE.match(path):
            if repository := self._found(found[1], found[2]):
                self._resolve(repository, found[3], found[4])
        elif found := _API.match(path):
            kind, repo_id, rest = found.groups()
            self._api(f"{kind}s/", repo_id, rest or "")
        else:
            self.refuse(404)

    def _found(self, prefix: str | None, repo_id: str, write: bool = False) -> Repository | None:
        """Return a repository that the token may read or write, or answer that it may not."""
        kind = (prefix or "models/").removesuffix("s/")
        repository = self.server_state.repositories.get((kind, repo_id))
        if "Authorization" in self.headers and self._role() is None:
            self.refuse(401, message="Invalid credentials in Authorization header")
        elif repository is None or (repository.private and self._role() is None):
            known = self._role() is not None
            self.refuse(404 if known else 401, "RepoNotFound", "Repository not found")
        elif write and (self._role() != "write" or not repo_id.startswith(f"{OWNER}/")):
            self.refuse(403, message="You don't have the rights to write here")
        else:
            return repository
        return None

    def _whoami(self) -> None:
        if self._role() is None:
            self.refuse(401, message="Invalid credentials in Authorization header")
        else:
            token = {"displayName": "test", "role": self._role()}
            self.answer(200, {"type": "user", "name": OWNER, "auth": {"accessToken": token}})

    def _create(self, asked: dict[str, Any]) -> None:
        kind, owner = asked.get("type") or "model", asked.get("organization") or OWNER
        repo_id = f"{owner}/{asked['name']}"
        if self._role() != "write" or owner != OWNER:
            self.refuse(403, message=f"You don't have the rights to create a {kind} under {owner}")
            return
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.server_state.url}/{prefix}{repo_id}"
        if (kind, repo_id) in self.server_state.repositories:
            self.answer(409, {"error": "You already created this repo", "url": url})
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server_state.create(repo_id, kind, private)
        self.answer(200, {"url": url, "name": repo_id})

    def _validate(self, asked: dict[str, Any]) -> None:
        found = re.match(r"---\n(.*?)\n---\n", asked["content"], flags=re.DOTALL)
        errors = []
        try:
            data = yaml.safe_load(found[1]) if found else {}
            licences = data.get("license", [])
            licences = licences if isinstance(licences, list) else [licences]
            wrong = set(licences) - _LICENCES
            errors += [{"message": f'"license" must be one of ..., got {name}'} for name in wrong]
            for code in data.get("language", []):
                if not re.fullmatch(r"[a-z]{2,3}", code):
                    errors.append({"message": f'"language" has {code}'})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        self.answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _api(self, prefix: str, repo_id: str, rest: str) -> None:
        what, _, rest = rest.partition("/")
        repository = self._found(prefix, repo_id, write=what in ("preupload", "commit"))
        if repository is None:
            return
        revision, _, path = rest.partition("/")
        files = repository.at(revision or "main")
        if files is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif what in ("", "revision"):
            sha = repository.head if revision in ("", "main") else revision
            self.answer(
                200,
                {
                    "id": repo_id,
                    "sha": sha,
                    "private": repository.private,
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in sorted(files)],
                },
            )
        elif what == "tree":
            self._tree(files, path)
        elif what == "paths-info":
            asked = parse_qs(self.body.decode()).get("paths", [])
            found = [entry for name in asked if (entry := _entry(files, name))]
            self.answer(200, found)
        elif what == "preupload":
            self._preupload(files, json.loads(self.body))
        elif what == "commit":
            self._commit(repository)
        else:
            self.refuse(404)

    def _tree(self, files: dict[str, File], folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = sorted(name for name in files if name.startswith(prefix))
        if folder and not inside:
            self.refuse(404, "EntryNotFound", f"{folder} does not exist")
            return
        folders: set[str] = set()
        for name in inside:
            parents = name.removeprefix(prefix).split("/")[:-1]
            folders |= {prefix + "/".join(parents[: n + 1]) for n in range(len(parents))}
        entries: list[Any] = [_entry(files, name) for name in [*sorted(folders), *inside]]
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            entries = [e for e in entries if "/" not in e["path"].removeprefix(prefix)]
        self.answer(200, entries)

    def _preupload(self, files: dict[str, File], asked: dict[str, Any]) -> None:
        answers = []
        for entry in asked["files"]:
            held = files.get(entry["path"])
            is_large = entry["size"] > LARGE_BYTES or _LFS.search(entry["path"])
            mode = "lfs" if is_large else "regular"
            oid = (held.sha256 if held.is_lfs else held.blob_id) if held else None
            answers.append(
                {"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self.answer(200, {"files": answers})

    def _batch(self, asked: dict[str, Any]) -> None:
        url, objects = self.server_state.url, []
        for wanted in asked["objects"]:
            entry = dict(wanted)
            if wanted["oid"] not in self.server_state.objects:
                entry["actions"] = {
                    "upload": {"href": f"{url}/lfs/{wanted['oid']}"},
                    "verify": {"href": f"{url}/lfs-verify"},
                }
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.refuse(400, message="the bytes are not those of the name")
            return
        self.server_state.objects[oid] = self.body
        self.server_state.uploads.append(oid)
        self.answer(200)

    def _commit(self, repository: Repository) -> None:
        files, changed = dict(repository.states[repository.head]), []
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            path = value.get("path", "")
            if operation["key"] == "file":
                files[path] = File(base64.b64decode(value["content"]), is_lfs=False)
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.server_state.objects:
                    self.refuse(400, message=f"{path} was not uploaded")
                    return
                files[path] = File(self.server_state.objects[value["oid"]], is_lfs=True)
            elif operation["key"] == "deletedFile":
                if path not in files:
                    self.refuse(404, "EntryNotFound", f"{path} does not exist")
                    return
                del files[path]
            else:
                continue
            changed.append(path)
        name = repository.commit(files, changed)
        owner_and_name = (
            self.path.split("/commit/")[0].removeprefix("/api/").removeprefix("models/")
        )
        url = f"{self.server_state.url}/{owner_and_name}/commit/{name}"
        self.answer(200, {"commitUrl": url, "commitOid": name})

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        files = repository.at(revision)
        if files is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        if path not in files:
            self.refuse(404, "EntryNotFound", f"{path} does not exist")
            return
        file = files[path]
        headers = {
            "ETag": f'"{file.sha256 if file.is_lfs else file.blob_id}"',
            "X-Repo-Commit": repository.head if revision == "main" else revision,
            "Accept-Ranges": "bytes",
        }
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        content, status = file.content, 200
        if span:
            start, stop = int(span[1]), int(span[2] or len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        self.answer(status, content, headers)


def _entry(files: dict[str, File], path: str) -> dict[str, Any] | None:
    """Describe a file or a folder."""
    if path in files:
        return files[path].described(path)
    if any(name.startswith(f"{path}/") for name in files):
        oid = hashlib.sha1(path.encode()).hexdigest()
        return {"type": "directory", "path": path, "size": 0, "oid": oid}
    return None


def _handler(state: HubServer) -> type[_Handler]:
    return type("Handler", (_Handler,), {"server_state": state})


@contextmanager
def hub_in_process(patch: Any, token: str | None = WRITE_TOKEN) -> Iterator[HubServer]:
    """Run a server and let the client of this process talk to it; `patch` undoes it.

    The client reads its environment when it is imported, which other tests have done already.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serving() as server, tempfile.TemporaryDirectory() as cache:
        patch.setattr(constants, "HF_HUB_CACHE", cache)
        patch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setattr(constants, name, True)
        patch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
        if token is None:
            patch.delenv("HF_TOKEN", raising=False)
        else:
            patch.setenv("HF_TOKEN", token)
        _http.close_session()
        yield server
        _http.close_session()


def no_hub(patch: Any) -> None:
    """Let the client of this process look for the Hub where nothing answers."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        patch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    _http.close_session()


def hub_environment(server: HubServer, home: Any, token: str = WRITE_TOKEN) -> dict[str, str]:
    """Return the environment of a process whose client talks to a server."""
    return os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
    }
