"""Write down when the functions named in `STAGES` begin and end, in every process of a sweep: `bench_start.py` has the sweep's Pythons import this.

One line of JSON an event: the process, the thread, the system's monotonic clock, the CPU seconds of the process so far. Only the standard
library is imported, so that what is measured stays what it is.
"""

import functools
import importlib.machinery
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

STAGES = {
    "sweep file": ["kdsweep.config.sweep_file:load_sweep"],
    "plan": ["kdsweep.engine.plan:print_plan"],
    "folder, storage, study": [
        "kdsweep.records.writing:start_sweep",
        "kdsweep.search.studies:Studies.__init__",
        "kdsweep.search.agreements:Agreements.agree",
        "kdsweep.engine.worker_loop:Worker.__init__",
        "kdsweep.engine.worker_loop:Worker._take",
    ],
    "starting a worker": ["kdsweep.engine.supervisor:Supervisor._start"],
    "precision": ["kdsweep.training.fast.machine:best_precision", "kdsweep.training.fast.machine:hardware"],
    "reading": ["kdsweep.training.data.splits:load_data"],
    "tokenizer, what models read": ["kdsweep.training.reader:reader"],
    "tokenising": ["kdsweep.training.data.tokenizing:tokenize"],
    "hashing": [
        "kdsweep.training.data.splits:Data.sha256",
        "kdsweep.training.data.tokens:Tokens.sha256",
        "kdsweep.training.models:weights_sha256",
    ],
    "teacher": ["kdsweep.training.fine_tuning:prepare_teacher"],
    "logits": ["kdsweep.training.teacher_logits:member_logits"],
    "teacher's record": ["kdsweep.engine.preparation:run_teacher"],
    "teacher's speed": ["kdsweep.training.teacher_speed:teacher_speed"],
    "students": ["kdsweep.training.initial_students:InitialStudents.of"],
    "checks": ["kdsweep.engine.preparation:check_inputs", "kdsweep.engine.preparation:preflight"],
    "W&B": ["kdsweep.engine.messages:TrackedRuns.__init__", "kdsweep.tracking.wandb_tracker:WandbTracker._open"],
    "trial begins": ["kdsweep.training.trial:run_trial"],
    "first step": ["kdsweep.training.loop:_update"],
}
"""The functions of each row of the table; time belongs to the innermost that runs."""
IMPORTS = (
    "kdsweep.config.sweep_file",
    "kdsweep.engine.sweep",
    "kdsweep.engine.worker_loop",
    "wandb",
    "kdsweep.tracking.wandb_tracker",
)
"""Modules whose import is a stage of its own, with all that they import."""


def begin(path: str) -> None:
    """Watch this process, and those that it forks: write to the end of the file `path`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    wanted: dict[str, list[tuple[str, str]]] = {}
    for stage, functions in STAGES.items():
        for function in functions:
            module, _, name = function.partition(":")
            wanted.setdefault(module, []).append((name, stage))

    def write(kind: str, stage: str) -> None:
        cpu = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
        told = [os.getpid(), threading.get_ident(), time.monotonic(), cpu, kind, stage]
        os.write(descriptor, (json.dumps(told) + "\n").encode())

    def watched(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            write("enter", stage)
            try:
                return function(*arguments, **keywords)
            finally:
                write("leave", stage)

        return call

    def watch(module: ModuleType) -> None:
        for name, stage in wanted.get(module.__name__, ()):
            *classes, last = name.split(".")
            owner = functools.reduce(getattr, classes, module)
            setattr(owner, last, watched(getattr(owner, last), stage))

    execute = importlib.machinery.SourceFileLoader.exec_module

    def exec_module(loader: importlib.machinery.SourceFileLoader, module: ModuleType) -> None:
        counted = module.__name__ in IMPORTS
        if counted:
            write("enter", "imports")
        try:
            execute(loader, module)
        finally:
            if counted:
                write("leave", "imports")
        watch(module)

    importlib.machinery.SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]
    os.register_at_fork(after_in_child=lambda: write("process", "forked"))
    write("process", " ".join(sys.orig_argv[1:4]))
