"""The rules of the house as functions: each reads the files below `root` and returns one line a violation.

Nothing here imports the code it judges; everything is read as text or syntax, so no framework is loaded.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

FRAMEWORK_PACKAGES = frozenset({"torch", "torchvision", "tensorflow", "keras", "jax", "jaxlib", "flax"})
IMPLEMENTATIONS = ("torch_impl", "keras_impl")
TOP_LEVEL_REQUIRED = frozenset(
    {"common", "torch_impl", "keras_impl", "compare.py", "requirements.txt", "README.md", "results"}
    | {"tests", "pyproject.toml", "Makefile", ".ci", ".gitignore", "LICENSE", "CHANGELOG.md"}
)
TOP_LEVEL_OPTIONAL = frozenset(
    {"benchmarks", ".pre-commit-config.yaml", ".gitattributes", ".github", ".editorconfig", ".dockerignore"}
)

# What may not be imported where. `from x import y` counts as x and x.y, and imports inside functions count too.
WALLS: Mapping[str, frozenset[str]] = {
    "common": FRAMEWORK_PACKAGES | {"torch_impl", "keras_impl", "compare"},
    "torch_impl": (FRAMEWORK_PACKAGES - {"torch"}) | {"keras_impl", "compare"},
    "keras_impl": (FRAMEWORK_PACKAGES - {"keras"}) | {"torch_impl", "compare"},
    "compare.py": FRAMEWORK_PACKAGES | {"torch_impl", "keras_impl"},
}
FORBIDDEN_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"})
FORBIDDEN_BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
FORBIDDEN_CALLS = frozenset(
    {"torch.load", "torch.save", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pd.read_pickle"}
    | {"pandas.read_pickle", "subprocess.getoutput", "subprocess.getstatusoutput"}
)
MAX_LINES = 400
# One file decides all numbers: it may grow where others are to be divided.
LONG_FILES = frozenset({"common/config.py"})

Exemptions = Mapping[tuple[str, str], str]  # (file, what) -> why


# --- files and imports --------------------------------------------------------------------------------------------


def python_files(root: Path, *parts: str) -> list[Path]:
    """The Python files of the named top-level folders and files, or of all that are not hidden, sorted."""
    tops = [root / part for part in parts] if parts else sorted(root.iterdir())
    found: list[Path] = []
    for top in tops:
        if top.is_dir() and not top.name.startswith(".") and top.name != "results":
            found += [path for path in top.rglob("*.py") if "__pycache__" not in path.parts]
        elif top.suffix == ".py" and top.is_file():
            found.append(top)
    return sorted(found)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; a relative one is spelt out from its `package`, e.g. `common.data`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if package else []
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}".lstrip(".")) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = dotted(node.func)
            if called in {"importlib.import_module", "import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def package_of(path: Path, root: Path) -> str:
    """The package that a file's relative imports start from."""
    return ".".join(path.relative_to(root).parent.parts)


def check_walls(root: Path, exemptions: Exemptions) -> list[str]:
    """No import crosses a wall; every exemption is still needed."""
    violations, used = [], set()
    for top, forbidden in WALLS.items():
        for path in python_files(root, top):
            file = path.relative_to(root).as_posix()
            for line, name in imports(parse(path), package_of(path, root)):
                first = name.split(".")[0]
                if first not in forbidden:
                    continue
                if (file, first) in exemptions:
                    used.add((file, first))
                else:
                    violations.append(f"{file}:{line} imports {name}")
    return violations + [
        f"{file} no longer imports {name}" for file, name in exemptions if (file, name) not in used
    ]


# --- the tree -----------------------------------------------------------------------------------------------------


def check_top_level(names: Collection[str]) -> list[str]:
    """The repository's top-level entries are exactly the allowed ones."""
    present = set(names)
    extra = sorted(present - TOP_LEVEL_REQUIRED - TOP_LEVEL_OPTIONAL)
    missing = sorted(TOP_LEVEL_REQUIRED - present)
    return [f"{name} does not belong at the top level" for name in extra] + [
        f"{name} is missing" for name in missing
    ]


def check_length(root: Path) -> list[str]:
    """No Python file outside tests reaches MAX_LINES lines, but for LONG_FILES."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in product_files(root)}
    return [
        f"{path.relative_to(root).as_posix()} has {lines} lines; fewer than {MAX_LINES} are allowed"
        for path, lines in lengths.items()
        if lines >= MAX_LINES and path.relative_to(root).as_posix() not in LONG_FILES
    ]


def product_files(root: Path) -> list[Path]:
    """Every Python file outside tests."""
    return [path for path in python_files(root) if path.relative_to(root).parts[0] != "tests"]


def check_dangerous(root: Path) -> list[str]:
    """Nothing outside tests unpickles, evaluates text as code, or hands text to a shell."""
    violations = []
    for path in product_files(root):
        file, tree = path.relative_to(root).as_posix(), parse(path)
        for line, name in imports(tree, package_of(path, root)):
            if name.split(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS:
                violations.append(f"{file}:{line} imports {name}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = dotted(node.func)
            if called in FORBIDDEN_BUILTINS or called in FORBIDDEN_CALLS:
                violations.append(f"{file}:{node.lineno} calls {called}")
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in {"shell", "allow_pickle"} and not off:
                    violations.append(
                        f"{file}:{node.lineno} passes {keyword.arg}={ast.unparse(keyword.value)}"
                    )
    return violations


# --- requirements -------------------------------------------------------------------------------------------------

REQUIREMENT_FILES = tuple(
    f"{folder}requirements.txt" for folder in ("", "common/", "torch_impl/", "keras_impl/", "tests/")
)
DISTRIBUTION = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
}  # where it has another name


def pinned(root: Path, file: str) -> dict[str, str]:
    """Distribution -> pin of a requirements file and all that it includes; an unpinned one has the pin ""."""
    pins: dict[str, str] = {}
    for raw in (root / file).read_text(encoding="utf-8").splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("-r "):
            included = (root / file).parent / line.removeprefix("-r ").strip()
            pins |= pinned(root, included.resolve().relative_to(root.resolve()).as_posix())
        elif line:
            match = re.fullmatch(r"([A-Za-z0-9._-]+)(\[[\w,-]+\])?==([\w.+!-]+)(\s*;.*)?", line)
            name = match[1] if match else re.split(r"[^A-Za-z0-9._-]", line)[0]
            pins[normal_name(name)] = match[3] if match else ""
    return pins


def normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_pins(root: Path) -> list[str]:
    """Every requirement is pinned with `==`, and no version differs between files, their comments included."""
    violations, versions = [], dict[str, dict[str, str]]()
    for file in REQUIREMENT_FILES:
        violations += [
            f"{file}: {name} is not pinned with ==" for name, pin in pinned(root, file).items() if not pin
        ]
        for name, pin in re.findall(
            r"([A-Za-z0-9._-]+)==([\w.+!-]*\w)", (root / file).read_text(encoding="utf-8")
        ):
            versions.setdefault(normal_name(name), {})[file] = pin
    return violations + [
        f"{name} is pinned differently: {files}"
        for name, files in versions.items()
        if len(set(files.values())) > 1
    ]


def check_requirements_suffice(root: Path, optional: Mapping[str, str]) -> list[str]:
    """What a package imports when it is imported is in the requirements of its own stack.

    Imports inside functions are a package's own business: they may be optional. `optional`: module -> why.
    """
    violations = []
    own = {"common", *IMPLEMENTATIONS, "compare"} | set(sys.stdlib_module_names) | set(optional)
    for package in ("common", *IMPLEMENTATIONS):
        available = pinned(root, f"{package}/requirements.txt")
        for path in python_files(root, package):
            tree = parse(path)
            lazy = {
                id(inner)
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef)
                for inner in ast.walk(node)
            }
            eager = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in lazy
            ]
            for node in eager:
                for line, name in imports(node, package_of(path, root)):
                    first = name.split(".")[0]
                    if first not in own and normal_name(DISTRIBUTION.get(first, first)) not in available:
                        file = path.relative_to(root).as_posix()
                        violations.append(
                            f"{file}:{line} imports {first}, which {package}/requirements.txt lacks"
                        )
    return violations
