"""Read one split from a hub dataset or a file: each row's text, and its label by name or as a number."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download

from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, listed
from kdsweep.system.wheels import local_path
from kdsweep.training.data.labels import Labels, in_order, label_columns, read_labels
from kdsweep.training.data.progress import NOBODY
from kdsweep.training.data.tables import Columns, Table, as_text, check_columns, read_table


class RawRows(NamedTuple):
    """Holds one split as read: texts, second texts of pairs or None, and what each row is labelled with."""

    texts: list[str]
    pairs: list[str] | None
    labels: Labels
    declared: tuple[str, ...]
    """The classes that the dataset itself declares, in its order; empty where it declares none."""
    empty_dropped: int
    """How many rows were left out because a text of theirs is empty, where the config asks for that."""
    complaint: str
    """Names the rows that have an empty text and were not left out; empty where there is none."""
    ids: list[str] | None = None
    """Each row's id; None without an id_column."""
    all_ids: frozenset[str] = frozenset()
    """The ids of all rows, of those left out too."""


def source(config: TrialConfig, split: str) -> str | None:
    """Return what `split` is read from: a hub dataset's split name or a file's address; None where the config does not name it."""
    found: str | None = getattr(config, f"{split}_split" if config.dataset else f"{split}_file")
    return found


def raw_rows(
    config: TrialConfig, split: str, task: TaskName | None = None, on_rows: Callable[[int], None] = NOBODY
) -> RawRows:
    """Read `split`, which the config must name; a `task` of None is the one that config or labels say.

    `on_rows` gets the number of rows read so far, of a file of lines. Raises DataError where rows, columns,
    labels or the file are missing, and for cells that are not texts."""
    named = source(config, split)
    assert named is not None
    where = f"{config.dataset} ({named})" if config.dataset else named
    texts = [name for name in (config.text_column, config.text_pair_column) if name]
    wanted = [name for name in (*texts, *label_columns(config), config.id_column) if name]
    table = _hub_table(config, named, wanted) if config.dataset else file_table(config, named, wanted, on_rows)
    if len(table) == 0:
        raise DataError(f"{where} must hold rows, but is empty")
    blank: list[int] = []
    if config.drop_empty_texts:
        table, blank = _without_blank(table)
    labels = read_labels(table, config, where, task)
    rows = _kept_rows(labels, config.label_names, where)
    columns = [_texts(table, name, rows, f"{where}, column {name}") for name in texts]
    filled = [all(map(str.strip, each)) for each in zip(*columns, strict=True)]
    empty, complaint = [row for row, full in zip(rows, filled, strict=True) if not full], ""
    if len(empty) == len(rows):
        raise DataError(f"{where} must hold texts, but all of its {len(rows):,} rows have an empty one")
    if empty and config.drop_empty_texts:
        rows, columns = list(compress(rows, filled)), [list(compress(column, filled)) for column in columns]
    elif empty:
        complaint = f"{where} has {len(empty):,} rows with an empty one ({table.named(empty)})"
    ids = _ids(table, config.id_column, where) if config.id_column else None
    return RawRows(
        texts=columns[0],
        pairs=columns[1] if len(columns) > 1 else None,
        labels=labels._replace(values=[labels.values[row] for row in rows]),
        declared=table.declared.get(config.label_column, ()),
        empty_dropped=0 if complaint else len(blank) + len(empty),
        complaint=complaint,
        ids=[ids[row] for row in rows] if ids else None,
        all_ids=frozenset(ids or ()),
    )


def _kept_rows(labels: Labels, chosen: Sequence[str], where: str) -> Sequence[int]:
    """Return the numbers of the rows to keep: those of the `chosen` classes; of labels and numbers all. Raises DataError where none is left."""
    if labels.task != "single_label" or not chosen:
        return range(len(labels.values))
    wanted = set(chosen)
    rows = [row for row, name in enumerate(labels.values) if name in wanted]
    if not rows:
        found = in_order({str(name) for name in labels.values})
        raise DataError(f"{where} must hold rows of {listed(chosen)}, but its classes are {listed(found)}")
    return rows


def raw_texts(
    config: TrialConfig, name: str, on_rows: Callable[[int], None] = NOBODY
) -> tuple[list[str], list[str] | None, list[str] | None]:
    """Read the texts, second texts of pairs or None, and ids or None of `name`: the source of rows whose labels, if they have any, are ignored.

    `name` is `unlabeled_file` or `unlabeled_split`. Empty texts are kept. Raises DataError where the file or a text column is missing,
    where there is no row, and for cells that are not texts.
    """
    named = str(getattr(config, name))
    of_hub = name == "unlabeled_split"
    where = f"{config.dataset} ({named})" if of_hub else named
    texts = [column for column in (config.text_column, config.text_pair_column) if column]
    wanted = [*texts, config.id_column] if config.id_column else texts
    table = _hub_table(config, named, wanted) if of_hub else file_table(config, named, wanted, on_rows)
    if len(table) == 0:
        raise DataError(f"{name} must hold texts, but {where} is empty")
    columns = [_texts(table, column, range(len(table)), f"{where}, column {column}") for column in texts]
    ids = _ids(table, config.id_column, where) if config.id_column else None
    return columns[0], columns[1] if len(columns) > 1 else None, ids


def _without_blank(table: Table) -> tuple[Table, list[int]]:
    """Remove rows that have neither text nor label, such as a spreadsheet writes behind its last row; return the table, and those rows."""
    cells = list(zip(*table.columns.values(), strict=True))
    filled = [any(cell is not None and str(cell).strip() for cell in row) for row in cells]
    columns = {name: list(compress(column, filled)) for name, column in table.columns.items()}
    kept = replace(table, columns=columns, places=list(compress(table.places, filled)))
    return kept, [row for row, full in enumerate(filled) if not full]


def file_table(config: TrialConfig, address: str, columns: Columns, on_rows: Callable[[int], None] = NOBODY) -> Table:
    """Read the wanted columns of a file, with the delimiter and encoding of `config`. Raises DataError where it cannot be read."""
    path = Path(local_path(address)).expanduser()
    if not path.is_file():
        raise DataError(f"a data file must exist, but {address!r} does not (looked at {path.absolute()})")
    delimiter = "\t" if config.csv_delimiter == r"\t" else config.csv_delimiter
    return read_table(path, columns, where=address, delimiter=delimiter, encoding=config.encoding, on_rows=on_rows)


# Texts and ids -------------------------------------------------------------------------------------------------------


def _texts(table: Table, column: str, rows: Sequence[int], where: str) -> list[str]:
    """Return a column's cells in `rows` as texts: numbers converted, a gap as an empty text. Raises DataError for any other cell."""
    values = table.columns[column]
    texts = []
    for row in rows:
        try:
            texts.append(as_text(values[row]) or "")
        except TypeError as error:
            raise DataError(
                f"{where}: every text must be a non-empty string, but in {table.named([row])} {error}"
            ) from error
    return texts


def _ids(table: Table, column: str, where: str) -> list[str]:
    """Return each row's id as a text. Raises DataError where a row has none."""
    try:
        ids = [as_text(value) or "" for value in table.columns[column]]
    except TypeError as error:
        raise DataError(f"{where}, column {column}: {error}") from error
    if missing := [row for row, name in enumerate(ids) if not name.strip()]:
        raise DataError(
            f"{where}: every row must have an id in {column}, but {len(missing):,} have none ({table.named(missing)})"
        )
    return ids


# The hub -------------------------------------------------------------------------------------------------------------


def _hub_table(config: TrialConfig, split: str, columns: Sequence[str]) -> Table:
    import datasets  # takes a second, and is not needed for files
    from datasets.exceptions import DatasetGenerationError

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it sends a request even for local files
    datasets.utils.logging.disable_progress_bar()
    try:
        found = datasets.load_dataset(
            config.dataset, config.dataset_config, split=split, revision=config.dataset_revision
        )
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise DataError(_unreachable(config.dataset, config.dataset_config, split, error)) from error
    check_columns(columns, found.column_names, f"{config.dataset} ({split})")
    features = found.features
    kinds = {name: _single(features[name]) for name in columns}
    whole = [name for name in columns if features[name] is kinds[name]]
    return Table(
        columns={name: found[name][:] for name in columns},
        places=range(len(found)),
        counted_in="row",
        declared={name: tuple(kind.names) for name, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)},
        floats=frozenset(name for name in whole if str(getattr(kinds[name], "dtype", "")).startswith("float")),
    )


def _single(feature: Any) -> Any:
    """Return what a feature of lists holds a list of; any other feature itself."""
    inside = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return feature if inside is None else inside


def resolved_dataset_revision(dataset: str | None, dataset_config: str | None, split: str) -> str | None:
    """Return the commit that a hub dataset's name means today; None for files. Raises DataError, which names `split`, where none is found."""
    if dataset is None or Path(dataset).exists():
        return None
    try:  # every repository has this file, and the hub's cache has a folder for each commit
        return Path(hf_hub_download(dataset, ".gitattributes", repo_type="dataset")).parent.name
    except (OSError, ValueError) as error:
        raise DataError(_unreachable(dataset, dataset_config, split, error)) from error


def _unreachable(dataset: str | None, dataset_config: str | None, split: str, error: Exception) -> str:
    return (
        f"dataset {dataset!r} (config {dataset_config}, split {split!r}) could not be loaded: {error}\n"
        "Check the name, split and network; or name local files: train_file, validation_file, test_file"
    )
