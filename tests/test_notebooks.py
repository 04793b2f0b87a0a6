"""The course: every notebook is what the code makes of it, runs from top to bottom, and keeps the common form."""

import re
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import jupytext
import make_notebooks
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from make_notebooks import REPOSITORY, code_cells, own_cells, read_script
from used_code import reached

ROOT = Path(__file__).parent.parent
SCRIPTS = make_notebooks.all_scripts()
every_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def kept(script):
    return nbformat.read(script.with_suffix(".ipynb"), 4)


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def text_of(output):
    return output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))


@pytest.mark.full
@every_notebook
def test_the_outputs_are_those_of_the_code(script):
    assert make_notebooks.stored_hash(kept(script)) == make_notebooks.fresh_hash(script), (
        f"{script.stem}: its cells, or what they use of the package, have changed since; `make notebooks` runs it again"
    )
    assert make_notebooks.texts(kept(script)) == make_notebooks.texts(read_script(script)), "run `make notebooks`"
    assert all(cell.execution_count for cell in own_cells(kept(script)))


@every_notebook
def test_what_is_kept_needs_no_kernel_and_names_no_machine(script):
    path = script.with_suffix(".ipynb")
    assert path.stat().st_size <= 300_000
    assert "widgets" not in kept(script).metadata
    for output in outputs(kept(script)):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", text_of(output)
        assert make_notebooks.WIDGET not in output.get("data", {})
        assert not re.search(r"(?<![\w.])/(home|work|root|tmp|Users|usr)/|[A-Z]:\\\\", text_of(output)), text_of(output)


@every_notebook
def test_it_opens_on_colab_and_installs_the_package_there(script):
    badge, install = kept(script).cells[1:3]
    where = f"{REPOSITORY}/blob/main/notebooks/{script.stem}.ipynb"
    assert where.replace("github.com", "colab.research.google.com/github") in badge.source
    assert f"git+{REPOSITORY}" in install.source
    assert REPOSITORY not in script.read_text()  # one place names it


@pytest.mark.parametrize("missing", [True, False])
def test_the_package_is_installed_where_it_is_missing_and_only_there(missing, monkeypatch):
    called = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if missing else name)
    shell = SimpleNamespace(run_line_magic=lambda magic, line: called.append((magic, line)))
    exec(TransformerManager().transform_cell(make_notebooks.INSTALL), {"get_ipython": lambda: shell})
    assert called == [("pip", line) for _, line in called] and len(called) == missing
    assert all(line.startswith("install ") and REPOSITORY in line for _, line in called)


@every_notebook
def test_the_form_is_that_of_the_course(script):
    notebook = jupytext.read(script)
    card = notebook.cells[0].source
    assert re.match(rf"# {script.stem[:2]} · \w", card)
    assert len(make_notebooks.MINUTES.findall(card)) == 1
    place = SCRIPTS.index(script)
    for neighbour in SCRIPTS[max(0, place - 1) : place] + SCRIPTS[place + 1 : place + 2]:
        assert f"({neighbour.stem}.ipynb)" in card
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert prose.count("**Predict**") >= 3
    assert "<summary>Hint</summary>" in prose
    recap = prose.split("## Recap")[1]
    assert len(re.findall(r"^\d\. .*\?$", recap, re.MULTILINE)) == 5
    for link in re.findall(r"\]\((\.\./[^)#]+)", prose):
        assert (script.parent / link).exists(), link
    assert statistics.median(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 8


def exercise(script):
    """(source of the exercise's cell, source of its hidden solution): the cell's last line checks what it defined."""
    notebook = jupytext.read(script)
    cells = [cell.source for cell in code_cells(notebook) if re.match(r"check_\w+\(", cell.source.splitlines()[-1])]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    solutions = re.findall(r"<summary>Solution</summary>\n+```python\n(.*?)```", prose, re.DOTALL)
    assert len(cells) == len(solutions) >= 1
    return zip(cells, solutions, strict=True)


@every_notebook
def test_the_solution_passes_its_check_and_the_empty_cell_does_not(script, capsys):
    for cell, solution in exercise(script):
        *attempt, call = cell.splitlines()
        names = {}
        exec("\n".join(attempt), names)
        assert eval(call, names) is False
        assert capsys.readouterr().out.strip()  # what is missing, in words
        exec(solution, names)
        assert eval(call, names) is True


def test_no_bare_verdict_is_kept_under_an_exercise_that_nobody_has_tried():
    new = nbformat.v4
    said, value = (
        new.new_output("stream", text="It returns nothing yet.\n"),
        new.new_output("execute_result", execution_count=1),
    )
    exercise, other = (new.new_code_cell(code, outputs=[said, value]) for code in ("mine = 1\ncheck_it(mine)", "1 > 2"))
    make_notebooks.make_still(new.new_notebook(cells=[exercise, other]))
    assert (exercise.outputs, other.outputs) == ([said], [said, value])


@pytest.mark.full
@every_notebook
def test_it_runs_from_top_to_bottom(script, capsys):
    notebook = read_script(script)
    began = time.perf_counter()
    make_notebooks.run(notebook)
    with capsys.disabled():
        print(f"\n{script.stem}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    assert all(output.get("name") != "stderr" for output in outputs(notebook))


def test_new_text_keeps_the_outputs_and_new_code_does_not(tmp_path, monkeypatch, capsys):
    script = tmp_path / "09_try.py"
    script.write_text("# %% [markdown]\n# # Try: 0.0 minutes on two cores\n\n# %%\nprint(6 * 7)  # a product\n")
    runs = []

    def run(notebook):
        runs.append(notebook)
        (cell,) = own_cells(notebook)
        cell.execution_count, cell.outputs = 1, [nbformat.v4.new_output("stream", name="stdout", text="42\n")]

    monkeypatch.setattr(make_notebooks, "run", run)
    monkeypatch.setattr(make_notebooks, "all_scripts", lambda: [script])
    for old, new, said, count in (
        ("", "", "minutes, ", 1),
        ("", "", "as the code is", 1),
        ("Try:", "Another try:", "its text is new", 1),
        ("# a product", "# forty-two", "its text is new", 1),
        ("6 * 7", "7 * 6", "minutes, ", 2),
    ):
        script.write_text(script.read_text().replace(old, new))
        monkeypatch.setattr("sys.argv", ["make_notebooks.py"])
        make_notebooks.main()
        assert said in capsys.readouterr().out
        assert len(runs) == count
        assert make_notebooks.texts(kept(script)) == make_notebooks.texts(read_script(script))
        assert text_of(own_cells(kept(script))[0].outputs[0]) == "42\n"


def test_pages_draw_formulas_without_loading_anything_and_leave_tests_out(tmp_path):
    text = r"""# Try

$x_1$ in
$$\frac{a}{b} \sum_i c_i$$
and `$code$`.

<details><summary>Hint</summary>

$\theta$
</details>"""
    new = nbformat.v4
    tested = new.new_code_cell("assert x == 1", metadata={"tags": ["test"]})
    notebook = new.new_notebook(cells=[new.new_markdown_cell(text), new.new_code_cell("x = 1"), tested])
    notebook.cells[1:1] = make_notebooks.install_cells(tmp_path / "09_try.py")
    nbformat.write(notebook, tmp_path / "09_try.ipynb")
    make_notebooks.write_pages([tmp_path / "09_try.py"], tmp_path / "pages")
    page = (tmp_path / "pages" / "09_try.html").read_text()
    assert page.count("<math ") == 3 and page.count('display="block"') == 1
    assert "<msub><mi>x</mi><mn>1</mn></msub></mrow></math>" in page  # whole, tag in tag
    assert "<mfrac>" in page and "$code$" in page and r"\frac" not in page and "$x_1$" not in page
    assert REPOSITORY not in page and make_notebooks.BADGE not in page
    assert page.count("jp-InputArea-editor") - page.count(".jp-InputArea-editor") == 1
    light, dark = page.split("@media (prefers-color-scheme: dark)")
    assert "--jp-layout-color0: white" in light and "--jp-layout-color0: #111;" in dark


def test_a_notebook_reaches_what_it_imports_what_that_imports_and_what_it_runs():
    cells = [
        "from arcface_edu import build_model",
        "build_model()",
        "!python -m arcface_edu.dataset",
        'load_config("ms1mv3_r50")',
    ]
    files = {Path(part.split(":")[0]) for part in reached(cells, ROOT)}
    named = {path.relative_to("arcface_edu").as_posix() for path in files}
    assert {"models/iresnet.py", "models/prelu.py", "dataset.py", "data/recordio.py"} <= named
    assert not {"export.py", "evaluation/ijb.py"} & named
    assert {path.stem for path in files if "configs" in path.parts} == {"base", "drawn_faces", "ms1mv3_r50"}
