"""A network as one C99 file that needs no library, no memory allocation and no operating system."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from regraft.errors import InputError
from regraft.export import c_kernels as kernels
from regraft.export.c_buffers import Buffers
from regraft.export.c_kernels import C_TYPES
from regraft.export.pack import Packed, layout_of, pack
from regraft.export.program import Program, Step
from regraft.export.trace import trace
from regraft.files import PathLike, atomic_write

_KEYWORDS = {
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum",
    "extern", "float", "for", "goto", "if", "inline", "int", "long", "main", "register", "restrict",
    "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned",
    "void", "volatile", "while",
}  # fmt: skip


def to_c(
    model: nn.Module,
    path: PathLike,
    *,
    input_shape: Sequence[int] | None = None,
    values: str = "float32",
    name: str | None = None,
) -> Program:
    """Write ``model`` as one C99 file with ``void NAME_predict(const float *x, float *y)``; returns what was
    exported.

    Weights are constants: 8-bit steps or 16-bit positions, and values. The only function of the C library
    that is called is ``expf``, and only where an activation needs it. Memory for activations is on the stack
    (compile with ``-DNAME_BUFFER=static`` to have it elsewhere, at the price of reentrancy).

    Args:
        path: the file to write, whole or not at all.
        input_shape: shape of one sample; default as in ``trace``.
        values: ``"float32"``, ``"float16"`` or ``"int8"`` (one scale for each output unit).
        name: prefix of everything that the file defines; default: made from the file's name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = to_c(nn.Linear(4, 2), f"{folder}/net.c")
    ...     text = Path(folder, "net.c").read_text()
    >>> "void net_predict(const float *x, float *y)" in text
    True

    Raises:
        InputError: the model has an operation that C export does not know, named; ``name`` is no C
            identifier; an unknown kind of values.
        FileError: the file cannot be written.
    """
    name = identifier(Path(path).stem) if name is None else name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in _KEYWORDS:
        raise InputError(f"{name!r} cannot prefix C names: take letters, digits and '_', no digit first")
    program = trace(model, input_shape)
    text = Writer(program, name, values).text()
    with atomic_write(path) as file:
        file.write(text.encode())
    return program


def identifier(stem: str) -> str:
    """A C identifier close to a file's name.

    >>> identifier("m-2 final"), identifier("3x"), identifier("int")
    ('m_2_final', 'net_3x', 'net_int')
    """
    plain = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return plain if re.match(r"[A-Za-z_]", plain) and plain not in _KEYWORDS else f"net_{plain}"


class Writer:
    """Collects the functions, constants and calls of one network."""

    def __init__(self, program: Program, name: str, values: str) -> None:
        self.program, self.name, self.values = program, name, values
        self.functions: dict[str, str] = {}
        self.constants: list[str] = []
        self.calls: list[str] = []
        self.layers: list[str] = []
        self.bytes = 0

    def text(self) -> str:
        """The whole file.

        Raises:
            InputError: an operation without a C form.
        """
        buffers = Buffers(self.program)
        for i, step in enumerate(self.program.steps):
            source = [buffers.name(value) for value in step.inputs]
            target = buffers.name(step.output)
            if step.op == "reshape" and source[0] == target:
                continue
            self.calls.append(self._call(i, step, source, target))
        body = [*buffers.declarations(f"{self.name}_BUFFER"), *self.calls]
        parts = [
            self._head(), *self.functions.values(), *self.constants,
            f"#ifndef {self.name}_BUFFER\n#define {self.name}_BUFFER\n#endif\n",
            "\n".join([f"void {self.name}_predict(const float *x, float *y) {{", *body, "}"]), "",
        ]  # fmt: skip
        return "\n".join(parts)

    def _head(self) -> str:
        from regraft.version import __version__

        inputs, outputs = math.prod(self.program.input_shape), math.prod(self.program.output_shape)
        uses_exp = any("expf" in text for text in self.functions.values())
        source = self.program.source.replace("*/", "* /")
        shape = "x".join(map(str, self.program.input_shape))
        lines = [
            f"/* {self.name}: a sparse network, written by regraft {__version__}.",
            f" * {source}",
            " *",
            *(f" * {layer}" for layer in self.layers),
            f" * {self.bytes} bytes of constants.",
            " *",
            f" * void {self.name}_predict(const float *x, float *y)",
            f" *   x: {self.name}_INPUTS values ({shape}, the last dimension fastest)",
            f" *   y: {self.name}_OUTPUTS values; x and y must not overlap",
            " */",
            "#include <math.h>" if uses_exp else "",
            "#include <stdint.h>",
            "",
            f"#define {self.name}_INPUTS {inputs}",
            f"#define {self.name}_OUTPUTS {outputs}",
            "",
            f"void {self.name}_predict(const float *x, float *y);",
            "",
        ]
        return "\n".join(lines)

    def _use(self, function: str, text: str) -> str:
        if "_half(" in text:
            self.functions.setdefault("half", kernels.HALF.replace("@", self.name))
        self.functions.setdefault(function, text.replace("@", self.name))
        return f"{self.name}_{function}"

    def _array(self, label: str, array: Any) -> str:
        """A constant array; its name in the file."""
        full = f"{self.name}_{label}"
        self.bytes += array.nbytes
        self.constants.append(constant(full, array))
        return full

    def _call(self, i: int, step: Step, source: list[str], target: str) -> str:
        size = math.prod(step.shape)
        where = f"{source[0]}, {target}"
        if step.weight is not None:
            return self._weighted(i, step, source[0], target)
        if step.op in ("max_pool", "avg_pool"):
            self._need_grid()
            function = self._use("pool", kernels.POOL)
            return f"    {function}({where}, &{self._grid(i, step)}, {int(step.op == 'avg_pool')});"
        if step.op == "scale":
            function = self._use("scale", kernels.SCALE)
            factor, bias = self._array(f"factor{i}", step.factor), self._array(f"bias{i}", step.bias)
            channels = step.shape[0]
            return f"    {function}({where}, {channels}, {size // channels}, {factor}, {bias});"
        if step.op == "add":
            return f"    {self._use('add', kernels.ADD)}({source[0]}, {source[1]}, {target}, {size});"
        if step.op == "reshape":
            return f"    {self._use('copy', kernels.COPY)}({where}, {size});"
        if step.op == "softmax":
            return f"    {self._use('softmax', kernels.SOFTMAX)}({where}, {size}, {step.shape[-1]});"
        if step.op == "gelu" or step.op in kernels.ELEMENTWISE:
            function = self._use(step.op, kernels.elementwise(step.op))
            setting = number(next(iter(step.settings.values()), 0.0))
            return f"    {function}({where}, {size}, {setting});"
        raise InputError(
            f"layer '{step.where}' is a {step.op}, which the C export does not know (it calls no function of "
            "libm but expf): leave it out, or end with a softmax, or export to ONNX"
        )

    def _weighted(self, i: int, step: Step, source: str, target: str) -> str:
        weight = step.weight
        assert weight is not None
        conv = step.op == "conv"
        packed = pack(weight, layout_of(step, self.program), self.values, where=step.where, dense=not conv)
        self.layers.append(
            f"{step.where}: {'x'.join(map(str, weight.shape))}, {weight.nnz} connections, "
            f"{packed.layout} of {'steps' if packed.coding == 'step' else 'places'}, {packed.nbytes} bytes"
            if packed.layout != "dense"
            else f"{step.where}: {'x'.join(map(str, weight.shape))}, dense, {packed.nbytes} bytes"
        )
        bias = np.zeros(weight.shape[0], np.float32) if step.bias is None else step.bias
        if conv:
            self._need_grid()
        kernel = kernels.kernel_for(packed, conv=conv)
        function = self._use(kernel.name, kernel.text)
        tables = self._tables(i, packed, bias)
        rows, columns = weight.shape[0], weight.fan_in_size
        if conv:
            return f"    {function}({source}, {target}, &{self._grid(i, step)}, {tables});"
        size = f"{rows}" if packed.layout == "rows" else f"{rows}, {columns}"
        times = math.prod(step.shape[:-1])
        call = f"{function}({source}, {target}, {size}, {tables});"
        if times == 1:
            return f"    {call}"
        call = f"{function}({source} + i * {columns}, {target} + i * {rows}, {size}, {tables});"
        return f"    for (int i = 0; i < {times}; i++) {call}"

    def _tables(self, i: int, packed: Packed, bias: Any) -> str:
        names = []
        if packed.layout != "dense":
            names += [self._array(f"count{i}", packed.counts), self._array(f"at{i}", packed.at)]
        names.append(self._array(f"value{i}", packed.values))
        names.append("0" if packed.scales is None else self._array(f"factor{i}", packed.scales))
        names.append(self._array(f"bias{i}", bias))
        return ", ".join(names)

    def _need_grid(self) -> None:
        self.functions.setdefault("grid", kernels.GRID.replace("@", self.name))

    def _grid(self, i: int, step: Step) -> str:
        settings, before = step.settings, self.program.shape_of(step.inputs[0])
        if len(settings["kernel"]) > 2:
            raise InputError(
                f"layer '{step.where}' has three spatial dimensions, but the C export knows one and two: "
                "export to ONNX"
            )

        def two(values: Sequence[int]) -> list[int]:  # a line is an image of height 1
            return [1, *values] if len(values) == 1 else list(values)

        kernel, stride, dilation = (two(settings[k]) for k in ("kernel", "stride", "dilation"))
        low = [0, *(p[0] for p in settings["pads"])][-2:]
        high = [0, *(p[1] for p in settings["pads"])][-2:]
        height_width = two(before[1:])
        out = [
            (n + a + b - d * (k - 1) - 1) // s + 1
            for n, a, b, d, k, s in zip(height_width, low, high, dilation, kernel, stride, strict=True)
        ]
        channels_out = step.weight.shape[0] if step.weight is not None else before[0]
        fields = [
            before[0], *height_width, channels_out, *out, *kernel, *stride, *low, *dilation,
            settings.get("groups", 1), int(settings.get("count_pad", False)),
        ]  # fmt: skip
        label = f"{self.name}_grid{i}"
        self.constants.append(f"static const {self.name}_grid {label} = {{{', '.join(map(str, fields))}}};\n")
        return label


def number(value: float) -> str:
    """A float32 as a C constant, to the last bit.

    >>> number(1.0), number(-0.1)
    ('1.0f', '-0.100000001f')
    """
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def constant(name: str, array: Any) -> str:
    """A constant array in C; C knows no empty ones, so those get one zero.

    >>> print(constant("a", np.array([1, 2], np.uint8)), end="")
    static const uint8_t a[2] = {
    1,2};
    """
    kind = C_TYPES[str(array.dtype)]
    if array.dtype == np.float16:
        array = array.view(np.uint16)
    words = [number(v) for v in array] if array.dtype == np.float32 else [str(v) for v in array.tolist()]
    words = words or ["0"]
    lines = [",".join(words[i : i + 16]) for i in range(0, len(words), 16)]
    return f"static const {kind} {name}[{len(words)}] = {{\n" + ",\n".join(lines) + "};\n"
