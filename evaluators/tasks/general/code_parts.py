"""Analyse a Python program: what it defines, and what one of its functions needs."""

from __future__ import annotations

import ast
import symtable
import textwrap
import warnings
from collections.abc import Iterator

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parsed(code: str) -> ast.Module | None:
    """Return the program's syntax tree; None if it is not Python."""
    try:
        with warnings.catch_warnings():
            # Warnings about invalid escapes in strings are irrelevant here.
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def last_definition(codes: list[str], name: str) -> ast.Module | None:
    """Return the last code that defines a function, preceded by earlier other definitions.

    Args:
        codes: Blocks of an answer in order; those that are not Python are ignored.
        name: The function. A lambda or a method of a class defines it, too; an import of it or
            its signature alone counts only where nothing else defines it.

    Returns:
        Earlier statements that do not define it, and all of the last code that does; None if
        no code defines it.
    """
    trees = [tree for code in codes if (tree := parsed(code) or parsed(textwrap.dedent(code)))]
    defining = [
        number
        for number, tree in enumerate(trees)
        if any(_binds(statement, name) for statement in tree.body)
    ]
    written = [
        number
        for number in defining
        if any(_writes(statement, name) for statement in trees[number].body)
    ]
    if not defining:
        return None
    last = (written or defining)[-1]
    earlier = (statement for tree in trees[:last] for statement in tree.body)
    helpers = [statement for statement in earlier if not _binds(statement, name)]
    return ast.Module([*helpers, *trees[last].body], [])


def _binds(statement: ast.stmt, name: str) -> bool:
    return name in _bound(statement) or _method(statement, name) is not None


def _writes(statement: ast.stmt, name: str) -> bool:
    """Whether a statement binds a name to more than an import or an empty function."""
    function = statement if isinstance(statement, _FUNCTIONS) else _method(statement, name)
    if function is not None:
        return function.name == name and not all(map(_says_nothing, function.body))
    return not isinstance(statement, ast.Import | ast.ImportFrom) and name in _bound(statement)


def _says_nothing(statement: ast.stmt) -> bool:
    """Whether it is a docstring, `...`, `pass` or `raise NotImplementedError`."""
    if isinstance(statement, ast.Raise):
        return statement.exc is not None and "NotImplementedError" in ast.unparse(statement.exc)
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def needed(tree: ast.Module, name: str) -> str:
    """Return the program without parts its function does not need, such as usage examples.

    Examples may read input, fail, or print. A method is bound to its name as a function.

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
        if isinstance(statement, ast.ClassDef) and _method(statement, name):
            return statement
    return None


def _method(statement: ast.stmt, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the method of a class with this name; None for any other statement."""
    if isinstance(statement, ast.ClassDef):
        for each in statement.body:
            if isinstance(each, _FUNCTIONS) and each.name == name:
                return each
    return None


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds, or whose value it changes."""
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
            # Assigning to an item changes the value: `memo[0] = 1`.
            yield from () if isinstance(each.ctx, ast.Load) else (_root(each),)


def _root(node: ast.expr) -> str:
    """Return the name before all dots and brackets; "" if it is not a name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _used(statement: ast.stmt) -> set[str]:
    """Return the module-level names that a statement uses, without local ones."""
    whole = symtable.symtable(ast.unparse(statement), "program", "exec")
    names, tables = set(whole.get_identifiers()), whole.get_children()
    while tables:
        table = tables.pop()
        names |= {each.get_name() for each in table.get_symbols() if each.is_global()}
        tables += table.get_children()
    return names
