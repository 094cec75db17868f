"""The HTML page around what view.py gives: template, style and script in one file, every text escaped.

Data enters a page in two ways only: through the template, which escapes, and as JSON, which `script_json` makes safe.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from workflows.report.figures import Labelled, StepFigures
from workflows.storage import JSON

SCRIPTS = ("data.js", "cards.js", "timeline.js", "page.js")
IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
"""Characters that could end a script element, open a comment or end a line of script; escaped, JSON means the same."""


@dataclass(frozen=True)
class Embedded:
    """A piece of data inside the page: JSON, or a picture's data URI."""

    id: str
    text: Markup


@dataclass(frozen=True)
class PageContent:
    """Everything a page says."""

    title: str
    subtitle: str
    run: JSON
    tiles: Sequence[Labelled]
    steps: Sequence[StepFigures]
    sources: Sequence[Labelled]
    score_meaning: str
    limits: Sequence[str]
    empty_reason: Sequence[str]
    """Why there is no match; empty when there are some."""
    csv_name: str
    coco_name: str
    frames_name: str | None
    queries: Iterable[Embedded] = ()
    """Queries' columns inside the page."""
    pictures: Iterable[Embedded] = ()
    is_inline: bool = False
    """Whether the page stands alone: it then may load nothing at all."""


def render_page(content: PageContent) -> bytes:
    """The page as UTF-8."""
    script = _script()
    html = _template().render(
        content=content,
        policy=_policy(script, is_inline=content.is_inline),
        style=Markup(_asset("page.css")),
        script=Markup(script),
        run_json=script_json(content.run),
    )
    return html.encode()


def script_json(value: JSON) -> Markup:
    """JSON that may stand inside a script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(IN_SCRIPT))


def data_file(number: int, columns: JSON) -> bytes:
    """A script file that hands one query's columns to the page; a script loads where the page is a local file."""
    return f"psreidQuery({number},{script_json(columns)});\n".encode()


def picture_uri(jpeg: bytes) -> Markup:
    return Markup("data:image/jpeg;base64," + base64.b64encode(jpeg).decode())


def _policy(script: str, *, is_inline: bool) -> str:
    """What the browser may load and run: nothing from elsewhere; a page that stands alone, only its own script."""
    if not is_inline:
        return "object-src 'none'; connect-src 'none'; base-uri 'none'; form-action 'none'"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


@cache
def _script() -> str:
    return '"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS)


@cache
def _asset(name: str) -> str:
    return resources.files("workflows.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_asset("page.html"))
