"""Writes a report as one HTML file that needs nothing else: no network, no second file."""

import hashlib
from base64 import b64encode
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from nnref.errors import UserError
from nnref.logbook.writer import now
from nnref.report.page.blocks import Image, Panel, Report
from nnref.report.page.panels import inline

LIMIT = 2_000_000  # bytes of a page, to which the tests hold it


def write(report: Report, path: Path) -> Path:
    """Write a report into an HTML file.

    Raises:
        UserError: where the file cannot be written.
    """
    text = html(report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"-o {path}: {(error.strerror or 'cannot be written').lower()}") from None
    return path


def html(report: Report) -> str:
    """A report as the text of a page."""
    style, script = asset("uPlot.min.css") + asset("report.css"), scripts()
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing but the page's own script runs in it, and nothing leaves it.
    allowed = ("img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    policy = "; ".join(("default-src 'none'", *allowed))

    def drawn(picture: Image | Panel) -> Image:
        return inline(picture) if isinstance(picture, Panel) else picture

    return template().render(
        report=report,
        drawn=drawn,
        style=style,
        script=script,
        policy=policy,
        version=version("nnref"),
        now=now(),
    )


@cache
def scripts() -> str:
    """The charts' library, with the licence that each copy must carry, and ours."""
    library = f"/*\n{asset('uPlot-LICENSE')}*/\n{asset('uPlot.iife.min.js')}"
    return f"\n{library}\n{asset('report.js')}"


def asset(name: str) -> str:
    """A file that the page is made of."""
    return (files("nnref.report.page") / "template" / name).read_text(encoding="utf-8")


@cache
def template() -> Any:
    """The page's template; what is put into it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(asset("report.html"))
