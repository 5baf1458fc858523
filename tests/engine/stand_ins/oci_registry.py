"""A registry in this process that keeps the OCI distribution specification 1.1, referrers included.

The distributions' own registry, which the engine tests use, is of the time before referrers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass
class Registry:
    """What it holds: manifests and tags by repository, blobs, and every request in ``asked``.

    ``claims`` has it say OCI-Subject in any case; ``cut`` answers break off in the middle;
    ``lose_answers`` uploads are taken without an answer, and their place is gone.
    """

    host: str = ""
    knows_referrers: bool = True
    claims: bool = False
    no_such_call: int = 404
    cut: int = 0
    lose_answers: int = 0
    deletes: bool = True
    refuses: str = ""
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    page: int = 100
    latency: float = 0.0

    def referrers(self, repository: str, digest: str) -> list[dict[str, Any]]:
        found = []
        for (name, own), (kind, body) in self.manifests.items():
            row = json.loads(body)
            if name == repository and (row.get("subject") or {}).get("digest") == digest:
                found.append(
                    {
                        "mediaType": kind,
                        "digest": own,
                        "size": len(body),
                        "artifactType": row.get("artifactType", ""),
                        "annotations": row.get("annotations", {}),
                    }
                )
        return found


@contextmanager
def served(*, knows_referrers: bool = True) -> Iterator[Registry]:
    """The registry on a free port of this machine."""
    registry = Registry(knows_referrers=knows_referrers)

    class Handler(_Handler):
        held = registry

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    registry.host = f"127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Registry

    def log_message(self, *words: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if body and self.command == "GET" and self.held.cut:
            self.held.cut -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def _serve(self) -> None:
        self.held.asked.append(f"{self.command} {self.path}")
        time.sleep(self.held.latency)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.held.refuses:
            error = {"errors": [{"code": "DENIED", "message": self.held.refuses}]}
            self._answer(401, json.dumps(error).encode())
            return
        path = urlsplit(self.path).path.removeprefix("/v2/")
        found = re.fullmatch(r"(.+)/(manifests|blobs|referrers|tags)/(.*)", path)
        if found and found[1].endswith("/blobs"):  # of blobs/uploads/
            found = re.fullmatch(r"(.+)/(blobs)/(uploads/.*)", path)
        if not found:
            self._answer(404)
            return
        getattr(self, f"_{found[2]}")(found[1], found[3], sent)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _manifests(self, name: str, ref: str, sent: bytes) -> None:
        held = self.held
        digest = ref if ":" in ref else held.tags.get((name, ref), "")
        if self.command == "PUT":
            digest, row = digest_of(sent), json.loads(sent)
            needed = [row["config"], *row["layers"]] if "layers" in row else []
            lacking = [one for one in needed if (name, one["digest"]) not in held.blobs]
            if lacking or (":" in ref and ref != digest):
                words = f"lacks {lacking[0]['digest']}" if lacking else "another digest"
                error = {"errors": [{"code": "MANIFEST_INVALID", "message": words}]}
                self._answer(400, json.dumps(error).encode())
                return
            held.manifests[name, digest] = (self.headers["Content-Type"], sent)
            if ":" not in ref:
                held.tags[name, ref] = digest
            subject = (row.get("subject") or {}).get("digest")
            told = held.knows_referrers or held.claims
            more = {"OCI_Subject": subject} if subject and told else {}
            self._answer(201, **more)
        elif (name, digest) not in held.manifests:
            self._answer(404)
        elif self.command == "DELETE" and not held.deletes:
            self._answer(405)
        elif self.command == "DELETE":
            del held.manifests[name, digest]
            held.tags = {tag: at for tag, at in held.tags.items() if (tag[0], at) != (name, digest)}
            self._answer(202)
        else:
            kind, body = held.manifests[name, digest]
            self._answer(200, body, Content_Type=kind, Docker_Content_Digest=digest)

    def _blobs(self, name: str, ref: str, sent: bytes) -> None:
        held = self.held
        if self.command == "POST":
            self._answer(202, Location=f"/v2/{name}/blobs/uploads/1")
        elif self.command == "PUT":
            (digest,) = parse_qs(urlsplit(self.path).query)["digest"]
            if digest != digest_of(sent):
                self._answer(400)
                return
            if (name, digest) in held.blobs:  # the upload is over
                self._answer(404)
                return
            held.blobs[name, digest] = sent
            if held.lose_answers:
                held.lose_answers -= 1
                self.close_connection = True
                return
            self._answer(201)
        elif (name, ref) in held.blobs:
            self._answer(200, held.blobs[name, ref])
        else:
            self._answer(404)

    def _tags(self, name: str, _ref: str, _sent: bytes) -> None:
        tags = sorted(tag for repository, tag in self.held.tags if repository == name)
        (last,) = parse_qs(urlsplit(self.path).query).get("last", [""])
        left = [tag for tag in tags if tag > last]
        page = left[: self.held.page]
        more = {}
        if len(left) > len(page):
            more = {"Link": f'</v2/{name}/tags/list?last={page[-1]}>; rel="next"'}
        if not tags:
            self._answer(404)
            return
        self._answer(200, json.dumps({"name": name, "tags": page}).encode(), **more)

    def _referrers(self, name: str, digest: str, _sent: bytes) -> None:
        if not self.held.knows_referrers:
            self._answer(self.held.no_such_call)
            return
        rows = self.held.referrers(name, digest)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}
        self._answer(200, json.dumps(index).encode(), Content_Type=INDEX)
