"""Facts about this process for the record: versions and the git commit of the working folder."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("nasgraph", "torch", "optuna", "torch-geometric", "mlflow")


def environment_tags(folder: Path | None = None) -> dict[str, str]:
    """Versions of Python and of the packages that matter, and the git commit of `folder`.

    Imports none of the packages. What is not installed, and the commit outside of a git checkout, is left out.

    Args:
        folder: Where to look for a git checkout; None: the current folder.

    Returns:
        Tags such as `torch_version`, `python_version` and `git_commit`.
    """
    tags = {"python_version": platform.python_version()}
    for package in _PACKAGES:
        try:
            tags[f"{package.replace('-', '_')}_version"] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git_commit(folder or Path.cwd())
    if commit:
        tags["git_commit"] = commit
    return tags


def _git_commit(folder: Path) -> str:
    """Hash of the checked-out commit; empty where there is no git, no checkout, or no commit yet."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
