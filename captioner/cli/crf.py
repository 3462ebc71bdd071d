"""``captioner crf``: features of clips to potentials over their labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.errors import DataError, FeatureStoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from captioner.crf.predictions import Potentials
    from captioner.crf.training import Clips, Epoch
    from captioner.data.clips import Clip
    from captioner.features.store import FeatureStore

app = typer.Typer(no_args_is_help=True, help="Conditional random field over the labels of clips.")

CLIPS = typer.Option("--clips", help="Clips with labels, as python -m preprocess.tacos writes them.")
FEATURES = typer.Option(
    "--features", "-f", help="Feature store whose ids are clip ids; repeat the option to join several."
)


@app.callback()
def crf() -> None:
    """Learn what features of clips say about their labels, and predict it for others."""


@app.command()
def train(
    clips: Annotated[Path, CLIPS],
    features: Annotated[list[Path], FEATURES],
    output: Annotated[Path, typer.Option("--output", "-o", help="CRF file to write (.safetensors).")],
    graph: Annotated[
        str, typer.Option(help="Which labels of a clip know of each other: complete, tree or none.")
    ] = "complete",
    chain: Annotated[bool, typer.Option("--chain", help="Labels also know those of the video's next clip.")] = False,
    unary: Annotated[
        str, typer.Option(help="From features to labels: linear, or mlp with one hidden layer.")
    ] = "linear",
    hidden: Annotated[int, typer.Option(help="Units of the hidden layer.")] = 256,
    dropout: Annotated[float, typer.Option(help="Probability of dropping a feature or hidden unit.")] = 0.0,
    folds: Annotated[
        int, typer.Option(min=0, help="Also a model without each of so many parts of the training videos, see below.")
    ] = 0,
    epochs: Annotated[int, typer.Option(help="At most so many times over the training clips.")] = 60,
    patience: Annotated[int, typer.Option(help="Stop after so many epochs without a better dev log probability.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Clips in a step.")] = 256,
    lr: Annotated[float, typer.Option(help="Step size.")] = 1e-2,
    weight_decay: Annotated[float, typer.Option(help="Strength of the Gaussian prior on weights of features.")] = 10.0,
    table_decay: Annotated[float, typer.Option(help="The same for the tables between nodes and clips.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of order, dropout and folds.")] = 0,
) -> None:
    """Train on the clips of split train; the epoch that is best on split val is kept.

    With --folds, predict gives each training clip the potentials of the model that did not see its video. A describer
    that is to be trained on potentials needs this: those of clips that the CRF learned from are surer than any it will
    meet later.
    """
    from dataclasses import asdict, replace

    from captioner.crf.model import CRFConfig, save_crf
    from captioner.crf.predictions import assess
    from captioner.crf.training import LearnConfig, learn_with_folds, predict
    from captioner.data.clips import read_clips

    config = CRFConfig(graph, chain, unary, hidden, dropout)
    how = LearnConfig(epochs, patience, batch_size, lr, weight_decay, table_decay, seed)
    everything, stores = read_clips("clips", clips), _stores(features)
    labels = _label_sets(everything)
    parts = {
        split: _arrays([one for one in everything if one.split == split], stores, labels) for split in ("train", "val")
    }
    usable = int(parts["train"].known.sum())
    _say(f"{usable} training clips, {len(parts['val'])} dev clips; {len(parts['train']) - usable} without any label")
    crf = learn_with_folds(
        config, how, labels, parts["train"], parts["val"] if len(parts["val"]) else None, folds, _tell
    )
    training: dict[str, Any] = {"how": asdict(how), "folds": folds, "clips": usable}
    if len(parts["val"]):
        potentials, unsettled = predict(crf.model, parts["val"])
        result = assess(potentials, parts["val"].truth)
        training["dev"] = asdict(result)
        print(f"dev  {result}{_unsettled(asdict(unsettled))}")
    save_crf(output, replace(crf, features=tuple(_facts(store) for store in stores), training=training))
    print(f"{config.graph} graph{', chain' if chain else ''}, {config.unary} unary, {crf.model.method}: {output}")


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(help="CRF file of captioner crf train.")],
    features: Annotated[list[Path], FEATURES],
    output: Annotated[Path, typer.Option("--output", "-o", help="Potentials file to write (HDF5).")],
    clips: Annotated[
        Path | None,
        typer.Option(help="Only these clips, in videos and time as a chain needs them; prints how right they are."),
    ] = None,
    truth: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the true labels in the probabilities of training clips, see below."),
    ] = 0.0,
) -> None:
    """Write the potentials of clips: label probabilities, and the best assignment (docs/potentials.md).

    Without --clips those of all clips in the feature store. Exit status 1 if a clip of --clips has no features.

    With --truth above 0 the best assignment of clips of split train is their true one, and so much of it is mixed into
    their probabilities: what a describer is to be trained on. CLIP#3, the third sentence of CLIP, has its features.
    """
    from dataclasses import asdict, replace

    import numpy as np

    from captioner.crf.model import load_crf
    from captioner.crf.predictions import with_truth, write_potentials
    from captioner.crf.training import predict
    from captioner.data.clips import Clip, read_clips, whole_clip

    crf, stores = load_crf(model), _stores(features)
    _check_features(model, crf.features, stores)
    if clips is None and crf.model.config.chain:
        raise UsageError(f"{model} has a chain over the clips of a video: give --clips, which says how they follow")
    if clips is None and truth:
        raise UsageError("--truth needs the true labels: give --clips")
    wanted = read_clips("clips", clips) if clips else [Clip(name, name, 0, 0, (), "test") for name in stores[0].ids]
    ids = [clip.clip_id for clip in wanted]
    seen_as = {name: name if all(name in store for store in stores) else whole_clip(name) for name in ids}
    whole = {seen_as[clip.clip_id]: clip for clip in reversed(wanted)}
    arrays = _arrays([replace(clip, clip_id=name) for name, clip in whole.items()], stores, crf.model.labels)
    names = " + ".join(str(fact["backbone"]) for fact in crf.features)
    source = f"captioner crf, {crf.model.config.graph} graph, {crf.model.method}, features {names}"
    predicted, unsettled = predict(crf, arrays, source)
    there = [clip for clip in wanted if seen_as[clip.clip_id] in predicted.rows]
    ids = [clip.clip_id for clip in there]
    sources = [seen_as[name] for name in ids]
    potentials = replace(predicted.subset(sources), ids=ids) if truth or sources != ids else predicted
    if truth:
        train = np.array([clip.split == "train" for clip in there])
        potentials = with_truth(potentials, np.where(train[:, None], _truth(there, crf.model.labels), -1), truth)
    write_potentials(output, potentials)
    _say(f"{output}: {len(potentials)} clips, {potentials.source}{_unsettled(asdict(unsettled))}")
    if clips:
        _print_scores(predicted, wanted)
    if len(there) < len(wanted):
        raise FeatureStoreError(f"{len(wanted) - len(there)} clips of {clips} have no features and no potentials")


@app.command()
def score(
    potentials: Annotated[Path, typer.Argument(help="Potentials file, ours or another's.")],
    clips: Annotated[Path, CLIPS],
) -> None:
    """Compare potentials with the true labels of clips: accuracy of each node and of all at once, calibration (ECE)."""
    from captioner.crf.predictions import read_potentials
    from captioner.data.clips import read_clips

    _print_scores(read_potentials(potentials), read_clips("clips", clips))


def _stores(paths: Sequence[Path]) -> list[FeatureStore]:
    from captioner.features.store import FeatureStore

    return [FeatureStore(path) for path in paths]


def _facts(store: FeatureStore) -> dict[str, Any]:
    """What a CRF file keeps of a store."""
    spec = store.spec
    return {
        "backbone": spec.key,
        "preprocessing": spec.digest,
        "weights_digest": store.weights_digest,
        "dimension": spec.dimension,
    }


def _check_features(model: Path, known: Sequence[Mapping[str, Any]], stores: Sequence[FeatureStore]) -> None:
    """Raise ``FeatureStoreError`` unless the stores were made as those that the CRF learned from, in that order."""
    if len(stores) != len(known):
        names = ", ".join(str(fact["backbone"]) for fact in known)
        raise FeatureStoreError(f"{len(stores)} feature stores; {model} was trained on {len(known)}: {names}")
    for store, fact in zip(stores, known, strict=True):
        for name, mine in _facts(store).items():
            if mine != fact[name]:
                label = name.replace("_", " ")
                raise FeatureStoreError(f"{store.path} has {label} {mine}, {model} was trained on {fact[name]}")


def _label_sets(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """Each node's labels: NULL, OTHER, and those of the training clips, the commonest first."""
    from collections import Counter

    from captioner.data.clips import NODES, NULL, OTHER

    known = [clip.labels for clip in clips if clip.split == "train" and clip.labels]
    if not known:
        raise DataError("no clip of split train has labels; python -m preprocess.tacos finds them in the sentences")
    sets = {}
    for v, node in enumerate(NODES):
        counts = Counter(labels[v] for labels in known)
        named = sorted(set(counts) - {NULL, OTHER}, key=lambda label: (-counts[label], label))
        sets[node] = (NULL, OTHER, *named)
    return sets


def _arrays(clips: Sequence[Clip], stores: Sequence[FeatureStore], labels: Mapping[str, Sequence[str]]) -> Clips:
    """Those of ``clips`` that have features, video after video and in time."""
    import numpy as np

    from captioner.crf.training import Clips

    chosen = [clip for clip in clips if all(clip.clip_id in store for store in stores)]
    chosen.sort(key=lambda clip: (clip.video, clip.start, clip.end, clip.clip_id))
    ids = [clip.clip_id for clip in chosen]
    joined = np.concatenate([store.get(ids) for store in stores], 1)
    return Clips(ids, [clip.video for clip in chosen], joined, _truth(chosen, labels))


def _truth(clips: Sequence[Clip], labels: Mapping[str, Sequence[str]]) -> Any:
    """(N, V) int64: index of each true label; of OTHER for one that is not in its set, -1 where it is not known."""
    import numpy as np

    from captioner.data.clips import OTHER

    places = [{label: place for place, label in enumerate(values)} for values in labels.values()]
    rows = [
        [place.get(label, place.get(OTHER, -1)) for place, label in zip(places, clip.labels, strict=True)]
        if clip.labels
        else [-1] * len(places)
        for clip in clips
    ]
    return np.array(rows, np.int64).reshape(-1, len(places))


def _print_scores(potentials: Potentials, clips: Sequence[Clip]) -> None:
    """A line for each split: accuracy of each node, of all at once, calibration."""
    import numpy as np

    from captioner.crf.predictions import assess

    for split in ("train", "val", "test"):
        here = [clip for clip in clips if clip.split == split and clip.clip_id in potentials.rows]
        if not any(clip.labels for clip in here):
            continue
        part = potentials.subset([clip.clip_id for clip in here])
        result = assess(part, np.asarray(_truth(here, potentials.labels)))
        print(f"{split:<5} {result.clips} clips  {result}")


def _tell(part: str, epoch: Epoch) -> None:
    dev = f"  dev log prob {epoch.dev.log_prob:.4f}  {epoch.dev}" if epoch.dev else ""
    odd = f"  {epoch.unsettled} dev clips did not converge" if epoch.unsettled else ""
    _say(f"{part}, epoch {epoch.number}: log likelihood {epoch.log_likelihood:.3f}{dev}{odd}")


def _unsettled(counts: Mapping[str, int]) -> str:
    """What to say about clips whose messages did not converge."""
    odd = [f"{what} of {count} clips" for what, count in counts.items() if count]
    return f"; not converged: {', '.join(odd)}" if odd else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
