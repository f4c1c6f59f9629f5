"""Networks for other runtimes: ONNX, one C file, or NumPy alone."""

from regraft.export.c_writer import to_c
from regraft.export.npz_writer import to_npz
from regraft.export.onnx_writer import to_onnx
from regraft.export.program import Program, Step, Weight
from regraft.export.trace import trace

__all__ = ["Program", "Step", "Weight", "to_c", "to_npz", "to_onnx", "trace"]
