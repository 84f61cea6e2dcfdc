"""The peers' virtual environments, each with only what `peers.toml` pins; made when needed and kept between runs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / ".bench"
CONSTRAINTS = ROOT / "constraints.txt"


@dataclass(frozen=True)
class Environment:
    """A peer's interpreter, or why there is none.

    Args:
        python: The interpreter; None if the peer isn't installed.
        reason: Why it isn't.
        versions: The installed packages with their versions.
    """

    python: Path | None
    reason: str = ""
    versions: tuple[str, ...] = ()


def own() -> Environment:
    """Return the environment that runs this process."""
    return Environment(Path(sys.executable))


def peers() -> dict[str, list[str]]:
    """Return the packages of each peer."""
    with (HERE / "peers.toml").open("rb") as file:
        return {name: entry["packages"] for name, entry in tomllib.load(file).items()}


def install(name: str) -> Environment:
    """Return a peer's environment; create it first if it doesn't exist or its packages have changed."""
    packages = peers()[name]
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / "installed.json"
    wanted = hashlib.sha256("\n".join([*packages, CONSTRAINTS.read_text(), sys.version]).encode()).hexdigest()
    if stamp.exists():
        installed = json.loads(stamp.read_text())
        if installed["wanted"] == wanted:
            return Environment(python, versions=tuple(installed["versions"]))
    print(f"installing {' '.join(packages)} into {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "install", "--quiet", "-c", str(CONSTRAINTS), *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            return Environment(None, errors[-1][:200])
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True)
    names = {package.split("==")[0] for package in packages}
    found = json.loads(listed.stdout)
    versions = [f"{entry['name']} {entry['version']}" for entry in found if entry["name"].lower() in names]
    stamp.write_text(json.dumps({"wanted": wanted, "versions": versions}))
    return Environment(python, versions=tuple(versions))


if __name__ == "__main__":
    for peer in peers():
        print(peer, install(peer), flush=True)
