"""All benchmarks, in their short form: about five minutes on two cores.

python benchmarks/run.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHORT = {"training_step.py": ["--rounds", "9", "--seconds", "0.3"], "dispatch.py": ["--rounds", "7"]}

if __name__ == "__main__":
    failed = []
    for script in sorted(HERE.glob("*.py")):
        if script.name in ("run.py", "workloads.py"):
            continue
        print(f"\n## {script.stem}\n", flush=True)
        if subprocess.run([sys.executable, str(script), *SHORT.get(script.name, [])], check=False).returncode:
            failed.append(script.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
