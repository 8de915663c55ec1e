"""Compares metrics with those of other libraries at length (test_metrics_peers.py), and stores how many cases agreed.

python tests/external/metrics.py     # needs the extra `suites`: make suites
"""

from __future__ import annotations

import re
import subprocess
import sys

from suites import HERE, TOP, SuiteResult, store, versions_of

PEERS = ("torchmetrics", "scikit-learn", "scipy", "statsmodels", "pycocotools", "faster-coco-eval")
TESTS = HERE / "test_metrics_peers.py"


def main() -> int:
    """Runs the tests with many examples each; 1 where one differs."""
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=many", "--hypothesis-show-statistics"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(TESTS)], cwd=TOP, capture_output=True, text=True, check=False
    )
    cases = sum(int(count) for count in re.findall(r"- (\d+) passing", run.stdout))
    faults = re.findall(r"^FAILED \S+::(\S+)", run.stdout, re.MULTILINE)
    if run.returncode not in (0, 1) or not cases:
        print(run.stdout, run.stderr, file=sys.stderr)
        return 2
    store("metrics", SuiteResult("metrics, against other libraries'", versions_of(*PEERS), cases, faults))
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
