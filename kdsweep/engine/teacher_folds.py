"""Fine-tune the teachers of folds side by side: while the first worker of a run prepares, others take the folds that are free."""

from collections.abc import Callable, Sequence
from pathlib import Path

from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Send, TeacherStep, teacher_epoch
from kdsweep.engine.messages import Messages
from kdsweep.engine.trial_configs import TrialConfigs
from kdsweep.errors import TrialFailed
from kdsweep.records.schema import StepMetrics
from kdsweep.search.studies import Studies
from kdsweep.system.process import StopRequest
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.fast import machine
from kdsweep.training.fine_tuning import refused
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import UNWATCHED, TeacherWatch, teacher_trial


def fold_watches(
    config: TrialConfig, send: Send, checkpointing: Checkpointing, on_begun: Callable[[], None] = lambda: None
) -> Callable[[int, int], TeacherWatch]:
    """Return a function that returns the watch of one fold's fine-tuning, from the fold's number and the rows that its teacher sees.

    The watch sends steps and epochs; `on_begun` is called with each steps that are sent.
    """
    trial = teacher_trial(config)

    def watch(fold: int, rows: int) -> TeacherWatch:
        name, total = f"fold {fold + 1} of {config.teacher_folds}", trial.epochs * -(-rows // trial.batch_size)

        def on_steps(steps: Sequence[StepMetrics]) -> None:
            on_begun()
            send(TeacherStep(step=steps[-1].step, steps=total, L_hard=steps[-1].L_hard, fold=name))

        return TeacherWatch(
            on_steps=on_steps,
            on_epoch=lambda epoch: send(teacher_epoch(epoch, name)),
            checkpointing=checkpointing,
        )

    return watch


def help_with_folds(sweep: SweepConfig, folder: Path, owner: str, send: Send, stop: StopRequest) -> None:
    """Fine-tune the teachers of the folds that no other worker fine-tunes, and return when none is free.

    Raises PreflightError where a fine-tuning fails, Interrupted where this process is asked to stop.
    """
    checkpointing = Checkpointing(every_seconds=sweep.study.checkpoint_seconds, stop=stop)
    studies, materials = Studies(sweep, folder, owner, Messages(send, stop).note), Materials()
    for config in TrialConfigs(sweep, folder, studies.agreements).corners():
        if config.teacher_folds == 1:
            continue
        watch = TeacherWatch(
            on_steps=UNWATCHED.on_steps,
            on_epoch=UNWATCHED.on_epoch,
            checkpointing=checkpointing,
            on_fold=fold_watches(config, send, checkpointing),
        )
        take_free_folds(materials, config, watch)


def take_free_folds(materials: Materials, config: TrialConfig, watch: TeacherWatch) -> None:
    """Fine-tune the teachers of the folds that no other worker fine-tunes. Raises PreflightError where a fine-tuning fails."""
    machine.set_up(int(config.threads))
    try:
        materials.help_with_folds(config, watch)
    except TrialFailed as failure:
        raise refused(failure) from failure
