"""What the platforms' checks say of an image that starts as a rival's does, and of our own.

Everything but the start is the small image's, so that the difference is the start script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from imagegen.checks import contract
from imagegen.commands import test
from imagegen.engine.docker import Docker
from imagegen.model.report import Check
from tests.engine.conftest import NETWORK, ROOT
from tests.support import tiny_image

TAG = "1.0.3-cu1302-torch2110-debian12"
DOCKERFILE = """\
RUN rm /etc/profile.d/00-imagegen.sh /etc/ssh/sshd_config.d/imagegen.conf \\
 && sed -i '/imagegen/d' /root/.bashrc \\
 && rm /usr/share/pam-configs/imagegen && pam-auth-update --package && crontab -r
COPY start.sh /start.sh
LABEL imagegen.target=""
ENTRYPOINT []
CMD ["/start.sh"]
"""
SETTINGS = contract.Settings(settle=2, patience=20)


@pytest.fixture(scope="module")
def rival(engine: Docker, small_image: str) -> Iterator[str]:
    """The small image with a rival's start script and tag."""
    files = {"start.sh": (ROOT / "tests/engine/stand_ins/rival/start.sh").read_text()}
    name = f"imagegen-test/rival:{TAG}"
    yield tiny_image.build_from(engine, small_image, name, DOCKERFILE, files, NETWORK)
    engine.remove(name)


@pytest.fixture(scope="module")
def found(engine: Docker, rival: str) -> dict[str, Check]:
    suites = test.contracts().values()
    rows = [row for suite in suites for row in contract.run(suite, engine, rival, SETTINGS)]
    return {row.name: row for row in rows}


def test_a_rivals_start_fails_what_its_users_report(found: dict[str, Check]) -> None:
    failed = {name.split("_")[0] for name, row in found.items() if row.status == "fail"}
    assert failed == set(table())


def table() -> dict[str, str]:
    """The README's table: clause -> what it says of it."""
    text = (ROOT / "docs/checks.md").read_text()
    rows = re.findall(r"^\| ([RV]\d+) \| (.+?) \|", text, re.MULTILINE)
    assert rows
    return dict(rows)
