"""The end of a compression: the int8 model, the proof that it is the network that was trained, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch.fx import GraphModule

from compression.deciding import Finish
from compression.fakequant import FoldedConv2d
from compression.joint import JointRun, Teacher
from compression.macs import macs
from compression.policy import Policy
from compression.profiler import device, whole_model_ms
from compression.proof import Proof, prove
from compression.qdq import pack, quantised_core
from compression.recipe import Recipe
from compression.subject import Subject
from compression.variants import core_of
from detector.types import Float32Array, UInt8Array

SCHEMA = "tellframe.compression/1"
_PROOF_IMAGES = 64
_BYTE_VALUES = 255


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came out.

    Attributes:
        model: ONNX, in the form that is deployed.
        network: the same in torch, with fake quantisation, in eval mode.
        kept: channels of every group.
        bits: of every convolution.
        proof: that the two are the same.
        report: all figures, as JSON values.
    """

    model: ModelProto
    network: GraphModule
    kept: Mapping[str, int]
    bits: Mapping[str, int]
    proof: Proof
    report: Mapping[str, Any]

    def lines(self) -> list[str]:
        """The main figures for people."""
        r = self.report
        lines = [
            f"{r['bytes']['hqp'] / 1e6:.2f} MB, {r['bytes']['share']:.1%} of {r['bytes']['dense'] / 1e6:.2f} MB in "
            f"float32; {r['macs']['hqp'] / 1e6:.0f} M MACs of {r['macs']['dense'] / 1e6:.0f}",
            f"{r['latency_ms']['hqp']:.2f} ms, dense {r['latency_ms']['dense']:.2f}: {r['latency_ms']['faster']:.2f} "
            f"times faster at {r['input_size']} px",
        ]
        if r["score"] is not None:
            lines.append(f"score {r['score']['hqp']:.4f}, dense {r['score']['dense']:.4f}")
        for name, bound in r["bounds"].items():
            if not bound["met"]:
                lines.append(f"not kept: {name} {bound['asked']:g}, got {bound['got']:g}")
        return lines


def deliver(
    subject: Subject,
    policy: Policy,
    run: JointRun,
    recipe: Recipe,
    finish: Finish,
    scores: Mapping[str, float] | None,
    teacher: Teacher | None = None,
) -> Delivery:
    """Exports what ``run`` ended on, proves it, and measures it beside the dense network at the same input size.

    Raises:
        ModelError: the model is not the network that was trained.
    """
    size, network = policy.input_size, run.result()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    bits = _bits(network)
    example = subject.example(size)
    model = pack(finish(quantised_core(network, size, int(example.shape[1]))), bits)
    inputs = _deployed_inputs(subject, size, model)
    proof = prove(network, model, inputs)
    dense = finish(core_of(subject.network, example, {}, "fp32"))
    kept = subject.channels | {name: len(indices) for name, indices in run.kept.items()}
    ms = whole_model_ms({"dense": dense, "hqp": model}, runs=recipe.runs)
    content = {"dense": _float_bytes(subject.network), "hqp": len(model.SerializeToString(deterministic=True))}
    report = {
        "schema": SCHEMA,
        "input_size": size,
        "groups": {g.name: {"channels": g.channels, "kept": kept[g.name]} for g in subject.groups if g.prunable},
        "bits": bits,
        "policy_reached": all(kept[name] == count for name, count in policy.kept.items()),
        "bytes": content | {"share": round(content["hqp"] / content["dense"], 4)},
        "macs": {"dense": macs(dense), "hqp": macs(model)},
        "latency_ms": {
            **{name: round(each.p50_ms, 4) for name, each in ms.items()},
            **{f"{name}_p95": round(each.p95_ms, 4) for name, each in ms.items()},
            "faster": round(ms["hqp"].ratio, 3),
            "faster_interval": [round(ms["hqp"].ratio_low, 3), round(ms["hqp"].ratio_high, 3)],
            "runs": ms["hqp"].runs,
        },
        "score": None if scores is None else {name: round(value, 5) for name, value in scores.items()},
        "agreement": _agreement(subject, size, network, teacher),
        "proof": proof.to_json(),
        "milestones": [asdict(each) | {"kept": dict(each.kept)} for each in run.milestones],
        "recipe": recipe.to_json(),
        "device": device(),
    }
    report["bounds"] = _bounds(recipe, report)
    return Delivery(model, network, kept, bits, proof, report)


def _bits(network: GraphModule) -> dict[str, int]:
    """Of every convolution that is left."""
    return {name: m.bits for name, m in network.named_modules() if isinstance(m, FoldedConv2d)}


def _float_bytes(network: GraphModule) -> int:
    """Of all values of the dense network in float32."""
    return sum(4 * value.numel() for value in network.state_dict().values() if value.is_floating_point())


def _deployed_inputs(subject: Subject, size: int, model: ModelProto) -> UInt8Array | Float32Array:
    """Examples as ``model`` takes them: float (n, c, S, S), or uint8 (n, S, S, c) when it is a finished one."""
    inputs = subject.array(size, _PROOF_IMAGES)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    if shape[-1].dim_value == size:
        return inputs
    assert subject.input_range is not None
    low, high = subject.input_range
    pixels = np.rint((inputs - low) * (_BYTE_VALUES / (high - low)))
    return np.ascontiguousarray(pixels.clip(0, _BYTE_VALUES).astype(np.uint8).transpose(0, 2, 3, 1))


def _agreement(subject: Subject, size: int, network: GraphModule, teacher: Teacher | None) -> dict[str, float | int]:
    """How well the student's logits follow the teacher's, on examples."""
    ours, theirs = list[torch.Tensor](), list[torch.Tensor]()
    asked = teacher or subject.teacher()
    with torch.inference_mode():
        for batch in subject.batches(size, 4 * _PROOF_IMAGES):
            ours.append(network(batch.inputs))
            theirs.append(asked.answer(batch.inputs)[0] if batch.logits is None else batch.logits)
    student, dense = torch.cat(ours).double(), torch.cat(theirs).double()
    same = (student > 0) == (dense > 0) if dense.shape[1] == 1 else student.argmax(1) == dense.argmax(1)
    return {
        "inputs": len(dense),
        "logit_rms_error": round(float((student - dense).square().mean().sqrt()), 4),
        "logit_std_dense": round(float(dense.std()), 4),
        "same_answer": round(float(same.double().mean()), 4),
    }


def _bounds(recipe: Recipe, report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was asked, what came out, and whether it was kept; a frame is measured by ``tellframe bench``."""
    targets, latency, content = recipe.bounds, report["latency_ms"], report["bytes"]
    found = {
        "latency_ms": (targets.latency_ms, latency["hqp"], latency["hqp"] <= (targets.latency_ms or 0)),
        "faster": (targets.asked_faster, latency["faster"], latency["faster"] >= (targets.asked_faster or 0)),
        "bytes": (targets.bytes, content["hqp"], content["hqp"] <= (targets.bytes or 0)),
        "share": (targets.share, content["share"], content["share"] <= (targets.share or 0)),
    }
    if report["score"] is not None:
        drop = round(report["score"]["dense"] - report["score"]["hqp"], 5)
        found["max_drop"] = (targets.max_drop, drop, drop <= targets.max_drop)
    return {
        name: {"asked": asked, "got": got, "met": bool(met)}
        for name, (asked, got, met) in found.items()
        if asked is not None
    }
