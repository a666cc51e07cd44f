"""What a run asks of a cluster, what is sent there and brought back: without a cluster."""

import dataclasses
import os
from pathlib import Path

import pytest
from tiny import RECIPE, SPEC, make_study, tiny_world, write_pictures

from common import config, node, shipping
from common.attempts import await_record, claim, is_complete, may_retry
from common.config import Engine, Run, Study
from common.errors import StudyError
from common.node import claim_cores
from common.options import Parser, add_study_options, engine_of
from common.ray_engine import run_on_ray
from common.resources import Demand, Memory, Node, demand_of, describe_nodes, node_of, threads_on
from common.results import FORMAT, RunRecord, write_json
from common.shipping import SOURCES, bring_home, code_files, files_to_go_on, study_files
from common.study import prepare_study
from common.workers import Ending

__all__ = ["tiny_world"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
STUDY = Study(recipes={"binary/cnn": RECIPE}, specs={"binary/cnn": SPEC})
RUN = Run("binary", "cnn", "torch", "aligned", seed=0, fold=0)


# --- resources ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "gpus", "expected"),
    [
        ([(8, 0), (4, 0)], 1, 0, 0.0, 4),  # as many as the smallest node has
        ([(8, 0), (4, 0)], 2, 0, 0.0, 2),
        ([(8, 0), (4, 0)], 1, 3, 0.0, 3),  # as asked for
        ([(0, 0), (4, 0)], 1, 0, 0.0, 4),  # a head that gives nothing away does not count
        ([(4, 0), (32, 8)], 1, 0, 1.0, 4),  # a run a GPU; nodes without one do not count
        ([(32, 8)], 1, 0, 0.5, 2),
        ([(2, 0)], 5, 0, 0.0, 1),
        ([], 1, 0, 0.0, 1),
    ],
)
def test_threads_on_a_cluster(
    nodes: list[tuple[int, int]], workers: int, threads: int, gpus: float, expected: int
) -> None:
    study = dataclasses.replace(STUDY, workers=workers, threads=threads)
    assert threads_on([Node(cpus, own, 1000) for cpus, own in nodes], study, gpus) == expected


def test_threads_are_shared_out_among_the_devices_of_a_run_and_fixed_where_bits_are_promised() -> None:
    study = dataclasses.replace(STUDY, devices=2)
    assert threads_on([Node(8, 0, 1000)], study, 0.0) == 4
    assert threads_on([Node(32, 8, 1000)], study, 2.0) == 4  # four runs of two GPUs each
    promised = dataclasses.replace(STUDY, deterministic=True)
    assert threads_on([Node(8, 0, 1000)], promised, 0.0) == config.DETERMINISTIC_THREADS


def test_a_run_asks_for_what_some_node_has() -> None:
    nodes = [Node(4, 0, 2000), Node(2, 1, 8000)]
    assert demand_of(nodes, 2, 2, 0.0, 5000) == Demand(2, 0.0, 5000)
    assert demand_of(nodes, 2, 2, 0.0, 9000) == Demand(2, 0.0, 8000)  # then it has that node for itself
    assert demand_of(nodes, 2, 2, 1.0, 9000) == Demand(2, 1.0, 8000)
    assert demand_of([Node(1, 0, 500)], 1, 2, 0.0, 300).cpus == 1  # a repeat has a thread more
    unmet = demand_of(nodes, 8, 8, 0.0, 300)
    assert unmet == Demand(8, 0.0, 300)
    assert not any(unmet.fits(one) for one in nodes)
    assert demand_of(nodes, 2, 2, 0.0, 9000).fits(nodes[1])


def test_nodes_in_words() -> None:
    found = node_of({"CPU": 4.0, "memory": 3 * 2**30, "node:10.0.0.1": 1.0})
    assert found == Node(4.0, 0.0, 3072)
    assert describe_nodes([found, found]) == "2 nodes with 8 CPUs, 0 GPUs and 6 GiB"


def test_memory_is_learned_from_finished_runs() -> None:
    def record(run: Run, peak: object, status: str = "complete") -> RunRecord:
        return RunRecord(run, Path(), {"status": status, "memory": {"peak_rss_mib": peak}})

    memory = Memory(STUDY, [record(dataclasses.replace(RUN, framework="keras-jax"), 5000.0)])
    before = memory.expected_mib(RUN)
    values = 16 * 16 * 8 + 8 * 8 * 16 + 4 * 4 * 32 + 2 * 2 * 64 + 128 + 128 + 1
    assert before == round(config.RUN_BASE_MIB + 8 * 4 * values * RECIPE.batch_size / 2**20)
    memory.learn(record(RUN, 9000.0, "failed"))
    memory.learn(record(RUN, None))
    memory.learn(None)
    assert memory.expected_mib(RUN) == before
    for peak in (600.0, 800.0, 700.0):
        memory.learn(record(dataclasses.replace(RUN, seed=4), peak))
    assert memory.expected_mib(RUN) == 1000
    assert memory.expected_mib(dataclasses.replace(RUN, lane="native")) == 1000  # nearer than a guess
    memory.learn(record(dataclasses.replace(RUN, lane="native"), 1600.0))
    assert memory.expected_mib(dataclasses.replace(RUN, lane="native")) == 2000
    assert memory.expected_mib(RUN) == 1000


def test_memory_is_that_of_all_processes_of_a_run() -> None:
    """PyTorch has one a device, each with a framework of its own; Keras has one for all."""
    shared = Memory(dataclasses.replace(STUDY, devices=4))
    alone, keras = Memory(STUDY), dataclasses.replace(RUN, framework="keras-jax")
    assert shared.expected_mib(RUN) == alone.expected_mib(RUN) + 3 * config.RUN_BASE_MIB
    assert shared.expected_mib(keras) == alone.expected_mib(keras)
    for run, processes in ((RUN, 4), (keras, 1)):  # a record tells the first process's
        document = {
            "status": "complete",
            "memory": {"peak_rss_mib": 800.0},
            "replicas": {"devices": 4, "processes": processes},
        }
        shared.learn(RunRecord(run, Path(), document))
        assert shared.expected_mib(run) == round(config.RUN_MEMORY_MARGIN * 800.0 * processes)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Ending(-9, "killed"), True),
        (Ending(None, "lost with its node"), True),
        (Ending(-9, "diverged", told=True), False),
        (Ending(2, "the data lack a class", told=True), False),
        (Ending(1, "ImportError"), False),
        (Ending(0, "no record"), False),
    ],
)
def test_what_is_tried_again(ending: Ending, expected: bool) -> None:
    assert may_retry(ending, 1) is may_retry(ending, config.RETRIES) is expected
    assert not may_retry(ending, config.RETRIES + 1)


def test_a_folder_is_listed_before_a_record_in_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that tells of a file only once its folder was listed."""
    folder, listed, iterdir, exists = tmp_path / "runs" / RUN.path, [], Path.iterdir, Path.exists
    record = {"format": FORMAT, "status": "complete", "reason": None, "run": config.to_json(RUN)}
    write_json(folder / "run.json", record)
    monkeypatch.setattr(Path, "iterdir", lambda path: (listed.append(path), iterdir(path))[1])
    monkeypatch.setattr(
        Path, "exists", lambda path: exists(path) and (path.name != "run.json" or folder in listed)
    )
    for look in (is_complete, await_record):
        listed.clear()
        assert look(tmp_path, RUN)
    listed.clear()
    with pytest.raises(StudyError, match="holds a finished run"):
        claim(folder, 1)
    assert exists(folder / "run.json")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"status": "complete"}', True),
        ('{"status": "failed"}', False),
        ('{"status": "comp', False),
        ("[]", False),
        (None, False),
    ],
)
def test_a_node_tells_whether_the_record_is_there(tmp_path: Path, text: str | None, expected: bool) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert node.says_complete(tmp_path / "run.json") is expected


# --- there and back -----------------------------------------------------------------------------------------------


def test_what_is_sent_suffices_for_a_run(tmp_path: Path, tiny_world: None) -> None:
    directory = tmp_path / "study"
    record = prepare_study(make_study(write_pictures(tmp_path / "pictures"), seeds=1), directory)
    (directory / "runs" / RUN.path).mkdir(parents=True)
    (directory / "runs" / RUN.path / "run.json").write_text("{}")
    sent = {path.relative_to(directory).as_posix() for path in study_files(directory)}
    (cache,) = record.document["caches"].values()
    assert sent >= {"study.json", "data/samples.csv", "data/split.csv", f"{cache}/cache.json"}
    assert {name for name in sent if name.endswith(".npy")} == {
        path.relative_to(directory).as_posix() for path in (directory / cache).glob("*.npy")
    }
    assert not any(name.startswith("runs/") for name in sent)
    code = {path.relative_to(ROOT).as_posix() for path in code_files(ROOT)}
    assert code >= {"common/__init__.py", "torch_impl/__main__.py", "keras_impl/layers.py"}
    assert not any("__pycache__" in name or name.startswith("tests") for name in code)
    write_json(directory / cache / SOURCES, {"a": "phantom:1/2"})  # which is drawn anywhere
    study_files(directory)
    write_json(directory / cache / SOURCES, {"a": "phantom:1/2", "b": "../../../pictures/b.png"})
    with pytest.raises(StudyError, match="a folder that all nodes share, or no --cache-limit"):
        study_files(directory)


def test_a_runs_folder_comes_home_with_its_record_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = shipping.write_atomically
    monkeypatch.setattr(
        shipping, "write_atomically", lambda path, how: (written.append(path.name), write(path, how))
    )
    under_way = {
        "run.log": b"words",
        "snapshot.json": b"{}",
        "snapshot.safetensors": b"w",
        "history.csv": b"",
    }
    bring_home(tmp_path, under_way)
    assert set(written) == {"run.log", "snapshot.json", "snapshot.safetensors"}
    assert written.index("snapshot.safetensors") < written.index("snapshot.json")
    kept = {"snapshot.json", "snapshot.safetensors", "run.log"}
    assert files_to_go_on(tmp_path) == {name: under_way[name] for name in kept}
    written.clear()
    bring_home(tmp_path, {"run.json": b"{}", "history.csv": b"epoch", "run.log": b"more", "a.npz": b""})
    assert written[-1] == "run.json"
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "history.csv", "run.log", "a.npz"}


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "a/b", "..", ""])
def test_no_node_writes_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match="a node sent a file named"):
        bring_home(tmp_path / "run", {"history.csv": b"", name: b"x"})
    assert not list(tmp_path.rglob("*"))


def test_runs_on_one_machine_have_cores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 8}, raising=False)
    with claim_cores(2, tmp_path) as first:
        with claim_cores(2, tmp_path) as second, claim_cores(2, tmp_path) as third:
            assert (first, second) == ([2, 3], [5, 7])
            assert third == [2, 3, 5, 7, 8]  # only one is free: all cores for everyone
            with claim_cores(1, tmp_path) as fourth:
                assert fourth == [8]  # which the third did not keep
        with claim_cores(3, tmp_path) as later:
            assert later == [5, 7, 8]
    with claim_cores(5, tmp_path) as everything:
        assert everything == [2, 3, 5, 7, 8]


# --- options ------------------------------------------------------------------------------------------------------


def engine_from(*words: str) -> Engine:
    parser = Parser()
    add_study_options(parser, ["torch"])
    return engine_of(parser.parse_args(words))


def test_the_engine_from_the_command_line() -> None:
    assert engine_from() == Engine("local")
    assert engine_from("--engine", "ray") == Engine("ray", None, 1.0, node_seconds=1800.0)
    assert engine_from("--engine", "ray", "--node-timeout", "90").node_seconds == 90.0
    asked = engine_from("--engine", "ray", "--address", "ray://head:10001", "--gpus-per-run", "0.5")
    assert asked == Engine("ray", "ray://head:10001", 0.5)


@pytest.mark.parametrize(
    ("gpus", "devices", "remedy"),
    [
        ("0.5", "2", r"--devices 2, .* give --gpus-per-run 1 or leave --devices out$"),
        ("0.75", "4", r"--devices 4, .* give --gpus-per-run 1 or leave --devices out$"),
        ("1.5", "1", r"no whole number, .* give --gpus-per-run 1 or 2$"),
        ("2.5", "2", r"no whole number, .* give --gpus-per-run 2 or 3$"),
    ],
)
def test_a_share_of_gpus_that_ray_does_not_give_is_refused(
    tmp_path: Path, gpus: str, devices: str, remedy: str
) -> None:
    with pytest.raises(StudyError, match=rf"^--gpus-per-run {gpus} .*{remedy}"):
        engine_from("--engine", "ray", "--gpus-per-run", gpus, "--devices", devices)
    study = dataclasses.replace(STUDY, device="cuda", devices=int(devices))
    with pytest.raises(StudyError, match=remedy):
        run_on_ray(tmp_path, study, [RUN], lambda run, event: None, Engine("ray", gpus=float(gpus)))


def test_shares_of_gpus_that_ray_gives() -> None:
    for words in (("0.3", "1"), ("1", "4"), ("2", "2")):
        engine = engine_from("--engine", "ray", "--gpus-per-run", words[0], "--devices", words[1])
        assert engine.gpus == float(words[0])


@pytest.mark.parametrize("words", [("--address", "auto"), ("--gpus-per-run", "2"), ("--node-timeout", "90")])
def test_options_of_ray_without_it_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(StudyError, match=rf"^{words[0]} {words[1]}.* is for --engine ray; add that or leave"):
        engine_from(*words)
    with pytest.raises(SystemExit):
        engine_from("--engine", "ray", "--gpus-per-run", "0")
