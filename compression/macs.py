"""Multiply-accumulates of a model: what its convolutions and matrix products compute for one input."""

from __future__ import annotations

from onnx import ModelProto, shape_inference


def macs(model: ModelProto) -> int:
    """Of ``model`` at batch 1, float or int8, packed or not; other operations do not count.

    Raises:
        ValueError: a shape cannot be inferred.
    """
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in fixed.graph.output:
        value.type.tensor_type.shape.ClearField("dim")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    shapes |= {t.name: list(t.dims) for t in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            weight, output = _known(shapes, node.input[1]), _known(shapes, node.output[0])
            total += weight[0] * weight[1] * weight[2] * weight[3] * output[2] * output[3]
        elif node.op_type in ("Gemm", "MatMul"):
            weight = _known(shapes, node.input[1])
            total += weight[-1] * weight[-2]
    return total


def _known(shapes: dict[str, list[int]], name: str) -> list[int]:
    shape = shapes.get(name, [])
    if not shape or 0 in shape[1:]:
        raise ValueError(f"the shape of {name} cannot be inferred")
    return shape
