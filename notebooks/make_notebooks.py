"""Run the course and keep what comes out: `make notebooks`.

    python notebooks/make_notebooks.py                 the notebooks whose outputs are no longer those of the code
    python notebooks/make_notebooks.py 02 05 --force   these, in any case
    python notebooks/make_notebooks.py --html build/course    all of them as pages to read offline

A notebook is written as `NN_name.py` (jupytext's percent format: a review reads code) and kept, run from top to bottom
in a fresh kernel, as `NN_name.ipynb`. With it is kept a hash of all that its outputs follow from: its own cells, the
package's modules that they reach, and the configs. `make test` fails where that is no longer so.
"""

import argparse
import ast
import base64
import hashlib
import io
import os
import re
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from PIL import Image

from arcface_edu.course.widgets import WIDGET

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGE = "arcface_edu"
MINUTES = re.compile(r"\d+\.\d minutes on two cores")  # on the card; measured, so no part of what is compared
FOLDED = re.compile(r"<details>(<summary>.*?</summary>)(.*?)</details>", re.DOTALL)
CONTENTS = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>ArcFace, by running it</title>
<style>body {{ font: 18px/1.7 system-ui, sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em }}
ul {{ list-style: none; padding: 0 }}</style>
<h1>ArcFace, by running it</h1>
<ul>
{}
</ul></html>
"""
SPACED = "<style>.jp-RenderedHTMLCommon .highlight { margin-bottom: 1em }</style>"  # a command, and the text under it
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
        if not options.force and path.exists() and stored_hash(nbformat.read(path, 4)) == fresh_hash(script):
            print(f"{path.name}: as the code is")
            continue
        minutes = make(script)
        print(f"{path.name}: {minutes:.1f} minutes, {path.stat().st_size / 1000:.0f} kB", flush=True)


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


def read_script(script):
    """The notebook of a percent script, its cells named by their place: random names would change at every run."""
    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


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
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "image/png" in data:
                data["image/png"] = small_png(data["image/png"])


def small_png(encoded):
    """A base64 PNG with a palette of 160 colours: a third of the bytes, and no difference that an eye sees."""
    picture, buffer = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), io.BytesIO()
    picture.quantize(160, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode()


def stored_hash(notebook):
    return notebook.metadata.get("arcface_edu", {}).get("hash")


def fresh_hash(script):
    """Of a notebook's cells and the code that they reach, less the minutes on its card and the code's comments."""
    text = MINUTES.sub("", script.read_text())
    digest = hashlib.sha256(text.encode())
    for path in sorted(reached(text)):
        digest.update(f"{path.relative_to(ROOT)}\n{bare(path)}\n".encode())
    return digest.hexdigest()[:16]


def reached(text):
    """Files of the package that a text names, as `arcface_edu.heads` or by its configs' names, and all they import."""
    files, waiting = set(), [file for name in dotted_names(text) for file in files_of(name)]
    configs = ROOT / PACKAGE / "configs"
    waiting += [path for path in configs.rglob("*.py") if re.search(rf"\b{path.stem}\b", text) or path.stem == "base"]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            # The package's own __init__ imports nearly everything; what a notebook takes from it, `files_of` looks up.
            if path != ROOT / PACKAGE / "__init__.py":
                waiting += [file for name in dotted_names(bare(path)) for file in files_of(name)]
    return files


def dotted_names(text):
    """Modules of the package, or things in them, that a text names: in imports, in `-m` commands."""
    names = set(re.findall(rf"\b{PACKAGE}(?:\.\w+)*", text))
    for module, things in re.findall(rf"from ({PACKAGE}[\w.]*) import \(?([\w, \n]+)", text):
        names |= {f"{module}.{thing.split(' as ')[0].strip()}" for thing in things.split(",")}
    return names


def files_of(name):
    """The files that a dotted name leads to: its module, and the packages around it."""
    homes = re.findall(rf"from ({PACKAGE}[\w.]+) import ([\w, ]+)", (ROOT / PACKAGE / "__init__.py").read_text())
    public = {f"{PACKAGE}.{thing}": home for home, things in homes for thing in things.split(", ")}
    name = public.get(name, name)
    path, files = ROOT, []
    for part in name.split("."):
        path /= part
        files += [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
    return files


def bare(path):
    """A module's code without comments, docstrings and layout, which change no output."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def write_pages(scripts, folder):
    """The notebooks as HTML pages that load nothing from anywhere, and a page of contents."""
    folder.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", jquery_url="", embed_images=True)
    exporter.exclude_anchor_links = True
    rows = []
    for script in scripts:
        notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
        title = re.search(r"^# (.+)", notebook.cells[0].source).group(1)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = FOLDED.sub(fold, cell.source)
        page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title, "path": str(HERE)}})
        # Links between notebooks lead from page to page.
        page = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', page)
        (folder / f"{script.stem}.html").write_text(page.replace("</head>", f"{SPACED}</head>", 1))
        rows.append(f'<li><a href="{script.stem}.html">{title}</a></li>')
    (folder / "index.html").write_text(CONTENTS.format("\n".join(rows)))
    print(f"{len(rows)} pages: {folder / 'index.html'}")


def fold(found):
    """A hint or a solution as one piece of HTML: nbconvert would end what is folded at its first blank line."""
    return f"<details>{found[1]}{markdown2html(found[2])}</details>".replace("\n\n", "\n<!-- -->\n")


if __name__ == "__main__":
    main()
