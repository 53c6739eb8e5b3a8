"""Crops -> p(fake) with ONNX Runtime. The only run-time import of onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.models import StoredModel
from detector.types import Float32Array, ModelError, UInt8Array

_CPU = "CPUExecutionProvider"
DISABLED_OPTIMIZERS = ["WeightBiasQuantization"]
"""Of ONNX Runtime: this one makes a float convolution between two int8 ones int8, with weights that saturate."""
_FATAL = 4


class OnnxScorer:
    """A loaded model (a :class:`~detector.types.Scorer`).

    Args:
        model: what to load; see :func:`detector.models.find`.
        threads: threads of one run, at least 1. More help on idle cores only: on two busy cores the int8 model took
            8 ms with one thread and 13 ms with two, waiting for the second (medians).
        providers: ONNX Runtime execution providers by name, best first; the CPU takes what they leave.

    Raises:
        ModelError: the model cannot be loaded, is not one of ours, or a provider is not there.
        ValueError: ``threads`` is below 1.
    """

    def __init__(self, model: StoredModel, threads: int = 1, providers: Sequence[str] = (_CPU,)) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.card = model.card
        self._session = _session(model, threads, providers)
        size = model.card.input_size
        self._shape = (size, size, 3)
        self._check_contract(model)

    def score(self, crops: UInt8Array) -> Float32Array:
        """p(fake), float32 (n,) in 0..1, of uint8 RGB ``crops`` (n, S, S, 3); S is the card's input_size.

        Raises:
            ValueError: crops of another shape or dtype.
        """
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != self._shape:
            wanted = ", ".join(map(str, self._shape))
            raise ValueError(f"crops must be uint8 (n, {wanted}), got {crops.dtype} {crops.shape}")
        if len(crops) == 0:
            return np.zeros(0, np.float32)
        p_fake: Float32Array = self._session.run(["p_fake"], {"crops": crops})[0]
        return p_fake

    def warm_up(self, runs: int = 3) -> None:
        """Scores black crops, so that the first frame does not pay for first-use allocations."""
        for _ in range(runs):
            self.score(np.zeros((1, *self._shape), np.uint8))

    def _check_contract(self, model: StoredModel) -> None:
        """The graph takes the crops that the card promises, and gives one probability each."""
        inputs = [(i.name, i.type, i.shape[1:]) for i in self._session.get_inputs()]
        outputs = {o.name: (o.type, len(o.shape)) for o in self._session.get_outputs()}
        if inputs != [("crops", "tensor(uint8)", list(self._shape))] or outputs.get("p_fake") != ("tensor(float)", 1):
            raise ModelError(
                f"{model.path} takes {inputs} and gives {outputs}; a Tellframe model takes uint8 'crops' "
                f"(n, {self._shape[0]}, {self._shape[1]}, 3) and gives float 'p_fake' (n,)"
            )


def _session(model: StoredModel, threads: int, providers: Sequence[str]) -> Any:
    """An onnxruntime.InferenceSession (untyped: it publishes no types)."""
    # Imported here, not above: it takes a good part of a second, which commands that judge nothing need not pay.
    import onnxruntime as ort

    missing = [name for name in providers if name not in ort.get_available_providers()]
    if missing:
        raise ModelError(
            f"this ONNX Runtime has no {', '.join(missing)}; there are {', '.join(ort.get_available_providers())}"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # What goes wrong reaches the caller as an exception; the log would only repeat it on stderr.
    options.log_severity_level = _FATAL
    # Idle threads sleep instead of spinning: decoding and face finding want those cores. With two threads on two busy
    # cores the int8 model took 13 ms without spinning and 24 ms with it (medians of one interleaved run).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        every = list(dict.fromkeys([*providers, _CPU]))
        return ort.InferenceSession(model.path, options, providers=every, disabled_optimizers=DISABLED_OPTIMIZERS)
    except Exception as error:  # ONNX Runtime's own exceptions share no base class below Exception
        reason = " ".join(str(error).split())
        raise ModelError(f"{model.path} cannot be loaded: {reason}") from error
