"""Public names, and whether their docstrings have examples."""

import dataclasses
import inspect
import re

from .pages import ROOT


def fields(kind):
    """Names of the fields of a class that holds some, which its docstring describes."""
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    kinds = kind.__mro__
    return {
        name for k in kinds for name in (*getattr(k, "_fields", ()), *vars(k).get("__slots__", ()))
    }


def members(kind):
    """Public methods and properties of a class, but for those of Python's own."""
    own = [base for base in kind.__mro__ if base.__module__.startswith(("halfspace", "attention"))]
    names = {name for base in own for name in vars(base) if not name.startswith("_")}
    return sorted(names - fields(kind))


def has_example(thing):
    return ">>>" in (inspect.getdoc(thing) or "")


def has_own_or_inherited_example(kind, name):
    return any(has_example(vars(base)[name]) for base in kind.__mro__ if name in vars(base))


def public(module):
    """Names of a module, those of its modules, and the members of its classes."""
    for name in module.__all__:
        thing = getattr(module, name)
        path = f"{module.__name__}.{name}"
        if inspect.ismodule(thing):
            if hasattr(thing, "__all__"):
                yield from public(thing)
            continue
        yield path, has_example(thing)
        if inspect.isclass(thing):
            for member in members(thing):
                yield f"{path}.{member}", has_own_or_inherited_example(thing, member)


def not_shown(kind):
    """Members of a class that its own example does not use: for twins of classes with many."""
    shown = "\n".join(re.findall(r"^(?:>>>|\.\.\.).*$", inspect.getdoc(kind), re.MULTILINE))
    return [name for name in members(kind) if not re.search(rf"\.{name}\b", shown)]


def listed():
    """Names that the pages of the API list, by page."""
    for page in ("halfspace", "attention"):
        text = (ROOT / "docs" / "api" / f"{page}.md").read_text(encoding="utf-8")
        for name in re.findall(r"^   ([\w.]+)$", text, re.MULTILINE):
            yield page, name
