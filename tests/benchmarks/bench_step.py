"""A training step of the student against its floor on this machine, and where the rest goes.

The floor is what no implementation of the same mathematics can spare: the step's own matrix products, caught in a real step and run
again by themselves with the same shapes, strides and types, and AdamW's bytes (parameter, gradient and two moments read, all but
the gradient written) at the rate of one large tensor added to another in place. The step is `distill_epoch`, the loop that every trial
runs: batches, both losses, clipping, schedule, records read. Both take turns; medians are compared.

On a GPU the products are one CUDA graph, so that their floor is the GPU's and not Python's; `--single` launches the step's own
kernels one by one, without graphs.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsweep.config.trial import TrialConfig
from kdsweep.system.hardware import available_cores, default_workers
from kdsweep.training import loop, state
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens
from kdsweep.training.fast import machine
from kdsweep.training.fast.cuda_graphs import Graphs, own_stream
from kdsweep.training.fast.team import ALONE
from kdsweep.training.loop import distill_epoch
from kdsweep.training.objective import objective_of
from kdsweep.training.state import Training

PRODUCTS = (
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"),
    *("aten::linear", "aten::matmul"),  # where no gradient is wanted they reach the dispatcher whole
)
STEPS = 8
"""Of an epoch that is timed."""
ADAMW_BYTES = 7 * 4
"""A parameter's: four float32 numbers read, three written."""


class Catch(TorchDispatchMode):
    """Inside the block, every matrix product is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation passes here."""
        sums = func._schema.name == "aten::mm" and args[0].shape[0] == 1  # a bias's gradient, which needs no product
        if func._schema.name in PRODUCTS and not sums:
            like = lambda given: (given.shape, given.stride(), given.dtype) if isinstance(given, Tensor) else given
            self.products.append((func, tuple(like(given) for given in args)))
        return func(*args, **(kwargs or {}))


def again(products: list[tuple[Any, tuple[Any, ...]]], device: str) -> list[Callable[[], Any]]:
    """Calls of the same products on random numbers; operands of one shape are one tensor, so that caches are as warm as can be."""
    operands: dict[Any, Tensor] = {}

    def made(fact: Any) -> Any:
        if not isinstance(fact, tuple):
            return fact
        shape, stride, dtype = fact
        if fact not in operands:
            operands[fact] = torch.empty_strided(shape, stride, dtype=dtype, device=device).normal_()
        return operands[fact]

    return [partial(func, *map(made, facts)) for func, facts in products]


def replay(calls: list[Callable[[], Any]]) -> None:
    """All of them; no result is kept, since memory that is new each time costs three times the products."""
    for call in calls:
        call()


def as_graph(calls: list[Callable[[], Any]]) -> Callable[[], Any]:
    """All of them, as one launch on a GPU."""
    replay(calls)  # a library's first use cannot be recorded
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        replay(calls)
    return graph.replay


def synthetic_rows(batch_size: int, options: argparse.Namespace, device: str) -> Rows:
    """Rows of one length, for `STEPS` steps."""
    rows, length = STEPS * batch_size, options.tokens
    tokens = Tokens(
        ids=torch.randint(1, options.vocabulary, (rows * length,)),
        segments=None,
        starts=torch.arange(rows) * length,
        lengths=np.full(rows, length, dtype=np.int64),
        pad_id=0,
    )
    labels = torch.randint(0, options.classes, (rows,), device=device)
    logits = torch.randn(rows, options.classes, device=device)
    return Rows(tokens=tokens.to(device), labels=labels, targets={TEACHER_LOGITS: logits})


def training_of(config: TrialConfig, options: argparse.Namespace, family: str = "distilbert") -> Training:
    """A student of random weights, which work as much as others."""
    sizes = {"vocab_size": options.vocabulary, "hidden_size": options.width, "num_hidden_layers": options.layers}
    sizes |= {"num_attention_heads": 12, "num_labels": options.classes, "pad_token_id": 0}
    inner = "hidden_dim" if family == "distilbert" else "intermediate_size"
    facts = AutoConfig.for_model(family, **sizes, **{inner: 4 * options.width})
    student = AutoModelForSequenceClassification.from_config(facts).to(config.device)
    optimizer, schedule = state.optimizer_and_schedule(student, config, steps=10**6)
    graphs = None if loop.why_no_graphs(student, config, ALONE) else Graphs(optimizer, config.device)
    return Training(
        student=student, objective=objective_of(config), optimizer=optimizer, schedule=schedule, graphs=graphs
    )


def seconds(call: Callable[[], Any], device: str) -> float:
    """Of one call, the device's work included."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def measure(batch_size: int, options: argparse.Namespace) -> None:
    """Print the step, the floor and their ratio, then the step's operations by their own time."""
    device = machine.best_device()
    precision = machine.best_precision(device) if options.precision == "auto" else options.precision
    machines = {
        "device": device,
        "precision": precision,
        "threads": options.threads or available_cores() // default_workers(device, 1),
    }
    config = TrialConfig(train_file="-", teacher="-", student="-", batch_size=batch_size, **machines)
    machine.set_up(int(config.threads))
    rows, training = synthetic_rows(batch_size, options, device), training_of(config, options, options.family)

    def epoch() -> None:
        training.epoch, training.step = training.epoch + 1, training.epoch * STEPS
        distill_epoch(training, rows, config, on_steps=lambda _: None)

    graphs, training.graphs = training.graphs, None
    with Catch() as caught:
        epoch()
    training.graphs = None if options.single else graphs
    calls = again(caught.products, device)
    multiply = as_graph(calls) if device.startswith("cuda") else partial(replay, calls)
    for _ in range(2):
        epoch()  # graphs are recorded
    parameters = sum(parameter.numel() for parameter in training.student.parameters())
    source = torch.randn(64 * 2**20, device=device)
    target = torch.randn_like(source)
    steps, products, sums = [], [], []
    for _ in range(options.repeats):
        steps.append(seconds(epoch, device) / STEPS)
        products.append(seconds(multiply, device) / STEPS)
        sums.append(seconds(lambda: target.add_(source), device))
    step, product, added = (statistics.median(values) for values in (steps, products, sums))
    rate = 3 * source.numel() * 4 / added
    adamw = parameters * ADAMW_BYTES / rate
    print(
        f"batch {batch_size}: step {1e3 * step:.1f} ms, floor {1e3 * (product + adamw):.1f} ms (products {1e3 * product:.1f}, "
        f"AdamW's {parameters * ADAMW_BYTES / 1e6:.0f} MB at {rate / 1e9:.1f} GB/s {1e3 * adamw:.1f}): "
        f"ratio {step / (product + adamw):.2f}   [{config.precision}, {device}, {config.threads} threads]",
        flush=True,
    )
    if options.operations:
        print_operations(epoch, device, options.operations)


def print_operations(epoch: Callable[[], None], device: str, count: int) -> None:
    """The dearest operations of an epoch by their own time, as shares."""
    on_gpu = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as told:
        epoch()
    own = lambda event: event.self_device_time_total if on_gpu else event.self_cpu_time_total
    events = sorted(told.key_averages(), key=own, reverse=True)
    total = sum(own(event) for event in events)
    for event in events[:count]:
        print(f"    {own(event) / total:6.1%}  {event.count / STEPS:6.1f} a step  {event.key}")


def main() -> None:
    """Measure at each batch size."""
    described = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python tests/benchmarks/bench_step.py --batch 16 --batch 64 --operations 12",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = described.add_argument
    add("--batch", type=int, action="append", help="rows a step; may be given again (default 16, 32 and 64)")
    add("--tokens", type=int, default=28, help="of a row (default 28, a review's mean)")
    add("--vocabulary", type=int, default=9000, help="word pieces of the compact vocabulary (default 9,000)")
    add("--classes", type=int, default=2, help="default 2")
    add("--family", default="distilbert", help="transformers' name of the student's (default distilbert)")
    add("--layers", type=int, default=3, help="of the student (default 3)")
    add("--width", type=int, default=384, help="of the student (default 384)")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="default auto")
    add("--single", action="store_true", help="on a GPU, launch every kernel by itself")
    add("--threads", type=int, help="default: those of one of the workers that a sweep has here")
    add("--repeats", type=int, default=9, help="of both, in turns (default 9)")
    add(
        "--operations", type=int, default=0, help="print so many of the step's operations by their own time (default 0)"
    )
    options = described.parse_args()
    with own_stream(machine.best_device()):
        for batch_size in options.batch or [16, 32, 64]:
            measure(batch_size, options)


if __name__ == "__main__":
    main()
