"""The house rules, checked: import direction, cycles, where torch is banned, sizes, names, docstrings.

An exception needs a line in one of the tables below with its reason, so the list stays short and visible.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tunesmith"

# Packages by level; an import may only go to a lower level or stay within its own package.
LEVELS = (
    ("errors", "events", "__init__"),
    ("recipe", "numeric"),
    ("data", "weights"),
    ("adapters",),
    ("engines", "catalog"),
    ("training", "generation"),
    ("exchange", "evaluation"),
    ("jobs",),
    ("executors",),
    ("starters",),
    ("cli", "api"),
    ("__main__",),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}

HEAVY = ("diffusers", "transformers", "peft")
HEAVY_ALLOWED = ("engines", "adapters", "weights")

# Packages that load without torch, with the modules in them that may need it.
TORCH_FREE = ("errors", "events", "recipe", "data", "catalog", "jobs", "executors", "cli")
NEEDS_TORCH = {
    "data.cache": "encoded items are tensors",
    "jobs.work": "does the job",
    "weights.files": "reads tensors",
}
TORCH_FREE_EXTRA = (
    "weights.header", "weights.pickles", "weights.hashes", "weights.atomic",
    "engines.protocol", "engines.index", "engines.stable_diffusion",
)  # fmt: skip

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7

LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {
    "recipe/knobs.py:knob": "one keyword per property of a knob; every one of them is optional",
}
# Typer reads a command's flags from its signature, so commands have one parameter per flag.
COMMAND_DECORATORS = ("command", "callback")
ALLOWED_PARENTS = {
    "Protocol", "TunesmithError", "JobError", "Exception", "Enum", "StrEnum", "IntEnum", "Module", "Function",
    "NamedTuple", "TypedDict", "Unpickler", "RuntimeError", "Generic", "Mapping",
    "Adafactor", "Optimizer", "Conv2d",
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Module name without the leading `tunesmith.` -> file."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST, *, typing_too: bool, deferred_too: bool) -> Iterator[str]:
    """Every absolute module name imported, as written."""
    stack = list(ast.iter_child_nodes(tree))
    while stack:
        node = stack.pop()
        if not typing_too and is_type_checking(node):
            continue
        if not deferred_too and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        stack.extend(ast.iter_child_nodes(node))


def own(name: str) -> str | None:
    """The module of ours that an imported name lives in, without the leading `tunesmith.`."""
    if name != "tunesmith" and not name.startswith("tunesmith."):
        return None
    tail = name.removeprefix("tunesmith").lstrip(".")
    while tail and tail not in MODULES:
        tail = tail.rpartition(".")[0]
    return tail or "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name: str) -> None:
    package = name.split(".", maxsplit=1)[0]
    for target in imports(TREES[name], typing_too=True, deferred_too=True):
        other = own(target)
        if other is None or other.split(".")[0] == package:
            continue
        there = other.split(".")[0]
        assert LEVEL_OF[there] < LEVEL_OF[package], f"{name} ({package}) may not import {other} ({there})"


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("engines.")])
def test_engines_never_import_each_other(name: str) -> None:
    if name.count(".") < 1 or name in ("engines.protocol", "engines.index"):
        return
    engine = name.split(".")[1]
    for target in imports(TREES[name], typing_too=True, deferred_too=True):
        other = own(target) or ""
        if other.startswith("engines."):
            assert other.split(".")[1] in (engine, "protocol", "index"), f"{name} imports {other}"


def test_no_import_cycles() -> None:
    graph = {}
    for name, tree in TREES.items():
        targets = {own(t) for t in imports(tree, typing_too=False, deferred_too=False)}
        graph[name] = {t for t in targets if t and t != name and t != "__init__"}
    state: dict[str, int] = {}

    def visit(node: str, trail: tuple[str, ...]) -> None:
        if state.get(node) == 2:
            return
        assert state.get(node) != 1, "import cycle: " + " -> ".join((*trail, node))
        state[node] = 1
        for target in graph.get(node, ()):
            visit(target, (*trail, node))
        state[node] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_model_libraries_stay_behind_the_seam(name: str) -> None:
    if name.split(".", maxsplit=1)[0] in HEAVY_ALLOWED:
        return
    found = {t.split(".")[0] for t in imports(TREES[name], typing_too=True, deferred_too=True)} & set(HEAVY)
    assert not found, f"{name} imports {sorted(found)}; only {HEAVY_ALLOWED} may"


def test_training_and_above_name_no_engine() -> None:
    engines = [n.split(".")[1] for n in MODULES if n.startswith("engines.") and n.count(".") == 1]
    engines = [e for e in engines if e not in ("protocol", "index")]
    for name, path in MODULES.items():
        if name.split(".")[0] in ("training", "generation", "data", "adapters", "weights", "numeric", "jobs"):
            text = path.read_text()
            for engine in engines:
                assert engine not in text, f"{name} names the engine {engine}"


def test_torch_free_modules_load_without_torch() -> None:
    wanted = [n for n in MODULES if n.split(".")[0] in TORCH_FREE and n not in NEEDS_TORCH]
    wanted = [n for n in wanted if not any(n.startswith(f"{x}.") for x in NEEDS_TORCH)]
    wanted += [n for n in TORCH_FREE_EXTRA if n in MODULES]
    code = (
        "import sys, importlib\n"
        "for heavy in ('torch', 'diffusers', 'transformers', 'peft', 'matplotlib'):\n"
        "    sys.modules[heavy] = None\n"
        f"for name in {wanted!r}:\n"
        "    importlib.import_module('tunesmith' if name == '__init__' else f'tunesmith.{name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", MODULES)
def test_names_say_what_things_are(name: str) -> None:
    assert not set(name.split(".")) & FORBIDDEN_NAMES, f"{name} says nothing"


@pytest.mark.parametrize("name", MODULES)
def test_files_are_small(name: str) -> None:
    path = MODULES[name]
    lines = len(path.read_text().splitlines())
    if path.relative_to(SOURCE).as_posix() not in LONG_FILES:
        assert lines <= MAX_FILE_LINES, f"{name}: {lines} lines"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> int:
    """Lines of the body that hold code: no docstring, no blank lines, no comments."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    if not body:
        return 0
    rows = text[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(1 for row in rows if row.strip() and not row.strip().startswith("#"))


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_small(name: str) -> None:
    path = MODULES[name]
    text = path.read_text().splitlines()
    for function in functions(TREES[name]):
        key = f"{path.relative_to(SOURCE).as_posix()}:{function.name}"
        if key not in LONG_FUNCTIONS:
            assert code_lines(function, text) <= MAX_FUNCTION_LINES, f"{key}: {code_lines(function, text)} lines"


@pytest.mark.parametrize("name", MODULES)
def test_functions_take_few_parameters(name: str) -> None:
    path = MODULES[name]
    for function in functions(TREES[name]):
        key = f"{path.relative_to(SOURCE).as_posix()}:{function.name}"
        decorators = {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in function.decorator_list}
        if key in MANY_PARAMETERS or decorators & set(COMMAND_DECORATORS):
            continue
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([n for n in names if n not in ("self", "cls")])
        assert count <= MAX_PARAMETERS, f"{key}: {count} parameters"


@pytest.mark.parametrize("name", MODULES)
def test_concrete_classes_are_final(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ClassDef):
            parents = {ast.unparse(parent).split("[")[0].rpartition(".")[2] for parent in node.bases}
            assert parents <= ALLOWED_PARENTS, f"{name}.{node.name} subclasses {sorted(parents - ALLOWED_PARENTS)}"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name: str) -> None:
    tree = TREES[name]
    if MODULES[name].name != "__init__.py":
        assert ast.get_docstring(tree), f"{name} has no docstring"
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"
