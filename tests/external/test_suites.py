"""What suites of others found: each fault is fixed and held by a test, or has a reason to stay."""

from __future__ import annotations

import pytest
from suites import FINDINGS, RESULTS, TOP, findings


@pytest.mark.parametrize("name", [path.stem for path in sorted(FINDINGS.glob("*.json"))])
def test_each_finding_has_its_test_or_a_reason(name: str) -> None:
    assert (RESULTS / f"{name}.json").is_file(), "a suite that found something has a stored result"
    for finding in findings(name):
        assert finding.keys() in ({"fault", "fixed_by"}, {"fault", "left"}), finding
        if "fixed_by" in finding:
            path, _, test = finding["fixed_by"].partition("::")
            assert f"def {test}(" in (TOP / path).read_text(encoding="utf8"), finding
