"""kdsweep: sweeps of classical knowledge distillation for text classifiers."""

__version__ = "0.1.0"
