"""The rooms of the library, read from its imports: `python tests/house.py` draws who imports whom.

Rooms import downwards only: each may import those above it in the list that is printed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "equivae"
# From the ground up: a room may import the rooms before it.
ROOMS = (
    "_lazy",
    "secrets",
    "errors",
    "options",
    "units",
    "latent_scaling",
    "processes",
    "_moved",
    "transforms",
    "testing",
    "autoencoder",
    "files",
    "data",
    "zoo",
    "losses",
    "operators",
    "caches",
    "symmetry",
    "evaluation",
    "reporting",
    "training",
    "demo",
    "cli",
)
FACE = ("__init__", "__main__")  # only hands names on
LONGEST_FUNCTION, LONGEST_FILE = 60, 400


def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name below `equivae`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def room_of(module: str) -> str:
    return module.split(".")[0]


def _runs(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs, inside functions too; not what type checkers alone read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _runs(node)


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which modules of the library each one imports."""

    def known(name: str) -> str:
        while name and name not in trees:
            name = name.rpartition(".")[0]
        return name

    graph: dict[str, set[str]] = {name: set() for name in trees}
    for module, tree in trees.items():
        for node in _runs(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if name.split(".")[0] == "equivae" and "." in name:
                    graph[module].add(known(name.removeprefix("equivae.")))
        graph[module] -= {module, ""}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Paths that come back to where they began, one for each strongly connected part (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a room by one below it."""
    rank = {room: place for place, room in enumerate(ROOMS)}
    return [
        f"{module} imports {other}"
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if room_of(module) not in FACE and rank[room_of(other)] > rank[room_of(module)]
    ]


def long_functions(trees: dict[str, ast.Module]) -> list[str]:
    """Functions whose body, without its docstring, has more lines than fit on a screen and a half."""
    found = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_FUNCTION:
                    found.append(f"{module}.{node.name}: {lines} lines")
    return found


def long_files() -> list[str]:
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCE.rglob("*.py")}
    return [f"{p.relative_to(SOURCE)}: {n} lines" for p, n in sizes.items() if n > LONGEST_FILE]


def draw() -> str:
    """The rooms from the ground up, with those that each one imports."""
    graph = imports(modules())
    between: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, others in graph.items():
        if room_of(module) in between:
            between[room_of(module)] |= {room_of(other) for other in others}
    width = max(map(len, ROOMS))
    return "\n".join(
        f"{room:<{width}}  {', '.join(r for r in ROOMS if r in between[room] and r != room)}".rstrip()
        for room in ROOMS
    )


if __name__ == "__main__":
    print(draw())
