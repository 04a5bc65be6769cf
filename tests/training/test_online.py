"""A teacher that runs in every step: L_relation through the loop against plain transformers, cut off, in pieces, in bfloat16; what is refused."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted, ModelError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_steps, read_trial
from kdsweep.records.schema import StepMetrics
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import readout
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.order import batches_of_steps
from kdsweep.training.data.tokens import load_tokenizer, padded, split_batch, training_batches
from kdsweep.training.input_checks import check_inputs
from kdsweep.training.loop import distill
from kdsweep.training.models import weights_sha256
from kdsweep.training.objective import objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import Training
from kdsweep.training.teacher import teacher_trial
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
QUERIES = {"bert": ("query", "key", "value"), "distilbert": ("q_lin", "k_lin", "v_lin")}


@pytest.fixture
def related(tiny_config: Config) -> Config:
    """Configs with L_relation in 4 heads."""
    return lambda **changes: tiny_config(**{"relation_weight": 0.5, "relation_heads": 4, **changes})


@pytest.fixture
def pairs(write_rows: Callable[..., Path], tiny_rows: list[tuple[str, str]]) -> str:
    """Rows of two texts, which the teacher tells apart by token type ids."""
    others = [text for text, _ in reversed(tiny_rows)]
    rows = [{"text": a, "other": b, "label": label} for (a, label), b in zip(tiny_rows, others, strict=True)]
    return str(write_rows("pairs.csv", rows))


def steady(student: Any) -> Any:
    """Without dropout, so that two forward passes agree."""
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return student


def narrow(config: TrialConfig, folder: Path) -> Path:
    """A DistilBERT of width 24, with the teacher's tokenizer."""
    tokenizer = load_tokenizer(config.teacher, None)
    torch.manual_seed(0)
    shape = {"dim": 24, "n_heads": 3, "hidden_dim": 48, "n_layers": 2, "dropout": 0.0, "attention_dropout": 0.0}
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    made: Any = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(tokenizer), **shape, **names))
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(
    config: TrialConfig, materials: Materials, student: Any | None = None
) -> tuple[list[StepMetrics], Training, Any]:
    """One training with its teacher; its steps first."""
    steps = list[StepMetrics]()
    student = student or materials.student(config)
    teacher = materials.online_teacher(config) if config.relation_weight else None
    watch: Any = {"on_steps": steps.extend, "on_epoch": lambda _: False}
    return steps, distill(student, *materials.rows(config), config, teacher=teacher, **watch)[0], student


def plain_relations(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Queries, keys and values of the last layer from its input, which transformers gives."""
    outputs = model(**inputs, output_hidden_states=True)
    parts = {name.split(".")[-1]: module for name, module in model.named_modules()}  # of each name, the last layer's
    return [parts[name](outputs.hidden_states[-2]) for name in QUERIES[model.config.model_type]]


@pytest.mark.slow
@pytest.mark.parametrize("width", ["same", "narrow"])
def test_steps_are_those_of_a_plain_loop_with_both_models_run_by_transformers(
    width: str, related: Config, pairs: str, tmp_path: Path
) -> None:
    config = related(train_file=pairs, text_pair_column="other", max_length=32, epochs=1, batch_size=64, weight_decay=0)
    if width == "narrow":
        config = replace(config, student=str(narrow(config, tmp_path / "narrow")), relation_heads=2)
    heads = config.relation_heads
    materials = Materials()
    rows, _ = materials.rows(config)
    told, _, trained = train(config, materials, steady(materials.student(config)))

    student, teacher = steady(materials.student(config)).train(), materials.teacher(config).model
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate, weight_decay=0)
    losses: list[float] = []
    for step, batch in enumerate(training_batches(rows.tokens, batch_size=64, seed=0, epoch=1)):
        with torch.no_grad():
            tokens = materials.teacher_rows(config)[0].tokens
            inputs = padded(tokens, batch.rows.numpy()).inputs
            assert inputs["token_type_ids"].any() and "token_type_ids" not in batch.inputs
            theirs = plain_relations(teacher, inputs)
        mask, relation = batch.inputs["attention_mask"].bool(), torch.zeros(())
        for x, z in zip(plain_relations(student, batch.inputs), theirs, strict=True):
            for row in range(len(batch.rows)):
                p, q = (
                    (a := v[row, mask[row]].unflatten(-1, (heads, -1)).transpose(0, 1)) @ a.mT / a.shape[-1] ** 0.5
                    for v in (z, x)
                )
                relation = (
                    relation + functional.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="none").sum(-1).mean() / 3
                )
        logits = student(**batch.inputs).logits
        hard = functional.cross_entropy(logits, rows.labels[batch.rows])
        soft = (
            functional.kl_div(
                (logits / 2).log_softmax(-1), (rows.teacher_logits[batch.rows] / 2).softmax(-1), reduction="batchmean"
            )
            * 4
        )
        relation = relation / len(batch.rows)
        total = 0.5 * soft + 0.5 * hard + 0.5 * relation
        total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / 2)
        optimizer.step()
        optimizer.zero_grad()
        losses += [relation.item(), total.item()]
    assert len(losses) == 4
    assert [loss for step in told for loss in (step.L_relation, step.L_total)] == pytest.approx(losses, rel=1e-4)
    for (name, mine), other in zip(trained.named_parameters(), student.parameters(), strict=True):
        if not name.endswith("k_lin.bias"):  # but in the last layer nothing but rounding
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5, msg=name)


def test_it_computes_the_cached_logits_of_every_row_from_the_students_batches(related: Config, pairs: str) -> None:
    texts = {
        "train_file": pairs,
        "text_pair_column": "other",
        "max_length": 32,
        "train_limit": 40,
        "unlabeled_rest": True,
    }
    config, materials = related(**texts), Materials()
    rows, seen = materials.rows(config)[0], list[int]()
    assert rows.extra == 32
    online = materials.online_teacher(config)
    for batch in batches_of_steps(rows, config, first=1, last=6):
        for piece in split_batch(batch, 2):
            told = online.outputs(piece, rows.tokens, frozenset())["logits"][:, list(materials.teacher(config).columns)]
            torch.testing.assert_close(told, rows.teacher_logits[piece.rows])
        seen += batch.rows.tolist()
    assert len({*seen}) > 50


def test_the_loss_on_relations_falls_and_the_teacher_is_as_before(related: Config, materials: Materials) -> None:
    config = related(relation_weight=3.0, epochs=4)
    teacher: Any = materials.teacher(config).model
    before = weights_sha256(teacher), teacher.config._attn_implementation
    steps: list[StepMetrics] = []
    training, _ = distill(
        materials.student(config),
        *materials.rows(config),
        config,
        teacher=materials.online_teacher(config),
        on_steps=steps.extend,
        on_epoch=lambda _: False,
    )
    assert (weights_sha256(teacher), teacher.config._attn_implementation) == before
    assert not teacher.training and all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("forward" in vars(module) for module in teacher.modules())
    first, last = training.history[0], training.history[-1]
    assert 0 < last.L_relation < 0.8 * first.L_relation
    for step in steps:
        assert step.L_total == pytest.approx(0.5 * (step.L_soft + step.L_hard) + 3 * step.L_relation, rel=1e-5)


def test_weight_and_heads_change_what_is_learnt_and_a_loss_without_teacher_is_said(
    related: Config, tiny_config: Config, materials: Materials
) -> None:
    configs = [
        tiny_config(epochs=1),
        *(related(epochs=1, **knob) for knob in ({}, {"relation_weight": 2.0}, {"relation_heads": 8})),
    ]
    assert len({weights_sha256(train(config, materials)[2]) for config in configs}) == 4
    with pytest.raises(ValueError, match=r"reads \['relations'\] of a teacher needs a teacher"):
        distill(materials.student(related()), *materials.rows(related()), related(), on_steps=print, on_epoch=bool)
    assert teacher_trial(related(teacher_epochs=1)).relation_weight == 0
    assert objective_of(tiny_config()).teacher_outputs == frozenset()


def test_a_batch_in_pieces_has_the_losses_of_a_whole_one(
    related: Config, materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, taken = related(epochs=1, batch_size=24, max_grad_norm=1e9), []
    for memory, pieces in ((24, 1), (7, 4)):
        student: Any = steady(materials.student(config))

        def limited(
            input_ids: Tensor, student: Any = student, plain: Any = student.forward, memory: int = memory, **inputs: Any
        ) -> Any:
            if student.training and len(input_ids) > memory:
                raise torch.OutOfMemoryError("tried to allocate more than there is")
            return plain(input_ids=input_ids, **inputs)

        monkeypatch.setattr(student, "forward", limited)
        steps, training, _ = train(config, materials, student)
        assert training.micro_batches == pieces
        taken.append([loss for step in steps for loss in (step.L_total, step.L_relation)])
    assert taken[1] == pytest.approx(taken[0], rel=1e-5)


def test_in_bfloat16_it_is_near_float32_and_repeats_to_the_bit(related: Config, materials: Materials) -> None:
    (low, _, first), (_, _, again) = (train(related(precision="bf16", epochs=1), materials) for _ in range(2))
    exact, _, _ = train(related(epochs=1), materials)
    assert weights_sha256(first) == weights_sha256(again)
    assert (
        low[0].L_relation == pytest.approx(exact[0].L_relation, rel=0.05) and low[0].L_relation != exact[0].L_relation
    )
    assert all(parameter.dtype == torch.float32 for parameter in first.parameters())


@pytest.mark.slow
def test_a_trial_cut_off_between_steps_ends_with_the_same_bits(
    related: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "READ_EVERY", 1)
    folders = [tmp_path / name / "trials" / "0000" for name in ("whole", "cut")]

    def run(folder: Path, stop_at: int | None) -> None:
        stop, count = StopRequest(), itertools.count(1)

        def on_steps(steps: Any) -> None:
            stop.requested |= any(next(count) == stop_at for _ in steps)

        watch = Watch(on_steps=on_steps, on_epoch=lambda _: False)
        keep, slot = Checkpointing(every_seconds=1e9, stop=stop), Slot(id=TrialId("distilled", 0))
        run_trial(related(), slot, TrialFolder(folder, "me"), Materials(), NullRun(), watch, keep)

    run(folders[0], None)
    with pytest.raises(Interrupted):
        run(folders[1], 7)
    run(folders[1], None)
    whole, cut = ((read_trial(folder).measured(), read_steps(folder)) for folder in folders)
    assert whole == cut and all(step.L_relation > 0 for step in whole[1]) and len(whole[1]) == 10
    assert whole[0] is not None and read_trial(folders[0]).epochs[-1].L_relation > 0


# What is refused -----------------------------------------------------------------------------------------------------


def refusal(*configs: TrialConfig) -> str:
    with pytest.raises(ModelError) as told:
        check_inputs(Materials(), configs, largest_batch=1, splits=("train", "validation"))
    return str(told.value)


def test_a_student_that_reads_other_tokens_is_refused(related: Config, tmp_path: Path) -> None:
    folder = narrow(related(), tmp_path / "other")
    config = related(student=str(folder), relation_heads=2)
    check_inputs(Materials(), [config], largest_batch=1, splits=("train", "validation"))
    vocabulary = load_tokenizer(config.teacher, None).get_vocab()
    write_tokenizer(folder, [*sorted(vocabulary, key=lambda piece: (vocabulary[piece] > 5, piece))])
    check_inputs(Materials(), [replace(config, relation_weight=0)], largest_batch=1, splits=("train", "validation"))
    assert "that read the same tokens, but the tokenizers of" in refusal(config)
    assert f"and {config.student!r} cut the training texts otherwise" in refusal(related(), config)


def test_heads_must_divide_both_widths(related: Config, tmp_path: Path) -> None:
    said = "relation_heads must divide the teacher's width 32 and the student's 32, but got 12; these do: 1, 2, 4, 8, 16, 32"
    assert refusal(related(relation_heads=12)) == said
    check_inputs(Materials(), [related(relation_weight=0, relation_heads=12)], largest_batch=1, splits=("train",))
    student = str(narrow(related(), tmp_path / "narrow"))
    assert "the student's 24, but got 16; these do: 1, 2, 4, 8" in refusal(related(student=student, relation_heads=16))
