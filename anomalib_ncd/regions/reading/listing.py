# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Find files and read their bytes: every image is known by its path relative to its source, without the suffix."""

import hashlib
import logging
import os
import stat
import unicodedata
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomalib_ncd.regions.writing import OutputError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
OUTPUT_MARK = ".anomalib_ncd_output"
"""Name of the file that marks a folder of results, which is never searched for input."""


@dataclass(frozen=True)
class ImageLimits:
    """What is too large to be read: most pixels of an image (100 million take 300 MB as 8-bit colour) and bytes."""

    max_pixels: int = 100_000_000
    max_file_bytes: int = 500_000_000


LIMITS = ImageLimits()


def read_bytes(path: str | os.PathLike[str], name: str, limits: ImageLimits = LIMITS) -> bytes:
    """Read a whole file, which messages call an ``"Image"`` or the like.

    ``FileNotFoundError`` if it is not there (any more); ``ValueError`` if it is too large, empty, no regular file, or
    its name is not UTF-8.
    """
    path = Path(path)
    check_name(path)
    try:
        found = path.stat()
    except FileNotFoundError as error:
        msg = f"{name} {path} is missing; check its path."
        raise FileNotFoundError(msg) from error
    if not stat.S_ISREG(found.st_mode):
        msg = f"{name} {path} is no regular file but a folder, a pipe or a device; remove it."
        raise ValueError(msg)
    if found.st_size > limits.max_file_bytes:
        size = f"{found.st_size:,} bytes, more than the limit of {limits.max_file_bytes:,}"
        msg = f"{name} {path} has {size}; cut it or raise the limit."
        raise ValueError(msg)
    if not found.st_size:
        msg = f"{name} {path} is empty: it is being written still, or was cut off. Write it again or remove it."
        raise ValueError(msg)
    return path.read_bytes()


def stamp_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds, which tell one state of a file from another."""
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path that can be written anywhere; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise ``ValueError`` for a name that no table could hold, as it is not UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        msg = f"The name of {printable(path)} is not UTF-8; rename the file or its folder."
        raise ValueError(msg) from error


@dataclass(frozen=True)
class ImageFile:
    """An image on disk."""

    path: Path  # file of the image
    # Path relative to the source of images, POSIX style and without suffix ("scratch/000"). Maps, labels and regions
    # are paired with images by this key, never by their order.
    key: str
    made_from: str = ""  # the state that its files are in, where results are kept by it

    @property
    def name(self) -> str:
        """Path relative to the source, with suffix."""
        return self.key + self.path.suffix

    @property
    def folder_name(self) -> str:
        """Name of the folder that holds the image, inside the source (``""`` where it lies at the top)."""
        return Path(self.key).parent.name


def list_images(source: str | Path, image_list: str | Path | None = None, argument: str = "images") -> list[ImageFile]:
    """List the images of a folder (searched recursively, see :func:`find_files`) or one image file, sorted by key.

    ``FileNotFoundError`` if the source doesn't exist, holds no image, or lacks an image that ``image_list`` names;
    ``ValueError`` if two images have the same key (``a/1.png`` and ``a/1.jpg``), a name is not UTF-8, or the source is
    a folder of results. Messages call the folder or file by ``argument``, as which it came in; for ``image_list`` see
    :func:`narrow`.
    """
    source = Path(source)
    if not source.is_file() and not source.is_dir():
        msg = f"There is no image folder {source}. Check the path given as `{argument}`."
        raise FileNotFoundError(msg)
    others: Counter[str] = Counter()
    paths = list(find_files(source, IMAGE_SUFFIXES, others))
    if others:
        kinds = ", ".join(f"{suffix or 'no suffix'}: {number}" for suffix, number in sorted(others.items()))
        logger.warning(
            "%d files in %s are no images by their suffix and are left out (%s).", others.total(), source, kinds
        )
    if not paths:
        msg = f"The folder {source} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})."
        raise FileNotFoundError(msg)
    images = unique_images(paths, source.parent if source.is_file() else source)
    return images if image_list is None else listed_images(images, image_list, source)


def listed_images(images: Sequence[ImageFile], image_list: str | Path, root: str | Path) -> list[ImageFile]:
    """Images that a text file names, see :func:`narrow`."""
    wanted = set(narrow([image.key for image in images], image_list, root))
    return [image for image in images if image.key in wanted]


def unique_images(paths: Iterable[Path], root: Path) -> list[ImageFile]:
    """Images below a folder, sorted by key; ``ValueError`` if two have one key, or a name is not UTF-8."""
    images: dict[str, ImageFile] = {}
    for path in sorted(paths):
        check_name(path)
        image = ImageFile(path=path, key=key_of(path.relative_to(root)))
        if image.key in images:
            msg = f"Two images have the name {image.key!r}: {images[image.key].path} and {path}. Rename one."
            raise ValueError(msg)
        images[image.key] = image
    return [images[key] for key in sorted(images)]


def narrow(keys: Collection[str], list_file: str | Path, root: str | Path) -> list[str]:
    """Keys that a text file names, one relative path, with or without suffix, a line; sorted.

    Blank lines don't count, nor do those that start with ``#``, unless they name a key or begin with a folder of keys.
    ``FileNotFoundError`` if there is no such file, or it names something else than files below `root`; ``ValueError``
    if it names nothing, or is no text.
    """
    known = set(keys)
    lines = [line.strip() for line in read_text(list_file).splitlines()]
    named = {key_of(line): line for line in lines if line}
    folders = {key.partition("/")[0] for key in known if "/" in key}
    wanted = sorted(
        key
        for key, line in named.items()
        if key in known or not line.startswith("#") or key.partition("/")[0] in folders
    )
    missing = [key for key in wanted if key not in known]
    if missing:
        msg = f"{list_file} names {len(missing)} images that {root} lacks, such as {missing[:3]}."
        raise FileNotFoundError(msg)
    if not wanted:
        msg = f"The list {list_file} is empty; it should name one image a line, relative to {root}."
        raise ValueError(msg)
    return wanted


def read_text(file: str | Path) -> str:
    """Text of a file in UTF-8; ``FileNotFoundError`` if there is none, ``ValueError`` if it is in another encoding."""
    file = Path(file)
    if not file.is_file():
        msg = f"There is no file {file}; check its path."
        raise FileNotFoundError(msg)
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{file} is no text in UTF-8 ({error}); save it in that encoding."
        raise ValueError(msg) from error


def key_of(relative_path: str | Path) -> str:
    """Turn a relative path into a key: POSIX separators, no image suffix; what is not UTF-8 is escaped.

    Accents are joined with their letters, which macOS keeps apart, so that files from two systems belong together.

    Example:
        >>> key_of("a/exp1.5.jpg"), key_of("./a//exp1.5")
        ('a/exp1.5', 'a/exp1.5')
    """
    path = Path(relative_path)
    plain = printable((path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix())
    return unicodedata.normalize("NFC", plain)


def digest_of_images(images: Sequence[ImageFile]) -> str:
    """Digest of keys, sizes and times of change, which tells whether images are still the same."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr((image.key, *stamp_of(image.path))).encode())
    return digest.hexdigest()


def mark_output(folder: str | Path) -> None:
    """Make a folder of results, and mark it so that no search takes its files for input."""
    mark = Path(folder) / OUTPUT_MARK
    try:
        if not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    except OSError as error:
        raise OutputError.of(folder, error) from error


def find_files(folder: str | Path, suffixes: Collection[str], others: Counter[str] | None = None) -> Iterator[Path]:
    """Find files with some suffixes below a folder, a directory at a time, in the order of their names.

    Hidden files and folders (names that start with a dot) are passed over, as writers use them for unfinished files,
    and so are folders of results. Links are followed, after all that lies in the folder itself; each real folder is
    searched once, so that loops end. A folder that vanishes meanwhile or can't be read is passed over, the latter with
    a warning. Special files are among the paths; reading refuses them. `others` counts files with each other suffix.
    ``ValueError`` if the folder itself is one of results.
    """
    root = Path(folder)
    if root.is_file():
        yield root
        return
    if (root / OUTPUT_MARK).exists():
        msg = f"{root} holds results of anomalib_ncd, which are no input; give another folder or write elsewhere."
        raise ValueError(msg)
    seen: set[tuple[int, int]] = set()
    links = deque([root])
    while links:
        folders = [links.popleft()]
        while folders:
            entries = _entries(folders.pop(), root, seen)
            inner = [entry for entry in entries if entry.is_dir()]
            links.extend(Path(entry.path) for entry in inner if entry.is_symlink())
            folders.extend(Path(entry.path) for entry in reversed(inner) if not entry.is_symlink())
            for entry in entries:
                if entry.is_dir():
                    continue
                suffix = Path(entry.name).suffix.lower()
                if suffix in suffixes:
                    yield Path(entry.path)
                elif others is not None:
                    others[suffix] += 1


def _entries(folder: Path, root: Path, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name; nothing where it is to be passed over."""
    try:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen:
            return []
        seen.add((stat.st_dev, stat.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        logger.warning("The folder %s can't be read and is left out: %s.", printable(str(folder)), error.strerror)
        return []
    if folder != root and any(entry.name == OUTPUT_MARK for entry in entries):
        return []
    return [entry for entry in entries if not entry.name.startswith(".")]
