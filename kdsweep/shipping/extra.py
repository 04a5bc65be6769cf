"""Check that what the extra `export` installs is there, before it is used."""

from importlib.util import find_spec

from kdsweep.errors import ShippingError

INSTALL = "pip install 'kdsweep[export]'"
EXPORTING = ("onnx", "onnxscript", "onnxruntime")
"""What making an ONNX model needs; running one needs onnxruntime alone."""


def need(*packages: str) -> None:
    """Check that `packages` are installed, without importing them. Raises ShippingError with the way to install them."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ShippingError(f"exported students need {', '.join(missing)}: {INSTALL}")
