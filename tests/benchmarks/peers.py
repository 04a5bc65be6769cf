"""What a user would write instead of kdsweep: the same trials through Hugging Face's Trainer, or a notebook's loop.

`bench_sweep.py` runs this file as a process of its own for each side. Needs accelerate, which Trainer asks for.

    good      Trainer, the teacher in `compute_loss` under `no_grad`, batches of about one length, fused AdamW, the precision that is
              faster on this machine, no checkpoints, no logging service, evaluation in batches of 128 without the teacher
    plain     Trainer as its defaults have it, the teacher in `compute_loss`, evaluation with it too
    textbook  the loop of `bench_trial.py`, clipping gradients as the other sides do
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a json lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def through_trainer(folder: Path, trials: list[dict[str, Any]], *, epochs: int, good: bool) -> list[float]:
    """Validation accuracy after the last epoch of every trial of one `hyperparameter_search`."""
    import optuna
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )
    from transformers.utils import logging

    from kdsweep.training.fast.machine import best_device, best_precision

    logging.set_verbosity_error()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    @dataclass
    class DistillationArguments(TrainingArguments):
        """With what the search sets beside learning rate and batch size."""

        temperature: float = 2.0
        alpha: float = 0.5

    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    device = best_device()
    teacher = AutoModelForSequenceClassification.from_pretrained(folder / "teacher").eval().to(device)
    label_to_id = teacher.config.label2id

    def prepared(name: str) -> Any:
        rows = Dataset.from_list(read(folder / f"{name}.jsonl"))
        encode = lambda batch: {
            **tokenizer(batch["text"], truncation=True, max_length=128),
            "labels": [label_to_id[label] for label in batch["label"]],
        }
        rows = rows.map(encode, batched=True, remove_columns=["text", "label"])
        return rows.map(lambda row: {"length": len(row["input_ids"])})

    class DistillationTrainer(Trainer):
        """The loss."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            """alpha T² KL(teacher || student) + (1 - alpha) CE."""
            outputs = model(**inputs)
            hard, arguments = outputs.loss, self.args
            if good and not model.training:
                return (hard, outputs) if return_outputs else hard
            with torch.no_grad():
                teacher_logits = teacher(**inputs).logits
            T, alpha = arguments.temperature, arguments.alpha  # type: ignore[attr-defined]
            log_q = functional.log_softmax(outputs.logits.float() / T, dim=-1)
            p = functional.softmax(teacher_logits.float() / T, dim=-1)
            loss = alpha * T**2 * functional.kl_div(log_q, p, reduction="batchmean") + (1 - alpha) * hard
            return (loss, outputs) if return_outputs else loss

    careful: dict[str, Any] = {
        "bf16": best_precision(device) == "bf16",
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "per_device_eval_batch_size": 128,
        "dataloader_pin_memory": device != "cpu",
        "disable_tqdm": True,
    }
    arguments = DistillationArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=epochs,
        warmup_steps=0.1,
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=device == "cpu",
        **(careful if good else {}),
    )
    trainer = DistillationTrainer(
        model_init=lambda: AutoModelForSequenceClassification.from_pretrained(folder / "student"),
        args=arguments,
        train_dataset=prepared("train"),
        eval_dataset=prepared("validation"),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda told: {"accuracy": float((told.predictions.argmax(axis=-1) == told.label_ids).mean())},
    )
    trainer.model_accepts_loss_kwargs = False
    found: list[float] = []

    def hp_space(trial: Any) -> dict[str, Any]:
        point = trials[trial.number].items()
        return {"per_device_train_batch_size" if name == "batch_size" else name: value for name, value in point}

    def objective(metrics: dict[str, float]) -> float:
        found.append(metrics["eval_accuracy"])
        print(json.dumps({"accuracy": found[-1]}), flush=True)
        return found[-1]

    trainer.hyperparameter_search(
        hp_space=hp_space,
        compute_objective=objective,
        n_trials=len(trials),
        direction="maximize",
        backend="optuna",
        pruner=optuna.pruners.NopPruner(),  # identical trials
    )
    return found


def through_textbook(folder: Path, trials: list[dict[str, Any]], *, epochs: int) -> list[float]:
    """Validation accuracy after the last epoch of every trial, one after the other."""
    from bench_trial import textbook
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from kdsweep.config.trial import TrialConfig
    from kdsweep.training.fast.machine import best_device

    device = best_device()
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    teacher = AutoModelForSequenceClassification.from_pretrained(folder / "teacher").eval().to(device)

    def prepared(name: str) -> list[tuple[torch.Tensor, int]]:
        rows = read(folder / f"{name}.jsonl")
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=128)["input_ids"]
        labels = [teacher.config.label2id[row["label"]] for row in rows]
        return [(torch.tensor(ids), label) for ids, label in zip(encoded, labels, strict=True)]

    train, validation = prepared("train"), prepared("validation")
    found = []
    for point in trials:
        student = AutoModelForSequenceClassification.from_pretrained(folder / "student").to(device)
        config = TrialConfig(train_file="-", teacher="-", student="-", epochs=epochs, **point)
        found.append(textbook(student, teacher, train, validation, config).val_accuracy)
        print(json.dumps({"accuracy": found[-1]}), flush=True)
    return found


def main() -> None:
    """One side, whole."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    described.add_argument("side", choices=["good", "plain", "textbook"])
    described.add_argument("folder", type=Path, help="teacher/, student/, train.jsonl, validation.jsonl, trials.json")
    described.add_argument("--trials", type=int, help="only the first so many")
    described.add_argument("--epochs", type=int, default=1)
    options = described.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    trials = json.loads((options.folder / "trials.json").read_text())[: options.trials]
    if options.side == "textbook":
        through_textbook(options.folder, trials, epochs=options.epochs)
    else:
        through_trainer(options.folder, trials, epochs=options.epochs, good=options.side == "good")


if __name__ == "__main__":
    sys.exit(main())
