"""The frameworks are extras: regraft names none of them on import."""

import os
import subprocess
import sys


def test_importing_the_package_imports_no_framework():
    frameworks = {"lightning", "transformers", "accelerate", "keras"}
    code = (
        "import sys, regraft.integrations;"
        f"print(sorted({frameworks!r} & {{m.split('.')[0] for m in sys.modules}}))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
