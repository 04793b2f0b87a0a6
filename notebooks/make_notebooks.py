"""Run the course and keep what comes out: `make notebooks`.

    python notebooks/make_notebooks.py                 the notebooks whose outputs are no longer those of the code
    python notebooks/make_notebooks.py 02 05 --force   these, in any case
    python notebooks/make_notebooks.py --html build/course    all of them as pages to read offline

A notebook is written as `NN_name.py` (jupytext's percent format: a review reads code) and kept, run from top to bottom
in a fresh kernel, as `NN_name.ipynb`. With it is kept a hash of all that its outputs follow from: the code of its cells
and the definitions and configs of the package that they reach (used_code.py). `make test-all` fails where that is no
longer so. Where only the text around the code has changed, the outputs stay and nothing is run.
"""

import argparse
import base64
import io
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path

import jupytext
import nbformat
from latex2mathml.converter import convert as to_mathml
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from PIL import Image
from used_code import notebook_hash

from arcface_edu.course.widgets import WIDGET

HERE = Path(__file__).parent
ROOT = HERE.parent
MINUTES = re.compile(r"\d+\.\d minutes on two cores")  # on the card; measured when the notebook is run
CHECK = re.compile(r"check_\w+\(")  # the last line of an exercise
FOLDED = re.compile(r"<details>(<summary>.*?</summary>)(.*?)</details>", re.DOTALL)
# A formula in a text, but not what stands in code.
FORMULA = re.compile(r"(```.*?```|`[^`\n]+`)|\$\$(.+?)\$\$|\$((?:[^$\n]|\n(?!\n))+?)\$", re.DOTALL)
PLACE = "formula0"
CONTENTS = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<title>ArcFace, by running it</title>
<style>body {{ font: 18px/1.7 system-ui, sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em }}
ul {{ list-style: none; padding: 0 }}</style>
<h1>ArcFace, by running it</h1>
<ul>
{}
</ul></html>
"""
# A command, or something folded, and the text under it; formulas as large as the text; dark where the reader's system
# is, by JupyterLab's own colours. Pictures are drawn on white and keep it.
LOOK = """<style>.jp-RenderedHTMLCommon .highlight, details {{ margin-bottom: 1em }} math {{ font-size: 1.15em }}
:root {{ color-scheme: light dark }}
@media (prefers-color-scheme: dark) {{ {dark}
.jp-RenderedImage img, .jp-RenderedHTMLCommon img {{ background: #fff }} }}</style>"""
# The course's address for a badge and `pip install`, the only place that names it. The project is not published yet: no
# account on GitHub can have this owner's name, since an account's name has no underscore.
REPOSITORY = "https://github.com/the_owner/arcface_edu"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
INSTALL = f'''import importlib.util

if importlib.util.find_spec("arcface_edu") is None:
    %pip install --quiet anywidget "arcface_edu @ git+{REPOSITORY}"'''
TIME_LIMIT = 1800  # seconds a cell; a busy machine takes several times what the card says


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="01, 02 ...; all if none is named")
    parser.add_argument("--force", action="store_true", help="also those whose outputs are those of the code")
    parser.add_argument("--html", type=Path, metavar="FOLDER", help="write the notebooks as they are as pages into it")
    options = parser.parse_args()
    scripts = [path for path in all_scripts() if not options.names or path.name[:2] in options.names]
    if options.html:
        write_pages(scripts, options.html)
        return
    for script in scripts:
        path = script.with_suffix(".ipynb")
        kept = nbformat.read(path, 4) if path.exists() else None
        if options.force or not kept or stored_hash(kept) != fresh_hash(script):
            minutes = make(script)
            print(f"{path.name}: {minutes:.1f} minutes, {path.stat().st_size / 1000:.0f} kB", flush=True)
        elif texts(kept) != texts(read_script(script)):
            renew_texts(script, kept)
            print(f"{path.name}: its text is new, its outputs are as they were")
        else:
            print(f"{path.name}: as the code is")


def all_scripts():
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def make(script):
    """Run a notebook and write its .ipynb.  returns: the minutes it took. The card of both files then says so."""
    notebook = read_script(script)
    began = time.perf_counter()
    run(notebook)
    minutes = (time.perf_counter() - began) / 60
    said = f"{minutes:.1f} minutes on two cores"
    script.write_text(MINUTES.sub(said, script.read_text()))
    notebook.cells[0].source = MINUTES.sub(said, notebook.cells[0].source)
    make_still(notebook)
    notebook.metadata["arcface_edu"] = {"hash": fresh_hash(script)}
    nbformat.write(notebook, script.with_suffix(".ipynb"))
    return minutes


def renew_texts(script: Path, kept: NotebookNode) -> None:
    """Write the .ipynb with the texts of the script and the outputs that are kept, cell by cell of the same code."""
    notebook = read_script(script)
    for cell, before in zip(own_cells(notebook), own_cells(kept), strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    notebook.metadata = kept.metadata
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def read_script(script):
    """The notebook of a percent script, with its badge and the cell that installs the package.

    Cells are named by their place: random names would change at every run.
    """
    notebook = jupytext.read(script)
    notebook.cells[1:1] = install_cells(script)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        if "test" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def install_cells(script: Path) -> list[NotebookNode]:
    """Return what makes a notebook run on Colab as it is: a badge that opens it there, and a cell that installs."""
    there = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    text = f"[![Open in Colab]({BADGE})]({there}/blob/main/notebooks/{script.stem}.ipynb)"
    text += "  Where the package is missing, as on Colab, the next cell installs it."
    tagged = {"metadata": {"tags": ["install"]}}
    return [nbformat.v4.new_markdown_cell(text, **tagged), nbformat.v4.new_code_cell(INSTALL, **tagged)]


def run(notebook):
    """Run all cells in a fresh kernel, in place.  raises: nbclient's CellExecutionError at the first that fails."""
    # Progress bars are for people: they would be kept as an error's output.
    os.environ["TQDM_DISABLE"] = "1"
    here = {"metadata": {"path": str(HERE)}}
    NotebookClient(
        notebook, timeout=TIME_LIMIT, store_widget_state=False, coalesce_streams=True, resources=here
    ).execute()


def make_still(notebook):
    """Keep of each output what can be shown without a kernel: of a panel its picture."""
    notebook.metadata.pop("language_info", None)  # the Python that ran it
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran
        if CHECK.match(
            cell.source.rpartition("\n")[2]
        ):  # its sentence stays; a bare "False" under it says nothing more
            cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "image/png" in data:
                data["image/png"] = small_png(data["image/png"])


def small_png(encoded):
    """A base64 PNG with a palette of 48 colours: a quarter of the bytes, and hardly a difference that an eye sees."""
    picture, buffer = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), io.BytesIO()
    picture.quantize(48, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode()


def stored_hash(notebook):
    return notebook.metadata.get("arcface_edu", {}).get("hash")


def fresh_hash(script: Path) -> str:
    """Return the hash of the code in a notebook's cells and of the code that they reach."""
    return notebook_hash([cell.source for cell in code_cells(jupytext.read(script))], ROOT)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def own_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that the script holds: all but the one that installs the package."""
    return [cell for cell in code_cells(notebook) if "install" not in cell.metadata.get("tags", [])]


def texts(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def write_pages(scripts, folder):
    """The notebooks as HTML pages that load nothing from anywhere, and a page of contents."""
    folder.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", jquery_url="", embed_images=True)
    exporter.exclude_anchor_links = True
    dark = Path(exporter.template_paths[0], "static", "theme-dark.css").read_text()
    rows = []
    for script in scripts:
        notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
        title = re.search(r"^# (.+)", notebook.cells[0].source).group(1)
        # A cell that only tests what the one before has shown is for the kernel, as is the one that installs.
        notebook.cells = [
            cell for cell in notebook.cells if not {"test", "install"} & set(cell.metadata.get("tags", []))
        ]
        formulas: list[str] = []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = FOLDED.sub(fold, FORMULA.sub(partial(typeset, formulas), cell.source))
        page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title, "path": str(HERE)}})
        for number, formula in enumerate(formulas):
            page = page.replace(f"{PLACE}{number}end", formula, 1)
        # Links between notebooks lead from page to page.
        page = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', page)
        (folder / f"{script.stem}.html").write_text(page.replace("</head>", f"{LOOK.format(dark=dark)}</head>", 1))
        rows.append(f'<li><a href="{script.stem}.html">{title}</a></li>')
    shutil.copy(ROOT / "docs" / "explore.html", folder)
    rows.append('<li><a href="explore.html">The circle, the sphere, the ring and the buckets, to move by hand</a></li>')
    (folder / "index.html").write_text(CONTENTS.format("\n".join(rows)))
    print(f"{len(rows)} pages: {folder / 'index.html'}")


def typeset(formulas: list[str], found: re.Match[str]) -> str:
    """Keep a LaTeX formula as MathML, which a browser draws by itself (MathJax would have to be loaded).

    returns: a word that takes its place until the page is made, because nbconvert would close each tag at once.
    """
    code, display, inline = found.groups()
    if code:
        return code
    formulas.append(to_mathml((display or inline).strip(), display="block" if display else "inline"))
    return f"{PLACE}{len(formulas) - 1}end"


def fold(found):
    """A hint or a solution as one piece of HTML: nbconvert would end what is folded at its first blank line."""
    return f"<details>{found[1]}{markdown2html(found[2])}</details>".replace("\n\n", "\n<!-- -->\n")


if __name__ == "__main__":
    main()
