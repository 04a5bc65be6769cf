"""What every test shares: its own results and cache folders, no network, one thread, and a tiny but real BERT on disk.

    tiny_body          folder of a pretrained-like BERT (3 layers of width 32, no head) with its tokenizer        [session]
    tiny_classifier    the same, fine-tuned on `tiny_rows` with id2label {0: negative, 1: positive}               [session]
    tiny_rows          96 distinct English sentences as (text, "positive" | "negative"), learnable by one word    [session]
    materials          `Materials` that tests share                                                               [session]
    tiny_csv           a csv of them: columns text, label                                                         [session]
    write_rows         writes (text, label) or {column: value} rows to a .csv, .tsv or .jsonl in this test's folder
    memory             this test's folder in memory, gone when the test ends
    tiny_config        builds a resolved `TrialConfig` on them (CPU, float32, 1 thread); keywords change any field
    wheel              address of a wheel in a folder that pip is told to look in; its path is left to fill in
    task_reports       reports of planted sweeps with several labels a row, and with a number a row, by their task [session]
    tiny_sweep_file    writes a sweep file of 2 distilled trials and 1 control on them, tracking off; keywords change a section

Real servers and devices for the slow tests (PostgreSQL, W&B, a small disk) are in servers.py.
Folders of the session are read-only by agreement: copy one before you change it. Torch is imported inside the fixtures: the process that
hands tests out to two others needs none.
"""

import gc
import hashlib
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

gc.disable()  # until all is imported: torch and its like make half a million objects, none of them garbage
_HF_HOME = tempfile.TemporaryDirectory(prefix="kdsweep-tests-", ignore_cleanup_errors=True)
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=_HF_HOME.name)  # read when the Hugging Face libraries are imported

import pytest  # noqa: E402
import yaml  # noqa: E402
from tiny_fields import MACHINE, tiny_fields  # noqa: E402

if TYPE_CHECKING:
    from kdsweep.config.tasks import TaskName
    from kdsweep.config.trial import TrialConfig
    from kdsweep.reporting.build import Report
    from kdsweep.training.shared import Materials

MEMORY = Path("/dev/shm")
pytest_plugins = ["servers"]  # fixtures of real servers and devices, for the slow tests


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it again and again."""
    gc.freeze()
    gc.enable()


def one_thread() -> None:
    """Two threads wait for each other on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_the_session() -> None:
    """What the session's fixtures train, they train as the tests do."""
    one_thread()


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Files of this process need not reach the disk: each wait is 2 ms, and as much again when the file is removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, caches and W&B files of a test lie in its own folder; nothing leaves this machine; one thread."""
    for name in ("RESULTS", "CACHE"):
        monkeypatch.setenv(f"KDSWEEP_{name}", str(tmp_path / name.lower()))
    for name in ("MODE", "API_KEY", "BASE_URL", "ENTITY", "PROJECT", "RUN_ID", "SILENT"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb_home"))
    (tmp_path / "wandb_home").mkdir()
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests stay offline, but something connected to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    one_thread()


@pytest.fixture(scope="session")
def tiny_rows() -> list[tuple[str, str]]:
    """96 distinct sentences of 4 to 10 words, 48 of each class."""
    from tiny import sentences

    return sentences()


@pytest.fixture(scope="session")
def tiny_body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 3 layers, width 32, without head; its tokenizer knows every word of `tiny_rows`."""
    from tiny import write_body

    folder = tmp_path_factory.mktemp("tiny_body")
    write_body(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_classifier(
    tiny_body: Path, tiny_rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_body` fine-tuned on `tiny_rows` by a loop of its own: negative is column 0, positive column 1."""
    from tiny import write_classifier

    folder = tmp_path_factory.mktemp("tiny_classifier")
    write_classifier(tiny_body, folder, tiny_rows)
    return folder


@pytest.fixture(scope="session")
def tiny_csv(tiny_rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_rows` as a csv file."""
    from tiny import write_table

    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_table(path, [{"text": text, "label": label} for text, label in tiny_rows])
    return path


@pytest.fixture(scope="session")
def materials() -> "Materials":
    """Shared by the tests that do not ask how materials are made: the same teacher and rows in each, which none of them changes."""
    from kdsweep.training.shared import Materials

    return Materials()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is such a thing: on a busy disk, SQLite's commits take longer than all else in a study."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="kdsweep-tests-") as folder:
        yield Path(folder)


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """`write_rows("train.csv", rows)`: rows are (text, label) pairs or mappings; the path."""
    from tiny import write_table

    def write(name: str, rows: Iterable[Any]) -> Path:
        listed = [row if isinstance(row, Mapping) else {"text": row[0], "label": row[1]} for row in rows]
        write_table(tmp_path / name, [dict(row) for row in listed])
        return tmp_path / name

    return write


@pytest.fixture
def tiny_config(tiny_classifier: Path, tiny_csv: Path) -> Callable[..., "TrialConfig"]:
    """`tiny_config(alpha=1.0)`: a resolved config of 2 epochs on 72 training and 24 validation rows."""
    from kdsweep.config.trial import TrialConfig

    def make(**changes: Any) -> "TrialConfig":
        return TrialConfig(**{**tiny_fields(tiny_classifier, tiny_csv), **MACHINE, **changes})

    return make


@pytest.fixture(scope="session")
def task_reports(tmp_path_factory: pytest.TempPathFactory) -> "dict[TaskName, Report]":
    from task_sweeps import make_task_sweep

    from kdsweep.reporting.build import build_report

    reports: dict[TaskName, Report] = {}
    for task in ("multi_label", "regression"):
        folder = tmp_path_factory.mktemp("planted") / task
        folder.mkdir()
        make_task_sweep(folder, task)
        reports[task] = build_report(folder)
    return reports


@pytest.fixture
def tiny_sweep_file(tmp_path: Path, tiny_classifier: Path, tiny_csv: Path) -> Callable[..., Path]:
    """`tiny_sweep_file(fixed={"epochs": 1}, study={"trials": 4})`: sections are merged, None removes a key, a `name` renames."""

    def write(name: str = "tiny", **sections: Any) -> Path:
        fields = tiny_fields(tiny_classifier, tiny_csv)
        del fields["learning_rate"]
        content: dict[str, Any] = {
            "name": name,
            "study": {"trials": 2, "controls": 1, "sampler": "tpe", "pruner": "none", "startup_trials": 2},
            "fixed": {**fields, "device": "cpu", "precision": "fp32", "teacher_threads": 1, "threads": 1},
            "search": {
                "temperature": {"low": 1.0, "high": 8.0, "log": True},
                "alpha": {"low": 0.0, "high": 1.0},
                "learning_rate": {"low": 5e-4, "high": 2e-3, "log": True},
            },
            "finalists": {"top": 0},
            "tracking": {"mode": "off"},
        }
        for section, changes in sections.items():
            if isinstance(changes, dict) and isinstance(content.get(section), dict):
                merged = {**content[section], **changes}
                content[section] = {key: value for key, value in merged.items() if value is not None}
            else:
                content[section] = changes
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A wheel in a folder that pip is told to look in and nowhere else; its address up to the path."""
    from samples import CSV

    folder = tmp_path / "index"
    folder.mkdir()
    archive = folder / "some_data-1.2-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("some_data/rows.csv", CSV)
        zipped.writestr("some_data/model/config.json", "{}")
        zipped.writestr("some_data/model/deep/weights.bin", "w")
        zipped.writestr("some_data/model_card.md", "# not the model")
        info = "some_data-1.2.dist-info"
        zipped.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.2\n")
        zipped.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return f"wheel:some-data==1.2/{{path}}#sha256={hashlib.sha256(archive.read_bytes()).hexdigest()}"
