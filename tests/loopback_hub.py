"""A small Hugging Face Hub on this machine, read only, over real HTTP for the clients in use."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@dataclass(slots=True, kw_only=True)
class Hub:
    """What is served, and what was asked."""

    repo: str
    folder: Path
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
    kind: str = "datasets"
    """What the repository is: `datasets` or `models`."""
    members: set[str] | None = None
    """Tokens that may have the files; None: everyone may. The list of the files is open to all."""
    also: tuple[str, ...] = ()
    """Names that are listed besides, of files that aren't there."""

    @property
    def api(self) -> str:
        return f"/api/{self.kind}/{self.repo}"

    @property
    def page(self) -> str:
        return f"/{self.repo}" if self.kind == "models" else f"/{self.kind}/{self.repo}"

    @property
    def sent(self) -> list[str]:
        """The files whose content was asked for, in order."""
        files = [line.partition("/resolve/")[2] for line in self.asked if line.startswith("GET ")]
        return [file.partition("/")[2] for file in files if file]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve(
    repo: str,
    folder: Path,
    *,
    status: int = 200,
    error: str = "",
    kind: str = "datasets",
    members: set[str] | None = None,
    also: tuple[str, ...] = (),
) -> Iterator[Hub]:
    """Serve the folder as the data set, or model, `repo` until the block ends."""
    hub = Hub(repo=repo, folder=folder, status=status, error=error)
    hub.kind, hub.members, hub.also = kind, members, also
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
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
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, body: str = "") -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        if login := self.headers.get("Authorization", ""):
            hub.logins.add(login)
        hub.ranges += self.headers.get_all("Range", [])
        if hub.status != 200:
            self._refuse(hub.status, hub.error)
        elif path == hub.api or path.startswith(f"{hub.api}/"):
            self._api(path.removeprefix(hub.api).strip("/").split("/"), body)
        elif path.startswith(f"{hub.page}/resolve/"):
            revision, _, name = path.removeprefix(f"{hub.page}/resolve/").partition("/")
            if revision not in REVISIONS:
                self._refuse(404, "RevisionNotFound")
            elif hub.members is not None and login.removeprefix("Bearer ") not in hub.members:
                self._refuse(403 if login else 401, "GatedRepo")
            else:
                self._file(hub.folder / name)
        else:
            self._refuse(404, "RepoNotFound")

    def _api(self, words: list[str], body: str) -> None:
        """`revision/REV`, `tree/REV/PATH` or `paths-info/REV`; nothing for the main revision."""
        kind, revision = (*words, "main", "main")[:2] if words != [""] else ("revision", "main")
        if revision not in REVISIONS:
            self._refuse(404, "RevisionNotFound")
        elif kind == "revision":
            names = [{"rfilename": row["path"]} for row in self._tree("") if row["type"] == "file"]
            self._json({"id": self.hub.repo, "sha": COMMIT, "siblings": names, "private": False})
        elif kind == "tree":
            self._json(self._tree("/".join(words[2:])))
        elif kind == "paths-info":
            wanted = set(parse_qs(body)["paths"]) if "=" in body else set(json.loads(body)["paths"])
            self._json([row for row in self._tree("", always=True) if row["path"] in wanted])
        else:
            self._refuse(404, "EntryNotFound")

    def _tree(self, below: str, *, always: bool = False) -> list[dict[str, object]]:
        deep = always or "recursive=True" in self.path or "recursive=true" in self.path
        start = self.hub.folder / below
        rows: list[dict[str, object]] = []
        for path in sorted(start.rglob("*") if deep or not below else start.glob("*")):
            if not deep and path.parent != start and below:
                continue
            name = path.relative_to(self.hub.folder).as_posix()
            kind = "directory" if path.is_dir() else "file"
            oid = hashlib.sha1(name.encode()).hexdigest()
            size = 0 if path.is_dir() else path.stat().st_size
            rows.append({"type": kind, "path": name, "oid": oid, "size": size})
        for name in self.hub.also:
            rows.append({"type": "file", "path": name, "oid": "0" * 40, "size": 1})
        return rows

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        data = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        status, asked = 200, self.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            status, data = 206, data[start : end + 1]
        self._send(status, data, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
