"""Classify images: from images to classes with probabilities.

    from captioner.predictors.classifier import load_classifier
    classifier = load_classifier()                             # ImageNet's classes by the default model's CNN
    classifier.classify("photo.jpg", top=3)                    # (ClassScore("tabby", 0.62), ...)
    for result in classifier.results(paths):                   # a stream in constant memory
        print(result.image, result.classes or result.error)

Importing this module does not load torch, which the default model does not need.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from captioner.backbones.imagenet import imagenet_classes
from captioner.backbones.spec import BackboneSpec
from captioner.errors import CheckpointError, ImageError, UsageError
from captioner.model_file import Header, read_header
from captioner.predictors import find_model
from captioner.predictors.base import ClassScore
from captioner.predictors.runtime import Runtime, choose_runtime, load_runtime
from captioner.predictors.streams import (
    BATCH_SIZE,
    ImageSource,
    Prepared,
    batches,
    checked_batch_size,
    memory_errors,
    prefetch,
    prepare_image,
)

if TYPE_CHECKING:
    from captioner.predictors.onnx_runtime import OnnxRuntime

PUBLISHED = ("efficientnet-lite:", "torchvision:", "transformers:")
"""First parts of the names of published networks; captioner.backbones.classifier.FAMILIES loads them."""
WITH_CLASSES = ("default", "efficientnet-lite:")
"""First part of the keys of backbones whose weights include the layer of ImageNet's classes."""
TOP = 5
"""Default number of classes of an image, or all if there are fewer."""
STEM, STEM_SHAPE, STRIDE = "stem.0.weight", (32, 3, 3, 3), 2
"""Name of the first convolution of those backbones."""


@dataclass(frozen=True)
class Classified:
    """The most probable classes of an image, best first, or the error that prevented them."""

    image: Any
    """The path or PIL image."""
    classes: tuple[ClassScore, ...] = ()
    error: ImageError | None = None


class FirstLayer(NamedTuple):
    """The first convolution of a network: its kernels (O, I, H, W), and its output (O, H', W') for an image."""

    kernels: np.ndarray
    maps: np.ndarray


class Network(Protocol):
    """The network of an ``ImageClassifier``."""

    def probs(self, images: np.ndarray) -> np.ndarray:
        """From prepared images (N, 3, S, S) float32, probabilities (N, K)."""
        ...

    def first_layer(self, image: np.ndarray) -> FirstLayer:
        """The first convolution, and its maps for a prepared image (3, S, S)."""
        ...


class ImageClassifier:
    """A network, the names of its classes, and the preparation of images for it."""

    def __init__(self, name: str, classes: Sequence[str], spec: BackboneSpec, network: Network) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.spec = spec
        self.network = network

    def classify(self, image: ImageSource, top: int | None = None) -> tuple[ClassScore, ...]:
        """The ``top`` most probable classes of an image, as for ``results``; raises ``ImageError`` for a bad image."""
        (result,) = self.results([image], top=top)
        if result.error is not None:
            raise result.error
        return result.classes

    def results(
        self, images: Iterable[ImageSource | ImageError], *, top: int | None = None, batch_size: int = BATCH_SIZE
    ) -> Generator[Classified, None, None]:
        """Yield one ``Classified`` for each image, in order; errors among ``images`` are passed on.

        ``top`` is the number of classes; None means ``TOP``, or all if there are fewer.
        """
        checked_batch_size(batch_size)
        top = min(TOP, len(self.classes)) if top is None else top
        if not 1 <= top <= len(self.classes):
            raise UsageError(f"top must be between 1 and {len(self.classes)}, the classes of {self.name}, not {top}")
        return self._stream(images, top, batch_size)

    def first_layer(self, image: ImageSource) -> FirstLayer:
        """The kernels of the first convolution and its feature maps for an image; may raise ``ImageError``."""
        _, prepared = prepare_image(image, [self.spec])
        if isinstance(prepared, ImageError):
            raise prepared
        return self.network.first_layer(prepared[0])

    def _stream(
        self, images: Iterable[ImageSource | ImageError], top: int, batch_size: int
    ) -> Generator[Classified, None, None]:
        def prepare(image: ImageSource | ImageError) -> Prepared:
            return prepare_image(image, [self.spec])

        with closing(prefetch(prepare, images, window=batch_size + min(batch_size, BATCH_SIZE))) as prepared:
            for batch in batches(prepared, batch_size):
                yield from self._classify_batch(batch, top)

    def _classify_batch(self, batch: Sequence[Prepared], top: int) -> Iterator[Classified]:
        good = [inputs[0] for _, inputs in batch if not isinstance(inputs, ImageError)]
        with memory_errors():
            probs = iter(self._probs(np.stack(good)) if good else ())
        for image, inputs in batch:
            if isinstance(inputs, ImageError):
                yield Classified(image, error=inputs)
            else:
                yield Classified(image, self._best(next(probs), top))

    def _probs(self, images: np.ndarray) -> np.ndarray:
        probs = self.network.probs(images)
        if probs.shape[1] != len(self.classes):
            raise CheckpointError(f"{self.name}: has {probs.shape[1]} outputs but {len(self.classes)} class names")
        if not np.isfinite(probs).all():
            raise CheckpointError(f"{self.name}: gives probabilities that are not numbers; the model is damaged")
        return probs

    def _best(self, probs: np.ndarray, top: int) -> tuple[ClassScore, ...]:
        return best_classes(self.classes, probs, top)


class ClassLayer(NamedTuple):
    """The layer of ImageNet's classes on top of the features of a captioner."""

    weight: np.ndarray
    """(K, D')."""
    bias: np.ndarray
    """(K,)."""
    columns: slice
    """Which of the captioner's features it reads."""

    def best(self, features: np.ndarray, top: int) -> list[tuple[ClassScore, ...]]:
        """The ``top`` most probable classes for each row of features (N, D), best first."""
        probs = softmax(features[:, self.columns] @ self.weight.T + self.bias)
        return [best_classes(imagenet_classes(), row, top) for row in probs]


class OnnxNetwork:
    """The backbone of an exported captioner in ONNX Runtime, and its class layer in numpy."""

    def __init__(self, runtime: OnnxRuntime, index: int) -> None:
        """``index`` is that of the backbone among the model's inputs.

        Raises ``CheckpointError`` if the file lacks the class layer, or it has other sizes.
        """
        self.runtime, self.index = runtime, index
        spec, path = runtime.checkpoint.inputs[index], runtime.checkpoint.path
        weights = runtime.backbone_weights(index)
        classes = len(imagenet_classes())
        shapes = {"classifier.weight": (classes, spec.dimension), "classifier.bias": (classes,), STEM: STEM_SHAPE}
        for name, shape in shapes.items():
            found = weights[name].shape if name in weights else "missing"
            if found != shape:
                raise CheckpointError(f"{path}: {name} of its CNN is {found}, not {shape}; export the model again")
        self.weight, self.bias, self.kernels = (weights[name].astype(np.float32) for name in shapes)

    def probs(self, images: np.ndarray) -> np.ndarray:
        return softmax(self.runtime.encode_one(self.index, images) @ self.weight.T + self.bias)

    def first_layer(self, image: np.ndarray) -> FirstLayer:
        return FirstLayer(self.kernels, convolve(image, self.kernels, STRIDE))


def load_classifier(model: str = "default", device: str = "cpu", runtime: str = "auto") -> ImageClassifier:
    """Load the classifier called ``model``.

    A published network (``torchvision:resnet50``, see ``captioner.backbones.classifier``), a run or checkpoint of the
    task ``classification``, or a captioner whose CNN still has its layer for ImageNet's classes, such as the default
    model. ``runtime`` is as for ``captioner.load``. Raises ``CheckpointError`` for a model without classes,
    ``BackboneError`` for an unknown network, ``UsageError`` for a device that is not there.
    """
    if model.startswith(PUBLISHED):
        from captioner.predictors.torch_classifier import load_published

        return load_published(model, device)
    header = read_header(find_model(model, *(f"{prefix}NAME" for prefix in PUBLISHED)))
    if header.task == "classification":
        from captioner.predictors.torch_classifier import load_run

        return load_run(header, model, device)
    index, spec = _input_with_classes(header, model)
    if choose_runtime(header, device, runtime) == "onnx":
        from captioner.predictors.onnx_runtime import OnnxRuntime

        loaded = load_runtime(header, model, device, "onnx")
        assert isinstance(loaded, OnnxRuntime)
        return ImageClassifier(model, imagenet_classes(), spec, OnnxNetwork(loaded, index))
    from captioner.predictors.torch_classifier import load_backbone_of

    return load_backbone_of(header, model, device, index)


def class_layer(runtime: Runtime, model: str) -> ClassLayer | None:
    """The class layer of one of a captioner's networks, for existing features; None if there is none."""
    checkpoint = runtime.checkpoint
    if checkpoint.path is None:
        return None
    try:
        index, spec = _input_with_classes(read_header(checkpoint.path), model)
    except CheckpointError:
        return None
    weights = runtime.backbone_weights(index)
    weight, bias = weights.get("classifier.weight"), weights.get("classifier.bias")
    if weight is None or bias is None or weight.shape != (len(imagenet_classes()), spec.dimension):
        return None
    first = sum(one.dimension for one in checkpoint.inputs[:index])
    return ClassLayer(weight.astype(np.float32), bias.astype(np.float32), slice(first, first + spec.dimension))


def best_classes(names: Sequence[str], probs: np.ndarray, top: int) -> tuple[ClassScore, ...]:
    """The ``top`` most probable of ``names`` by their probabilities (K,), best first."""
    order = np.argsort(-probs, kind="stable")[:top]
    return tuple(ClassScore(names[number], float(probs[number])) for number in order)


def _input_with_classes(header: Header, model: str) -> tuple[int, BackboneSpec]:
    """The captioner's input whose CNN has a class layer, and its index; raises ``CheckpointError`` without one."""
    section = header.config.get("finetune")
    finetuned = section.get("backbone") if isinstance(section, Mapping) else None
    for index, spec in enumerate(header.inputs):
        if isinstance(spec, BackboneSpec) and spec.key.startswith(WITH_CLASSES) and not finetuned:
            return index, spec
    reason = "its CNN was trained on for captions" if finetuned else "its CNN has no layer of classes"
    raise CheckpointError(f"{model}: {reason}; name another model, as in --model efficientnet-lite:0")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax probabilities of logits (N, K), row by row."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def convolve(image: np.ndarray, kernels: np.ndarray, stride: int) -> np.ndarray:
    """Convolve an image (I, H, W) with kernels (O, I, h, w), padded as TensorFlow's "SAME": (O, H/stride, W/stride)."""
    sides, edges = image.shape[1:], kernels.shape[2:]
    padding = [max((-(-side // stride) - 1) * stride + edge - side, 0) for side, edge in zip(sides, edges, strict=True)]
    padded = np.pad(image, [(0, 0), *((room // 2, room - room // 2) for room in padding)])
    patches = np.lib.stride_tricks.sliding_window_view(padded, edges, (1, 2))[:, ::stride, ::stride]
    return np.tensordot(kernels, patches, ((1, 2, 3), (0, 3, 4)))  # patches: (I, H', W', h, w)
