"""A Ray cluster: joining it or starting one here, what its nodes have, and what frameworks say on one of them."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common import config, engines, fence, interpreters, measure, node, parcels, workers
from common.codebase import ROOT
from common.config import RECORDED_VARIABLES, Engine
from common.errors import StudyError
from common.resources import Node, describe_nodes, node_of
from common.shipping import code_files, pack

INSTALL_RAY = "pip install -r common/requirements-ray.txt"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; a worker's environment is ours to set
}
CLIENT = "ray://"
REMEDY = (
    "give --address as `ray start` named it, from a node of the cluster, or ray://HOST:10001 from elsewhere"
)
FRAME_HEAD_BYTES, SETTINGS_FRAME = 9, 4  # of HTTP/2: three of the length, type, flags, four of the stream
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS_FRAME, 0, 0, 0, 0, 0])


@contextlib.contextmanager
def connected(engine: Engine) -> Iterator[Any]:
    """The module `ray`, joined to the engine's cluster; left again where it was not joined before.

    Raises StudyError where Ray is not installed or the cluster does not answer.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise StudyError(
            f"the engine 'ray' needs the package ray, which is not installed here; run `{INSTALL_RAY}`"
        ) from None
    for module in (workers, fence, parcels, node):  # by value, so that a node needs nothing of ours installed
        ray.cloudpickle.register_pickle_by_value(module)
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if engine.address is None:
        os.environ.setdefault("RAY_worker_niceness", "0")  # as local processes have it
        options |= {
            "num_cpus": measure.usable_cores(),
            "object_store_memory": config.RAY_STORE_BYTES,
            "include_dashboard": False,
        }
    else:
        check_address(engine.address)
    try:
        ray.init(address=engine.address or "local", **options)
    except Exception as error:  # Ray raises anything here, a bare Exception too
        lines = str(error).strip().splitlines() or [type(error).__name__]
        said = (
            lines[-1] if lines[0].endswith(":") else lines[0]
        )  # of a traceback, as Ray's client server sends one
        raise StudyError(
            f"the Ray cluster {engine.address or 'of this machine'} cannot be joined ({said[:300]}); {REMEDY}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise StudyError unless there is something at a cluster's address that speaks as Ray does: gRPC, over HTTP/2.

    Ray itself tries for minutes. An address that names no port is left to it.
    """
    where = _found_by_ray() or address if address == "auto" else address
    host, _, port = where.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), config.RAY_CONNECT_SECONDS) as stream:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):  # which begins otherwise
                return
            stream.settimeout(config.RAY_CONNECT_SECONDS)
            stream.sendall(GREETING)
            if not _greets(stream):
                fault = "what listens there is no Ray cluster"
            else:
                return
    except TimeoutError:
        fault = f"there is no answer in {config.RAY_CONNECT_SECONDS:g} s"
    except (OSError, OverflowError) as error:
        fault = getattr(error, "strerror", None) or str(error)
    raise StudyError(f"the Ray cluster {where} cannot be joined ({fault}); {REMEDY}")


def _found_by_ray() -> str | None:
    """What `auto` stands for: RAY_ADDRESS, else the cluster that was last started here, which may be gone; None where
    Ray does not tell.
    """
    with contextlib.suppress(Exception):  # raised where there is none; and it is not Ray's public interface
        from ray._private.services import get_ray_address_from_environment

        return str(get_ray_address_from_environment("auto", None))
    return None


def _greets(stream: socket.socket) -> bool:
    """Whether the other side begins with HTTP/2's frame of settings, as each must: RFC 9113, 3.4 and 4.1."""
    head = b""
    while len(head) < FRAME_HEAD_BYTES and (more := stream.recv(FRAME_HEAD_BYTES - len(head))):
        head += more
    return len(head) == FRAME_HEAD_BYTES and head[3] == SETTINGS_FRAME and head[5:] == bytes(4)


def describe_cluster(ray: Any) -> str:
    """What the cluster has, in words."""
    return f"Ray: {describe_nodes(list(nodes_of(ray).values()))}"


def probe_cluster(frameworks: Sequence[str], engine: Engine) -> dict[str, dict[str, str]]:
    """What each framework says of itself on a node that has a GPU; nothing where none has.

    Raises StudyError if one cannot be started there.
    """
    with connected(engine) as ray:
        if not any(found.gpus for found in nodes_of(ray).values()):
            return {}
        code = pack(ROOT, code_files(ROOT), ray.put, "code")
        ask = ray.remote(node.answer).options(num_cpus=1, num_gpus=min(1.0, engine.gpus), max_retries=2)
        facts = {}
        for name in frameworks:
            command = engines.worker_command(name, "info", "--brief")
            environment = engines.worker_environment(name, "cuda", "float32", 1)
            sent, without = changes_of(environment, "cuda")
            own = has_own_python(name)
            said = ray.get(
                ask.remote(tuple(command), own, sent, without, code, engines.PROBE_TIMEOUT_SECONDS)
            )
            facts[name] = engines.read_probe(name, command, *said)
        return facts


def nodes_of(ray: Any) -> dict[str, Node]:
    """The nodes that live, by Ray's identity."""
    return {one["NodeID"]: node_of(one["Resources"]) for one in ray.nodes() if one["Alive"]}


def changes_of(environment: Mapping[str, str], device: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What of a worker's environment is to be equal on a node: what sets it apart from this process's, and all that a
    record tells; and which variables it lacks. Where Ray gives out GPUs, it says which.
    """
    own = {"PYTHONPATH"} | ({"CUDA_VISIBLE_DEVICES"} if device == "cuda" else set())
    sent = {
        name: value
        for name, value in environment.items()
        if name not in own and (name in RECORDED_VARIABLES or os.environ.get(name) != value)
    }
    return sent, tuple(name for name in os.environ if name not in environment)


def has_own_python(framework: str) -> bool:
    return interpreters.own_interpreter(engines.module_of(framework)) is not None
