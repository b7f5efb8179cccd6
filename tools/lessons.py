"""Lessons as notebooks: a page of docs/lessons becomes one, is run, and gives its picture.

python tools/lessons.py [NAME ...]    build/lessons/NAME.ipynb, and docs/lessons/NAME.png anew
"""

import base64
import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("[0-9]*.md"))
SECONDS = 600  # for one cell; on two free cores a lesson takes less than 60


def notebook_of(page: Path) -> Any:
    """The notebook of a page: its Python as cells, all else as text, without its pictures."""
    text = re.sub(r"^!\[.*\n", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = []
    for n, part in enumerate(re.split(r"^```(python)\n|^```\n", text, flags=re.MULTILINE)[::2]):
        kind = nbformat.v4.new_code_cell if n % 2 else nbformat.v4.new_markdown_cell
        cells += [kind(part.strip(), id=f"cell-{n}")] if part.strip() else []
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def executed(page: Path, folder: Path) -> Any:
    """The notebook of a page after it was run in a folder; an error of a cell is raised."""
    notebook = notebook_of(page)
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}})
    client.execute()
    return notebook


def picture(notebook: Any) -> bytes | None:
    """The first picture that a notebook shows, as PNG."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    shown = [out.data["image/png"] for out in outputs if "image/png" in out.get("data", {})]
    return base64.b64decode(shown[0]) if shown else None


def main(names: list[str]) -> None:
    """Run lessons, all or those named, and write notebooks and pictures."""
    build = ROOT / "build" / "lessons"
    build.mkdir(parents=True, exist_ok=True)
    for page in [p for p in LESSONS if not names or p.stem in names]:
        begun = time.perf_counter()
        notebook = executed(page, build)
        nbformat.write(notebook, build / f"{page.stem}.ipynb")
        drawn = Image.open(io.BytesIO(picture(notebook) or b"")).convert("RGB")
        drawn.quantize(32).save(page.with_suffix(".png"), optimize=True)
        print(f"{page.stem}: {time.perf_counter() - begun:.0f} s")
        for cell in notebook.cells:
            for out in cell.get("outputs", []):
                print(out.get("text", ""), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
