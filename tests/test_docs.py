"""The documentation says what the code does: generated parts are up to date."""

import subprocess
import sys

from conftest import ROOT


def test_generated_parts_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "docs/generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
