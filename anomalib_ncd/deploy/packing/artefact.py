# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""An artefact on disk: a folder or a zip of a manifest and network files, checked before anything in it is used.

Files, all of them data, are read once, compared with their digests and handed to the runtimes from memory. Digests tell
damage and tampering with single files; for an artefact forged as a whole, compare :attr:`Artefact.sha256`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anomalib_ncd.deploy.packing.manifest import MANIFEST_NAME, ArtefactError, FileEntry, Manifest, NetworkEntry
from anomalib_ncd.regions.writing import OutputError, whole_file, write_file

MAX_MANIFEST_BYTES = 1 << 20


class Artefact:
    """A checked artefact in memory: its manifest, and the bytes of every file that it names."""

    def __init__(self, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self._contents = contents

    @property
    def sha256(self) -> str:
        """Digest of the whole artefact."""
        return self.manifest.sha256

    def contents_of(self, network: NetworkEntry) -> list[bytes]:
        """Bytes of the files of a network, the model first."""
        return [self._contents[name] for name in network.files]

    @classmethod
    def load(cls, path: str | Path, sha256: str | None = None) -> Artefact:
        """Read and check a folder or zip file, which must have the digest ``sha256`` unless that is ``None``.

        ``FileNotFoundError`` if nothing is there, ``ArtefactError`` if it is no artefact, or not as it was built.
        """
        path = Path(path)
        if path.is_dir():
            return cls._checked(path, sha256)
        if not path.is_file():
            msg = f"There is no artefact {path}; give the folder or zip that `anomalib-ncd pack` wrote."
            raise FileNotFoundError(msg)
        try:
            with zipfile.ZipFile(path) as archive:
                return cls._checked(zipfile.Path(archive), sha256)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            msg = f"{path} is no readable zip ({error}); copy or build it again."
            raise ArtefactError(msg) from error

    @classmethod
    def create(cls, manifest: Manifest, contents: Mapping[str, bytes]) -> Artefact:
        """Make an artefact; the manifest gets the digests of the files."""
        entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in contents.items()}
        return cls(replace(manifest, files=entries), contents)

    def save(self, path: str | Path) -> Path:
        """Write the artefact, as a whole or not at all: a zip where the path ends in ``.zip``, else a folder.

        ``FileExistsError`` if there is something at the path, ``OutputError`` if it can't be written.
        """
        path = Path(path)
        if path.exists():
            msg = f"{path} exists already; choose another place for the artefact or delete it."
            raise FileExistsError(msg)
        files = {MANIFEST_NAME: self.manifest.to_json().encode(), **self._contents}
        if path.suffix.lower() == ".zip":
            with whole_file(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
            return path
        folder = path.with_name(f".{os.getpid()}.unfinished")
        try:
            folder.mkdir(parents=True)
            for name, data in files.items():
                write_file(folder / name, data)
            folder.rename(path)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise error if isinstance(error, OutputError) else OutputError.of(path, error) from error
        return path

    @classmethod
    def _checked(cls, source: Path | zipfile.Path, sha256: str | None) -> Artefact:
        manifest = Manifest.from_json(_read(source / MANIFEST_NAME, MAX_MANIFEST_BYTES))
        if sha256 is not None and manifest.sha256 != sha256.lower():
            msg = f"The artefact's digest is {manifest.sha256}, not {sha256}: it is another one or was tampered with."
            raise ArtefactError(msg)
        contents = {}
        for name, entry in manifest.files.items():
            data = _read(source / name, entry.num_bytes)
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                msg = f"The file {name!r} of the artefact is not the one that was packed (its SHA-256 differs)."
                raise ArtefactError(msg)
            contents[name] = data
        return cls(manifest, contents)


def _read(file: Path | zipfile.Path, max_bytes: int) -> bytes:
    """Bytes of a file at the top of a folder or a zip, of which nothing is extracted to disk."""
    if isinstance(file, Path) and file.is_symlink():
        msg = f"The file {file.name!r} of the artefact is a link, which could lead anywhere; it is refused."
        raise ArtefactError(msg)
    if not file.is_file():
        msg = f"The artefact {file.parent} lacks its file {file.name!r}; copy or build it again."
        raise ArtefactError(msg)
    with file.open("rb") as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        msg = f"The file {file.name!r} of the artefact has {len(data)} bytes, more than the {max_bytes} it may have."
        raise ArtefactError(msg)
    return data
