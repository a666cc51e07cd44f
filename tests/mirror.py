"""The mirror: torch_impl and keras_impl compared symbol by symbol, read as syntax so that no framework is loaded."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from house import IMPLEMENTATIONS, Exemptions, dotted, parse, python_files

# Names that mean the same on both sides: the left is read as the right before annotations are compared.
SAME_TYPE: Mapping[str, str] = {
    "torch.Tensor": "Tensor",
    "Tensor": "Tensor",
    "keras.KerasTensor": "Tensor",
    "torch.nn.Module": "Model",
    "nn.Module": "Model",
    "keras.Model": "Model",
    "keras.Layer": "Model",
    "keras.layers.Layer": "Model",
    "torch.optim.Optimizer": "Optimizer",
    "keras.optimizers.Optimizer": "Optimizer",
    "framework.Model": "Model",
    "framework.Trainer": "Trainer",
}
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
SAME_METHOD: Mapping[str, str] = {"forward": "call"}  # torch.nn.Module.forward is keras.Layer.call


@dataclass(frozen=True)
class Symbol:
    """What two twins must share. Equal annotations are asked for separately, since types are a framework's own."""

    form: str  # parameters with kinds and defaults; fields of a dataclass; everything but annotations
    annotations: tuple[str, ...] = ()  # in the words of SAME_TYPE
    text: str = ""  # both, to be read


def annotation_text(node: ast.AST | None) -> str:
    """An annotation as source text, with the framework's names for a type replaced by the common one."""
    if node is None:
        return ""
    text = ast.unparse(node)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    return re.sub(r"[A-Za-z_][\w.]*", lambda match: SAME_TYPE.get(match[0], match[0]), text)


def signature(function: Function) -> Symbol:
    """The signature of a function, `self` and `cls` left out."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults))
    kinds = ["/"] * len(spec.posonlyargs) + [""] * len(spec.args)
    rows = list(zip(positional, kinds, defaults + list(spec.defaults), strict=True))
    rows += [(spec.vararg, "*", None)] if spec.vararg else []
    rows += [(arg, "*, ", default) for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    rows += [(spec.kwarg, "**", None)] if spec.kwarg else []
    rows = [row for row in rows if row[0].arg not in {"self", "cls"}]

    names = [f"{kind}{arg.arg}" for arg, kind, _ in rows]
    ends = [f" = {ast.unparse(default)}" if default else "" for _, _, default in rows]
    types = [annotation_text(arg.annotation) for arg, _, _ in rows]
    typed = [f": {one}" if one else "" for one in types]
    returns = annotation_text(function.returns)
    form = ", ".join(map("".join, zip(names, ends, strict=True)))
    text = ", ".join(map("".join, zip(names, typed, ends, strict=True)))
    return Symbol(f"({form})", (*types, returns), f"({text}) -> {returns}")


def is_dataclass(node: ast.ClassDef) -> bool:
    names = (dotted(mark.func if isinstance(mark, ast.Call) else mark) for mark in node.decorator_list)
    return any(name.split(".")[-1] == "dataclass" for name in names)


def class_symbols(node: ast.ClassDef) -> dict[str, Symbol]:
    """A class, its `__init__`, public methods and, of a dataclass, its fields."""
    fields = (
        [member for member in node.body if isinstance(member, ast.AnnAssign)] if is_dataclass(node) else []
    )
    form = (
        f"dataclass of {', '.join(dotted(one.target) for one in fields)}" if is_dataclass(node) else "class"
    )
    symbols = {node.name: Symbol(form, text=form)}
    for member in node.body:
        if isinstance(member, Function) and (member.name == "__init__" or not member.name.startswith("_")):
            symbols[f"{node.name}.{SAME_METHOD.get(member.name, member.name)}"] = signature(member)
    for one in fields:
        kind, default = (
            annotation_text(one.annotation),
            f"= {ast.unparse(one.value)}" if one.value else "required",
        )
        symbols[f"{node.name}.{dotted(one.target)}"] = Symbol(default, (kind,), f"{kind} {default}")
    return symbols


def public_symbols(tree: ast.Module) -> dict[str, Symbol]:
    """Name -> what a module defines under it: public functions, and classes with their members."""
    symbols: dict[str, Symbol] = {}
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            symbols[node.name] = signature(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            symbols |= class_symbols(node)
    return symbols


def module_differences(file: str, left: ast.Module, right: ast.Module) -> dict[tuple[str, str], str]:
    """(file, symbol) -> what differs; (file, "symbol: annotations") where nothing else does."""
    ours, theirs = public_symbols(left), public_symbols(right)
    differences = {}
    for name in ours | theirs:
        one, other = ours.get(name), theirs.get(name)
        if one == other:
            continue
        key = f"{name}: annotations" if one and other and one.form == other.form else name
        said = [
            f"{side} {two.text if two else 'lacks it'}"
            for side, two in zip(IMPLEMENTATIONS, (one, other), strict=True)
        ]
        differences[file, key] = f"{file}: {key}: {'; '.join(said)}"
    return differences


def check_mirror(root: Path, exemptions: Exemptions) -> list[str]:
    """Both implementations have the same files with the same public symbols; every exemption is still needed.

    Exemptions are keyed as in `module_differences`; a file that only one side has is (file, "").
    """
    left, right = (
        {path.relative_to(root / side).as_posix(): parse(path) for path in python_files(root, side)}
        for side in IMPLEMENTATIONS
    )
    differences: dict[tuple[str, str], str] = {}
    for file in sorted(left.keys() | right.keys()):
        if file in left and file in right:
            differences |= module_differences(file, left[file], right[file])
        else:
            differences[file, ""] = f"{file} is in {IMPLEMENTATIONS[file in right]} only"
    stale = [
        f"{file}: {name} no longer differs" for file, name in exemptions if (file, name) not in differences
    ]
    return [line for key, line in differences.items() if key not in exemptions] + stale


def protocol_verbs(root: Path) -> dict[str, Symbol]:
    """Verb -> signature of `common.framework.Framework`."""
    for node in parse(root / "common" / "framework.py").body:
        if isinstance(node, ast.ClassDef) and node.name == "Framework":
            return {verb.name: signature(verb) for verb in node.body if isinstance(verb, Function)}
    raise AssertionError("common/framework.py has no class Framework")


def exported(root: Path, package: str) -> dict[str, Symbol]:
    """Public name -> what a package's `__init__.py` defines under it, or imports from the package itself."""
    tree = parse(root / package / "__init__.py")
    found = public_symbols(tree)
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        module = ".".join(filter(None, [package if node.level else "", node.module]))
        if module.split(".")[0] != package:
            continue
        source = root.joinpath(*module.split(".")).with_suffix(".py")
        symbols = public_symbols(parse(source)) if source.is_file() else {}
        for alias in node.names:
            found[alias.asname or alias.name] = symbols.get(
                alias.name, Symbol("", text="no function of the package")
            )
    return {name: symbol for name, symbol in found.items() if not name.startswith("_")}


def check_protocol(root: Path) -> list[str]:
    """Each implementation exports exactly the verbs of the Protocol, with its signatures."""
    verbs, violations = protocol_verbs(root), []
    for package in IMPLEMENTATIONS:
        if not (root / package / "__init__.py").is_file():
            violations.append(f"{package}/__init__.py does not exist")
            continue
        names = exported(root, package)
        violations += [f"{package} lacks the verb {verb}" for verb in verbs if verb not in names]
        violations += [f"{package} exports {name}, which is no verb" for name in names if name not in verbs]
        violations += [
            f"{package}.{verb} is {names[verb].text}, the Protocol says {symbol.text}"
            for verb, symbol in verbs.items()
            if verb in names and names[verb] != symbol
        ]
    return violations
