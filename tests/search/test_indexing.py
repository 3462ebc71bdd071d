"""Keeping an index up to date: what is new, changed, moved, gone, damaged, or made by another model."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from captioner import load
from captioner.errors import SearchIndexError, UsageError
from captioner.predictors.classifier import load_classifier
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.search import indexing
from captioner.search.index import Index
from captioner.search.indexing import open_writer
from captioner.search.vectors import Approximate
from tests import tiny
from tests.predictors.test_classifier import save_captioner


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> LRCNCaptioner:
    return load(tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    tiny.save_images(tmp_path / "photos", 6)
    return tmp_path / "photos"


def update(
    folder: Path, captioner: LRCNCaptioner, *arguments: Path, rebuild: bool = False, nearest: str = "auto"
) -> Counter[str]:
    """Bring the index up to date; how many images were added, changed, ..."""
    with open_writer(folder, captioner, rebuild) as writer:
        found = Counter(change.kind for change in writer.update([str(a) for a in arguments] or writer.folders()))
        writer.finish(nearest)
    return found


def test_an_index_holds_what_the_captioner_says(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch captions, probabilities or vectors of another image."""
    assert update(tmp_path / "index", captioner, photos) == {"added": 6}
    paths = sorted(photos.iterdir())
    results = list(captioner.results(paths))
    with Index(tmp_path / "index") as index:
        entries = [index.at(str(path)) for path in paths]
        assert all(entries)
        assert [(e.caption, pytest.approx(e.log_prob, abs=1e-3)) for e in entries if e] == [
            (result.captions[0].text, result.captions[0].log_prob) for result in results
        ]
        features = captioner.encode([captioner.prepare(path)[1] for path in paths])  # type: ignore[misc]
        norms = np.array([entry.norm for entry in entries if entry])[:, None]
        vectors = index.vectors([entry for entry in entries if entry])
        np.testing.assert_allclose(vectors * norms, features, rtol=0.002, atol=0.002 * np.abs(features).max())


def test_only_what_changed_is_computed(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch images that are captioned again, and ones that changed and are not."""
    update(tmp_path / "index", captioner, photos)
    encoded: list[int] = []
    encode = LRCNCaptioner.encode

    def counted(self: LRCNCaptioner, inputs: object) -> np.ndarray:
        encoded.append(len(inputs))  # type: ignore[arg-type]
        return encode(self, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(LRCNCaptioner, "encode", counted)
    (photos / "sub").mkdir()
    (photos / "00.png").rename(photos / "sub" / "moved.png")
    (photos / "01.png").unlink()
    tiny.make_image(50).save(photos / "02.png")
    shutil.copyfile(photos / "03.png", photos / "copy.png")
    os.utime(photos / "04.png")
    tiny.make_image(51).save(photos / "new.png")
    found = update(tmp_path / "index", captioner)
    assert found == {"moved": 1, "removed": 1, "changed": 1, "added": 2, "unchanged": 3} and encoded == [2]
    results = {str(r.image): r.captions[0].text for r in captioner.results(sorted(photos.rglob("*.png")))}
    with Index(tmp_path / "index") as index:
        assert {entry.path: entry.caption for entry in index.page(0, 100)} == results
        words = index.query("SELECT caption FROM words")
        assert sorted(text for (text,) in words) == sorted(results.values())
    assert update(tmp_path / "index", captioner) == {"unchanged": 7}


def test_swapped_files_keep_their_own_captions(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch a digest that still leads to the image that was there before."""
    update(tmp_path / "index", captioner, photos)
    with Index(tmp_path / "index") as index:
        before = {Path(e.path).name: e.caption for e in index.page(0, 10)}
    for one, other in (("00.png", "x"), ("01.png", "00.png"), ("x", "01.png")):
        (photos / one).rename(photos / other)
    for name in ("00.png", "01.png"):
        os.utime(photos / name)
    update(tmp_path / "index", captioner, photos)
    with Index(tmp_path / "index") as index:
        after = {Path(e.path).name: e.caption for e in index.page(0, 10)}
    assert (after.pop("00.png"), after.pop("01.png")) == (before.pop("01.png"), before.pop("00.png"))
    assert after == before


def test_a_disk_that_is_away_loses_nothing(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch an index that is emptied because a disk was not mounted."""
    update(tmp_path / "index", captioner, photos)
    photos.rename(tmp_path / "away")
    photos.mkdir()
    assert update(tmp_path / "index", captioner) == {"failed": 1}
    assert "its 6 images stay" in capsys.readouterr().err
    with open_writer(tmp_path / "index", captioner) as writer:
        assert (len(writer), writer.forget(str(photos)), len(writer)) == (6, 6, 0)
        with pytest.raises(UsageError, match="not a folder of this index"):
            writer.forget(str(photos))


def test_unreadable_images_are_errors_of_their_own(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch a damaged file that ends the run, or is taken for an image."""
    (photos / "03.png").write_bytes(b"no image")
    os.mkfifo(photos / "pipe.png")
    (photos / "link.png").symlink_to(tmp_path / "nothing")
    with open_writer(tmp_path / "index", captioner) as writer:
        changes = list(writer.update([str(photos)]))
    assert Counter(change.kind for change in changes) == {"added": 5, "failed": 3}
    failed = {Path(change.path).name: str(change.error) for change in changes if change.error}
    assert "not an image" in failed["03.png"] and "not a regular file" in failed["pipe.png"]
    assert "no such file" in failed["link.png"]


def test_a_change_that_fails_is_taken_back(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch half a batch in the index after an error, and a lock that stays."""

    def fail(*_: object) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(LRCNCaptioner, "encode", fail)
        update(tmp_path / "index", captioner, photos)
    with Index(tmp_path / "index") as index:
        assert len(index) == 0 and index.folders() == [str(photos)]
    assert update(tmp_path / "index", captioner) == {"added": 6}


def test_another_model_is_refused_until_all_is_indexed_again(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path
) -> None:
    """Would catch vectors of two networks in one index (immich once had that), and a refusal that names one side."""
    update(tmp_path / "index", captioner, photos)
    other = load(tiny.save_tiny(tmp_path / "other.safetensors", backbone_seeds=(3,)))
    with pytest.raises(SearchIndexError) as caught:
        update(tmp_path / "index", other, photos)
    assert captioner.digest[:12] in str(caught.value) and other.digest[:12] in str(caught.value)
    assert update(tmp_path / "index", other, rebuild=True) == {"added": 6}
    with Index(tmp_path / "index") as index:
        assert index.model.captioner == other.digest
        assert index.exact.vectors.shape == (6, 1280)
    assert update(tmp_path / "index", other) == {"unchanged": 6}
    assert [p.name for p in (tmp_path / "index").glob("vectors*")] == ["vectors-1.f16"]


def test_the_same_name_with_other_files_is_not_called_another_model(tmp_path: Path, photos: Path) -> None:
    """Would catch the advice to give that model with --model to somebody who gave it."""
    path = tiny.save_tiny(tmp_path / "model.safetensors")
    update(tmp_path / "index", load(path), photos)
    tiny.save_tiny(path, backbone_seeds=(3,))
    with pytest.raises(SearchIndexError, match="give the same --prompt, or the same files of it, as then") as caught:
        update(tmp_path / "index", load(path), photos)
    assert "--model" not in str(caught.value)


def test_there_is_one_writer(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch two writers that give the same rows to different images."""
    with open_writer(tmp_path / "index", captioner) as writer:
        assert list(writer.update([str(photos)]))
        with pytest.raises(SearchIndexError, match="another captioner index is writing"):
            update(tmp_path / "index", captioner, photos)


def test_a_reader_sees_one_moment(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch a search while indexing that sees half a batch, or vectors that do not belong to its images."""
    update(tmp_path / "index", captioner, photos)
    with Index(tmp_path / "index") as before:
        captions = [entry.caption for entry in before.page(0, 100)]
        tiny.save_images(photos, 9)
        (photos / "00.png").unlink()
        update(tmp_path / "index", captioner)
        assert [entry.caption for entry in before.page(0, 100)] == captions
        assert len(before) == 6 and len(before.exact.search(before.exact.vectors[0], 100)[0]) == 6
    with Index(tmp_path / "index") as after:
        assert len(after) == 8


def test_vectors_of_images_that_are_gone_are_dropped(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a file that only grows, and images that lose their vectors when it shrinks."""
    monkeypatch.setattr(indexing, "SPARE_ROWS", 0)
    update(tmp_path / "index", captioner, photos)
    with Index(tmp_path / "index") as index:
        wanted = {entry.path: index.vectors([entry])[0] for entry in index.page(0, 10)}
    for name in ("00.png", "01.png", "02.png", "04.png"):
        (photos / name).unlink()
    assert update(tmp_path / "index", captioner)["removed"] == 4
    with Index(tmp_path / "index") as index:
        assert index.generation == 1 and index.file.path.stat().st_size == 2 * 1280 * 2
        for entry in index.page(0, 10):
            np.testing.assert_array_equal(index.vectors([entry])[0], wanted[entry.path])


def test_a_new_image_does_not_get_the_place_of_a_removed_one_in_the_graph(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path
) -> None:
    """Would catch a graph that still leads to the vector of the last image, removed by an earlier run."""
    pytest.importorskip("usearch")
    update(tmp_path / "index", captioner, photos, nearest="usearch")
    (photos / "05.png").unlink()
    assert update(tmp_path / "index", captioner, nearest="usearch")["removed"] == 1
    tiny.make_image(50).save(photos / "new.png")
    assert update(tmp_path / "index", captioner, nearest="usearch")["added"] == 1
    with Index(tmp_path / "index") as index:
        assert isinstance(index.nearest, Approximate)
        wanted = index.file.read(index.rows) @ index.nearest.axes
        np.testing.assert_allclose(index.nearest.graph.get(index.rows), wanted, atol=0.002)


def test_classes_are_those_of_the_classifier(tmp_path: Path, photos: Path) -> None:
    """Would catch classes of the wrong features; captioners whose network has no classes have none."""
    path = save_captioner(tmp_path / "classes.safetensors")
    update(tmp_path / "index", load(path), photos)
    classifier = load_classifier(str(path))
    with Index(tmp_path / "index") as index:
        for entry in index.page(0, 10):
            wanted = classifier.classify(entry.path)
            assert [share.name for share in entry.classes] == [share.name for share in wanted]
            np.testing.assert_allclose(
                [s.probability for s in entry.classes], [s.probability for s in wanted], atol=1e-4
            )


def test_names_that_are_not_text(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch an index that cannot hold a file name in another encoding."""
    name = os.fsdecode(b"caf\xe9.png")
    (photos / "00.png").rename(photos / name)
    assert update(tmp_path / "index", captioner, photos) == {"added": 6}
    with Index(tmp_path / "index") as index:
        assert index.at(str(photos / name))


def test_other_folders_and_databases_are_left_alone(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch an index that is written into a folder of photos, or over another program's database."""
    with pytest.raises(SearchIndexError, match="is not empty"):
        update(photos, captioner, photos)
    assert len(list(photos.glob("*.png"))) == 6
    import sqlite3

    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / "index.sqlite") as other:
        other.execute("CREATE TABLE bookmarks (address)")
    other.close()
    with pytest.raises(SearchIndexError, match="not an index of captioner"):
        update(tmp_path / "other", captioner, photos)
    with pytest.raises(SearchIndexError, match="not an index of captioner"):
        Index(tmp_path / "other")
    with pytest.raises(SearchIndexError, match="no index here"):
        Index(tmp_path / "nowhere")


@pytest.mark.parametrize(("damage", "message"), [(b"", "no index here"), (b"x" * 5000, "cannot be read or is damaged")])
def test_a_damaged_database_is_one_line(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, damage: bytes, message: str
) -> None:
    """Would catch a traceback of sqlite3's, and an index that a kill left empty and is taken for another program's."""
    update(tmp_path / "index", captioner, photos)
    (tmp_path / "index" / "index.sqlite").write_bytes(damage)
    with pytest.raises(SearchIndexError, match=message):
        Index(tmp_path / "index")
    (tmp_path / "index" / "index.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(SearchIndexError):
        update(tmp_path / "index", captioner, photos)


def test_vectors_that_are_cut_off_are_one_line(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch a bus error, which a mapped file that is too short gives."""
    update(tmp_path / "index", captioner, photos)
    os.truncate(tmp_path / "index" / "vectors-0.f16", 1000)
    with Index(tmp_path / "index") as index, pytest.raises(SearchIndexError, match="cut off or missing"):
        index.exact.search(np.zeros(1280, np.float32), 1)
