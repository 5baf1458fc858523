"""Templates on RunPod: REST v2 for all that it takes, GraphQL for README and port labels, and
nothing half-made left behind.

A template is compared with what both APIs say of it, written where it differs, and read back. Every
step may be the last one of a killed run: the next run finds the template by its name and goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from imagegen.errors import PlatformError
from imagegen.platforms.api import Api, PlatformRefused, Unanswered
from imagegen.platforms.apply import Row
from imagegen.platforms.diff import Change, Edit, change, differing
from imagegen.platforms.runpod.template import second
from imagegen.platforms.spec import Spec

log = logging.getLogger(__name__)


Found = TypeVar("Found")

ROUNDS = 3
"""How often what does not stick is written: PATCH may drop what GraphQL wrote, and the reverse."""

STATE = (
    *("id", "name", "imageName", "dockerArgs", "ports", "volumeMountPath", "volumeInGb"),
    *("containerDiskInGb", "containerRegistryAuthId", "startJupyter", "startSsh", "startScript"),
    *("isServerless", "isPublic", "readme", "advancedStart", "category"),
)
"""What GraphQL shows of a template, besides ``env``, and takes back: what runpodctl reads, too
(internal/api/template_port_labels.go, 2026-08). Port labels are none of them: nobody reads those.
"""

READ = f"query {{ myself {{ podTemplates {{ {' '.join(STATE)} env {{ key value }} }} }} }}"
SAVE = "mutation ($input: SaveTemplateInput) { saveTemplate(input: $input) { id } }"


@dataclass(frozen=True, kw_only=True, slots=True)
class Have:
    """A live template as both APIs show it; ``graph`` is None while GraphQL does not show it."""

    rest: Row
    graph: Row | None

    @property
    def fields(self) -> dict[str, object]:
        """For comparing: REST's words, and the README."""
        return {**self.rest, "readme": (self.graph or {}).get("readme") or ""}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a template was found, and what is to be said of that."""

    row: Row | None
    note: str = ""


class RunPod:
    """The account's own templates."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def templates(self) -> list[Row]:
        """All that the account owns: the list has neither pages nor filters.

        Raises:
            PlatformError: the answer is not one.
        """
        return self._rows("/v2/templates", "templates")

    def registry(self, wanted: str) -> str:
        """The id of a registry's login, of which ``wanted`` is name or id.

        Raises:
            PlatformError: there is none, or the name fits several.
        """
        rows = self._rows("/v2/registries", "registries")
        found = [row for row in rows if row["id"] == wanted]
        found = found or [row for row in rows if row["name"] == wanted]
        if len(found) == 1:
            return str(found[0]["id"])
        names = ", ".join(sorted(f"{row['name']} ({row['id']})" for row in rows)) or "none"
        many = "several logins" if found else "no login"
        raise PlatformError(f"RunPod has {many} called {wanted}", hint=f"it has: {names}")

    def graph(self) -> dict[str, Row]:
        """What GraphQL says of the account's templates, by id."""
        data = self._query(READ, {})
        try:
            rows = data["myself"]["podTemplates"]  # type: ignore[index]
            return {str(row["id"]): row for row in rows}
        except (KeyError, TypeError):
            raise self._odd("GraphQL", data) from None

    def locate(self, spec: Spec, rows: Iterable[Row], known: str) -> Place:
        """The template by its name; or, renamed by hand, by ``known``, the id in the ledger.

        Raises:
            PlatformError: there are two: which one people's links lead to is not ours to decide.
        """
        rows = list(rows)
        named = [row for row in rows if row["name"] == spec.name]
        ours = [row for row in rows if row["id"] == known and row["name"] != spec.name]
        if len(named) + len(ours) > 1:
            both = " and ".join(f"{row['id']} ({row['name']})" for row in (*named, *ours))
            raise PlatformError(
                f"RunPod has more than one template that may be {spec.name}: {both}",
                hint="delete or rename the one that nobody uses, in RunPod's console",
            )
        if ours:
            note = f"it was renamed to {ours[0]['name']} by hand, and found by its id {known}"
            return Place(row=ours[0], note=note)
        if known and not named:
            return Place(row=None, note=f"{known} was deleted by hand: it is made anew")
        if known and named[0]["id"] != known:
            note = f"the ledger's {known} is gone, and {named[0]['id']} has its name"
            return Place(row=named[0], note=note)
        return Place(row=named[0] if named else None)

    def change(self, spec: Spec, row: Row | None, graph: Row | None, *, labels: bool) -> Change:
        """What is to be done; ``labels`` says that the port labels may not be what they should.

        They are sent with whatever else differs, and shown where nothing else does.
        """
        if row is None:
            return change(wanted(spec), None)
        found = change(wanted(spec), Have(rest=row, graph=graph).fields)
        if not labels or found.edits:
            return found
        names = ", ".join(f"{port} {name}" for port, name in spec.labels)
        edit = Edit("port labels", "(not readable)", names)
        return Change(action="update", edits=(edit,))

    def create(self, spec: Spec) -> str:
        """Make the template's first half; returns its id.

        A POST whose answer was lost may have made it: it is looked for before another try.

        Raises:
            PlatformError: it was refused, or there is no answer.
        """
        for last in (False, False, True):
            try:
                made = self._api.call("POST", "/v2/templates", body=spec.body, replay=False)
                if isinstance(made, Mapping) and isinstance(made.get("id"), str):
                    return str(made["id"])
                raise Unanswered(f"RunPod: POST /v2/templates: no id in {self._api.told(made)}")
            except Unanswered as error:
                log.info(f"{spec.name}: {error}; looking whether it was made all the same")
                if row := self._awaited(lambda: self.locate(spec, self.templates(), "").row):
                    return str(row["id"])
                if last:
                    raise
        raise AssertionError

    def converge(self, spec: Spec, id_: str, *, labels: bool) -> None:
        """Write what differs until nothing does.

        Raises:
            PlatformError: a step failed, or something does not stick, which is named.
        """
        have = self._there(id_)
        left = change(wanted(spec), have.fields).edits
        for _ in range(ROUNDS):
            if not left and not labels:
                return
            body = differing(spec.body, have.rest)
            if body:
                self._api.call("PATCH", f"/v2/templates/{id_}", body=body, replay=True)
            if labels or differing({"readme": spec.readme}, have.fields):
                self._save(spec, id_)
            labels = False
            have, left = self._settled(spec, id_)
        if left:
            names = ", ".join(edit.field for edit in left)
            raise PlatformError(
                f"RunPod took {spec.name} ({id_}) and does not show it so: {names}",
                hint="somebody else may be changing it; imagegen template runpod --plan shows how",
            )

    def delete(self, id_: str) -> None:
        """Remove a template; one that is gone is fine.

        Raises:
            PlatformError: it was refused, or there is no answer.
        """
        try:
            self._api.call("DELETE", f"/v2/templates/{id_}", replay=True)
        except PlatformRefused as error:
            if error.status != 404:
                raise

    # --- the two APIs ---------------------------------------------------------------------------

    def _rows(self, path: str, name: str) -> list[Row]:
        data = self._api.call("GET", path, replay=True)
        rows = data.get(name) if isinstance(data, Mapping) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, Mapping) and {"id", "name"} <= row.keys() for row in rows
        ):
            raise self._odd(f"GET {path}", data)
        return rows

    def _save(self, spec: Spec, id_: str) -> None:
        """GraphQL's save, which resets what is not sent: so all that it reads goes back.

        What it reads may be older than what REST has just written: our fields go over it.
        """
        graph = self._awaited(lambda: self.graph().get(id_))
        if graph is None:
            raise PlatformError(f"RunPod's GraphQL does not show the template {id_}")
        held = graph.get("env")
        env = {pair["key"]: pair["value"] for pair in held} if isinstance(held, list) else {}
        own = spec.body["env"]
        ours = in_graphql(spec) | {"id": id_}
        sent = {name: graph[name] for name in STATE if graph.get(name) is not None} | ours
        if isinstance(sent["ports"], list):
            sent["ports"] = ",".join(map(str, sent["ports"]))
        env |= own if isinstance(own, Mapping) else {}
        sent["env"] = [{"key": key, "value": value} for key, value in sorted(env.items())]
        data = self._query(SAVE, {"input": sent})
        saved = data.get("saveTemplate")
        if not isinstance(saved, Mapping) or saved.get("id") != id_:
            raise self._odd("saveTemplate", data)

    def _query(self, query: str, variables: Mapping[str, object]) -> Row:
        """An answer's ``data``: GraphQL says no with a status of 200."""
        body = {"query": query, "variables": variables}
        # A save sends the whole template with its id: a second one changes nothing.
        data = self._api.call("POST", "/graphql", body=body, replay=True)
        if not isinstance(data, Mapping) or data.get("errors"):
            raise PlatformError(
                f"RunPod: GraphQL: {self._api.told(data)}",
                hint="README and port labels go by GraphQL alone; may the key write templates?",
            )
        found = data.get("data")
        if not isinstance(found, Mapping):
            raise self._odd("GraphQL", data)
        return found

    def _odd(self, what: str, data: object) -> PlatformError:
        return PlatformError(
            f"RunPod: {what}: the answer is not what its schema says: {self._api.told(data)[:200]}",
            hint="has its API changed?",
        )

    # --- readers behind writers -----------------------------------------------------------------

    def _there(self, id_: str) -> Have:
        """The template; one that was made a moment ago may not be shown yet."""

        def look() -> Row | None:
            try:
                data = self._api.call("GET", f"/v2/templates/{id_}", replay=True)
            except PlatformRefused as error:
                if error.status != 404:
                    raise
                return None
            if not isinstance(data, Mapping) or data.get("id") != id_:
                raise self._odd(f"GET /v2/templates/{id_}", data)
            return data

        rest = self._awaited(look)
        if rest is None:
            raise PlatformError(
                f"RunPod does not have the template {id_}",
                hint="it was deleted meanwhile: run the command again",
            )
        return Have(rest=rest, graph=self.graph().get(id_))

    def _settled(self, spec: Spec, id_: str) -> tuple[Have, tuple[Edit, ...]]:
        """The template after a write, as soon as it is as wanted, or at last as it is."""
        for pause in (*self._api.stale, 0.0):
            have = self._there(id_)
            left = change(wanted(spec), have.fields).edits
            if not left or not pause:
                break
            time.sleep(pause)
        return have, left

    def _awaited(self, look: Callable[[], Found | None]) -> Found | None:
        """What ``look`` finds, looking more than once."""
        for pause in (*self._api.stale, 0.0):
            if (found := look()) is not None or not pause:
                break
            time.sleep(pause)
        return found


def wanted(spec: Spec) -> dict[str, object]:
    """All fields that can be read back."""
    return {**spec.body, "readme": spec.readme}


def in_graphql(spec: Spec) -> dict[str, object]:
    """The template in the words of SaveTemplateInput, of which allowedCudaVersions is no part.

    Whether a save leaves those alone is not documented: they are read back.
    """
    body, mounts = spec.body, spec.body["mounts"]
    volume = mounts["persistent"] if isinstance(mounts, Mapping) else {}
    ports = body["ports"]
    found: dict[str, object] = {
        "name": spec.name,
        "imageName": body["image"],
        "containerDiskInGb": body["disk"],
        "volumeInGb": volume["size"],
        "volumeMountPath": volume["path"],
        "ports": ",".join(ports) if isinstance(ports, list) else "",
        "isPublic": body["public"],
        "isServerless": body["serverless"],
        "startSsh": body["startSsh"],
        "startJupyter": body["startJupyter"],
        "category": body["category"],
        **second(spec.readme),
    }
    return found | ({"containerRegistryAuthId": body["registry"]} if "registry" in body else {})
