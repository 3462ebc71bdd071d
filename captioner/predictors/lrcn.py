"""From images, or their cached features, to captions: load once, caption many.

    from captioner import load
    captioner = load()
    captioner.caption("photo.jpg")                       # one caption
    captioner.caption(["a.jpg", "b.jpg"], beam=5)        # a list of them
    for result in captioner.results(paths):              # a stream, with log probabilities and without an end to memory
        print(result.image, result.captions or result.error)

A cached feature and the file that it was made from take the same way from the feature vector on.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import torch
from PIL import Image
from torch import Tensor

from captioner import decoding
from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.config import DataConfig, from_mapping
from captioner.decoding.config import DecodingConfig
from captioner.errors import BackboneError, CaptionerError, CheckpointError, FeatureStoreError, ImageError, UsageError
from captioner.features.spec import FeatureSpec
from captioner.text.vocabulary import END, START

if TYPE_CHECKING:  # h5py and the network are loaded when they are needed
    from captioner.backbones import Backbone
    from captioner.features.spec import Store

MODELS = {"default": Path(__file__).parents[1] / "assets" / "default.safetensors"}
"""Models that come with the package, by name."""
NAMED = ("beam", "greedy", "sample")
"""Searches with an option of their own name."""
OPEN = ("max_length", "length_penalty", "no_repeat")
"""Fields of ``Search`` that the checkpoint decides where they are None."""
READERS = 2
"""Threads that open images while the network works on the batch before."""

ImageSource = str | os.PathLike[str] | Image.Image
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Caption:
    """A sentence and the natural logarithm of its probability under the model, its end included."""

    text: str
    log_prob: float


@dataclass(frozen=True)
class Result:
    """What came of one image: captions, best first, or the reason why there are none."""

    image: Any
    """The path, PIL image or image id that was asked about."""
    captions: tuple[Caption, ...] = ()
    error: ImageError | None = None


Results = Generator[Result, None, None]


class SearchOptions(TypedDict, total=False):
    """The fields of ``Search`` as keyword arguments."""

    beam: int | None
    greedy: bool
    sample: int
    temperature: float | None
    num_captions: int
    max_length: int | None
    length_penalty: float | None
    no_repeat: int | None
    seed: int
    search: str | None


@dataclass(frozen=True)
class Search:
    """How captions are looked for; contradictions raise ``UsageError``."""

    beam: int | None = None
    """Width of the beam; None is the checkpoint's own, or ``num_captions`` where that is more. Chooses beam search."""
    greedy: bool = False
    """Take the likeliest word at each step."""
    sample: int = 0
    """Draw so many captions and keep the most probable; the paper draws 100. 0 does not choose sampling."""
    temperature: float | None = None
    """Divides the scores before sampling; None is 1. The paper's T is its inverse: T = 1.5 is temperature 0.667."""
    num_captions: int = 1
    """Captions for each image, best first."""
    max_length: int | None = None
    """Most words in a caption; None is the checkpoint's own."""
    length_penalty: float | None = None
    """A beam ranks by log probability / words ** this, 0 being the paper's way; None is the checkpoint's own."""
    no_repeat: int | None = None
    """Length of phrases that may not come twice in a caption, 0 allowing all; None is the checkpoint's own."""
    seed: int = 0
    """Of sampling; every image starts from it, so its captions do not depend on the images beside it."""
    search: str | None = None
    """Any search of ``captioner.decoding.SEARCHES`` by name; None is the one that is chosen above, or beam search."""

    @property
    def name(self) -> str:
        """The search that is meant."""
        return self.search or next((name for name in NAMED if getattr(self, name)), "beam")

    def __post_init__(self) -> None:
        decoding.find_search(self.name)
        chosen = [name for name in NAMED if getattr(self, name)]
        if self.search and self.search not in chosen and (self.search in NAMED or self.greedy):
            chosen.append(self.search)
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} exclude each other; choose one")
        for name, least in (("beam", 1), ("sample", 0), ("num_captions", 1), ("max_length", 1), ("no_repeat", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, not {value}")
        if self.temperature is not None and self.name in ("beam", "greedy"):
            raise UsageError("temperature is for sampling; say how many captions to draw with sample")
        if self.temperature is not None and not 0.001 <= self.temperature <= 1000:  # float32 overflows far outside
            raise UsageError(f"temperature must be between 0.001 and 1000, not {self.temperature}")
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 2:
            raise UsageError(f"length_penalty must be between 0 and 2, not {self.length_penalty}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be between 0 and 2 ** 63, not {self.seed}")
        most = {"beam": self.beam, "greedy": 1, "sample": self.sample}.get(self.name)
        if most and self.num_captions > most:
            raise UsageError(f"num_captions {self.num_captions} is more than the {most} that {self.name} gives")

    def how(self, decode: DecodingConfig) -> decoding.How:
        """The same as searches want it, with what is left open as the checkpoint's ``decode`` says."""
        given = {name: value for name in OPEN if (value := getattr(self, name)) is not None}
        return decoding.How.of(
            decode,
            START,
            END,
            self.name,
            best=self.num_captions,
            width=self.beam or max(decode.beam_size, self.num_captions),
            number=self.sample or max(decoding.How.number, self.num_captions),
            temperature=self.temperature or 1.0,
            seed=self.seed,
            **given,
        )


class Captioner:
    """A decoder with its vocabulary and the networks that its features come from.

    Every method that captions takes the fields of ``Search`` as keyword arguments.
    """

    def __init__(self, checkpoint: Checkpoint, name: str = "model", device: str | torch.device = "cpu") -> None:
        self.name = name
        self.device = torch.device(device)
        self.checkpoint = checkpoint
        self.model = checkpoint.model.to(self.device).eval()

    @cached_property
    def backbones(self) -> list[Backbone]:
        """The networks, from the checkpoint where it holds them; loaded when the first image needs them."""
        from captioner.backbones import load_backbone

        if not self.checkpoint.backbones:
            raise CheckpointError(f"{self.name} is a model of text alone, or does not say what features it takes")
        loaded = []
        for spec, state in zip(self.checkpoint.backbones, self._states, strict=True):
            backbone = load_backbone(spec.key, state=state)
            if backbone.spec.digest != spec.digest:
                raise BackboneError(f"{spec.key} is prepared or read otherwise than when {self.name} was trained")
            if state is None and not _agree(backbone.spec.sha256, _sha256(spec), unknown=True):
                raise BackboneError(
                    f"{self.name} was trained on {spec.key} with weights {_sha256(spec)[:16]}, "
                    f"those here are {backbone.spec.sha256[:16]} ({backbone.spec.weights})"
                )
            loaded.append(backbone.to(self.device).eval())
        return loaded

    @property
    def data_set(self) -> DataConfig | None:
        """What the model was trained on, if its checkpoint says so."""
        data = self.checkpoint.extra.get("experiment", {}).get("data")
        return from_mapping(DataConfig, data, self.name) if data else None

    @property
    def _states(self) -> Sequence[dict[str, Tensor] | None]:
        """Weights of each backbone, None for those that the checkpoint does not hold."""
        return self.checkpoint.backbone_states or [None] * len(self.checkpoint.backbones)

    def caption(
        self, images: ImageSource | Iterable[ImageSource], *, batch_size: int = 64, **options: Unpack[SearchOptions]
    ) -> Any:
        """The caption of one image (a path or PIL image), or a list with one for each of several.

        With ``num_captions`` above 1 a list of captions, best first, stands in place of each.
        Raises ``ImageError`` for the first image that cannot be opened; ``results`` goes on after it.
        """
        how = Search(**options)
        alone = isinstance(images, str | os.PathLike | Image.Image)
        captions: list[Any] = []
        for result in self._results([images] if alone else images, how, batch_size):  # type: ignore[list-item,arg-type]
            if result.error is not None:
                raise result.error
            texts = [caption.text for caption in result.captions]
            captions.append(texts if how.num_captions > 1 else texts[0])
        return captions[0] if alone else captions

    def results(
        self, images: Iterable[ImageSource | ImageError], *, batch_size: int = 64, **options: Unpack[SearchOptions]
    ) -> Results:
        """One ``Result`` for each image, in order, batch by batch as they are made; errors among them pass through.

        Only a few batches are ever in memory, however many images there are.
        """
        return self._results(images, Search(**options), batch_size)

    def caption_features(
        self,
        stores: Store | Sequence[Store],
        ids: Iterable[str] | None = None,
        *,
        batch_size: int = 64,
        **options: Unpack[SearchOptions],
    ) -> Results:
        """One ``Result`` for each id (all of the first store by default) from cached features instead of images.

        ``stores`` stand in the order of the model's backbones. Raises ``FeatureStoreError`` where one was made by
        another backbone than the model's, naming both.
        """
        search = Search(**options)
        _at_least_one(batch_size)
        opened = list(stores) if isinstance(stores, Sequence) else [stores]
        self.check_stores(opened)
        return self._feature_results(opened, opened[0].ids if ids is None else ids, search, batch_size)

    def _results(self, images: Iterable[ImageSource | ImageError], search: Search, batch_size: int) -> Results:
        _at_least_one(batch_size)
        return self._stream(images, search, batch_size)

    def _stream(self, images: Iterable[ImageSource | ImageError], search: Search, batch_size: int) -> Results:
        self.backbones  # noqa: B018  # loaded here and not by two threads at once
        prepared = ahead(self._prepare, images, window=2 * batch_size)
        with closing(prepared):
            for batch in batches(prepared, batch_size):
                yield from self._caption_batch(batch, search)

    def _prepare(self, image: ImageSource | ImageError) -> tuple[ImageSource, list[Tensor] | ImageError]:
        """The image as each backbone wants it, [(3, S, S)], or why that cannot be."""
        from captioner.data.images import open_image

        if isinstance(image, ImageError):
            return image.path, image
        try:
            opened = open_image(image)
            return image, [backbone.preprocess(opened) for backbone in self.backbones]
        except ImageError as error:
            return image, error

    def _caption_batch(
        self, batch: Sequence[tuple[ImageSource, list[Tensor] | ImageError]], search: Search
    ) -> Iterator[Result]:
        good = [inputs for _, inputs in batch if not isinstance(inputs, ImageError)]
        with _enough_memory():
            captions = iter(self._decode(self._features(good), search) if good else ())
        for image, inputs in batch:
            if isinstance(inputs, ImageError):
                yield Result(image, error=inputs)
            else:
                yield Result(image, next(captions))

    def _feature_results(self, stores: Sequence[Store], ids: Iterable[str], search: Search, batch_size: int) -> Results:
        names = ", ".join(str(store.path) for store in stores)
        ids = list(ids)
        held = set.intersection(*(set(store.ids) for store in stores))
        if held.isdisjoint(ids):
            raise FeatureStoreError(f"none of the {len(ids)} images has features in {names}; is it another data set?")
        for batch in batches(ids, batch_size):
            there = [image for image in batch if image in held]
            parts = [torch.from_numpy(store.get(there)) for store in stores]
            features = torch.cat(parts, 1).to(self.device)  # (N, D)
            with _enough_memory():
                captions = iter(self._decode(features, search) if there else ())
            for image in batch:
                if image in held:
                    yield Result(image, next(captions))
                else:
                    yield Result(image, error=ImageError(image, f"has no features in {names}"))

    @torch.inference_mode()
    def _features(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Prepared images, N times one (3, S, S) for each backbone, to features (N, D), concatenated."""
        parts = []
        for backbone, images in zip(self.backbones, zip(*inputs, strict=True), strict=True):
            parts.append(backbone(torch.stack(images).to(self.device)).float())
        return torch.cat(parts, 1)

    @torch.inference_mode()
    def _decode(self, features: Tensor, search: Search) -> list[tuple[Caption, ...]]:
        """Features (N, D) to the captions of each row, best first."""
        how = search.how(self.checkpoint.decoding)
        found = decoding.search(self.model, self.model.start(features), len(features), how)
        words = self.checkpoint.vocabulary
        return [tuple(Caption(words.decode(h.ids), h.log_prob) for h in ranked) for ranked in found]

    def check_stores(self, stores: Sequence[Store]) -> None:
        """Raise ``FeatureStoreError`` unless ``stores`` hold what the backbones of the model give, in their order."""
        wanted = self.checkpoint.backbones
        if len(stores) != len(wanted):
            names = ", ".join(spec.key for spec in wanted) or "none"
            raise FeatureStoreError(f"{self.name} needs {len(wanted)} feature stores ({names}), got {len(stores)}")
        for index, (store, spec) in enumerate(zip(stores, wanted, strict=True)):
            found = store.spec
            if found.names != spec.names:
                reason = "has other labels than"
            elif (found.dimension, found.digest) != (spec.dimension, spec.digest):
                reason = "is another network, layer or preparation than"
            elif self._states[index] is not None:
                same = self.backbones[index].weights_digest == store.weights_digest
                reason = "" if same else "has other weights than"
            else:
                same = _agree(_sha256(found), _sha256(spec), unknown=found.key == spec.key)
                reason = "" if same else "has other weights than"
            if reason:
                raise FeatureStoreError(
                    f"{store.path}: made by {found.key} ({found.dimension} numbers), which {reason} "
                    f"the {spec.key} ({spec.dimension} numbers) of {self.name}"
                )


def load(model: str | os.PathLike[str] = "default", device: str = "cpu") -> Captioner:
    """The captioner of a shipped model by name, of a checkpoint file, or of a training run's folder (its best).

    Raises ``CheckpointError`` where there is none, ``UsageError`` for a device that this machine has not.
    """
    return Captioner(load_checkpoint(find_model(model)), str(model), find_device(device))


def find_model(model: str | os.PathLike[str]) -> Path:
    """The file of a model: a name in ``MODELS``, a checkpoint, or a folder with ``best.safetensors``."""
    path = MODELS.get(str(model)) or Path(model)
    if path.is_dir() and (path / "best.safetensors").is_file():
        path = path / "best.safetensors"
    if not path.is_file():
        names = ", ".join(MODELS)
        if str(model) in MODELS:
            raise CheckpointError(f"{path}, the {model} model, is missing from this installation; name another model")
        raise CheckpointError(
            f"{model}: no such model; give {names}, a .safetensors checkpoint or a training run's folder"
        )
    return path


def find_device(device: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``: as torch names them, and present on this machine."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else "not available"
        raise UsageError(f"device {device}: {reason}; cpu is always there") from None
    return found


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of ``size``; the last may be shorter."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def ahead(work: Callable[[T], R], items: Iterable[T], window: int) -> Generator[R, None, None]:
    """``work(item)`` for each item, in order, done in threads up to ``window`` items before they are asked for."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(READERS)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early: nobody waits for images that nobody wants
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Say what helps where torch only says that it cannot allocate."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise CaptionerError("not enough memory for this; lower the batch size, the beam or the samples") from error
        raise


def _at_least_one(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")


def _sha256(spec: FeatureSpec) -> str:
    """SHA-256 of a backbone's weight file, as far as its record says it."""
    return spec.sha256 if isinstance(spec, BackboneSpec) else ""


def _agree(one: str, other: str, unknown: bool) -> bool:
    """Whether two SHA-256 are the same, of which one may be cut short; ``unknown`` where either is missing."""
    return one.startswith(other) or other.startswith(one) if one and other else unknown
