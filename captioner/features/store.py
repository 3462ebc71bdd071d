"""Read a feature store: one feature file, or a folder of them written by several processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.backbones.spec import BackboneSpec
from captioner.data.records import Names
from captioner.errors import FeatureStoreError
from captioner.features.format import FeatureFile, part_files, parts_folder, require_same
from captioner.features.spec import FeatureSpec, check_mirrored


class FeatureStore:
    """Reads a feature store (a ``captioner.features.spec.Store``); files are opened when they are first needed.

    ``mirrored`` selects the features that are accepted: of unmirrored images, of mirrored images, or (None) both. The
    object may be passed to forked and spawned processes. Raises ``FeatureStoreError`` for anything but a store of this
    version and kind, and for a folder whose files hold different features.
    """

    def __init__(self, path: str | Path, *, mirrored: bool | None = False) -> None:
        self._path = Path(path)
        self._mirrored = mirrored

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_mirrored": self._mirrored}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: str) -> bool:
        return id in self._names

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self._path

    @property
    def spec(self) -> FeatureSpec:
        """The specification of the features; a ``BackboneSpec`` if a backbone computed them."""
        return self._files[0].spec

    @property
    def weights_digest(self) -> str:
        """Digest of the weights that computed the features; empty if no network did."""
        return str(self._files[0].attributes["weights_digest"])

    @property
    def dtype(self) -> str:
        """Type of the stored features: float16 or float32."""
        return str(self._files[0].attributes["dtype"])

    @cached_property
    def ids(self) -> list[str]:
        """Ids of all finished rows."""
        return list(self._rows)

    @cached_property
    def unfinished(self) -> list[str]:
        """Ids of rows without a feature, such as images that cannot be read."""
        names = (name for file in self._files for name in file.ids)
        return [name for name in dict.fromkeys(names) if name not in self._rows]

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Features of ``ids`` in that order, (N, D) or (N, T, D) float32; the error names up to three missing ids."""
        missing = [name for name in ids if name not in self._names]
        if missing:
            raise FeatureStoreError(self._missing(missing))
        found = [self._rows[self._names.find(name) or name] for name in ids]
        places = np.array(found, np.int64).reshape(-1, 2)  # (N, 2): file, row
        values = np.empty((len(places), *self.spec.shape), np.float32)
        for number in np.unique(places[:, 0]):
            here = places[:, 0] == number
            values[here] = self._files[number].read(places[here, 1])
        return values

    @property
    def missing_parts(self) -> list[str]:
        """Parts, such as ``2/4``, that a store written by several processes lacks."""
        present = {file.attributes["part"] for file in self._files}
        counts = {int(part.split("/")[1]) for part in present}
        return [f"{i}/{n}" for n in sorted(counts) for i in range(1, n + 1) if f"{i}/{n}" not in present]

    @property
    def is_partial(self) -> bool:
        """Whether rows in ``FILE.parts`` have not been merged yet."""
        return any(".parts" in file.path.parent.suffixes for file in self._files)

    def verify(self) -> list[str]:
        """Read everything; returns the problems, one line each: damage, repeated ids, missing rows and parts."""
        problems: list[str] = []
        owner: dict[str, Path] = {}
        for file in self._files:
            for name, done in zip(file.ids, file.finished, strict=False):
                if done and name in owner:
                    problems.append(f"{name} is in {owner[name]} and in {file.path}")
                elif done:
                    owner[name] = file.path
            problems += file.problems()
        if self.unfinished:
            problems.append(f"{len(self.unfinished)} rows are unfinished, first {self.unfinished[0]}")
        problems += [f"part {part} is missing" for part in self.missing_parts]
        if self.is_partial:
            problems.append("writing was interrupted; run the same extraction again to finish it")
        return problems

    def summary(self) -> dict[str, Any]:
        """A description of the store, by name, as JSON values."""
        header = self._files[0].attributes
        return {
            "format": f"{header['format']} version {header['version']}",
            "rows": len(self) + len(self.unfinished),
            "finished": len(self),
            "shape": list(self.spec.shape),
            "dtype": header["dtype"],
            "feature": header["feature"],
            "spec": f"{header['spec_digest']}{_describe(self.spec)}",
            "weights": header["weights_digest"],
            "crops": header["crops"],
            "mirrored": header["mirrored"],
            "precision": header["precision"],
            "parts": ", ".join(sorted({file.attributes["part"] for file in self._files})),
            "complete": not (self.is_partial or self.unfinished or self.missing_parts),
        }

    def _missing(self, names: Sequence[str]) -> str:
        """The error for missing ids, with the likely reason."""
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        reason = "".join(f"; part {part} is not there" for part in self.missing_parts[:1])
        file = names[0].rpartition("/")[2]
        similar = next((name for name in self._rows if name.rpartition("/")[2] == file), None)
        if similar:  # an id is the path below the folder given to extract
            reason += f"; it has {similar}, as captioner extract was given another folder than the images' own"
        return f"{self.path}: no features of {', '.join(names[:3])}{more}{reason}"

    @cached_property
    def _files(self) -> list[FeatureFile]:
        if self.path.is_dir():
            paths = sorted(self.path.glob("*.h5"))
            paths += [part for folder in sorted(self.path.glob("*.h5.parts")) for part in part_files(folder)]
        else:
            paths = [self.path] if self.path.exists() else []
            paths += part_files(parts_folder(self.path))
        if not paths:
            reason = "no feature files in this folder" if self.path.is_dir() else "no such file"
            raise FeatureStoreError(f"{self.path}: {reason}; make features with captioner extract")
        files = [FeatureFile(path) for path in paths]
        for file in files[1:]:
            require_same(file.attributes, files[0].attributes, str(file.path), str(files[0].path))
        check_mirrored(str(self.path), bool(files[0].attributes["mirrored"]), self._mirrored)
        return files

    @cached_property
    def _names(self) -> Names:
        return Names(self._rows)

    @cached_property
    def _rows(self) -> dict[str, tuple[int, int]]:
        """Id to (file, row) of each finished row; the first one for a repeated id."""
        rows: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(self._files):
            for row, (name, done) in enumerate(zip(file.ids, file.finished, strict=False)):
                if done:
                    rows.setdefault(name, (number, row))
        return rows


def _describe(spec: FeatureSpec) -> str:
    """How a backbone prepares images and which layer it reads; nothing for other features."""
    if not isinstance(spec, BackboneSpec):
        return ""
    size = f"{spec.resize} to {spec.size}" + (f" from {spec.shorter}" if spec.shorter > spec.size else "")
    return f" ({size} pixels, {spec.filter}, output {spec.output or 'of the network'})"
