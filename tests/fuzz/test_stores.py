"""Feature stores and label predictions: HDF5."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import CaptionerError
from captioner.features.label_predictions import LabelPredictionsStore
from captioner.features.spec import read_spec
from captioner.features.store import FeatureStore
from tests.fixtures.make_formats import make_features, make_label_predictions
from tests.fuzz import NASTY, NUMBERS, SCALARS, VALUES, corrupted, flipped, fuzz, reshaped
from tests.fuzz.worker import isolated

FIXTURES = Path(__file__).parents[1] / "fixtures"
TYPES = ["f2", "f4", "f8", ">f4", "i1", "u4", "i8", "?", "S3", "V4", "c8", h5py.string_dtype(), h5py.ref_dtype,
         h5py.vlen_dtype(np.float32), h5py.enum_dtype({"a": 1}), np.dtype([("a", "f4"), ("b", h5py.string_dtype())]),
         np.dtype(("f4", (2,)))]  # fmt: skip
SHAPES = [(), (0,), (1,), (4,), (4, 12), (12, 4), (4, 0), (2, 3), (2, 2), (3, 4, 5), (10**9,), (2**40, 12), (2**62,)]
REFUSED = (TypeError, ValueError, OverflowError, RuntimeError, OSError, MemoryError, AttributeError)
"""What h5py raises for values that it cannot store."""


def feature_store(path: Path) -> tuple[list[str], bytes]:
    """Everything that a command asks of a feature store; ids and values."""
    store = FeatureStore(path, mirrored=None)
    values = store.get(store.ids)
    assert values.dtype == np.float32 and values.shape == (len(store.ids), *store.spec.shape)
    assert np.isfinite(values).all()
    json.dumps([store.summary(), store.unfinished, store.spec.to_dict(), store.weights_digest, store.dtype])
    assert all(isinstance(line, str) for line in store.verify())
    return store.ids, values.tobytes()


def label_predictions(path: Path) -> tuple[list[str], bytes]:
    """The same of label predictions, whose values are probabilities."""
    contents = b""
    for kind in ("map", "marginals"):
        store = LabelPredictionsStore(path, kind)
        values = store.get(store.ids)
        assert values.dtype == np.float32 and values.shape == (len(store.ids), store.spec.dimension)
        assert ((values >= 0) & (values <= 1.01)).all()
        assert np.allclose(values.sum(1), len(store.predictions.nodes), atol=0.05 * len(store.predictions.nodes))
        json.dumps([store.summary(), store.spec.to_dict(), store.ids])
        contents += values.tobytes()
    return store.ids, contents


READERS: dict[str, Callable[[Path], tuple[list[str], bytes]]] = {
    "features": feature_store,
    "label-predictions": label_predictions,
}


@cache
def valid(kind: str) -> tuple[bytes, tuple[list[str], bytes], dict[str, Any]]:
    """A file as the project writes it, what is read from it, and the values of each dataset, None for each group."""
    with tempfile.TemporaryDirectory() as folder:
        make_features(Path(folder))
        make_label_predictions(Path(folder))
        path = Path(folder, f"{kind}-v2.h5")
        names: list[str] = []
        with h5py.File(path) as file:
            file.visit(names.append)
            values = {name: file[name][()] if isinstance(file[name], h5py.Dataset) else None for name in sorted(names)}
        return path.read_bytes(), READERS[kind](path), values


def survives(path: Path) -> bool:
    """Whether HDF5 itself neither crashes nor hangs on a file, which no reader could prevent."""
    try:
        isolated(read_everything, path, seconds=3)
    except AssertionError:
        return False
    return True


def read_everything(path: Path) -> None:
    """Read all attributes and small datasets by h5py alone."""

    def read(name: str, item: Any) -> None:
        with suppress(*REFUSED, KeyError):
            dict(item.attrs)
        with suppress(*REFUSED, KeyError):
            if isinstance(item, h5py.Dataset) and item.nbytes < 10**6 and not item.is_virtual and not item.external:
                item[()]

    with suppress(*REFUSED, KeyError), h5py.File(path, "r", locking=False) as file:
        read("/", file)
        file.visititems(read)


@pytest.mark.parametrize("kind", [*READERS])
@given(data=st.data())
@fuzz
def test_damaged_bytes(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Would catch a crash of HDF5's, and an error of h5py's that no reader expects."""
    path = tmp_path / "a.h5"
    older = (FIXTURES / f"{kind}-v2.h5").read_bytes()
    path.write_bytes(data.draw(corrupted(data.draw(st.sampled_from([valid(kind)[0], older])))))
    if survives(path):
        isolated(READERS[kind], path)


@pytest.mark.parametrize("kind", [*READERS])
@given(data=st.data())
@fuzz
def test_one_bit(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Would catch a bit that flips and changes values, without an error."""
    content, (ids, values), _ = valid(kind)
    path = tmp_path / "a.h5"
    path.write_bytes(data.draw(flipped(content)))
    found = isolated(READERS[kind], path) if survives(path) else None
    assert found is None or found[1] == values
    assert found is None or found[0] == ids or kind != "features"  # others have no checksum of ids


@pytest.mark.parametrize("kind", [*READERS])
@given(data=st.data())
@fuzz
def test_other_structure(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Would catch types, shapes, storage and links that a reader believes, as HDF5 allows them anywhere."""
    content, _, values = valid(kind)
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    (tmp_path / "other.h5").write_bytes(content)
    with h5py.File(path, "r+") as file:
        for _ in range(data.draw(st.integers(1, 3))):
            with suppress(RuntimeError, TypeError, ValueError):  # an earlier change left nothing to change here
                if data.draw(st.booleans()):
                    change_attribute(data.draw, file)
                else:
                    change_object(data.draw, file, values)
    isolated(READERS[kind], path)


def change_attribute(draw: st.DrawFn, file: h5py.File) -> None:
    """Remove or replace an attribute; of a spec also only a part, with its digest."""
    name = draw(st.sampled_from(sorted(file.attrs)))
    kind = draw(st.sampled_from(["remove", "value", "value", "array", "empty", "spec"]))
    value = file.attrs[name]
    del file.attrs[name]
    if kind == "spec" and "spec" in (name, *file.attrs):
        spec = json.loads(value if name == "spec" else file.attrs["spec"])
        change_spec(draw, file, spec)
    elif kind == "value":
        value = draw(SCALARS | st.sampled_from([json.dumps, str]).flatmap(VALUES.map) | st.sampled_from(NASTY[:20]))
        set_attribute(file, name, value)
    elif kind == "array":
        shape, dtype = draw(st.sampled_from(SHAPES[:9])), draw(st.sampled_from(TYPES))
        with suppress(*REFUSED):
            file.attrs.create(name, np.zeros(shape, dtype), dtype=dtype)
    elif kind == "empty":
        file.attrs[name] = h5py.Empty(draw(st.sampled_from(["f4", "S3", "i8"])))


def change_spec(draw: st.DrawFn, file: h5py.File, spec: Any) -> None:
    spec = draw(reshaped(spec))
    set_attribute(file, "spec", json.dumps(spec))
    try:
        read = read_spec(spec)
    except (CaptionerError, TypeError):
        return
    set_attribute(file, "spec_digest", read.digest)
    set_attribute(file, "feature", read.key)


def set_attribute(file: h5py.File, name: str, value: Any) -> None:
    """Set an attribute, unless HDF5 cannot hold the value."""
    with suppress(*REFUSED):
        file.attrs[name] = value


def change_object(draw: st.DrawFn, file: h5py.File, valid: dict[str, Any]) -> None:
    """Replace a dataset or group by something else of its name, or change values of it."""
    name = draw(st.sampled_from([*valid]))
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return
    kind = draw(st.sampled_from(["remove", "group", "type", "data", "value", "value", "link", "virtual", "external"]))
    data = valid[name]
    del file[name]
    if kind == "group":
        file.create_group(name)
    elif kind == "type":
        file[name] = np.dtype("f4")
    elif kind == "value" and data is not None:
        file[name] = change_value(draw, data)
    elif kind == "data":
        make_dataset(draw, file, name, data)
    elif kind == "link":
        others = [h5py.SoftLink("/ids"), h5py.SoftLink("/" + name), h5py.ExternalLink("other.h5", name), file["/"]]
        file[name] = draw(st.sampled_from(others))
    elif kind == "virtual" and data is not None:
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        if data.shape:
            layout[...] = h5py.VirtualSource("other.h5", name, data.shape)
        file.create_virtual_dataset(name, layout)
    elif kind == "external" and data is not None and data.dtype.kind in "fiu":
        file.create_dataset(name, data.shape, data.dtype, external=[("other.h5", 0, max(1, data.nbytes))])


def change_value(draw: st.DrawFn, values: Any) -> Any:
    """Values with another one among them, if their type can hold it."""
    value: Any = draw(st.sampled_from([*NUMBERS, b"", b"\xff", b"a\0b", b"a" * 300, 1, 2, 3]))
    changed = np.array(values)
    with suppress(TypeError, ValueError, OverflowError):
        changed.flat[draw(st.integers(0, values.size - 1))] = value if values.dtype.kind != "O" else str(value)
    return changed if values.dtype.kind != "O" else np.array(changed, h5py.string_dtype())


def make_dataset(draw: st.DrawFn, file: h5py.File, name: str, data: Any) -> None:
    """A dataset of the old values in other storage or of another type, or of another shape without any."""
    dtype, shape = draw(st.sampled_from(TYPES)), draw(st.sampled_from(SHAPES))
    options = draw(
        st.sampled_from([{}, {"compression": "gzip"}, {"chunks": True}, {"fletcher32": True}, {"chunks": ()}])
    )
    if data is not None and draw(st.booleans()):
        shape = data.shape
        dtype = draw(st.sampled_from([data.dtype, dtype]))
        options = {**options, "data": data if dtype == data.dtype else None}
    if options.get("chunks") == ():
        options = {"chunks": tuple(min(side, 2**24) or 1 for side in shape) or None}
    elif math.prod(shape) > 10**6:
        options = {"chunks": True, **options}
    with suppress(*REFUSED):
        file.create_dataset(name, shape, dtype, **options)
