"""Packages with sources in them, as installers leave them on disk."""

from __future__ import annotations

from pathlib import Path


def installed(folder: Path, package: str, announced: dict[str, str], modules: dict[str, str]) -> Path:
    """A folder that a package is installed in: its modules, and what it announces."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    facts = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {target}\n" for name, target in announced.items()]
    (facts / "entry_points.txt").write_text("[maestro.sources]\n" + "".join(lines))
    return folder
