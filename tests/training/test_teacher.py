"""The teacher and its cache: once, by content, and never a torn entry."""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import BertModel

from kdsweep.config.roles import Role
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import ROLES
from kdsweep.errors import Interrupted, ModelError, PreflightError
from kdsweep.records.schema import StepMetrics, TrialResult
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest
from kdsweep.system.wheels import cache_root
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import fine_tuning, teacher, teacher_logits
from kdsweep.training.architecture import architecture
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.tokens import training_batches
from kdsweep.training.evaluation import all_logits
from kdsweep.training.fine_tuning import FineTuning
from kdsweep.training.preflight import preflight
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import UNWATCHED, TeacherWatch
from kdsweep.training.teacher_record import run_teacher

Config = Callable[..., TrialConfig]


def cached_logits() -> list[Path]:
    return sorted((cache_root() / "logits").glob("*.safetensors"))


def test_logits_are_found_again_and_torn_entries_are_computed_again(tiny_config: Config) -> None:
    config = tiny_config()
    expected = Materials().rows(config)[0].teacher_logits
    entries = cached_logits()
    assert len(entries) == 2  # train and validation
    whole = {entry: entry.read_bytes() for entry in entries}
    for damage in (lambda b: b[:-7], lambda b: b[:-3] + b"\x01\x02\x03", lambda b: b""):
        for entry, content in whole.items():
            entry.write_bytes(damage(content))
        assert torch.equal(Materials().rows(config)[0].teacher_logits, expected)
        assert {entry: entry.read_bytes() for entry in cached_logits()} == whole


def test_the_key_of_a_cached_teacher_is_that_of_the_versions_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(str):
        def sha256(self) -> str:
            return str(self)

    monkeypatch.setattr(fine_tuning, "weights_sha256", lambda model: "weights")
    monkeypatch.setattr(fine_tuning, "computation", lambda model: "computation")
    config = TrialConfig(
        train_file="rows.csv",
        teacher="bert",
        teacher_epochs=3,
        teacher_learning_rate=2e-5,
        teacher_batch_size=16,
        teacher_seed=7,
        precision="bf16",
        device="cuda:0",
        teacher_threads=2,
        threads=1,
    )

    def key(config: TrialConfig) -> str:
        tokens: Any = {"train": Named("t"), "validation": Named("v")}
        data: Any = Named("data")
        model = torch.nn.Identity()
        return FineTuning(config=config, data=data, tokens=tokens, columns=(1, 0), pretrained=model).key

    assert key(config) == "f9baf7c53add5bb42649739b1230972ebc03ec032fc3534981e959aa7bb24897"
    others = {"teacher_epochs": 2, "teacher_learning_rate": 1e-5, "teacher_batch_size": 8, "teacher_seed": 6}
    alone = {"teacher_folds": 2, "teacher_keep": "lowest_loss", "class_weights": "balanced"}
    for name, value in (others | alone | {"precision": "fp32", "device": "cuda:1"}).items():
        same = key(dataclasses.replace(config, **{name: value})) == key(config)
        assert same == (name == "device"), f"{name}: two GPUs of one kind share a teacher, and nothing else does"
    elsewhere = dataclasses.replace(
        config, alpha=0.1, temperature=9.0, epochs=8, seed=3, learning_rate=1.0, batch_size=2
    )
    assert key(elsewhere) == key(config)


def test_every_field_with_the_teachers_role_is_in_that_key_by_value_or_by_content() -> None:
    own = {source: name for name, source in teacher.TEACHER_SETTINGS.items()}
    named = {own.get(name, name) for name, role in ROLES.items() if role is Role.TEACHER}
    known = set(teacher.TEACHER_KEY) | set(teacher.TEACHERS_ALONE)
    assert named - known == {"teacher", "teacher_revision", "teacher_file", "threads"}
    assert teacher.TEACHER_KEY == ["learning_rate", "batch_size", "epochs", "seed", "precision"]
    assert {"teacher_folds", "teacher_keep"} <= set(teacher.TEACHERS_ALONE)


def test_what_a_students_speed_depends_on_is_spelled_as_in_older_records() -> None:
    said = architecture(TrialConfig(train_file="rows.csv", teacher="bert", teacher_epochs=3, device="cpu"))
    assert said == (
        '{"student": "from_teacher", "student_revision": "auto", "student_layers": 6, "teacher": "bert", '
        '"teacher_revision": "auto", "max_length": 128, "device": "cpu"}'
    )


def test_temperature_alpha_and_batch_size_never_touch_the_cache_but_texts_and_lengths_do(tiny_config: Config) -> None:
    Materials().rows(tiny_config())
    Materials().rows(tiny_config(temperature=7.0, alpha=0.1, batch_size=8, seed=5, student_layers=1))
    assert len(cached_logits()) == 2
    Materials().rows(tiny_config(max_length=6))
    assert len(cached_logits()) == 4
    Materials().rows(tiny_config(train_limit=40))
    assert len(cached_logits()) == 5


def test_a_teacher_is_fine_tuned_once_and_a_damaged_one_again(tiny_config: Config, tiny_body: Path) -> None:
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=2, teacher_learning_rate=3e-3, teacher_batch_size=8)
    first = Materials().teacher(config)
    again = Materials().teacher(config)
    assert (first.from_cache, again.from_cache) == (False, True)
    assert (again.weights_sha256, again.epochs) == (first.weights_sha256, first.epochs)
    (folder,) = (cache_root() / "teachers").iterdir()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    mended = Materials().teacher(config)
    assert (mended.from_cache, mended.weights_sha256) == (False, first.weights_sha256)


def test_the_teachers_columns_are_permuted_to_the_datasets_order(tiny_config: Config) -> None:
    plain = Materials().rows(tiny_config())[1]
    swapped = Materials().rows(tiny_config(label_names=("positive", "negative")))[1]
    assert (plain.teacher_logits.argmax(-1) == plain.labels).double().mean() > 0.9
    assert (swapped.teacher_logits.argmax(-1) == swapped.labels).double().mean() > 0.9


def test_preflight_names_an_unfinetuned_teachers_accuracy_and_the_majoritys(
    tiny_config: Config, tiny_body: Path
) -> None:
    config = tiny_config(teacher=str(tiny_body))
    with pytest.raises(PreflightError, match=r"but has \d+\.\d\d against 50\.00.*teacher_epochs"):
        preflight(Materials(), config, StudyConfig())


def test_the_cache_can_be_thrown_away(tiny_config: Config) -> None:
    expected = Materials().rows(tiny_config())[0].teacher_logits
    shutil.rmtree(cache_root())
    assert torch.equal(Materials().rows(tiny_config())[0].teacher_logits, expected)


def test_an_entry_of_another_shape_or_under_another_hash_is_computed_again(tiny_config: Config) -> None:
    config = tiny_config()
    expected = Materials().rows(config)[0].teacher_logits
    train = max(cached_logits(), key=lambda entry: entry.stat().st_size)
    wrong = [
        (expected[:-1], True),
        (expected[:, :1].contiguous(), True),
        (expected + 1, False),
        (expected.double(), True),
    ]
    for logits, signed in wrong:
        digest = hashlib.sha256((logits if signed else expected).numpy().tobytes()).hexdigest()
        safetensors.torch.save_file({"logits": logits}, train, metadata={"sha256": digest})
        assert torch.equal(Materials().rows(config)[0].teacher_logits, expected)
    safetensors.torch.save_file({"other": expected}, train)
    assert torch.equal(Materials().rows(config)[0].teacher_logits, expected)


def test_logits_go_on_where_an_interruption_left_them_with_the_same_bits(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.training.data.tokens.EVALUATION_ROWS", 16)  # 72 rows: 5 batches
    monkeypatch.setattr(teacher_logits, "KEPT_SECONDS", 0.0)
    config, asked = tiny_config(), list[int]()
    rows, _ = Materials().rows(config)
    entry = max(cached_logits(), key=lambda path: path.stat().st_size)
    whole, materials = entry.read_bytes(), Materials()
    entry.unlink()
    mine, tokens = materials.teacher(config), materials.teacher_tokens(config, "train")
    mine.model.register_forward_pre_hook(lambda _, __, inputs: asked.append(len(inputs["input_ids"])), with_kwargs=True)

    def interrupted(done: int) -> None:
        if done == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teacher_logits.teacher_logits(mine, tokens, interrupted)
    assert asked == [16, 16, 16] and not entry.exists()
    found = teacher_logits.teacher_logits(mine, tokens)
    assert asked == [16, 16, 16, 16, 16, 8], "the third batch was not kept yet"
    assert torch.equal(found, rows.teacher_logits) and entry.read_bytes() == whole
    assert list(entry.parent.glob("*.part")) == []


def test_what_an_interruption_left_counts_rows_whatever_the_size_of_a_batch(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, kept, materials = tiny_config(), list[torch.Tensor](), Materials()
    tokens, model = materials.teacher_tokens(config, "train"), materials.teacher(config).model
    classes = len(materials.data(config).label_names)
    whole = all_logits(model, tokens, classes=classes)

    def begin(logits: torch.Tensor) -> int:
        logits.copy_(kept[2])
        return 24

    monkeypatch.setattr("kdsweep.training.data.tokens.EVALUATION_ROWS", 8)
    all_logits(model, tokens, classes=classes, on_batch=lambda logits, rows: kept.append(logits.clone()))
    monkeypatch.setattr("kdsweep.training.data.tokens.EVALUATION_ROWS", 16)
    torch.testing.assert_close(all_logits(model, tokens, classes=classes, begin=begin), whole)


def test_the_logits_of_other_weights_and_another_class_order_are_others(tiny_config: Config, tiny_body: Path) -> None:
    Materials().rows(tiny_config())
    Materials().rows(tiny_config(teacher=str(tiny_body)))
    assert len(cached_logits()) == 4
    Materials().rows(tiny_config(label_names=("positive", "negative")))
    assert len(cached_logits()) == 6


def test_the_logits_of_the_same_weights_computed_in_another_way_are_others(tiny_config: Config) -> None:
    config, materials = tiny_config(), Materials()
    rows, _ = materials.teacher_rows(config)
    mine: Any = materials.teacher(config)
    before = cached_logits()
    teacher_logits.teacher_logits(mine, rows.tokens)
    assert cached_logits() == before
    mine.model.config.layer_norm_eps = 0.5
    teacher_logits.teacher_logits(mine, rows.tokens)
    assert len(cached_logits()) == len(before) + 1


def test_a_teacher_that_gives_nan_is_refused(tiny_config: Config, tiny_classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_classifier, tmp_path / "broken")
    path = tmp_path / "broken" / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["classifier.bias"][0] = float("nan")
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="the teacher's logits must be finite, but 72 of 72 rows hold nan or inf"):
        Materials().rows(tiny_config(teacher=str(tmp_path / "broken")))
    assert cached_logits() == []


def test_fine_tuning_and_logits_have_threads_of_their_own(
    tiny_config: Config, tiny_body: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}
    for module, name in ((fine_tuning, "distill"), (teacher_logits, "all_logits")):
        plain = getattr(module, name)
        note = lambda *given, name=name, plain=plain, **named: (
            seen.update({name: torch.get_num_threads()}) or plain(*given, **named)
        )
        monkeypatch.setattr(module, name, note)
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=1, teacher_threads=2)
    assert teacher.teacher_trial(config).threads == 2
    Materials().rows(config)
    assert seen == {"distill": 2, "all_logits": 2} and torch.get_num_threads() == 1


@pytest.mark.slow
def test_threads_tokenizer_settings_and_class_order_make_another_teacher_and_other_logits(
    tiny_config: Config, tiny_body: Path, tmp_path: Path
) -> None:
    def changed(name: str, old: str, new: str, *files: str) -> str:
        """`tiny_body` with other words in some files; the weights are the same."""
        shutil.copytree(tiny_body, tmp_path / name)
        for path in (tmp_path / name / file for file in files):
            text = path.read_text(encoding="utf-8")
            assert old in text
            path.write_text(text.replace(old, new), encoding="utf-8")
        return str(tmp_path / name)

    config = tiny_config(teacher=str(tiny_body), teacher_epochs=1)
    Materials().rows(config)
    others = [
        {"teacher_threads": 2},
        {"teacher": changed("tokenizer", "dull", "dim", "tokenizer.json", "vocab.txt")},
        {"teacher": changed("settings", '"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2', "config.json")},
        {"label_names": ("positive", "negative")},
        {"precision": "bf16"},
    ]
    for count, other in enumerate(others, start=2):
        materials = Materials()
        materials.rows(dataclasses.replace(config, **other))  # type: ignore[arg-type]
        assert not materials.teacher(dataclasses.replace(config, **other)).from_cache  # type: ignore[arg-type]
        assert len(list((cache_root() / "teachers").iterdir())) == count
        assert len(cached_logits()) >= 2 * count - 2
    assert Materials().teacher(config).from_cache


def test_one_process_keeps_the_teachers_of_other_threads_apart(tiny_config: Config) -> None:
    materials = Materials()
    one, two = (materials.teacher(tiny_config(teacher_threads=threads)) for threads in (1, 2))
    assert one is not two and materials.teacher(tiny_config(teacher_threads=1, threads=2)) is one


@pytest.mark.slow
def test_a_teachers_checkpoint_is_not_gone_on_with_by_other_threads(tiny_config: Config, tiny_body: Path) -> None:
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=2, teacher_batch_size=8)
    stop = StopRequest()
    seen: list[int] = []

    def ask(steps: Sequence[StepMetrics]) -> None:
        seen.extend(step.step for step in steps)
        stop.ask()

    watch = TeacherWatch(
        on_steps=ask, on_epoch=lambda _: None, checkpointing=Checkpointing(every_seconds=0.0, stop=stop)
    )
    with pytest.raises(Interrupted):
        Materials().teacher(dataclasses.replace(config, teacher_threads=2), watch)
    assert list((cache_root() / "checkpoints").rglob("*.pt"))
    again: list[int] = []
    told = TeacherWatch(on_steps=lambda steps: again.extend(step.step for step in steps), on_epoch=lambda _: None)
    Materials().teacher(config, told)
    assert again[0] == 1
    again.clear()
    Materials().teacher(dataclasses.replace(config, teacher_threads=2), told)
    assert again[0] > 1


def test_a_teacher_has_the_threads_of_the_trials_where_they_alone_are_named(tiny_config: Config) -> None:
    def threads(**named: Any) -> tuple[Any, Any]:
        found = resolve(
            dataclasses.asdict(tiny_config(**{"threads": "auto", "teacher_threads": "auto"} | named)),
            threads=3,
            **counted,
        )
        return found.threads, found.teacher_threads

    counted: Any = {"teacher_threads": lambda named: named or 5}
    assert threads() == (3, 5)
    assert threads(threads=1) == (1, 1)
    assert threads(teacher_threads=4) == (3, 4)
    assert threads(threads=2, teacher_threads=4) == (2, 4)


@pytest.mark.slow
def test_other_rows_or_another_recipe_make_another_teacher(tiny_config: Config, tiny_body: Path) -> None:
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=1, teacher_batch_size=32)
    hashes = {Materials().teacher(config).weights_sha256}
    changes = [{"teacher_seed": 1}, {"teacher_epochs": 2}, {"teacher_learning_rate": 1e-4}, {"teacher_batch_size": 16}]
    for change in [*changes, {"train_limit": 60}]:
        hashes.add(Materials().teacher(dataclasses.replace(config, **change)).weights_sha256)  # type: ignore[arg-type]
    assert len(hashes) == len(list((cache_root() / "teachers").iterdir())) == 6
    same = dataclasses.replace(config, temperature=9.0, alpha=0.1, batch_size=8, warmup_ratio=0.5, weight_decay=0.5)
    assert Materials().teacher(same).from_cache


def test_classes_that_differ_in_punctuation_alone_can_be_taught(
    tiny_config: Config, tiny_body: Path, write_rows: Callable[..., Path], tiny_rows: list[tuple[str, str]]
) -> None:
    names = {"positive": "C++", "negative": "C"}
    path = write_rows("rows.csv", [(text, names[label]) for text, label in tiny_rows])
    config = tiny_config(train_file=str(path), teacher=str(tiny_body), teacher_epochs=1, student_init="pretrained")
    materials = Materials()
    materials.rows(config)
    assert materials.data(config).label_names == ("C", "C++")
    assert materials.student(config).config.id2label == {0: "C", 1: "C++"}  # type: ignore[union-attr]


def test_the_pretrained_and_the_finetuned_body_give_different_students(tiny_config: Config, tiny_body: Path) -> None:
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=1)
    materials = Materials()
    pretrained = materials.student(dataclasses.replace(config, student_init="pretrained")).state_dict()
    finetuned = materials.student(config).state_dict()
    first = "distilbert.transformer.layer.0.attention.q_lin.weight"
    body = BertModel.from_pretrained(tiny_body).state_dict()["encoder.layer.0.attention.self.query.weight"]
    assert torch.equal(pretrained[first], body) and not torch.equal(finetuned[first], body)
    head = "pre_classifier.weight"
    assert torch.equal(pretrained[head], finetuned[head])


def test_a_teachers_record_is_complete_before_its_result_says_so(tiny_config: Config, tmp_path: Path) -> None:
    class Watched(TrialFolder):
        def finish(self, result: TrialResult | TeacherResult) -> None:
            seen.extend(sorted(path.name for path in self.path.iterdir()))
            super().finish(result)

    seen: list[str] = []
    folder = Watched(tmp_path / "teacher")
    result = run_teacher(tiny_config(), folder, Materials(), NullRun(), UNWATCHED)
    assert seen == ["config.yaml", "labels.npy", "predictions.npy"]
    assert result.val_accuracy > 0.9 and result.majority_accuracy == 0.5
    assert (result.train_rows, result.validation_rows, result.label_names) == (72, 24, ("negative", "positive"))


def test_a_teacher_whose_training_breaks_stops_the_sweep_and_says_which_knob(
    tiny_config: Config, tiny_body: Path, tmp_path: Path
) -> None:
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=2, teacher_learning_rate=1e30)
    with pytest.raises(PreflightError, match=r"the teacher's fine-tuning failed: .*at step .*teacher_learning_rate"):
        run_teacher(config, TrialFolder(tmp_path / "teacher"), Materials(), NullRun(), UNWATCHED)


def test_the_teacher_keeps_the_segments_of_a_pair_that_its_student_has_none_for(
    tiny_config: Config, write_rows: Callable[..., Path]
) -> None:
    words = [("the film was great", "a plot"), ("the song was dull", "the script"), ("the scene was weak", "i think")]
    rows = [
        {"text": text, "pair": pair, "label": label} for text, pair in words * 8 for label in ("negative", "positive")
    ]
    rows = [{**row, "pair": f"{row['pair']} {'very ' * (number % 5)}"} for number, row in enumerate(rows)]
    config = tiny_config(train_file=str(write_rows("pairs.csv", rows)), text_pair_column="pair")
    materials = Materials()
    theirs, ours = materials.teacher_rows(config)[0], materials.rows(config)[0]
    assert theirs.tokens.segments is not None and theirs.tokens.segments.any()
    assert ours.tokens.segments is None
    batch = next(training_batches(theirs.tokens, batch_size=4, seed=0, epoch=1))
    model = materials.teacher(config).model
    with torch.inference_mode():
        with_segments = model(**batch.inputs).logits
        without = model(batch.inputs["input_ids"], batch.inputs["attention_mask"]).logits
    assert torch.allclose(with_segments, theirs.teacher_logits[batch.rows], atol=1e-6)
    assert not torch.allclose(without, theirs.teacher_logits[batch.rows], atol=1e-4)
