"""One host of `bench_workers.py`: workers whose trials sleep instead of training. All else of a worker is real.

Torch and transformers are imported once, and each worker is a fork of this process: 64 workers then fit into a small machine.
"""

import argparse
import json
import math
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kdsweep.config.lengths import evaluations_of
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Event, Note, TrialEnded, TrialStarted
from kdsweep.errors import KDSweepError
from kdsweep.records.schema import Attempt, EpochMetrics, StepMetrics, TrialResult, missing_result
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest, for_good, new_owner

MEASURED: dict[str, Any] = {"val_macro_f1": 0.7, "val_mcc": 0.6, "val_loss": 0.5, "val_ece": 0.1, "val_kl": 0.2}
MEASURED |= {"val_agreement": 0.9}


def accuracy_of(config: TrialConfig, number: int, progress: float) -> float:
    """A score with a best temperature, alpha and learning rate, and a trial's own luck, that grows while the trial goes on."""
    away = (math.log(config.temperature / 4) / 2) ** 2 + (config.alpha - 0.7) ** 2
    away += (math.log(config.learning_rate / 2e-4) / 3) ** 2
    luck = random.Random(number).gauss(0, 0.01)
    return max(0.0, min(1.0, 0.9 * math.exp(-away) * (0.7 + 0.3 * progress) + luck))


class Diary:
    """Appends what one worker does to a file of JSON lines, each with its time; a kill costs no line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, what: str, **facts: Any) -> None:
        """Append a line."""
        self._file.write(json.dumps({"at": time.time(), "what": what, **facts}) + "\n")
        self._file.flush()

    def hear(self, event: Event) -> None:
        """Append what the worker tells the terminal."""
        match event:
            case TrialStarted():
                self.add("started", arm=event.id.arm, trial=event.id.number)
            case TrialEnded():
                self.add("ended", arm=event.id.arm, trial=event.id.number, status=event.status)
            case Note(text):
                self.add("note", text=text)


def sleeping(seconds: float, diary: Diary) -> Callable[..., TrialResult]:
    """A `run_trial` that sleeps `seconds` in place of the training, and asks and writes all that a trial asks and writes."""

    def run(
        config: TrialConfig,
        slot: Any,
        folder: TrialFolder,
        materials: Any,
        run: Any,
        watch: Any,
        checkpointing: Any,
        **_: Any,
    ) -> TrialResult:
        began, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        folder.start(config)
        folder.cut_back(step=0, epochs=0)
        folder.add_attempt(
            Attempt(attempt=slot.attempt, owner=slot.owner, from_step=0, steps_again=0, started_at=started_at)
        )
        evaluations, epochs, pruned = evaluations_of(config), list[EpochMetrics](), False
        for number in range(1, evaluations + 1):
            time.sleep(seconds / evaluations)
            losses = {"L_soft": 1 / number, "L_hard": 0.7 / number, "L_total": 0.8 / number}
            step = StepMetrics(step=number, epoch=number, learning_rate=config.learning_rate, **losses)
            folder.add_steps([step])
            watch.on_steps([step])
            accuracy = accuracy_of(config, slot.id.number, number / evaluations)
            at: dict[str, Any] = {
                "epoch": number,
                "step": number,
                "train_seconds": seconds / evaluations,
                "evaluate_seconds": 0.0,
            }
            epoch = EpochMetrics(**at, **losses, val_accuracy=accuracy, **MEASURED)
            folder.add_epoch(epoch)
            epochs.append(epoch)
            asked = time.perf_counter()
            pruned = watch.on_epoch(epoch)
            diary.add("epoch", seconds=time.perf_counter() - asked)
            if pruned:
                break
        folder.write_predictions(np.ones(len(materials.data(config).validation), np.int64))
        status, why = ("pruned", "others were ahead") if pruned else ("complete", None)
        known = missing_result(
            slot.id.arm, slot.id.number, status=status, error="", attempt=slot.attempt, epochs=epochs
        )  # type: ignore[arg-type]
        result = replace(
            known,
            error=why,
            best_epoch=len(epochs),
            best_val_accuracy=epochs[-1].val_accuracy,
            started_at=started_at,
            parameters=1000,
            size_mb=0.1,
            latency_ms_p50=1.0,
            rows_per_second=100.0,
            seconds=time.perf_counter() - began,
        )
        folder.finish(result)
        diary.add("slept", arm=slot.id.arm, trial=slot.id.number)
        return result

    return run


def work(sweep_file: Path, overrides: list[str], seconds: float, diary: Diary) -> int:
    """One worker, from its start to its end; its exit code, as `kdsweep.worker` has it."""
    from kdsweep.engine.worker_loop import run_worker

    stop = StopRequest()
    stop.listen()
    try:
        diary.add("awake")
        sweep = load_sweep(sweep_file, overrides)
        run_worker(sweep, new_owner(), diary.hear, stop, "off", run_one=sleeping(seconds, diary))
    except KDSweepError as error:
        diary.add("problem", text=str(error))
        return 2
    except BaseException:
        diary.add("crash", text=traceback.format_exc())
        return 1
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        diary.add("over", cpu_seconds=used.ru_utime + used.ru_stime, megabytes=used.ru_maxrss / 1024)
    return 0


def main() -> int:
    """Fork the workers, write their process ids into the diaries' folder, and wait for all; 1 where one ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="that a trial sleeps")
    parser.add_argument("--diaries", type=Path, required=True)
    options = parser.parse_intermixed_args()
    with for_good():
        import torch._dynamo  # noqa: F401
        import torch.distributed.tensor  # noqa: F401  # what torch imports at its first step, some seconds

        import kdsweep.engine.worker_loop  # noqa: F401
    pids = []
    for number in range(options.workers):
        if (pid := os.fork()) == 0:
            with (options.diaries / f"{number:03}.jsonl").open("a", encoding="utf-8") as file:
                code = work(options.file, options.overrides, options.seconds, Diary(file))
            os._exit(code)
        pids.append(pid)
    draft = options.diaries / "pids.draft"
    draft.write_text(json.dumps(pids))
    draft.rename(options.diaries / "pids.json")
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return int(any(code not in (0, -9) for code in codes))


if __name__ == "__main__":
    sys.exit(main())
