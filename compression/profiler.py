"""Times ONNX models: node by node with ONNX Runtime's profiler, and whole; one thread, several models taking turns.

Whatever else the machine does meanwhile then hits all models alike, so ratios within one run can be trusted where
milliseconds cannot. The only file here that knows how ONNX Runtime names what it runs.
"""

from __future__ import annotations

import json
import math
import platform
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from detector.scorer import DISABLED_OPTIMIZERS

CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
ACTIVATIONS = ("Clip", "Relu", "BatchNormalization")
Node = tuple[str, str]
"""A node of a profile: name and operator."""


# --------------------------------------------------------------------------------------------------- names


def layer_of(name: str, owners: Mapping[str, str]) -> str | None:
    """The layer that a node of a profile belongs to, or None.

    Args:
        name: as ONNX Runtime gives it: the node's own (``conv_stem``), one a fusion gave it
            (``/conv_stem/Conv_token_0``), or that of the tensor it makes (``/act1/Clip_output_0_nchwc``).
        owners: from :func:`conv_owners`, of the same model; or layer -> layer for names of the first two kinds.
    """
    bare = re.sub(r"(_kernel_time|_fence_before|_fence_after)$", "", name)
    bare = re.sub(r"(_nchwc|_token_\d+|_quant|_nhwc)+$", "", bare)
    for candidate in (bare, module_path(bare)):
        if candidate in owners:
            return owners[candidate]
    return None


def module_path(name: str) -> str:
    """The module a node was exported from: ``/blocks/blocks.1/blocks.1.0/conv_pw/Conv`` -> ``blocks.1.0.conv_pw``."""
    parts = [part for part in name.split("/") if part]
    if len(parts) < 2:
        return name if "/" not in name else ""
    path = ""
    for part in parts[:-1]:
        path = part if not path or part.startswith(path + ".") else f"{path}.{part}"
    return path


def conv_owners(model: ModelProto) -> dict[str, str]:
    """The layer behind every name that ONNX Runtime may give the convolutions of ``model``.

    A fused node is named by the tensor it ends in, so the tensors of a convolution's activation are its own too.
    """
    users: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            users.setdefault(tensor, []).append(node)
    owners: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in CONVOLUTIONS:
            continue
        layer = module_path(node.name) or node.name
        owners |= {node.name: layer, layer: layer}
        _own(node, layer, users, owners)
    return owners


def _own(node: NodeProto, layer: str, users: Mapping[str, list[NodeProto]], owners: dict[str, str]) -> None:
    """Claims for ``layer`` what ``node`` makes, and the activations after it."""
    for tensor in node.output:
        owners[tensor] = layer
        for user in users.get(tensor, ()):
            if user.op_type in ACTIVATIONS:
                owners[user.name] = layer
                _own(user, layer, users, owners)
            elif user.op_type in ("QuantizeLinear", "DequantizeLinear"):
                _own(user, layer, users, owners)


# --------------------------------------------------------------------------------------------------- profiles


def _session(model: ModelProto, profile: Path | None = None) -> ort.InferenceSession:
    """A session with one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return ort.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=DISABLED_OPTIMIZERS,
    )


_BURST = 4
"""Runs in a turn of a model. The first one finds the caches full of another model, and does not count."""


def profile(models: Sequence[ModelProto], runs: int, warm_up: int) -> list[dict[Node, float]]:
    """The ms of every node, by (name, operator), of every model: they take turns.

    The runs are cut into three parts; a node's cost is the least of the parts' medians. So a minute of noise is left
    out, and no single lucky run counts.
    """
    kept = _BURST - 1
    turns = math.ceil(runs / kept)
    with tempfile.TemporaryDirectory() as folder:
        sessions = [_session(model, Path(folder) / f"model{i}") for i, model in enumerate(models)]
        feeds = [_feed(session) for session in sessions]
        for session, feed in zip(sessions, feeds, strict=True):
            for _ in range(warm_up):
                session.run(None, feed)
        for _ in range(turns):
            for session, feed in zip(sessions, feeds, strict=True):
                for _ in range(_BURST):
                    session.run(None, feed)
        events = [json.loads(Path(session.end_profiling()).read_text()) for session in sessions]
    return [_node_ms(each, warm_up) for each in events]


def _feed(session: ort.InferenceSession) -> dict[str, NDArray[Any]]:
    """Noise for every input of ``session``, batch 1."""
    rng = np.random.default_rng(0)
    feed: dict[str, NDArray[Any]] = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        if value.type == "tensor(uint8)":
            feed[value.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            feed[value.name] = rng.normal(size=shape).astype(np.float32)
    return feed


def _node_ms(events: Sequence[Mapping[str, Any]], warm_up: int) -> dict[Node, float]:
    """The ms by (name, operator) from the events of a profile, without warm-up and the first run of every turn."""
    times: dict[Node, list[float]] = {}
    for event in sorted(events, key=lambda e: int(e["ts"])):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            times.setdefault(key, []).append(event["dur"] / 1000)
    return {key: _robust([ms for i, ms in enumerate(all_ms[warm_up:]) if i % _BURST]) for key, all_ms in times.items()}


def _robust(ms: Sequence[float]) -> float:
    """The least of the medians of three parts."""
    return min(float(np.median(part)) for part in np.array_split(ms, 3))


# --------------------------------------------------------------------------------------------------- whole models


@dataclass(frozen=True, slots=True)
class WholeModel:
    """How long a model takes, measured beside others.

    Attributes:
        p50_ms, p95_ms, least_ms: of ``runs`` runs at batch 1.
        ratio: p50 of the first model / p50 of this one: how many times faster this one is.
        ratio_low, ratio_high: 95 % bootstrap interval of it; the models' turns are resampled together.
    """

    p50_ms: float
    p95_ms: float
    least_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    runs: int


def whole_model_ms(
    models: Mapping[str, ModelProto], *, runs: int = 300, warm_up: int = 20, seed: int = 0
) -> dict[str, WholeModel]:
    """Times finished models end to end, one thread, in turns; ratios are to the first one.

    Args:
        models: by name, at least one.
        runs: timed runs of every model, at least 30.
        warm_up: runs before them.
        seed: of the bootstrap.
    """
    if not models or runs < 30:
        raise ValueError(f"needs at least one model and 30 runs, got {len(models)} and {runs}")
    turns = math.ceil(runs / (_BURST - 1))
    ms = _time([_session(model) for model in models.values()], turns, warm_up)  # (models, turns, _BURST - 1)
    draws = np.random.default_rng(seed).integers(0, turns, (1000, turns))
    medians = np.median(ms.reshape(len(models), -1), axis=1)  # (models,)
    result: dict[str, WholeModel] = {}
    first = np.median(ms[0][draws].reshape(1000, -1), axis=1)  # (1000,)
    for i, name in enumerate(models):
        ratios = first / np.median(ms[i][draws].reshape(1000, -1), axis=1)
        low, high = np.quantile(ratios, (0.025, 0.975))
        result[name] = WholeModel(
            p50_ms=float(medians[i]),
            p95_ms=float(np.quantile(ms[i], 0.95)),
            least_ms=float(ms[i].min()),
            ratio=float(medians[0] / medians[i]),
            ratio_low=float(low),
            ratio_high=float(high),
            runs=ms[i].size,
        )
    return result


def _time(sessions: Sequence[ort.InferenceSession], turns: int, warm_up: int) -> NDArray[np.float64]:
    """The ms, float (sessions, turns, _BURST - 1), of sessions that take turns."""
    feeds = [_feed(session) for session in sessions]
    for session, feed in zip(sessions, feeds, strict=True):
        for _ in range(warm_up):
            session.run(None, feed)
    ms = np.zeros((len(sessions), turns, _BURST))
    for turn in range(turns):
        for i, (session, feed) in enumerate(zip(sessions, feeds, strict=True)):
            for j in range(_BURST):
                start = time.perf_counter_ns()
                session.run(None, feed)
                ms[i, turn, j] = (time.perf_counter_ns() - start) / 1e6
    return ms[:, :, 1:]


def device() -> dict[str, str]:
    """What a measurement was taken on and with."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "system": f"{platform.system()} {platform.machine()}",
        "onnxruntime": ort.__version__,
        "provider": "CPUExecutionProvider",
        "threads": "1",
        "spinning": "off",
    }
