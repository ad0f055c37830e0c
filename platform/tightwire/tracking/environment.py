"""Where a run was made: versions and the git commit, as tags."""

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("tightwire", "ray", "torch", "numpy", "numba", "mlflow")


def environment_tags(folder: Path) -> dict[str, str]:
    """Tags that say what a run was made with.

    Args:
        folder: The working folder.

    Returns:
        The versions of Python, Tightwire and what it stands on; and, where the folder is in a git repository,
        the commit (also under the name that the MLflow pages show) and whether tracked files differ from it.
    """
    tags = {"version.python": platform.python_version()}
    for package in _PACKAGES:
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit:
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit
        tags["git_dirty"] = str(bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))).lower()
    return tags


def _git(folder: Path, *words: str) -> str:
    """What git prints, or nothing where there is no git, no repository or no commit."""
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - git, with fixed words
            [git, "--no-optional-locks", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
