"""Weights of an ONNX model that are mostly zero, stored by their connections."""

from __future__ import annotations

from typing import Any

import numpy as np

FORMS = ("no", "tensor", "packed")
"""How weights can be stored; see ``to_onnx``."""


def store_sparse(model: Any, form: str) -> None:
    """Replace initialisers of an ``onnx.ModelProto`` in place, where that takes fewer bytes.

    ``"tensor"`` writes them as sparse initialisers (values and int64 positions). ``"packed"`` writes values
    and uint16 steps from position to position, and nodes that scatter them into zeros; a runtime folds these
    constants when a session starts.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    kept, nodes = [], []
    for initialiser in graph.initializer:
        array = (
            numpy_helper.to_array(initialiser) if initialiser.data_type == TensorProto.FLOAT else np.zeros(0)
        )
        index = np.flatnonzero(array)
        if form == "tensor" and 0 < 12 * len(index) < array.nbytes:
            graph.sparse_initializer.append(_sparse_tensor(initialiser.name, array, index))
        elif form == "packed" and 0 < 6 * len(index) < array.nbytes:
            tensors, made = _packed(initialiser.name, array, index)
            kept += tensors
            nodes += made
        else:
            kept.append(initialiser)
    rest = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend([*nodes, *rest])


def _sparse_tensor(name: str, array: Any, index: Any) -> Any:
    from onnx import helper, numpy_helper

    values = numpy_helper.from_array(array.reshape(-1)[index], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(index, ""), list(array.shape))


def _packed(name: str, array: Any, index: Any) -> tuple[list[Any], list[Any]]:
    from onnx import TensorProto, helper, numpy_helper

    step = np.diff(index, prepend=0)
    bridges = np.maximum(step - 1, 0) // 65535
    end = np.cumsum(bridges + 1) - 1
    steps, values = np.full(end[-1] + 1, 65535, np.uint16), np.zeros(end[-1] + 1, np.float32)
    steps[end] = step - 65535 * bridges
    values[end] = array.reshape(-1)[index]
    tensors = [
        numpy_helper.from_array(steps, f"{name}.steps"),
        numpy_helper.from_array(values, f"{name}.values"),
        numpy_helper.from_array(np.array([array.size], np.int64), f"{name}.size"),
        numpy_helper.from_array(np.array(array.shape, np.int64), f"{name}.shape"),
        numpy_helper.from_array(np.array(0, np.int64), f"{name}.axis"),
    ]
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}.size"], [f"{name}.zeros"], value=zero),
        helper.make_node("Cast", [f"{name}.steps"], [f"{name}.wide"], to=TensorProto.INT64),
        helper.make_node("CumSum", [f"{name}.wide", f"{name}.axis"], [f"{name}.index"]),
        helper.make_node(
            "ScatterElements", [f"{name}.zeros", f"{name}.index", f"{name}.values"], [f"{name}.flat"]
        ),
        helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [name]),
    ]
    return tensors, nodes
