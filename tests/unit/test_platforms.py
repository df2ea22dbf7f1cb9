"""The rule about operating systems (tests/platforms.py)."""

from __future__ import annotations

import pytest

from attune.tests.platforms import not_applicable


@pytest.mark.parametrize(
    ("system", "platform", "family", "left_out"),
    [
        ("linux", "linux", "posix", False),
        ("posix", "linux", "posix", False),
        ("linux", "darwin", "posix", True),
        ("posix", "darwin", "posix", False),
        ("linux", "win32", "nt", True),
        ("posix", "win32", "nt", True),
    ],
)
def test_a_test_is_left_out_where_its_system_is_another(system: str, platform: str, family: str, left_out: bool):
    words = not_applicable(system, "no such limit", platform=platform, family=family)
    assert words == (f"not applicable on {platform}: no such limit" if left_out else "")


def test_an_unknown_system_is_refused():
    with pytest.raises(ValueError, match="choose one of: linux, posix"):
        not_applicable("unix", "a slip of the pen")
