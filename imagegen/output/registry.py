"""What registries hold: one image with all that is known of it, and what can be deleted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from imagegen.model.report import moment
from imagegen.output.console import Format, show, size, table

if TYPE_CHECKING:
    from imagegen.publish.inspect import Attached, Inspected
    from imagegen.publish.prune import PruneResult


def inspected(one: Inspected, fmt: Format) -> None:
    """An image of a registry."""
    if fmt == "json":
        show(_row(one))
        return
    print(one.ref)
    print(table(("", ""), _lines(one)).partition("\n")[2])


def documents(bodies: Sequence[bytes]) -> None:
    """Documents that are attached to an image, as they are."""
    for body in bodies:
        sys.stdout.write(body.decode(errors="replace") + "\n")


def prunable(done: PruneResult, fmt: Format, *, applied: bool) -> None:
    """What can be deleted, or was, and why the rest stays."""
    found = done.found
    if fmt == "json":
        show(
            [
                {
                    "tag": one.tag,
                    "digest": one.digest,
                    "bytes": one.size,
                    "age_days": round(one.age, 1),
                    "keeps": one.keeps,
                    "deleted": one in done.gone,
                }
                for one in found
            ]
        )
        return
    went = done.gone if applied else tuple(one for one in found if not one.keeps)
    word = "deleted" if applied else "can be deleted"
    rows = [(word if one in went else "stays", one.tag, size(one.size), one.keeps) for one in found]
    print(table(("", "TAG", "SIZE", "WHY"), rows))
    total = sum(one.size for one in went)
    print(
        f"{len(went)} of {len(found)} images {word}: {size(total)}, including layers that other "
        "images may share"
    )
    if went and not applied:
        print("--apply deletes them; the registry's own garbage collection then frees the space")


def _lines(one: Inspected) -> list[tuple[str, str]]:
    seen, promise = one.seen, one.seen.promise
    labels = seen.labels
    rows = [("  digest", seen.top.digest)]
    if promise:
        rows += _inside(promise)
    else:
        rows.append(("  made by", "not imagegen"))
    rows += [
        ("  base", _joined(labels, "org.opencontainers.image.base.name", "base.digest")),
        ("  lock", labels.get("imagegen.lock", "")),
        ("  revision", labels.get("org.opencontainers.image.revision", "")),
        ("  key", labels.get("imagegen.key", "")),
        ("  not verified", labels.get("imagegen.unverified", "")),
        (
            "  to pull",
            f"{size(sum(layer.compressed for layer in seen.layers))} in {len(seen.layers)} layers",
        ),
        ("  tested", _tested(one)),
    ]
    rows += [
        (f"  {_kind(attached)}", f"{attached.referrer.digest}  {_about(attached)}")
        for attached in one.attached
    ]
    return [(name, words) for name, words in rows if words]


def _inside(promise: Any) -> list[tuple[str, str]]:
    flash = promise.get("flash_attn") or {}
    kernels = ""
    if flash.get("archs"):
        archs = ", ".join(f"sm_{arch}" for arch in flash["archs"])
        dims = ", ".join(map(str, flash["head_dims"]))
        features = ", ".join(flash["features"]) or "no feature"
        kernels = f": {archs}; head dimensions {dims}; {', '.join(flash['dtypes'])}; {features}"
    os_ = promise.get("os", {})
    return [
        ("  target", str(promise.get("id"))),
        (
            "  inside",
            f"{os_.get('id')} {os_.get('version')}, CUDA {promise.get('cuda')}, torch "
            f"{promise.get('torch')}, Python {promise.get('python')}",
        ),
        ("  flash-attn", f"{flash['version']}{kernels}" if flash else "none"),
        ("  driver", f"{promise.get('driver')} or newer"),
        ("  torch runs on", ", ".join(f"sm_{arch}" for arch in promise.get("archs", ()))),
        ("  packages", ", ".join(promise.get("packages", ()))),
    ]


def _joined(labels: Any, name: str, more: str) -> str:
    digest = labels.get(f"org.opencontainers.image.{more}", "")
    base = labels.get(name, "")
    return base if digest in base else f"{base} {digest}".strip()


def _tested(one: Inspected) -> str:
    report = one.report
    if report is None:
        return "no report of passed checks is attached"
    count = sum(check.status == "pass" for check in report.checks)
    passed = (check.level for check in report.checks if check.status == "pass")
    levels = ", ".join(dict.fromkeys(passed))
    return f"{moment(report.at)}: {count} checks passed ({levels}), by {report.engine}"


def _kind(attached: Attached) -> str:
    from imagegen.publish.inspect import KINDS

    names = {kind: name for name, kind in KINDS.items()}
    return names.get(attached.referrer.artifact_type, attached.referrer.artifact_type or "attached")


def _about(attached: Attached) -> str:
    """A few words on a document."""
    found = attached.document
    if not isinstance(found, dict):
        return ""
    if "spdxVersion" in found:
        return f"{found['spdxVersion']}, {len(found.get('packages', ()))} packages"
    if "predicateType" in found:
        return str(found["predicateType"])
    if "checks" in found:
        return f"{len(found['checks'])} checks"
    return ""


def _row(one: Inspected) -> dict[str, object]:
    seen = one.seen
    return {
        "ref": one.ref,
        "digest": seen.top.digest,
        "manifest": seen.manifest.digest,
        "created": seen.created,
        "target": dict(seen.promise),
        "labels": {k: v for k, v in seen.labels.items() if k != "imagegen.target"},
        "compressed_bytes": sum(layer.compressed for layer in seen.layers),
        "layers": [
            {"digest": row.digest, "bytes": row.compressed, "created_by": row.created_by}
            for row in seen.layers
        ],
        "passed": one.report is not None,
        "attached": [
            {
                "kind": _kind(attached),
                "digest": attached.referrer.digest,
                "media_type": attached.referrer.artifact_type,
                "annotations": dict(attached.referrer.annotations or {}),
                "document": attached.document,
            }
            for attached in one.attached
        ],
    }
