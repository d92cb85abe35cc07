"""The training engine: standard library and torch only; it travels to the nodes in the same zip."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  a node has a Python of its own
    raise ImportError(f"engine.train needs Python 3.10 or newer; {sys.executable} is {sys.version.split()[0]}")

import warnings

# torch says so where there is no numpy, and nothing here needs it.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
