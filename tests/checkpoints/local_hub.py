"""A server on 127.0.0.1 that speaks as much of the hub's API as `huggingface_hub` asks of it."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping

LARGE = 1000
"""Files of as many bytes are kept by their SHA-256, as the hub keeps what is in LFS."""


@contextlib.contextmanager
def serve(repository: str, revisions: Mapping[str, Mapping[str, bytes]]) -> Iterator[tuple]:
    """Serves one repository.

    Args:
      repository: `org/name`.
      revisions: branch to file to content; may be changed meanwhile.

    Yields:
      The address, and a list that grows by a line for each request.
    """
    asked: list[str] = []

    def commit(name: str) -> str:
        return next((n for n in revisions if _commit(n) == name), name)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0].strip("/")
            if path == f"api/models/{repository}/refs":
                refs = [
                    {"name": n, "ref": f"refs/heads/{n}", "targetCommit": _commit(n)}
                    for n in revisions
                ]
                return self.send(json.dumps({"branches": refs, "tags": [], "converts": []}))
            for kind in ("tree", "revision"):
                start = f"api/models/{repository}/{kind}/"
                if path.startswith(start):
                    name = commit(path[len(start) :].split("/")[0])
                    if name not in revisions:
                        return self.send("{}", 404, {"X-Error-Code": "RevisionNotFound"})
                    tree = [_entry(n, content) for n, content in revisions[name].items()]
                    about = {"id": repository, "sha": _commit(name), "siblings": []}
                    about["siblings"] = [{"rfilename": one["path"]} for one in tree]
                    return self.send(json.dumps(tree if kind == "tree" else about))
            start = f"{repository}/resolve/"
            if path.startswith(start):
                name, _, file = path[len(start) :].partition("/")
                content = revisions.get(commit(name), {}).get(file)
                if content is None:
                    return self.send("", 404, {"X-Error-Code": "EntryNotFound"})
                about = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": _commit(commit(name))}
                return self.send(content, 200, about)
            return self.send("{}", 404, {"X-Error-Code": "RepoNotFound"})

        def send(self, content, status: int = 200, headers: Mapping[str, str] | None = None):
            content = content.encode() if isinstance(content, str) else content
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _commit(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def _digest(content: bytes) -> str:
    return (hashlib.sha256 if len(content) >= LARGE else hashlib.sha1)(content).hexdigest()


def _entry(name: str, content: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
    if len(content) >= LARGE:
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return entry
