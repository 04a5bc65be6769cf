"""Train a student: `distill_epoch` makes one pass over the rows, and `distill` alternates it with `evaluate`.

An `Objective` computes the losses of a batch from the student's outputs and the targets of the same rows, such as the teacher's cached
logits. A teacher is fine-tuned by this loop too, with alpha 0.
"""

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from kdsweep.config.lengths import evaluations_of
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DoesNotFit, NonFiniteLoss
from kdsweep.records.schema import EpochMetrics, StepMetrics
from kdsweep.training.checkpoints import NOT_KEPT, Checkpoints
from kdsweep.training.data.order import batches_of_steps
from kdsweep.training.data.tokens import Batch, Rows, split_batch
from kdsweep.training.evaluation import Evaluation, evaluate
from kdsweep.training.fast import machine
from kdsweep.training.fast.cuda_graphs import Graphs, own_stream, recording, why_not_recorded
from kdsweep.training.fast.shortcuts import shortcuts, shortcuts_taken, weights_in_bfloat16
from kdsweep.training.fast.team import ALONE, Team
from kdsweep.training.fast.vocabulary import compact_vocabulary, restore_vocabulary, why_whole_vocabulary
from kdsweep.training.objective import TOTAL, Inputs, Objective, objective_of
from kdsweep.training.online import OnlineTeacher, outputs_of
from kdsweep.training.readout import Readout, Taken
from kdsweep.training.state import (
    Training,
    epoch_metrics,
    optimizer_and_schedule,
    row_counts,
    step_metrics,
    steps_until,
    total_steps,
    weight_decay_so_far,
)


def distill(
    student: nn.Module,
    train: Rows,
    validation: Rows,
    config: TrialConfig,
    *,
    on_steps: Callable[[Sequence[StepMetrics]], None],
    on_epoch: Callable[[EpochMetrics], bool],
    on_start: Callable[[Training], None] = lambda _: None,
    objective: Objective | None = None,
    teacher: OnlineTeacher | None = None,
    checkpoints: Checkpoints = NOT_KEPT,
    team: Team = ALONE,
    keep_lowest_loss: bool = False,
) -> tuple[Training, Evaluation]:
    """Train `student` in place for `config.epochs` or `config.max_steps`, or until `on_epoch` returns True; return its state and the last
    evaluation.

    The loss is that of `objective`; without one, of `objective_of(config)`. Where it reads outputs of the teacher, `teacher` runs in every
    step, and is as before when the training is over. With `keep_lowest_loss` the student ends with the weights of the epoch with the lowest
    validation loss, and the evaluation is theirs. Training continues from the newest checkpoint, if there is one; `on_start` gets the state
    from which it starts. The processes of a `team` each call this with their own copy of student and rows, and end with the same weights.
    Raises NonFiniteLoss, which names the first step whose loss is nan or inf, DoesNotFit for a row too large for the memory, Interrupted
    after saving a checkpoint where a stop was requested.
    """
    objective = objective or objective_of(config)
    objective.check(train)
    if objective.teacher_outputs and teacher is None:
        raise ValueError(f"an objective that reads {sorted(objective.teacher_outputs)} of a teacher needs a teacher")
    whole = why_whole_vocabulary(student)
    vocabulary = None if whole else compact_vocabulary(student, [train.tokens, validation.tokens])
    online = teacher if objective.teacher_outputs else None
    training = _beginning(student, train, config, objective, online, team)
    if (state := checkpoints.latest(config.device)) is not None:
        training.load_state_dict(state)
    on_start(training)
    evaluation = None
    with ExitStack() as stack:
        stack.enter_context(checkpoints.guarding())
        stack.enter_context(own_stream(config.device))
        if training.teacher:
            stack.enter_context(training.teacher.ready(objective.teacher_outputs, low=config.precision == "bf16"))
        while training.epoch <= evaluations_of(config):
            losses = distill_epoch(training, train, config, on_steps=on_steps, checkpoints=checkpoints)
            train_seconds = time.perf_counter() - training.epoch_started
            evaluation = evaluate(student, validation, team)
            if not np.isfinite(evaluation.loss):  # the last update can break the weights after its loss was finite
                raise NonFiniteLoss(training.step, {"val_loss": evaluation.loss})
            epoch = epoch_metrics(training, losses, evaluation, train_seconds)
            stop = team.any(on_epoch(epoch))
            if keep_lowest_loss:
                training.keep_lowest_loss(epoch)
            training.next_epoch(epoch)
            if stop:
                break
            if team.any(checkpoints.due()) and team.leads:
                checkpoints.save(training.state_dict(), step=training.step)
        if training.kept is not None and training.kept.step < training.step:
            student.load_state_dict(training.kept.weights)
            evaluation = None
        # None where the training was cut off after its last epoch, or an earlier epoch is kept
        evaluation = evaluation or evaluate(student, validation, team)
    training.shortcuts = shortcuts_taken(
        student,
        objective.student_outputs,
        low=config.precision == "bf16",
        whole_vocabulary=whole,
        no_graphs=training.graphs.why_not if training.graphs else why_no_graphs(student, config, team),
    )
    training.graphs = None  # frees their memory
    steps = training.kept.step if training.kept else training.step
    if vocabulary:
        restore_vocabulary(student, vocabulary, decay=weight_decay_so_far(training.schedule, config, steps))
    return training, evaluation


def _beginning(
    student: nn.Module,
    train: Rows,
    config: TrialConfig,
    objective: Objective,
    teacher: OnlineTeacher | None,
    team: Team,
) -> Training:
    """Return the state of a training on `train` before its first step."""
    optimizer, schedule = optimizer_and_schedule(student, config, steps=total_steps(train, config))
    device = train.labels.device
    return Training(
        student=student,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        team=team,
        graphs=None if why_no_graphs(student, config, team) else Graphs(optimizer, config.device),
        teacher=teacher,
        known={name: torch.from_numpy(mask).to(device).float() for name, mask in train.known().items()},
    )


def why_no_graphs(student: nn.Module, config: TrialConfig, team: Team) -> str | None:
    """Return why no step of the training is recorded as a CUDA graph; None where each is that can be."""
    if not config.device.startswith("cuda"):
        return "it trains on a CPU"
    return "it trains on several devices" if team.size > 1 else why_not_recorded(student.config)


def distill_epoch(
    training: Training,
    rows: Rows,
    config: TrialConfig,
    *,
    on_steps: Callable[[Sequence[StepMetrics]], None],
    checkpoints: Checkpoints = NOT_KEPT,
) -> Tensor:
    """Train one pass over `rows` (with max_steps: the steps until the next evaluation), from the step of `training`; return its mean
    losses over rows, in the order of the objective's `names`, float64 [len(names)]."""
    student, objective, schedule, team = training.student, training.objective, training.schedule, training.team
    student.train()
    if training.step == steps_until(
        training.epoch - 1, rows, config
    ):  # dropout: an epoch's randomness does not depend on earlier epochs
        torch.manual_seed(config.seed * 1_000_003 + training.epoch)

    def read(steps: Sequence[Taken]) -> None:
        for step in steps:
            counts = torch.tensor(step.rows, dtype=torch.float64)
            training.losses = training.losses + counts * torch.tensor(step.losses, dtype=torch.float64)
            training.rows_seen = training.rows_seen + counts
        on_steps([step_metrics(step, training.epoch, objective) for step in steps])

    update = functools.partial(_update, training, rows, config)
    readout = Readout(read)
    last, whole = steps_until(training.epoch, rows, config), total_steps(rows, config)
    with shortcuts(student, outputs=objective.student_outputs):
        for batch in batches_of_steps(rows, config, first=training.step + 1, last=last):
            if team.size > 1:  # dropout of its own in each process; a checkpoint holds the leader's generators
                torch.manual_seed((config.seed * 1_000_003 + training.step) * team.size + team.rank)
            training.progress.fill_(training.step / max(1, whole - 1))
            graphs = training.graphs if training.micro_batches == 1 else None
            losses = graphs.step(batch, update) if graphs else update(batch)
            training.step += 1
            rate = float(schedule.get_last_lr()[0])
            schedule.step()
            readout.add(Taken(training.step, row_counts(batch, rows, objective), rate, losses))
            due = team.any(checkpoints.due())
            if due:
                readout.finish()
            if due and team.leads:
                checkpoints.save(training.state_dict(), step=training.step)
    readout.finish()
    return training.losses / training.rows_seen.clamp(min=1)


def _update(training: Training, rows: Rows, config: TrialConfig, batch: Batch) -> Tensor:
    """Take one step of the optimizer; return the batch's losses in the order of the objective's `names`, on the device."""
    losses = _backward(training, batch, rows, config)
    nn.utils.clip_grad_norm_(training.student.parameters(), config.max_grad_norm)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    return losses


def _backward(training: Training, batch: Batch, rows: Rows, config: TrialConfig) -> Tensor:
    """Compute the gradient of the batch's mean loss into the student; return its losses in the order of the objective's `names`.

    A batch that does not fit in memory is cut into twice as many pieces, each weighed by its share of the rows: the same mean gradient
    from less memory. Each process of a team takes a share of the batch, weighed by its rows too, and the gradients are summed.
    Raises DoesNotFit where a single row does not fit.
    """
    team, mine = training.team, training.team.share(batch)
    while True:
        too_large: RuntimeError | None = None
        losses = torch.zeros(len(training.objective.names), device=rows.labels.device)
        try:
            pieces = split_batch(mine, training.micro_batches) if mine else []
            for piece in pieces:
                losses = losses + _backward_piece(training, piece, rows, config, whole=batch)
        except RuntimeError as error:
            if not machine.is_out_of_memory(error) or recording():
                raise
            too_large = error.with_traceback(None)  # the traceback's frames hold the memory
        if not team.any(too_large is not None):
            if team.size > 1:
                team.sum(losses, *_gradients(training.student))
            return losses
        forgot = training.graphs is not None and training.graphs.forget()  # without graphs a whole batch may fit
        if training.micro_batches >= len(batch.rows) and not forgot:
            cause = too_large or RuntimeError("out of memory on another device")
            raise DoesNotFit(training.step + 1, batch.inputs["input_ids"].shape[1], cause) from cause
        training.optimizer.zero_grad(set_to_none=True)
        machine.free_memory()
        training.micro_batches *= 1 if forgot else 2


def _gradients(student: nn.Module) -> list[Tensor]:
    """Return the gradient of every parameter that is trained, set to zero where this process had no row."""
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


def _backward_piece(training: Training, piece: Batch, rows: Rows, config: TrialConfig, *, whole: Batch) -> Tensor:
    """Add the gradient of a piece's share in the mean loss of the `whole` batch; return the piece's share of the losses."""
    objective, device, low = training.objective, rows.labels.device.type, config.precision == "bf16"
    with ExitStack() as stack:
        if low and device == "cuda":
            stack.enter_context(weights_in_bfloat16(training.student))
        with torch.autocast(device, dtype=torch.bfloat16, enabled=low):
            outputs, asked = outputs_of(training.student, piece.inputs, objective.student_outputs), training.teacher
            taught = asked.outputs(piece, rows.tokens, objective.teacher_outputs) if asked else {}
        weights = {name: _weights(known, piece, whole) for name, known in training.known.items()}
        if rows.hard_weights is not None:
            weights["L_hard"] = rows.hard_weights[piece.rows] * weights.get("L_hard", 1)
        inputs = Inputs(
            student=outputs,
            teacher=taught,
            targets={name: rows.targets[name][piece.rows] for name in objective.targets},
            labels=rows.labels[piece.rows],
            mask=piece.inputs["attention_mask"],
            weights=weights,
            progress=training.progress,
            task=rows.task,
        )
        losses = objective.loss(inputs)
        share = len(piece.rows) / len(whole.rows)
        (losses[TOTAL] if share == 1 else share * losses[TOTAL]).backward()
    return share * torch.stack([losses[name] for name in objective.names]).detach()


def _weights(known: Tensor, piece: Batch, whole: Batch) -> Tensor:
    """Return the weights [B] of a piece's rows in a part that counts the rows where `known` [N] is 1: with mean 1 over the `whole` batch, or 0
    where it has no such row."""
    return known[piece.rows] / known[whole.rows].mean().clamp(min=1 / len(whole.rows))
