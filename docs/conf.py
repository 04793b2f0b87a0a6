"""How Sphinx builds the site: `make docs` writes static pages into build/docs, to read without a network.

The guide is README and the pages of this folder, as they stand on GitHub. The pages of the reference are written here
from the package: one for its public names, one for each of its packages.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the package of this checkout comes before an installed one

import arcface_edu  # noqa: E402

project = "arcface_edu"
author = "The arcface_edu authors"
copyright = "2026, the arcface_edu authors"
version = release = arcface_edu.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["demo"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
smartquotes = False  # commands and numbers stay as they are

# Docstrings are in Google's style; types stand in the signatures.
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
default_role = "code"  # `name` in a docstring
autodoc_default_options = {"members": True, "ignore-module-all": True, "show-inheritance": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = f"arcface_edu {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_extra_path = ["explore.html"]
html_copy_source = False
html_theme_options = {"light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"}}

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
OUTSIDE_CODE = re.compile(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")
INCLUDE = re.compile(r"```\{include\} \.\./(\S+)\n```\n")
SITE_PAGES = {
    "README.md": "index.md",
    "README.ko.md": "korean.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def setup(app):
    write_reference(Path(app.srcdir) / "api")
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("autodoc-skip-member", skip_tuple_fields)


def read_page(app, page, source):
    """Put a file of the repository's root in where a page includes it, and turn links into those of the site."""
    included = INCLUDE.match(source[0])
    text = relink(source[0][included.end() if included else 0 :], ROOT / "docs")
    source[0] = relink((ROOT / included[1]).read_text(), ROOT) + text if included else text


def relink(text, folder):
    """Return a text that lies in `folder` of the repository with links of the site.

    A notebook is a page of course/, which `make docs` writes beside the site. The demo needs a server: no link.
    """

    def replace(match):
        is_picture, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in target:
            return match[0]
        try:
            path = (folder / path).resolve().relative_to(ROOT).as_posix()
        except ValueError:
            return match[0]
        if path.startswith("docs/demo/"):
            return text
        if path == "docs/explore.html":
            return f'<a href="explore.html">{text}</a>'
        if path.endswith(".ipynb"):
            return f'<a href="course/{Path(path).stem}.html">{text}</a>'
        path = SITE_PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}")
        return f"{is_picture}[{text}]({path}{'#' + anchor if anchor else ''})"

    return LINK.sub(replace, text)


def write_reference(folder):
    """Write api/index.md with the public names, and a page for each package with all its modules."""
    folder.mkdir(exist_ok=True)
    modules = [module.name for module in pkgutil.walk_packages(arcface_edu.__path__, "arcface_edu.")]
    modules = [name for name in modules if not name.endswith("__main__") and ".configs" not in name]
    packages = {"arcface_edu": [name for name in modules if name.count(".") == 1]}
    for name in modules:
        if name.count(".") > 1:
            packages.setdefault(".".join(name.split(".")[:2]), []).append(name)
    packages["arcface_edu"] = [name for name in packages["arcface_edu"] if name not in packages]
    lines = ["# Reference", "", "## Public names", "", "Import these from `arcface_edu`; they are stable.", ""]
    lines += ["| name | what it does |", "|---|---|"]
    for name in arcface_edu.__all__:
        thing = getattr(arcface_edu, name)
        first = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        lines.append(f"| {{py:obj}}`{name} <{thing.__module__}.{thing.__qualname__}>` | {first} |")
    lines += ["", "## Packages", "", "```{toctree}", ":maxdepth: 1", ""]
    lines += [name.removeprefix("arcface_edu.") for name in packages] + ["```", ""]
    write_if_new(folder / "index.md", "\n".join(lines))
    for package, names in packages.items():
        title = "The commands and what they share" if package == "arcface_edu" else package
        text = [f"# {title}", ""]
        if package != "arcface_edu" and importlib.import_module(package).__doc__:
            text += ["```{eval-rst}", f".. automodule:: {package}", "```", ""]
        for name in names:
            text += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        write_if_new(folder / f"{package.removeprefix('arcface_edu.')}.md", "\n".join(text))
    keep = {"index", *(package.removeprefix("arcface_edu.") for package in packages)}
    for path in folder.glob("*.md"):
        if path.stem not in keep:
            path.unlink()


def write_if_new(path, text):
    """Write a page, unless it is there already: Sphinx reads changed files again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def prepare_docstring(app, what, name, thing, options, lines):
    """Let `|` stand for itself in reStructuredText, and indented lines of a module's text for commands as they are."""
    for number, line in enumerate(lines):
        indented = what == "module" and line.startswith("  ")
        if indented and not lines[number - 1].strip():
            lines[number - 1] += "\n::\n"
        if not indented:
            lines[number] = OUTSIDE_CODE.sub(r"\\|", line)
    lines[:] = "\n".join(lines).split("\n")


def skip_tuple_fields(app, what, name, thing, skip, options):
    """Leave out the fields of NamedTuples, whose only text is `Alias for field number 0`."""
    return True if type(thing).__name__ == "_tuplegetter" else skip
