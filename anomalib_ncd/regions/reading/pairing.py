# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Which anomaly map belongs to which image: by relative path and stem, never by order, and never by guess."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from anomalib_ncd.regions.reading.file_bytes import printable
from anomalib_ncd.regions.reading.listing import ImageFile, find_files
from anomalib_ncd.regions.reading.maps import MAP_SUFFIXES

logger = logging.getLogger(__name__)

_ENDING = "_anomaly_map"


class MapPairs:
    """Maps of a folder, by the images that they belong to.

    An image ``scratch/000.jpg`` belongs to the map ``scratch/000`` or ``scratch/000_anomaly_map`` with any of the map
    suffixes. In a folder without subfolders the stem alone decides, as long as no two images share it. A key that comes
    twice stands for two images.
    """

    def __init__(self, folder: str | Path, image_keys: Iterable[str] = ()) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            msg = f"There is no folder of anomaly maps {folder}. Check the path given as `anomaly_maps`."
            raise FileNotFoundError(msg)
        self.refresh(image_keys)

    def refresh(self, image_keys: Iterable[str]) -> None:
        """Look at the folder anew.

        Args:
            image_keys: Keys of all images that are there now.
        """
        self._maps: dict[str, list[Path]] = defaultdict(list)
        for path in find_files(self.folder, MAP_SUFFIXES):
            self._maps[_key_of_map(path.relative_to(self.folder))].append(path)
        self._by_stem = all("/" not in key for key in self._maps)
        self._claims = Counter(self._name_of(key) for key in image_keys)

    def find(self, key: str) -> Path | None:
        """Find the map of an image by its key; ``None`` where there is none (yet), an error where it isn't clear."""
        name = self._name_of(key)
        found = self._maps.get(name, [])
        if len(found) > 1:
            msg = f"Two anomaly maps have the name {name!r}: {found[0]} and {found[1]}. Remove one."
            raise ValueError(msg)
        if found and self._claims[name] > 1:
            msg = (
                f"Several images are called {name!r}, and nothing in {self.folder} tells their maps apart; "
                "give the maps the images' folders and different names."
            )
            raise ValueError(msg)
        return found[0] if found else None

    def pair(self, images: Sequence[ImageFile]) -> list[Path]:
        """Find the map of each image, in order. Maps without an image are left out, with a warning.

        ``FileNotFoundError`` if an image has no map, ``ValueError`` if several maps or several images may be meant.
        """
        self.refresh(image.key for image in images)
        suffixes = ", ".join(sorted(MAP_SUFFIXES))
        if not self._maps:
            msg = f"The folder {self.folder} holds no anomaly maps ({suffixes})."
            raise FileNotFoundError(msg)
        found = [(image, self.find(image.key)) for image in images]
        missing = [str(image.path) for image, path in found if path is None]
        if missing:
            msg = (
                f"{len(missing)} of {len(images)} images have no anomaly map in {self.folder}, such as {missing[:3]}. "
                f"A map is looked for at the image's relative path with one of the suffixes {suffixes}."
            )
            raise FileNotFoundError(msg)
        unused = sorted(set(self._maps) - set(self._claims))
        if unused:
            logger.warning("%d anomaly maps in %s have no image: %s …", len(unused), self.folder, unused[:3])
        return [path for _, path in found if path is not None]

    def _name_of(self, key: str) -> str:
        """What the map of an image is called, without suffix."""
        return Path(key).name if self._by_stem else key


def _key_of_map(relative_path: Path) -> str:
    """Key of the image that a map belongs to, by the map's path."""
    return unicodedata.normalize("NFC", printable(relative_path.with_suffix("").as_posix())).removesuffix(_ENDING)
