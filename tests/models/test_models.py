"""The recurrent decoders: every wiring with every cell, fused and step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captioner.errors import ConfigError
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.models.stack import CELLS, drop
from captioner.models.wirings import WIRINGS
from captioner.skip_init import skip_init
from captioner.text.vocabulary import NEVER, START

VOCABULARY, FEATURE, BATCH, LENGTH = 11, 6, 3, 5
WIRED = [(wiring, cell) for wiring in WIRINGS for cell in CELLS]


def build(**options: object) -> LRCN:
    torch.manual_seed(0)
    sizes = {"embedding_dim": 7, "hidden_dim": 8, "image_dim": 5}
    model = LRCN(LRCNConfig(**{**sizes, **options}), VOCABULARY, FEATURE)  # type: ignore[arg-type]
    model.set_statistics(torch.randn(FEATURE), torch.rand(FEATURE) + 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # zero biases would hide what they do
    return model.eval()


def material() -> tuple[Tensor, Tensor]:
    """Features (B, D) and tokens (B, T) that begin with the start token."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, VOCABULARY, (BATCH, LENGTH), generator=generator)
    tokens[:, 0] = START
    return torch.randn(BATCH, FEATURE, generator=generator), tokens


def stepped(model: LRCN, features: Tensor | None, tokens: Tensor) -> Tensor:
    """Log probabilities (B, T, V), one step at a time."""
    state = model.start(features, len(tokens))
    rows = []
    for t in range(tokens.shape[1]):
        log_probs, state = model.step(tokens[:, t], state)
        rows.append(log_probs)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("options", [{}, {"residual": True, "tied": True, "image_dim": 0}], ids=["plain", "all"])
@pytest.mark.parametrize(("wiring", "cell"), WIRED)
@torch.no_grad()
def test_whole_sequence_equals_single_steps(wiring: str, cell: str, options: dict[str, object]) -> None:
    """The fused path of training and the stepping path of decoding are one model, with an image and without."""
    model = build(wiring=wiring, cell=cell, **options)
    features, tokens = material()
    for image in (features, None):
        expected = model(image, tokens).log_softmax(-1)
        expected[..., NEVER] = -torch.inf
        torch.testing.assert_close(stepped(model, image, tokens), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wiring", WIRINGS)
@torch.no_grad()
def test_padding_and_neighbors_change_nothing(wiring: str) -> None:
    """Would catch: a batch-first mix-up, or positions that see what comes after them."""
    model = build(wiring=wiring)
    features, tokens = material()
    logits = model(features, tokens)
    padded = torch.cat([tokens, torch.zeros(BATCH, 4, dtype=torch.int64)], 1)
    torch.testing.assert_close(model(features, padded)[:, :LENGTH], logits)
    for row in range(BATCH):
        torch.testing.assert_close(model(features[row : row + 1], tokens[row : row + 1]), logits[row : row + 1])


@pytest.mark.parametrize(("wiring", "cell"), WIRED)
@torch.no_grad()
def test_image_reaches_the_layers_that_the_table_names(wiring: str, cell: str) -> None:
    """In the factored wirings the first layer models language alone, in that of an encoder-decoder all do."""
    model = build(wiring=wiring, cell=cell)
    features, tokens = material()
    outputs: list[Tensor] = []
    for layer in model.stack.layers:
        layer.register_forward_hook(lambda _, __, result: outputs.append(result[0]))
    model(features, tokens)
    model(features + 1, tokens)
    layers = len(WIRINGS[wiring])
    changed = [not torch.equal(outputs[index], outputs[layers + index]) for index in range(layers)]
    first = next((index for index, inputs in enumerate(WIRINGS[wiring]) if "image" in inputs), layers)
    assert changed == [index >= first for index in range(layers)]
    sizes = {"word": 7, "below": 8, "image": 5}
    for layer, inputs in zip(model.stack.layers, WIRINGS[wiring], strict=True):
        assert layer.input_size == sum(sizes[name] for name in inputs)


@pytest.mark.parametrize("options", [{}, {"tied": True, "residual": True}, {"image_dim": 0, "normalize": "none"}])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_gradient_flows_to_every_parameter(wiring: str, options: dict[str, object]) -> None:
    model = build(wiring=wiring, **options).train()
    features, tokens = material()
    model(features, tokens).log_softmax(-1)[..., 4].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_select_takes_all_of_a_caption_in_progress(cell: str) -> None:
    """Would catch: a state whose image or one of whose layers stays behind when hypotheses are reordered."""
    model = build(cell=cell)
    features, tokens = material()
    rows = torch.tensor([2, 0, 2, 1])
    _, state = model.step(tokens[:, 0], model.start(features))
    expected = stepped(model, features[rows], tokens[rows])[:, 1]
    found, _ = model.step(tokens[rows, 1], model.select(state, rows))
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_log_probabilities_of_steps_add_up_to_the_likelihood() -> None:
    model = build()
    features, tokens = material()
    following = torch.roll(tokens, -1, 1)[:, :-1]
    steps = stepped(model, features, tokens)[:, :-1].gather(2, following[..., None]).sum()
    whole = torch.nn.functional.cross_entropy(
        model(features, tokens)[:, :-1].transpose(1, 2), following, reduction="sum"
    )
    torch.testing.assert_close(steps, -whole)


@torch.no_grad()
def test_without_an_image_the_projected_input_is_zero() -> None:
    model = build()
    features, tokens = material()
    model.image.weight.zero_()  # type: ignore[union-attr, operator]
    model.image.bias.zero_()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(model(None, tokens), model(features, tokens))


@torch.no_grad()
def test_standardizing_undoes_a_change_of_units() -> None:
    """A dimension that never varied in training is centered and not blown up."""
    model = build()
    features, tokens = material()
    mean, std = features.mean(0), features.std(0)
    model.set_statistics(mean, std)
    expected = model(features, tokens)
    model.set_statistics(1000 * mean + 5, 1000 * std)
    torch.testing.assert_close(model(1000 * features + 5, tokens), expected, atol=1e-4, rtol=1e-4)
    model.set_statistics(mean, torch.zeros(FEATURE))
    assert model(features, tokens).isfinite().all()


def test_papers_two_layer_factored_model_has_37_6_million_parameters() -> None:
    """8,800 words and the end, fc8 features: 37,618,801 in Caffe, whose LSTMs have one bias vector, not two."""
    paper = LRCNConfig(wiring="2f", embedding_dim=1000, hidden_dim=1000, image_dim=0, normalize="none", init="uniform")
    with skip_init():
        model = LRCN(paper, 8801, 1000)
    second_bias = 2 * 4 * 1000
    assert sum(parameter.numel() for parameter in model.parameters()) - second_bias == 37_618_801


def test_residual_paths_go_around_layers_that_see_only_the_one_below() -> None:
    """With weights of zero an LSTM gives zero, so that what comes out on top is what the paths carry."""
    assert build(wiring="4f", residual=True).stack.skips == (False, False, True, True)
    assert build(wiring="2u", residual=True).stack.skips == (False, True)
    model = build(wiring="4f", residual=True)
    features, tokens = material()
    outputs: list[Tensor] = []
    model.stack.layers[1].register_forward_hook(lambda _, __, result: outputs.append(result[0]))
    with torch.no_grad():
        for index in (2, 3):
            for weight in model.stack.layers[index].parameters():
                weight.zero_()
        hidden = model.hidden(features, tokens)
    torch.testing.assert_close(hidden.transpose(0, 1), outputs[0])


def test_dropout_drops_at_its_rate_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(301, 333), 0.3, training=True)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.006)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert drop(dropped, 0.3, training=False) is dropped


@pytest.mark.parametrize("option", ["dropout", "image_dropout"])
@torch.no_grad()
def test_dropout_is_for_training_alone(option: str) -> None:
    model = build(**{option: 0.5})
    features, tokens = material()
    torch.testing.assert_close(model(features, tokens), build()(features, tokens))
    model.train()
    assert not torch.equal(model(features, tokens), model(features, tokens))


@pytest.mark.parametrize("cell", CELLS)
def test_orthogonal_start(cell: str) -> None:
    model = LRCN(LRCNConfig(cell=cell, hidden_dim=8), VOCABULARY, FEATURE)
    for layer in model.stack.layers:
        for gate in layer.weight_hh_l0.chunk(CELLS[cell].gates):  # type: ignore[operator, union-attr]
            torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
        forget = [0, 1, 0, 0] if cell == "lstm" else [0] * CELLS[cell].gates
        biases = layer.bias_ih_l0 + layer.bias_hh_l0  # type: ignore[operator]
        assert biases.tolist() == [float(value) for value in forget for _ in range(8)]


def test_uniform_start_is_the_papers() -> None:
    model = LRCN(LRCNConfig(init="uniform", tied=True), VOCABULARY, FEATURE)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            assert not parameter.any(), name
        else:
            assert 0.05 < parameter.abs().max() <= 0.08, name


def test_tied_softmax_shares_the_word_vectors() -> None:
    model = build(tied=True)
    assert model.lm_head.weight is model.embedding.weight
    assert model.pre_output(torch.zeros(2, 8)).shape == (2, 7)


def test_wrong_shapes_and_names_are_explained() -> None:
    model = build()
    features, tokens = material()
    with pytest.raises(ValueError, match=r"features: expected \(N, 6\), got \(3, 4\)"):
        model(features[:, :4], tokens)
    with pytest.raises(ValueError, match=r"tokens: expected \(3, T\), got \(2, 5\)"):
        model(features, tokens[:2])
    with pytest.raises(ConfigError, match="model.wiring: '3g' is not one of 1u, 2u, 2f, 2e, 4f"):
        LRCN(LRCNConfig(wiring="3g"), VOCABULARY, FEATURE)
    with pytest.raises(ConfigError, match="model.cell: 'lsmt' is not one of lstm, gru, rnn"):
        LRCN(LRCNConfig(cell="lsmt"), VOCABULARY, FEATURE)


def test_signed_square_roots_shrinks_large_features() -> None:
    """Would catch roots of negative numbers, and roots taken once in training and twice in captioning."""
    plain = LRCN(LRCNConfig(embedding_dim=4, hidden_dim=4, image_dim=4, normalize="backbone"), 9, 3)
    signed_sqrt = LRCN(LRCNConfig(embedding_dim=4, hidden_dim=4, image_dim=4, normalize="signed_sqrt"), 9, 3)
    signed_sqrt.load_state_dict(plain.state_dict())
    tokens = torch.tensor([[START, 5, 6]])
    features = torch.tensor([[4.0, -9.0, 0.0]])
    torch.testing.assert_close(
        signed_sqrt.eval()(features, tokens), plain.eval()(torch.tensor([[2.0, -3.0, 0.0]]), tokens)
    )
