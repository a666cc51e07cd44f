"""The rules of the house hold for this repository, and each check finds a planted violation."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import mirror
import order
import pytest

from common.config import PROFILES

ROOT = Path(__file__).resolve().parents[1]

# (file, package) -> why this import may cross its wall.
WALL_EXEMPTIONS: dict[tuple[str, str], str] = {
    ("keras_impl/devices.py", "tensorflow"): "Keras has no words for TF32, device memory, waiting",
    ("keras_impl/devices.py", "jax"): "as tensorflow",
    ("keras_impl/devices.py", "torch"): "as tensorflow",
    ("keras_impl/layers.py", "tensorflow"): "its batch norm in one kernel, which Keras does not call",
    ("keras_impl/replicas.py", "tensorflow"): "keras.distribution does nothing there; its own strategy does",
    ("keras_impl/optimizers.py", "tensorflow"): "its Adam in one kernel, which Keras does not call",
    (
        "keras_impl/training.py",
        "jax",
    ): "a step as a function of values; Keras gives its parts, JAX compiles it",
}

# (file, symbol) -> why the two implementations differ here. A symbol that is equal must not be listed.
MIRROR_EXEMPTIONS = {
    ("cnn.py", "Cnn.call"): "Keras hands the mode down as an argument; a PyTorch module keeps it",
    ("densenet.py", "DenseNet.call"): "as in cnn.py",
    ("convnext.py", "ConvNext.call"): "as in cnn.py",
    ("unet.py", "Unet.call"): "as in cnn.py",
    ("tensors.py", "to_tensor: annotations"): "Keras takes NumPy arrays and moves them to the device itself",
    ("tensors.py", "compiles_with_xla"): "a switch of Keras's `compile`; PyTorch runs eagerly",
    (
        "tensors.py",
        "to_torch_layout",
    ): "the weights' common layout is PyTorch's own, so only Keras turns axes",
    ("tensors.py", "from_torch_layout"): "and turns them back",
    ("tensors.py", "tensor_name"): "and so are their names",
    ("tensors.py", "autocast"): "PyTorch is told the precision of a call, Keras that of a layer",
    ("replicas.py", "Dropout.call"): "as in cnn.py",
    ("devices.py", "current: annotations"): "Keras has no type for a device",
    ("training.py", "Trainer"): "on JAX it keeps a compiled step",
    ("training.py", "Trainer.stateless_step"): "as Trainer",
}

# module -> why it may be imported without being required.
OPTIONAL_MODULES: dict[str, str] = {}


def listed(violations: list[str]) -> str:
    return "\n".join(violations)


# --- the repository -----------------------------------------------------------------------------------------------


def test_no_import_crosses_a_wall() -> None:
    violations = house.check_walls(ROOT, WALL_EXEMPTIONS)
    assert not violations, listed(violations)


def test_importing_common_and_compare_loads_no_framework() -> None:
    assert frameworks_after_import(ROOT) == []


def test_implementations_mirror_each_other() -> None:
    violations = mirror.check_mirror(ROOT, MIRROR_EXEMPTIONS)
    assert not violations, listed(violations)


def test_implementations_export_the_verbs_of_the_protocol() -> None:
    violations = mirror.check_protocol(ROOT)
    assert not violations, listed(violations)


def test_top_level_entries_are_the_allowed_ones() -> None:
    violations = house.check_top_level(tracked_top_level(ROOT))
    assert not violations, listed(violations)


def test_requirements_are_pinned_alike() -> None:
    violations = house.check_pins(ROOT)
    assert not violations, listed(violations)


def test_requirements_suffice_for_one_stack_alone() -> None:
    violations = house.check_requirements_suffice(ROOT, OPTIONAL_MODULES)
    assert not violations, listed(violations)


def test_nothing_unpickles_evaluates_or_uses_a_shell() -> None:
    violations = house.check_dangerous(ROOT)
    assert not violations, listed(violations)


def test_files_that_begin_first_are_there() -> None:
    assert [name for name in order.HEAVY if not (order.TESTS / name).is_file()] == []


def test_files_are_short() -> None:
    violations = house.check_length(ROOT)
    assert not violations, listed(violations)


def tracked_top_level(root: Path) -> set[str]:
    """First path parts of every file that is in the repository, or would be after `git add .`"""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed, and only git knows what belongs to the repository")
    command = [git, "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"this folder is no git repository: {answer.stderr.strip()}")
    return {name.split("/")[0] for name in answer.stdout.split("\0") if name and (root / name).exists()}


def frameworks_after_import(root: Path) -> list[str]:
    """Frameworks in sys.modules once every module of common, and compare, was imported in a fresh process."""
    files = house.python_files(root, "common", "compare.py")
    parts = [path.relative_to(root).with_suffix("").parts for path in files]
    modules = [".".join(part for part in names if part != "__init__") for names in parts]
    code = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted(set(json.loads(sys.argv[2])) & set(sys.modules))))"
    )
    arguments = [json.dumps(modules), json.dumps(sorted(house.FRAMEWORK_PACKAGES))]
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    found: list[str] = json.loads(answer.stdout)
    return found


# --- the checks find what they are for ----------------------------------------------------------------------------


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("common/a.py", "import torch", "torch"),
        ("common/data/a.py", "from keras import ops", "keras.ops"),
        ("common/a.py", "import numpy, jax.numpy", "jax.numpy"),
        ("common/a.py", "def late():\n    import torch_impl", "torch_impl"),
        ("common/a.py", "import importlib\nimportlib.import_module('keras_impl')", "keras_impl"),
        ("common/data/a.py", "from ... import torch_impl", "torch_impl"),
        ("torch_impl/a.py", "import keras", "keras"),
        ("torch_impl/a.py", "from keras_impl import layers", "keras_impl.layers"),
        ("keras_impl/a.py", "import tensorflow as tf", "tensorflow"),
        ("keras_impl/a.py", "from torch import nn", "torch.nn"),
        ("compare.py", "import keras", "keras"),
        ("compare.py", "import torch_impl", "torch_impl"),
    ],
)
def test_wall_names_the_import(tmp_path: Path, file: str, text: str, named: str) -> None:
    line = text.count("\n") + 1
    assert house.check_walls(write_tree(tmp_path, {file: text}), {}) == [f"{file}:{line} imports {named}"]


def test_wall_lets_the_own_framework_and_near_names_pass(tmp_path: Path) -> None:
    tree = {
        "common/a.py": "from common import weights\nimport torchlike\nfrom . import b",
        "torch_impl/a.py": "import torch\nfrom common import config\nfrom torch_impl import layers",
        "keras_impl/a.py": "from keras import ops\nfrom . import layers",
        "tests/a.py": "import torch, keras",
    }
    assert house.check_walls(write_tree(tmp_path, tree), {}) == []


def test_wall_exemption_is_used_and_must_be_needed(tmp_path: Path) -> None:
    write_tree(tmp_path, {"keras_impl/a.py": "import tensorflow"})
    assert house.check_walls(tmp_path, {("keras_impl/a.py", "tensorflow"): "reason"}) == []
    stale = {("keras_impl/a.py", "tensorflow"): "reason", ("keras_impl/a.py", "jax"): "reason"}
    assert house.check_walls(tmp_path, stale) == ["keras_impl/a.py no longer imports jax"]


def test_a_hidden_import_is_seen_at_run_time(tmp_path: Path) -> None:
    tree = {"common/__init__.py": "", "common/data/a.py": "__import__('to' + 'rch')", "torch.py": ""}
    assert frameworks_after_import(write_tree(tmp_path, tree)) == ["torch"]


TWIN = "from torch import nn\ndef build(spec: str, *, size: int = 3) -> nn.Module: ..."


@pytest.mark.parametrize(
    ("twin", "key"),
    [
        ("def build(spec: str, *, size: int = 4) -> keras.Model: ...", "build"),
        ("def build(spec: str, size: int = 3) -> keras.Model: ...", "build"),
        ("def build(name: str, *, size: int = 3) -> keras.Model: ...", "build"),
        ("def build(spec: str) -> keras.Model: ...", "build"),
        ("def build(spec: str, *, size: int = 3, **more: int) -> keras.Model: ...", "build"),
        ("def _build(spec: str, *, size: int = 3) -> keras.Model: ...", "build"),
        ("def build(spec: int, *, size: int = 3) -> keras.Model: ...", "build: annotations"),
        ("def build(spec: str, *, size: int = 3) -> str: ...", "build: annotations"),
        ("def build(spec, *, size: int = 3) -> keras.Model: ...", "build: annotations"),
    ],
)
def test_mirror_names_a_differing_function(tmp_path: Path, twin: str, key: str) -> None:
    write_tree(tmp_path, {"torch_impl/a.py": TWIN, "keras_impl/a.py": twin})
    (violation,) = mirror.check_mirror(tmp_path, {})
    assert violation.startswith(
        f"a.py: {key}: torch_impl (spec: str, *, size: int = 3) -> Model; keras_impl "
    )
    assert mirror.check_mirror(tmp_path, {("a.py", key): "reason"}) == []


def test_mirror_exemption_of_annotations_excuses_nothing_else(tmp_path: Path) -> None:
    write_tree(tmp_path, {"torch_impl/a.py": TWIN, "keras_impl/a.py": "def build(spec: int) -> str: ..."})
    assert len(mirror.check_mirror(tmp_path, {("a.py", "build: annotations"): "reason"})) == 2


def test_mirror_reads_a_frameworks_types_as_equal(tmp_path: Path) -> None:
    twin = "import keras\ndef build(spec: str, *, size: int = 3) -> keras.Model: ...\ndef _own(): ..."
    write_tree(tmp_path, {"torch_impl/a.py": TWIN, "keras_impl/a.py": twin})
    assert mirror.check_mirror(tmp_path, {}) == []
    assert mirror.check_mirror(tmp_path, {("a.py", "build"): "reason"}) == ["a.py: build no longer differs"]


def test_mirror_compares_order_of_parameters(tmp_path: Path) -> None:
    write_tree(tmp_path, {"torch_impl/a.py": "def f(a, b): ...", "keras_impl/a.py": "def f(b, a): ..."})
    assert len(mirror.check_mirror(tmp_path, {})) == 1


def test_mirror_names_a_file_without_twin(tmp_path: Path) -> None:
    write_tree(tmp_path, {"torch_impl/a.py": "", "keras_impl/a.py": "", "keras_impl/deep/b.py": ""})
    assert mirror.check_mirror(tmp_path, {}) == ["deep/b.py is in keras_impl only"]


CLASS = """
@dataclass(frozen=True)
class Trainer:
    model: nn.Module
    rate: float = 0.1
    def step(self, n): ...
"""


@pytest.mark.parametrize(
    ("old", "new", "symbol"),
    [
        ("rate: float = 0.1", "rate: float = 0.2", "Trainer.rate"),
        ("rate: float", "rate: int", "Trainer.rate: annotations"),
        ("model: nn.Module", "model: str", "Trainer.model: annotations"),
        ("def step(self, n)", "def step(self, n, m)", "Trainer.step"),
        (
            "    model: nn.Module\n    rate: float = 0.1",
            "    rate: float = 0.1\n    model: nn.Module",
            "Trainer",
        ),
        ("@dataclass(frozen=True)\n", "", "Trainer"),
    ],
)
def test_mirror_compares_classes(tmp_path: Path, old: str, new: str, symbol: str) -> None:
    write_tree(
        tmp_path, {"torch_impl/a.py": CLASS, "keras_impl/a.py": CLASS.replace("nn.Module", "keras.Model")}
    )
    assert mirror.check_mirror(tmp_path, {}) == []
    write_tree(tmp_path, {"keras_impl/a.py": CLASS.replace(old, new)})
    assert f"a.py: {symbol}: " in mirror.check_mirror(tmp_path, {})[0]


def test_mirror_takes_forward_for_call(tmp_path: Path) -> None:
    tree = {
        "torch_impl/a.py": "class Cnn(nn.Module):\n def forward(self, x: torch.Tensor) -> nn.Module: ...",
        "keras_impl/a.py": "class Cnn(keras.Model):\n def call(self, x: keras.KerasTensor) -> keras.Layer: ...",
    }
    assert mirror.check_mirror(write_tree(tmp_path, tree), {}) == []


PROTOCOL = "class Framework(Protocol):\n    def name(self) -> str: ...\n    def build(self, spec: Spec) -> Model: ..."
FAITHFUL = {
    "common/framework.py": PROTOCOL,
    "torch_impl/__init__.py": "from torch_impl.a import build\nfrom common.x import y\ndef name() -> str: ...",
    "torch_impl/a.py": "def build(spec: Spec) -> nn.Module: ...",
    "keras_impl/__init__.py": "from .a import build\nfrom .a import name",
    "keras_impl/a.py": "def build(spec: Spec) -> keras.Model: ...\ndef name() -> str: ...",
}


def test_protocol_accepts_a_faithful_package(tmp_path: Path) -> None:
    assert mirror.check_protocol(write_tree(tmp_path, FAITHFUL)) == []


@pytest.mark.parametrize(
    ("file", "text", "violation"),
    [
        ("keras_impl/__init__.py", "from .a import name", "keras_impl lacks the verb build"),
        (
            "keras_impl/__init__.py",
            "from .a import build, name\ndef fit(): ...",
            "keras_impl exports fit, which is no verb",
        ),
        (
            "torch_impl/a.py",
            "def build(spec: Spec, size=1) -> nn.Module: ...",
            "torch_impl.build is (spec: Spec, size = 1) -> Model, the Protocol says (spec: Spec) -> Model",
        ),
        (
            "torch_impl/a.py",
            "build = 3",
            "torch_impl.build is no function of the package, the Protocol says (spec: Spec) -> Model",
        ),
    ],
)
def test_protocol_names_the_verb(tmp_path: Path, file: str, text: str, violation: str) -> None:
    assert mirror.check_protocol(write_tree(tmp_path, FAITHFUL | {file: text})) == [violation]


def test_protocol_names_a_missing_package(tmp_path: Path) -> None:
    tree = {name: text for name, text in FAITHFUL.items() if not name.startswith("keras_impl")}
    assert mirror.check_protocol(write_tree(tmp_path, tree)) == ["keras_impl/__init__.py does not exist"]


def test_top_level_names_strays_and_gaps() -> None:
    entries = house.TOP_LEVEL_REQUIRED | {"benchmarks"}
    assert house.check_top_level(entries) == []
    assert house.check_top_level(entries | {"utils.py"}) == ["utils.py does not belong at the top level"]
    assert house.check_top_level(entries - {"README.md"}) == ["README.md is missing"]


REQUIREMENTS = {
    "requirements.txt": "-r torch_impl/requirements.txt\n-r keras_impl/requirements.txt\n",
    "common/requirements.txt": "numpy==2.4.6  # arrays\nscikit_learn==1.9.1\n",
    "torch_impl/requirements.txt": "-r ../common/requirements.txt\ntorch==2.13.0\n",
    "keras_impl/requirements.txt": "# or: pip install torch==2.13.0.\n-r ../common/requirements.txt\nkeras==3.15.1\n",
    "tests/requirements.txt": "pytest==9.2.0\n",
}


def test_pins_accept_agreeing_files(tmp_path: Path) -> None:
    assert house.check_pins(write_tree(tmp_path, REQUIREMENTS)) == []


@pytest.mark.parametrize("line", ["pytest>=9", "pytest", "pytest==9.*", "pytest~=9.2", "pytest==9.2,!=9.3"])
def test_pins_name_a_loose_requirement(tmp_path: Path, line: str) -> None:
    write_tree(tmp_path, REQUIREMENTS | {"tests/requirements.txt": f"{line}\n"})
    assert house.check_pins(tmp_path) == ["tests/requirements.txt: pytest is not pinned with =="]


@pytest.mark.parametrize("line", ["torch==2.12.0", "# pip install torch==2.12.0", "Scikit-Learn==1.9.0"])
def test_pins_name_a_disagreement(tmp_path: Path, line: str) -> None:
    write_tree(tmp_path, REQUIREMENTS | {"tests/requirements.txt": f"{line}\n"})
    (violation,) = house.check_pins(tmp_path)
    assert "is pinned differently" in violation
    assert "tests/requirements.txt" in violation


def test_requirements_must_cover_what_is_imported(tmp_path: Path) -> None:
    tree = {
        "common/a.py": "import json\nimport numpy\nfrom sklearn import metrics\nfrom . import b",
        "keras_impl/a.py": "import keras\nimport numpy\ndef late():\n    import rarely_there",
        "torch_impl/a.py": "import torch",
    }
    write_tree(tmp_path, REQUIREMENTS | tree)
    assert house.check_requirements_suffice(tmp_path, {}) == []
    write_tree(tmp_path, {"common/b.py": "import ray"})
    assert house.check_requirements_suffice(tmp_path, {}) == [
        "common/b.py:1 imports ray, which common/requirements.txt lacks"
    ]
    assert house.check_requirements_suffice(tmp_path, {"ray": "reason"}) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import pickle", "imports pickle"),
        ("from joblib import load", "imports joblib.load"),
        ("from torch import load", "imports torch.load"),
        ("torch.load('f')", "calls torch.load"),
        ("eval('1')", "calls eval"),
        ("exec('1')", "calls exec"),
        ("subprocess.run('ls', shell=True)", "passes shell=True"),
        ("subprocess.run('ls', shell=flag)", "passes shell=flag"),
        ("np.load('f', allow_pickle=True)", "passes allow_pickle=True"),
        ("os.system('ls')", "calls os.system"),
    ],
)
def test_danger_is_named(tmp_path: Path, text: str, said: str) -> None:
    write_tree(tmp_path, {"benchmarks/a.py": text, "tests/b.py": text})
    assert house.check_dangerous(tmp_path) == [f"benchmarks/a.py:1 {said}"]


def test_harmless_namesakes_pass(tmp_path: Path) -> None:
    text = "model.eval()\nre.compile('a')\nmodel.compile(loss)\nnp.load('f', allow_pickle=False)\nrun(shell=False)"
    assert house.check_dangerous(write_tree(tmp_path, {"common/a.py": text})) == []


def test_length_is_counted(tmp_path: Path) -> None:
    long = "x = 1\n" * house.MAX_LINES
    write_tree(tmp_path, {"common/a.py": long, "common/b.py": long[6:], "tests/c.py": long})
    assert house.check_length(tmp_path) == ["common/a.py has 400 lines; fewer than 400 are allowed"]


# --- the README ---------------------------------------------------------------------------------------------------


def test_readme_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_states_the_numbers_of_the_profiles() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for profile in PROFILES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{profile.name}`"))
        cells = [cell.strip() for cell in row.split("|")[2:5]]
        seeds = f"{profile.seeds}" + (f" x {profile.folds} patient folds" if profile.folds > 1 else "")
        epochs = " / ".join(map(str, profile.epochs.values()))
        assert cells == [str(profile.phantom.patients), epochs, seeds]
