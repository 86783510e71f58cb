"""Compare the tests that ran with those there are: `python tests/what_ran.py LOG` prints the rest and fails if there is any.

LOG is the file that GENAE_TEST_LOG named while they ran (conftest.py). Only tests marked `gpu` may be left out.
"""

import subprocess
import sys
from pathlib import Path


def collected(*options: str) -> set[str]:
    """The ids of all tests that pytest collects with these options."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *options], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 5):  # 5: nothing has the marker that was asked for
        raise SystemExit(done.stdout + done.stderr)
    return {line for line in done.stdout.splitlines() if "::" in line}


def main() -> int:
    outcomes = dict(reversed(line.split("\t")) for line in Path(sys.argv[1]).read_text().splitlines())
    there_are = collected()
    left_out = {test for test in there_are if outcomes.get(test) != "passed"}
    excused = collected("-m", "gpu")
    for test in sorted(left_out):
        print(f"{outcomes.get(test, 'deselected')}: {test}{' (for a GPU)' if test in excused else ''}")
    failed = len(left_out - excused)
    print(f"{len(there_are - left_out)} passed, {failed} failed, {len(left_out & excused)} skipped")
    return 1 if failed or not there_are else 0


if __name__ == "__main__":
    sys.exit(main())
