"""A small Hugging Face Hub on this machine: real HTTP, uploads, and faults on demand."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.loopback_repo import COMMIT, LARGE, Refused, Repo

__all__ = ["COMMIT", "Fault", "Hub", "Token", "point", "serve"]

Answer = tuple[int, bytes, dict[str, str]]


@dataclass(slots=True, kw_only=True)
class Token:
    """A login."""

    user: str = "me"
    may_write: bool = True
    uses: int | None = None
    """Requests after which it has expired; None: never."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """What goes wrong with requests, the next `times` of them that look so."""

    request: str
    """A pattern that `METHOD /path` is searched for."""
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"<html>a gateway's words</html>"
    times: int = 1
    skip: int = 0
    """So many of them go well before."""
    applied: bool = False
    """The request is done all the same, and only its answer is lost."""
    drop: bool = False
    """The connection is closed instead of an answer."""
    delay: float = 0.0
    """Seconds before anything happens; with status 200 that is all that does."""
    then: Callable[[], None] = lambda: None
    """Done first."""


@dataclass(slots=True, kw_only=True)
class Hub:
    """What is served, and what was asked."""

    repo: str = ""
    """The repository that is served from a folder."""
    kind: str = "datasets"
    """What that is: `datasets` or `models`."""
    status: int = 200
    """Anything else is the answer to every request."""
    error: str = ""
    """The X-Error-Code beside that status."""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""
    logins: set[str] = field(default_factory=set)
    """Every Authorization header that came."""
    ranges: list[str] = field(default_factory=list)
    """Every Range header that came."""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    """Whom it knows; without any, everyone may do everything."""
    faults: list[Fault] = field(default_factory=list)
    blobs: dict[str, bytes | None] = field(default_factory=dict)
    """Large files by SHA-256."""
    received: list[int] = field(default_factory=list)
    """Bytes of each large file that came."""
    xet: Path | None = None
    """The folder that the client's own hf_xet stores large files in; None: they are PUT here."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def sent(self) -> list[str]:
        """The files whose content was asked for, in order."""
        files = [line.partition("/resolve/")[2] for line in self.asked if line.startswith("GET ")]
        return [file.partition("/")[2] for file in files if file]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def dataset(self, name: str) -> Repo:
        return self.repos["datasets", name]


@contextmanager
def serve(
    repo: str = "",
    folder: Path | None = None,
    *,
    status: int = 200,
    error: str = "",
    kind: str = "datasets",
    members: set[str] | None = None,
    also: tuple[str, ...] = (),
    tokens: Mapping[str, Token] | None = None,
    xet: Path | None = None,
) -> Iterator[Hub]:
    """Serve the folder as the data set, or model, `repo` until the block ends; or take uploads."""
    hub = Hub(repo=repo, kind=kind, status=status, error=error, tokens=dict(tokens or {}), xet=xet)
    if folder is not None:
        hub.repos[kind, repo] = Repo(folder=folder, members=members, also=also)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        body = self._body()
        line = f"{self.command} {unquote(urlsplit(self.path).path)}"
        with hub.lock:
            hub.asked.append(line)
            if login := self.headers.get("Authorization", ""):
                hub.logins.add(login)
            hub.ranges += self.headers.get_all("Range", [])
            fault = self._fault(line)
        if fault is not None:
            fault.then()
            time.sleep(fault.delay)
        if fault is None or fault.applied or fault.status == 200:
            answer = self._attempt(body)
        if fault is not None and fault.drop:
            self.close_connection = True
            return
        if fault is not None and fault.status != 200:
            answer = (fault.status, fault.body, dict(fault.headers))
        self._send(*answer)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _fault(self, line: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and re.search(fault.request, line):
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None

    def _attempt(self, body: bytes) -> Answer:
        hub = self.hub
        try:
            if hub.status != 200:
                raise Refused(hub.status, hub.error)
            with hub.lock:
                user = self._user()
                words = [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]
                return self._route(words, body, user)
        except Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.words}
            return refused.status, b"{}", {**headers, "Content-Type": "application/json"}

    def _user(self) -> Token:
        """Who asks; a stranger where logins matter and none came."""
        hub = self.hub
        login = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hub.tokens:
            return Token()
        if not login or self.path.startswith("/lfs/"):
            return Token(user="", may_write=False)
        token = hub.tokens.get(login)
        if token is None or token.uses == 0:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        if token.uses is not None:
            token.uses -= 1
        return token

    # ------------------------------------------------------------ what is asked

    def _route(self, words: list[str], body: bytes, user: Token) -> Answer:
        """Everything beside git has the owner and the name at the same place."""
        if words[:1] == ["lfs"]:
            return self._put(words[1], body)
        if words == ["api", "repos", "create"]:
            return self._create(json.loads(body), user)
        if words == ["api", "validate-yaml"]:
            return _json({"errors": [], "warnings": []})
        if words == ["api", "whoami-v2"]:
            return _json({"name": user.user, "type": "user", "orgs": [], "auth": {}})
        if words[0] == "api":
            kind, name, rest = words[1], "/".join(words[2:4]), words[4:]
            repo = self._seen(kind, name, user)
            return self._api(repo, kind, name, rest, body, user)
        kind, at = ("datasets", 1) if words[0] == "datasets" else ("models", 0)
        name, rest = "/".join(words[at : at + 2]), words[at + 2 :]
        if name.endswith(".git"):
            self._written(self._seen(kind, name.removesuffix(".git"), user), user)
            return self._batch(json.loads(body))
        repo = self._seen(kind, name, user)
        if rest[:1] == ["resolve"]:
            return self._resolve(repo, rest[1], "/".join(rest[2:]))
        raise Refused(404, "EntryNotFound")

    def _seen(self, kind: str, name: str, user: Token) -> Repo:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and repo.owner != user.user):
            raise Refused(404 if user.user else 401, "RepoNotFound")
        return repo

    def _written(self, repo: Repo, user: Token) -> None:
        if repo.owner != user.user or not user.may_write or repo.folder is not None:
            raise Refused(403, "", "you may not write here")

    def _create(self, asked: Mapping[str, str], user: Token) -> Answer:
        owner = asked.get("organization") or user.user
        if not user.user:
            raise Refused(401, "", "Invalid username or password.")
        if owner != user.user or not user.may_write:
            raise Refused(403, "", "no rights in this namespace")
        kind, name = f"{asked.get('type', 'model')}s", f"{owner}/{asked['name']}"
        told = {"url": f"{self.hub.endpoint}/{kind}/{name}"}
        if (kind, name) in self.hub.repos:
            return 409, *_json({**told, "error": "You already created this dataset repo"})[1:]
        private = asked.get("visibility") == "private"
        self.hub.repos[kind, name] = Repo(owner=owner, private=private)
        return _json(told)

    def _api(
        self, repo: Repo, kind: str, name: str, words: list[str], body: bytes, user: Token
    ) -> Answer:
        asked, revision = (*words, "main", "main")[:2] if words else ("revision", "main")
        if self.command == "GET":
            return self._told(repo, name, asked, revision, "/".join(words[2:]))
        if asked == "paths-info":
            form = b"=" in body and not body.startswith(b"{")
            wanted = set(parse_qs(body.decode())["paths"] if form else json.loads(body)["paths"])
            return _json([r for r in repo.rows(revision, deep=True) if r["path"] in wanted])
        self._written(repo, user)
        if asked == "preupload":
            return self._preupload(repo.tree(revision), json.loads(body)["files"])
        page = f"{self.hub.endpoint}/{kind}/{name}"
        if asked == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            known: Mapping[str, bytes | None] = self.hub.blobs
            if self.hub.xet is not None:  # what it stores, it stores by another hash
                known = {v["oid"]: None for line in lines if "oid" in (v := line["value"])}
            commit = repo.commit(revision, lines, known)
            url = f"{page}/commit/{commit}"
            return _json({"success": True, "commitOid": commit, "commitUrl": url})
        if asked == "tag":
            repo.mark(json.loads(body)["tag"], revision)
        elif asked == "branch":
            repo.branch(revision)
        elif asked == "discussions":
            number, _ = repo.open_pull()
            return _json(_discussion(number, name, json.loads(body)["title"]))
        else:
            raise Refused(404, "EntryNotFound")
        return _json({})

    def _told(self, repo: Repo, name: str, asked: str, revision: str, below: str) -> Answer:
        if asked == "revision":
            commit = repo.resolve(revision)
            names = [{"rfilename": path} for path in repo.tree(revision)]
            told = {"id": name, "sha": commit, "siblings": names, "private": repo.private}
            return _json({**told, "tags": [], "downloads": 0, "likes": 0})
        if asked == "tree":
            deep = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
            return _json(repo.rows(revision, below, deep=deep))
        if asked == "refs":
            kinds = {"branches": repo.branches, "tags": repo.tags, "converts": {}}
            found = {
                kind: [{"name": k, "ref": k, "targetCommit": v} for k, v in refs.items()]
                for kind, refs in kinds.items()
            }
            return _json(found)
        if asked == "discussions":
            return _json(_discussion(int(revision), name, "a change"))
        if asked == "xet-write-token" and self.hub.xet is not None:
            until = int(time.time()) + 3600
            told = {"casUrl": f"local://{self.hub.xet}", "exp": until, "accessToken": "xet"}
            return _json(told)
        raise Refused(404, "EntryNotFound")

    def _preupload(self, tree: Mapping[str, object], files: list[dict]) -> Answer:
        rows = []
        for file in files:
            there = tree.get(file["path"])
            mode = "lfs" if file["path"].endswith(LARGE) or file["size"] > 10**7 else "regular"
            oid = (getattr(there, "sha256", "") or getattr(there, "oid", "")) if there else None
            row = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            rows.append(row)
        return _json({"files": rows})

    # ------------------------------------------------------------ content

    def _batch(self, asked: Mapping[str, list[dict]]) -> Answer:
        objects = []
        for one in asked["objects"]:
            row = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.blobs:
                row["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}
            objects.append(row)
        return _json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, data: bytes) -> Answer:
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refused(400, "", "this is not what was announced")
        self.hub.blobs[oid] = data
        self.hub.received.append(len(data))
        return 200, b"", {}

    def _resolve(self, repo: Repo, revision: str, name: str) -> Answer:
        tree = repo.tree(revision)
        login = self.headers.get("Authorization", "")
        if repo.members is not None and login.removeprefix("Bearer ") not in repo.members:
            raise Refused(403 if login else 401, "GatedRepo")
        if name not in tree:
            raise Refused(404, "EntryNotFound")
        data = tree[name].read()
        headers = {
            "ETag": f'"{tree[name].tag}"',
            "X-Repo-Commit": repo.resolve(revision),
            "Accept-Ranges": "bytes",
        }
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes="):
            return 200, data, headers
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return 206, data[start : end + 1], headers

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _json(value: object) -> Answer:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _discussion(number: int, name: str, title: str) -> dict[str, object]:
    """A pull request, as the client reads one."""
    return {
        "num": number,
        "title": title,
        "status": "draft",
        "isPullRequest": True,
        "author": {"name": "me"},
        "repo": {"name": name, "type": "dataset"},
        "createdAt": "2026-11-24T00:00:00.000Z",
        "events": [],
        "changes": {"base": "refs/heads/main"},
        "filesWithConflicts": [],
        "diff": "",
    }


def point(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path, token: str = "") -> None:
    """Let the clients of this process ask this Hub, with that login, and keep files in `home`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", hub.xet is None)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("ISEKAI_CACHE", str(home / "cache"))
