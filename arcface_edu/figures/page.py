"""One HTML page that holds all it needs: text, tables and pictures, for light and dark screens, to send by mail."""

import base64
import io
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #5c5c5c; --paper: #fff; --line: #d9d9d9; --wash: #f4f6f8;
        --mark: #0072B2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #a8a8a8; --paper: #16191d; --line: #3a3f45; --wash: #1f242a; --mark: #56B4E9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background: var(--paper);
       font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; }
.lead { color: var(--soft); margin-top: 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tr.ours td { font-weight: 650; color: var(--mark); }
.short { white-space: pre; }
code { font-size: .88em; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.2rem;
           align-items: start; }
figure { margin: 0; padding: .6rem; background: #fff; border: 1px solid var(--line); border-radius: .5rem; }
figure.wide { grid-column: 1 / -1; justify-self: start; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
ul.notes { padding: .7rem 1rem .7rem 2rem; background: var(--wash); border-left: 4px solid var(--mark); }
"""


def page(title: str, lead: str, *parts: str) -> str:
    """Return the whole page.

    Args:
        title: Plain text.
        lead: Plain text under the title.
        parts: HTML of the functions below, in order.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="lead">{escape(lead)}</p>\n' + "\n".join(parts) + "\n</body></html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def notes(lines: Collection[str]) -> str:
    """Return remarks that must not be overlooked; nothing without lines."""
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], ours: Container[int] = ()) -> str:
    """Return a table of texts.

    Args:
        head: Column names.
        rows: The cells of each row.
        ours: Numbers of the rows to set off.
    """
    lines = [("", "th", head)] if any(head) else []
    lines += [(' class="ours"' if number in ours else "", "td", row) for number, row in enumerate(rows)]
    html = "".join(f"<tr{kind}>{''.join(_cell(tag, text) for text in row)}</tr>" for kind, tag, row in lines)
    return f'<div class="scroll"><table>{html}</table></div>'


def _cell(tag: str, text: Any) -> str:
    short = ' class="short"' if len(str(text)) < 28 else ""  # is never broken into lines
    return f"<{tag}{short}>{escape(str(text))}</{tag}>"


def figures(pictures: Mapping[str, Figure]) -> str:
    """Return matplotlib Figures by their descriptions, side by side where the screen is wide."""
    shown = []
    for description, figure in pictures.items():
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=2 * figure.dpi)  # twice the points, for dense screens
        data = base64.b64encode(stream.getvalue()).decode()
        width = round(figure.get_figwidth() * figure.dpi)
        kind = "wide" if width > 900 else "part"
        image = f'<img width="{width}" alt="{escape(description)}" src="data:image/png;base64,{data}">'
        shown.append(f'<figure class="{kind}">{image}</figure>')
    return f'<div class="figures">{"".join(shown)}</div>' if shown else ""
