"""Parts of a Python program: what it defines, and what a function of it needs."""

from __future__ import annotations

import ast
import symtable
import warnings
from collections.abc import Iterator

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parsed(code: str) -> ast.Module | None:
    """The program's tree; None if it is not Python."""
    try:
        with warnings.catch_warnings():
            # About an invalid escape in a string, which does not matter here.
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defines(tree: ast.Module, name: str) -> bool:
    """Whether a program binds a function's name at the top level, or has a class with it."""
    return any(name in _bound(each) for each in tree.body) or _class_with(tree, name) is not None


def needed(tree: ast.Module, name: str) -> str:
    """The program without what a function does not need, such as examples of its use.

    Examples may ask for input, fail, or print. A method is bound to its name as a function.

    Args:
        tree: The program.
        name: The function.

    Returns:
        Source of the statements that bind a name which the function uses, directly or by
        others; imports; and calls of methods of those, such as `sys.setrecursionlimit`.
    """
    found = _class_with(tree, name)
    own = any(name in _bound(each) for each in tree.body)
    wanted = {name} if own or found is None else {found.name}
    kept: set[int] = set()
    grown = True
    while grown:
        grown = False
        for number, statement in enumerate(tree.body):
            if number not in kept and _is_needed(statement, wanted):
                kept.add(number)
                wanted |= _used(statement)
                grown = True
    code = "\n".join(ast.unparse(tree.body[number]) for number in sorted(kept))
    if not own and found is not None:
        code += f"\n{name} = {found.name}().{name}"
    return code + "\n"


def _is_needed(statement: ast.stmt, wanted: set[str]) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    if isinstance(statement, ast.Expr):
        call = statement.value
        # `print(...)` is an example; `sys.setrecursionlimit(...)` is not.
        return (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and _root(call.func) in wanted
        )
    return bool(wanted & _bound(statement))


def _class_with(tree: ast.Module, name: str) -> ast.ClassDef | None:
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            methods = (each.name for each in statement.body if isinstance(each, _FUNCTIONS))
            if name in methods:
                return statement
    return None


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement at the top level binds, or whose value it changes."""
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        return {statement.name}
    return set(_targets(statement))


def _targets(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, (*_FUNCTIONS, ast.ClassDef)):
            yield each.name
        elif isinstance(each, ast.Import | ast.ImportFrom):
            for alias in each.names:
                yield (alias.asname or alias.name).split(".")[0]
        elif isinstance(each, ast.Name | ast.Attribute | ast.Subscript):
            # A place within a value changes the value: `memo[0] = 1`.
            yield from () if isinstance(each.ctx, ast.Load) else (_root(each),)


def _root(node: ast.expr) -> str:
    """The name before all dots and brackets; "" if it is not a name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _used(statement: ast.stmt) -> set[str]:
    """Names of the module that a statement uses: not those that its functions have within."""
    whole = symtable.symtable(ast.unparse(statement), "program", "exec")
    names, tables = set(whole.get_identifiers()), whole.get_children()
    while tables:
        table = tables.pop()
        names |= {each.get_name() for each in table.get_symbols() if each.is_global()}
        tables += table.get_children()
    return names
