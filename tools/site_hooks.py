"""What the site shows that does not stand in docs/: the code that pages lead to, and notebooks."""

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from lessons import LESSONS, notebook_of  # noqa: E402


def on_files(files: Files, config: Any) -> Files:
    """Add the code, the page about speed, and each lesson as a notebook."""
    for path in sorted((ROOT / "nnref").rglob("*.py")):
        name = f"source/{path.relative_to(ROOT)}.txt"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    speed = ROOT / "benchmarks" / "README.md"
    files.append(File.generated(config, "benchmarks.md", content=speed.read_text("utf-8")))
    for page in LESSONS:
        notebook = nbformat.writes(notebook_of(page))
        files.append(File.generated(config, f"lessons/{page.stem}.ipynb", content=notebook))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to their copies; a lesson leads to its notebook."""
    markdown = re.sub(r"\]\(\.\./(nnref/\S+?\.py)\)", r"](source/\1.txt)", markdown)
    markdown = markdown.replace("](../benchmarks/README.md)", "](benchmarks.md)")
    if re.match(r"lessons/\d", page.file.src_uri):
        notebook = Path(page.file.src_uri).with_suffix(".ipynb").name
        markdown += f"\n\n[This lesson as a notebook]({notebook})\n"
    return markdown
