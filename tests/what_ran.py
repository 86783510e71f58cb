"""Compare the tests that ran with those there are: `python tests/what_ran.py LOG` prints the rest and fails if there is any.

LOG is the file that GENAE_TEST_LOG named while they ran (conftest.py). Only tests marked `gpu` may be left out.
"""

import subprocess
import sys
from pathlib import Path


def collected(*options: str) -> set[str]:
    """The ids of all tests that pytest collects with these options."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *options], capture_output=True, text=True, check=False
    ).stdout
    return {line for line in listed.splitlines() if "::" in line}


def main() -> int:
    outcomes = dict(reversed(line.split("\t")) for line in Path(sys.argv[1]).read_text().splitlines())
    left_out = {test for test in collected() if outcomes.get(test) != "passed"}
    excused = collected("-m", "gpu")
    for test in sorted(left_out):
        print(f"{outcomes.get(test, 'deselected')}: {test}{' (for a GPU)' if test in excused else ''}")
    failed = len(left_out - excused)
    print(f"{len(outcomes) - failed} passed, {failed} failed, {len(left_out & excused)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
