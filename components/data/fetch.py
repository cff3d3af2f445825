"""Downloads MovieLens 1M from GroupLens; resumes broken downloads, and writes only what passes the checksum."""

import hashlib
import io
import lzma
import zipfile
import zlib
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
"""Called with the number of bytes that have arrived, and the size of the file (None if the server does not tell)."""

_CHUNK = 1 << 14  # Bytes that are written at once; a download that breaks off loses at most as many.
_TIMEOUT = (10, 60)  # Seconds to connect, and to wait for the next bytes.
# What zipfile raises for archives that are damaged, cut off, encrypted or compressed in a way that it does not know.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)
_LARGEST_MEMBER = 1 << 30  # Bytes; the largest real one is 25 MB.


class FetchError(RuntimeError):
    """A download that failed; the message says why, and whether a part of the file was kept."""


def part_file(folder: Path) -> Path:
    """Returns the file that holds the bytes that have arrived until the download is complete."""
    return folder.with_name(folder.name + ".zip.part")


def fetch_movielens(folder: Path, url: str = URL, md5: str = MD5, progress: Progress | None = None) -> None:
    """Downloads the archive, checks it and writes its users.dat, movies.dat, ratings.dat and README into a folder.

    A download that breaks off leaves a `.zip.part` file beside the folder, from which the next call resumes.

    Args:
      folder: the folder to write; new or empty.
      url: address of the archive.
      md5: MD5 checksum that the archive should have, in hexadecimal.
      progress: called as bytes arrive; None for no calls.

    Raises:
      FileExistsError: the folder is not empty.
      FetchError: there is no connection, the server does not send the file, the download breaks off, the checksum
        differs, or the archive cannot be extracted or lacks a file. In the last three cases nothing is left of it.
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
    try:
        files = _extract(url, content)
    except FetchError as error:
        # What cannot be extracted now cannot be extracted from the same bytes the next time.
        part.unlink()
        raise FetchError(f"{error} The download was deleted.") from error
    write_folder(folder, files)
    part.unlink()


def _download(url: str, part: Path, progress: Progress) -> None:
    """Downloads the bytes that `part` lacks, or the whole file if the server does not resume."""
    present = part.stat().st_size if part.exists() else 0
    # No compression, so that offsets in the response are offsets in the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={present}-"} if present else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable and present:
                return  # The part is complete or of another file; the checksum will tell.
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise FetchError(f"{url}: should be there; received {response.status_code} {response.reason}.")
            if not _resumes(response, present):
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


def _resumes(response: requests.Response, present: int) -> bool:
    """Whether the response continues where the part ends; False if the server sends the file from its beginning."""
    if response.status_code != requests.codes.partial_content:
        return False
    content_range = response.headers.get("Content-Range", "")
    if not content_range.startswith(f"bytes {present}-"):
        raise FetchError(f"{response.url}: the range should start at byte {present}; received {content_range!r}.")
    return True


def _explain(url: str, error: requests.RequestException, arrived: int) -> str:
    if arrived:
        return f"{url}: the download broke off ({type(error).__name__}); {arrived} bytes are kept: try again to go on."
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return f"{url}: no connection ({type(error).__name__}). Is this machine online, and is its proxy set?"
    return f"{url}: cannot be fetched; {error}."


def _extract(url: str, content: bytes) -> dict[str, bytes]:
    """Returns the wanted files by name; ignores the archive's other files, and the folders that it puts files into."""
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
    except FetchError:
        raise
    except _UNREADABLE as error:
        raise FetchError(f"{url}: should be a zip archive that can be extracted; {error}.") from error
    missing = sorted(wanted - {README_FILE} - set(files))
    if missing:
        raise FetchError(f"{url}: should hold {', '.join(missing)}; there is none in the archive.")
    return files
