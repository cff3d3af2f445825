"""Downloads MovieLens 1M from GroupLens: resumable, checked, and in place only when whole."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import requests

from components.data.output_folder import README_FILE, check_output_folder, write_folder
from components.data.raw_files import MOVIES_FILE, RATINGS_FILE, USERS_FILE

URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"
LICENCE = """\
MovieLens 1M is GroupLens's (University of Minnesota) and comes under its terms:
- It may be used for research. Commercial or revenue-bearing use needs permission from GroupLens.
- It may not be redistributed without separate permission.
- Neither the university's nor GroupLens's endorsement may be stated or implied; the data come without any warranty.
- Publications that use it cite: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and
  Context. ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872
The whole text is in the README beside the data, and at https://grouplens.org/datasets/movielens/1m/."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and the bytes of the whole file (None where the server does not say)."""

_CHUNK = 1 << 14  # Bytes; at most so many of those that arrived are lost where a download breaks off.
_TIMEOUT = (10, 60)  # Seconds to connect, and to wait for the next bytes.
_LARGEST_MEMBER = 1 << 30  # Bytes; the largest real one is 25 MB.


class FetchError(RuntimeError):
    """A download that failed; the message says why and what is left."""


def part_file(folder: Path) -> Path:
    """Where the bytes that have arrived are kept until all are there."""
    return folder.with_name(folder.name + ".zip.part")


def fetch_movielens(folder: Path, url: str = URL, md5: str = MD5, progress: Progress | None = None) -> None:
    """Downloads the archive, checks it and writes its users.dat, movies.dat, ratings.dat and README into a folder.

    A download that breaks off leaves a `.zip.part` file beside the folder, with which the next call goes on.

    Args:
      folder: where to write; new or empty.
      url: of the archive.
      md5: the archive's, in hexadecimal.
      progress: where there is one, is told how far the download is.

    Raises:
      FileExistsError: the folder holds something.
      FetchError: no connection, an answer other than the file, a broken-off download, or another checksum.
    """
    folder = Path(folder).absolute()
    check_output_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = part_file(folder)
    _download(url, part, progress or (lambda done, total: None))
    content = part.read_bytes()
    received = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if received != md5:
        part.unlink()
        raise FetchError(f"{url}: the file's md5 should be {md5}; received {received}. It was deleted; try again.")
    write_folder(folder, _extract(url, content))
    part.unlink()


def _download(url: str, part: Path, progress: Progress) -> None:
    """Fetches what `part` lacks of the file."""
    present = part.stat().st_size if part.exists() else 0
    # Unencoded, so that the bytes of the answer are those of the file, from any offset.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={present}-"} if present else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable and present:
                return  # Nothing is left to fetch, or the part is not of this file: the checksum tells.
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise FetchError(f"{url}: should be there; received {response.status_code} {response.reason}.")
            if not _goes_on(response, present):
                present = 0
            length = response.headers.get("Content-Length")
            total = present + int(length) if length else None
            with part.open("ab" if present else "wb") as file:
                progress(present, total)
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    present += len(chunk)
                    progress(present, total)
    except requests.RequestException as error:
        arrived = part.stat().st_size if part.exists() else 0
        raise FetchError(_explain(url, error, arrived)) from error


def _goes_on(response: requests.Response, present: int) -> bool:
    """Whether an answer begins where the part ends; a server may also send the file from its beginning."""
    if response.status_code != requests.codes.partial_content:
        return False
    answered = response.headers.get("Content-Range", "")
    if not answered.startswith(f"bytes {present}-"):
        raise FetchError(f"{response.url}: the range should start at byte {present}; received {answered!r}.")
    return True


def _explain(url: str, error: requests.RequestException, arrived: int) -> str:
    if arrived:
        return f"{url}: the download broke off ({type(error).__name__}); {arrived} bytes are kept: try again to go on."
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return f"{url}: no connection ({type(error).__name__}). Is this machine online, and is its proxy set?"
    return f"{url}: cannot be fetched; {error}."


def _extract(url: str, content: bytes) -> dict[str, bytes]:
    """The wanted files of the archive by name; others in it, and the paths that it gives them, mean nothing."""
    wanted = {USERS_FILE, MOVIES_FILE, RATINGS_FILE, README_FILE}
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                name = member.filename.rpartition("/")[2]
                if name not in wanted:
                    continue
                if name in files or member.file_size > _LARGEST_MEMBER:
                    raise FetchError(f"{url}: should hold one {name} of less than 1 GiB; received {member.filename}.")
                files[name] = archive.read(member)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{url}: should be a zip archive; {error}.") from error
    missing = sorted(wanted - {README_FILE} - set(files))
    if missing:
        raise FetchError(f"{url}: should hold {', '.join(missing)}; there is none in the archive.")
    return files
