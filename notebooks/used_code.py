"""The code that a notebook's outputs follow from: the definitions of the package that its cells reach.

A definition is one statement at the top of a module: a function, a class, an assignment. From the names in the cells
the search goes on to the names in what it has found, through imports, `python -m arcface_edu.x` and the names of
configs. Where a name cannot be resolved, the whole module counts. Comments, docstrings, the types of arguments and
the layout of the code are left out: they change no output.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "arcface_edu"
MODULE_TO_RUN = re.compile(rf"-m\s+({PACKAGE}(?:\.\w+)+)")
MODULE_NAME = re.compile(rf"{PACKAGE}(?:\.\w+)+")
ALWAYS = ("base", "drawn_faces")  # the config under every other one, and the one that load_config takes by itself
Scope = dict[str, list[str] | None]  # a name's import as dotted parts, or None: a variable of the function


@dataclass
class Module:
    """One file: its statements, and which of them each name stands for."""

    path: Path
    statements: list[ast.stmt]
    source: str
    bound: dict[str, list[int]] = field(default_factory=dict)  # name -> statements that define or change it
    imports: Scope = field(default_factory=dict)
    effects: list[int] = field(default_factory=list)  # statements that act when the module is imported
    main: list[int] = field(default_factory=list)  # `if __name__ == "__main__"`


@dataclass(frozen=True)
class Use:
    """What a statement uses: something by its dotted name, a module that is run, or source text that is shown."""

    parts: tuple[str, ...]
    how: str = "name"  # or "own": of the same module, "run", "show", "everything"


def notebook_hash(cells: list[str], root: Path) -> str:
    """Return the hash of the code in the cells and of all that it reaches in the package, 16 hex digits.

    Args:
        cells: The source of each code cell.
        root: The folder that holds the package.
    """
    digest = hashlib.sha256()
    for part in [*map(bare_cell, cells), *reached(cells, root)]:
        digest.update(f"{part}\n\0".encode())
    return digest.hexdigest()[:16]


def bare_cell(cell: str) -> str:
    """Return the code of a cell without comments; a cell that is not plain Python as it stands."""
    code, shell = split_cell(cell)
    return "\n".join([*map(canonical, code), *shell])


def split_cell(cell: str) -> tuple[list[ast.stmt], list[str]]:
    """Return the statements of a cell and its lines that only IPython understands; all of them if it cannot be told."""
    lines = cell.splitlines()
    shell = [line for line in lines if line.lstrip().startswith(("!", "%"))]
    try:
        code = ast.parse("\n".join(line for line in lines if line not in shell)).body
    except SyntaxError:
        return [], lines
    for statement in code:
        strip(statement)
    return code, shell


def reached(cells: list[str], root: Path) -> list[str]:
    """Return what the cells reach, sorted: `path: code` of each definition of the package, and of each whole config."""
    search = Search(root)
    everything = "\n".join(cells)
    notebook = Module(root / "notebook", [], everything)
    for cell in cells:
        code, shell = split_cell(cell)
        notebook.statements += code
        for line in shell:
            search.waiting += [Use(tuple(name.split(".")), "run") for name in MODULE_NAME.findall(line)]
    index(notebook)
    for statement in notebook.statements:
        search.waiting += uses(statement, notebook)
    search.waiting += [Use(tuple(name.split(".")), "run") for name in MODULE_TO_RUN.findall(everything)]
    search.take_configs(name for name in search.configs if re.search(rf"\b{name}\b", everything) or name in ALWAYS)
    search.run()
    return sorted(search.found.values())


class Search:
    """What has been found, and what is still to be looked up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.waiting: list[Use] = []
        self.done: set[Use] = set()
        self.found: dict[tuple[Path, int | str], str] = {}
        self.configs = {path.stem: path for path in (root / PACKAGE / "configs").rglob("*.py")}

    def run(self) -> None:
        """Look up all that is waiting and all that it leads to."""
        while self.waiting:
            use = self.waiting.pop()
            if use not in self.done and use.parts[0] == PACKAGE:
                self.done.add(use)
                self.look_up(use)

    def look_up(self, use: Use) -> None:
        """Find the module that a dotted name begins with, and in it the definition that comes next."""
        if use.how == "everything":
            for path in sorted((self.root / PACKAGE).rglob("*.py")):
                self.take_all(read_module(path))
            return
        path, rest = self.root, list(use.parts)
        module = read_module(path)
        while rest and ((path / rest[0]).is_dir() or (path / f"{rest[0]}.py").exists()):
            if use.how != "run" and len(rest) == 1 and rest[0] in module.imports:
                break  # a package may export a function under the name of one of its modules
            path /= rest.pop(0)
            module = read_module(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
            self.take(module, module.effects)
        if use.how == "run" and not rest:
            self.take(module, module.main)
        elif not rest:  # the module itself as a value: anything may be asked of it
            self.take_all(module)
        elif rest[0] in module.bound or rest[0] in module.imports:
            self.take(module, module.bound.get(rest[0], []), raw=use.how == "show")
            if target := module.imports.get(rest[0]):
                self.waiting.append(Use((*target, *rest[1:]), use.how))
        elif not rest[0].startswith("__"):
            self.take_all(module)

    def take_all(self, module: Module) -> None:
        """Take each statement of a module, and all that it imports."""
        self.take(module, [number for number in range(len(module.statements)) if number not in module.main])
        self.waiting += [Use(tuple(parts)) for parts in module.imports.values() if parts]

    def take(self, module: Module, numbers: list[int], raw: bool = False) -> None:
        """Take statements of a module by their numbers, and note what they use."""
        for number in numbers:
            statement, place = module.statements[number], module.path.relative_to(self.root).as_posix()
            if raw:
                shown = ast.get_source_segment(module.source, statement)
                self.found[module.path, f"{number} as it stands"] = f"{place}: {shown}"
            if (module.path, number) in self.found:
                continue
            self.found[module.path, number] = f"{place}: {canonical(statement)}"
            self.waiting += uses(statement, module)
            texts = {text for node in ast.walk(statement) if (text := text_of(node))}
            self.take_configs(texts & self.configs.keys())

    def take_configs(self, names: Iterator[str] | set[str]) -> None:
        """Take the configs of these names, each as a whole."""
        for name in names:
            self.take_all(read_module(self.configs[name]))


def read_module(path: Path) -> Module:
    """Return a module, read anew where the file has changed; one without statements where there is no file."""
    return parse_module(path, path.read_text() if path.is_file() else "")


@cache
def parse_module(path: Path, source: str) -> Module:
    tree = ast.parse(source)
    strip(tree)
    module = Module(path, tree.body, source)
    index(module)
    return module


def strip(tree: ast.AST) -> None:
    """Take docstrings and the types of functions out of a piece of code, in place."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and text_of(first.value) is not None:
                node.body = node.body[1:]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None


def canonical(value: object) -> str:
    """Return code as text, the same in every version of Python (which ast.dump and ast.unparse are not)."""
    if isinstance(value, list):
        return "[" + " ".join(map(canonical, value)) + "]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = [(name, part) for name, part in ast.iter_fields(value) if name not in ("ctx", "kind", "type_comment")]
    kept = [f"{name}={canonical(part)}" for name, part in fields if part is not None and part != []]
    return f"{type(value).__name__}({', '.join(kept)})"


def index(module: Module) -> None:
    """Note which statements define each name, which names are imports, and which statements only act."""
    for number, statement in enumerate(module.statements):
        is_import = isinstance(statement, (ast.Import, ast.ImportFrom))
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for node in ast.walk(statement):
                module.imports.update(imports_of(node, module.path))
        is_star = isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"
        names = [] if is_import else list(names_bound(statement))
        for name in names:
            module.bound.setdefault(name, []).append(number)
        if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
            module.main.append(number)
        elif is_star or not (names or is_import):
            module.effects.append(number)


def names_bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement defines or changes where it stands, not those of functions within it."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
        yield from (part.id for part in ast.walk(node.value) if isinstance(part, ast.Name))  # table["x"] = ...
    elif not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from names_bound(child)


def imports_of(node: ast.AST, path: Path) -> Scope:
    """Return what an import statement binds: each name as the dotted parts of what it means."""
    names: Scope = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = alias.name.split(".")
            names[alias.asname or parts[0]] = parts if alias.asname else parts[:1]
    if isinstance(node, ast.ImportFrom):
        home = node.module.split(".") if node.module else []
        if node.level:  # from .x import y
            home = [*path.parts[path.parts.index(PACKAGE) : len(path.parts) - node.level], *home]
        for alias in node.names:
            names[alias.asname or alias.name] = home if alias.name == "*" else [*home, alias.name]
    return names


def text_of(node: ast.AST) -> str | None:
    """Return a string that stands in the code."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def uses(statement: ast.stmt, module: Module) -> Iterator[Use]:
    """Yield what a statement of a module uses: by the module's imports, or what the module itself defines."""
    own = module.path.with_suffix("").parts
    own = own[own.index(PACKAGE) :] if PACKAGE in own else ()
    home = own[:-1] if own and own[-1] == "__init__" else own
    for use in visit(statement, [module.imports], module.path):
        if use.how != "own":
            yield use
        elif use.parts[0] in module.bound and home:
            yield Use((*home, *use.parts))


def visit(node: ast.AST, scopes: list[Scope], path: Path) -> Iterator[Use]:
    """Yield the uses in a piece of code; `scopes` are those of the module and of the functions around it."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        inner = [*scopes, scope_of(node, path)]
        for name, part in ast.iter_fields(node):
            for child in part if isinstance(part, list) else [part]:
                if isinstance(child, ast.AST):
                    # Defaults and decorators are computed outside of the function.
                    yield from visit(child, inner if name == "body" else scopes, path)
        return
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        yield from (Use(tuple(parts)) for parts in imports_of(node, path).values() if parts)
    if isinstance(node, ast.Call):
        yield from uses_of_call(node, scopes)
    if (text := text_of(node)) and MODULE_NAME.fullmatch(text):
        yield Use(tuple(text.split(".")), "run")
    if parts := dotted(node):
        yield resolve(parts, scopes)
        return
    for child in ast.iter_child_nodes(node):
        yield from visit(child, scopes, path)


def scope_of(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, path: Path) -> Scope:
    """Return the arguments and variables of a function, and what it imports; functions within it have their own."""
    scope: Scope = {node.arg: None for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    waiting: list[ast.AST] = [*function.body] if isinstance(function.body, list) else [function.body]
    shared: set[str] = set()
    while waiting:
        node = waiting.pop()
        scope.update(imports_of(node, path))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            scope.setdefault(node.id, None)
        elif isinstance(node, ast.Global):
            shared.update(node.names)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            scope.setdefault(node.name, None)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return {name: meant for name, meant in scope.items() if name not in shared}


def uses_of_call(call: ast.Call, scopes: list[Scope]) -> Iterator[Use]:
    """Yield what a call reaches that its names do not say: modules by a computed name, code that is printed."""
    name = (dotted(call.func) or [""])[-1]
    if name in ("import_module", "__import__", "run_module") and call.args and text_of(call.args[0]) is None:
        yield Use((PACKAGE,), "everything")
    if name == "getsource":
        for use in (resolve(parts, scopes) for argument in call.args if (parts := dotted(argument))):
            yield Use(use.parts, "show" if use.how == "name" else use.how)


def dotted(node: ast.AST) -> list[str] | None:
    """Return the parts of `a.b.c`, or None where the code is something else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return None


def resolve(parts: list[str], scopes: list[Scope]) -> Use:
    """Return what `a.b.c` means: by the innermost scope that has `a`, or else something of the module's own."""
    for scope in reversed(scopes):
        if parts[0] in scope:
            meant = scope[parts[0]]
            return Use((*meant, *parts[1:])) if meant else Use(("",))
    return Use(tuple(parts), "own")
