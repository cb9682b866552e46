import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mer4d.errors import SettingError
from mer4d.models import FocalLoss, class_weights, focal_loss, softmax_focal_loss


def batch_of(seed: int, clips: int = 16, classes: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, ...]:
    """Logits (B, K), targets (B, K) and class weights (K,), float64."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (clips, classes))
    targets = rng.random((clips, classes)) < 0.3
    return tuple(torch.tensor(each, dtype=torch.float64) for each in (logits, targets, rng.uniform(0.2, 5, classes)))


def reference(logits: torch.Tensor, targets: torch.Tensor, gamma: float, weights: torch.Tensor) -> float:
    """The formula of the paper, label by label, from the probabilities."""
    losses = []
    for clip, k in np.ndindex(*logits.shape):
        p = 1 / (1 + np.exp(-logits[clip, k].item()))
        true = targets[clip, k].item() == 1
        p_true, weight = (p, weights[k].item()) if true else (1 - p, 1.0)
        losses.append(-weight * (1 - p_true) ** gamma * np.log(p_true))
    return float(np.mean(losses))


def one_class_batch(seed: int, clips: int = 16, classes: int = 4, scale: float = 3.0) -> tuple[torch.Tensor, ...]:
    """As `batch_of`, each clip in exactly one class."""
    rng = np.random.default_rng(seed)
    targets = np.eye(classes)[rng.integers(classes, size=clips)]
    columns = (rng.normal(0, scale, (clips, classes)), targets, rng.uniform(0.2, 5, classes))
    return tuple(torch.tensor(each, dtype=torch.float64) for each in columns)


def softmax_reference(logits: torch.Tensor, targets: torch.Tensor, gamma: float, weights: torch.Tensor) -> float:
    """The formula clip by clip, from the probabilities."""
    losses = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        y = target.index(1)
        p = np.exp(row[y]) / sum(np.exp(each) for each in row)
        losses.append(-weights[y].item() * (1 - p) ** gamma * np.log(p))
    return float(np.mean(losses))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_softmax_agrees_with_the_formula(gamma, classes):
    for seed in range(4):
        logits, targets, weights = one_class_batch(seed, classes=classes)
        expected = softmax_reference(logits, targets, gamma, weights)
        assert softmax_focal_loss(logits, targets, gamma, weights).item() == pytest.approx(expected, rel=1e-12)
        single = softmax_focal_loss(logits.float(), targets.float(), gamma, weights.float())
        assert single.item() == pytest.approx(expected, rel=1e-5)
        unweighted = softmax_reference(logits, targets, gamma, torch.ones(classes))
        assert softmax_focal_loss(logits, targets.bool(), gamma).item() == pytest.approx(unweighted, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_softmax_with_gamma_zero_is_cross_entropy(seed):
    logits, targets, weights = one_class_batch(seed, scale=30.0)
    y = targets.argmax(1)
    torch.testing.assert_close(softmax_focal_loss(logits, targets, 0.0), cross_entropy(logits, y))
    expected = cross_entropy(logits, y, weights, reduction="sum") / len(y)
    torch.testing.assert_close(softmax_focal_loss(logits, targets, 0.0, weights), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_gradient(gamma):
    logits, targets, weights = one_class_batch(0, clips=5)
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, targets, gamma, weights), logits.requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_softmax_of_extreme_logits_stays_finite(gamma, size):
    logits = torch.tensor([[size, -size, 0.0], [size, -size, 0.0]], requires_grad=True)
    loss = softmax_focal_loss(logits, torch.eye(3)[:2], gamma)  # one clip entirely right, one entirely wrong
    loss.backward()
    assert loss.item() == pytest.approx(size, rel=1e-5)
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, 0.0], [0.5, -0.5, 0.0]]))


@pytest.mark.parametrize("clip", [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.2, 0.0], [2.0, -1.0, 0.0], [torch.nan] * 3])
def test_softmax_needs_exactly_one_class_per_clip(clip):
    with pytest.raises(SettingError, match=r"exactly one class for each clip|0 or 1 for each of N clips"):
        softmax_focal_loss(torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], clip]))


def test_softmax_needs_two_classes():
    with pytest.raises(SettingError, match="at least 2 classes, found 1"):
        FocalLoss(classes=1, multi_label=False)
    assert FocalLoss(classes=1)(torch.zeros(1, 1), torch.zeros(1, 1)).item() == pytest.approx(np.log(2) / 4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_formula(gamma, seed):
    logits, targets, weights = batch_of(seed)
    expected = reference(logits, targets, gamma, weights)
    assert focal_loss(logits, targets, gamma, weights).item() == pytest.approx(expected, rel=1e-12)
    assert focal_loss(logits.float(), targets.float(), gamma, weights.float()).item() == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_gamma_zero_is_binary_cross_entropy(seed):
    logits, targets, weights = batch_of(seed, scale=30.0)
    torch.testing.assert_close(focal_loss(logits, targets, 0.0), binary_cross_entropy_with_logits(logits, targets))
    expected = binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
    torch.testing.assert_close(focal_loss(logits, targets, 0.0, weights), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradient(gamma):
    logits, targets, weights = batch_of(0, clips=3)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets, gamma, weights), logits.requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_extreme_logits_stay_finite(gamma, size):
    logits = torch.tensor([[size, -size, size, -size]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]]), gamma)
    loss.backward()
    assert loss.item() == pytest.approx(size / 2, rel=1e-5)
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, 0.25, -0.25]]))


def test_weights_scale_the_positives_alone():
    logits, targets, _ = batch_of(0)
    doubled = torch.full((5,), 2.0, dtype=torch.float64)
    positives, negatives = torch.ones_like(targets), torch.zeros_like(targets)
    torch.testing.assert_close(focal_loss(logits, positives, 2.0, doubled), 2 * focal_loss(logits, positives))
    torch.testing.assert_close(focal_loss(logits, negatives, 2.0, doubled), focal_loss(logits, negatives))


def test_integer_and_boolean_targets():
    logits, targets, _ = batch_of(0)
    expected = focal_loss(logits, targets)
    assert focal_loss(logits, targets.long()) == focal_loss(logits, targets.bool()) == expected


@pytest.mark.parametrize(("targets", "weights"), [((4, 3), (5,)), ((5,), (5,)), ((4, 5), (3,)), ((4, 5), (1,))])
def test_shapes_that_do_not_fit_are_refused(targets, weights):
    for loss in (focal_loss, softmax_focal_loss):
        with pytest.raises(SettingError, match=r"expected logits \(B, K\).*found \(4, 5\)"):
            loss(torch.zeros(4, 5), torch.zeros(targets), 2.0, torch.ones(weights))


@pytest.mark.parametrize("multi_label", [True, False])
def test_negative_gamma_is_refused(multi_label):
    with pytest.raises(SettingError, match="gamma of at least 0, found -1"):
        (focal_loss if multi_label else softmax_focal_loss)(torch.zeros(1, 5), torch.eye(1, 5), -1.0)
    with pytest.raises(SettingError, match="gamma of at least 0, found -1"):
        FocalLoss(5, gamma=-1.0, multi_label=multi_label)


@pytest.mark.parametrize("multi_label", [True, False])
def test_module_keeps_its_weights_in_checkpoints(multi_label):
    batch, loss = (batch_of(0), focal_loss) if multi_label else (one_class_batch(0, classes=5), softmax_focal_loss)
    logits, targets, weights = (each.float() for each in batch)
    trained, loaded = (FocalLoss(5, gamma=1.5, multi_label=multi_label) for _ in range(2))
    assert torch.equal(trained.class_weights, torch.ones(5))
    trained.class_weights.copy_(weights)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(logits, targets), loss(logits, targets, 1.5, weights))
    assert not list(trained.parameters())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_agree_with_counting(power):
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = rng.random((rng.integers(1, 40), 5)) < rng.random(5) ** 3
        expected = [
            1.0 if column.sum() == 0 else min(max(((~column).sum() / column.sum()) ** power, 1 / 6), 6)
            for column in labels.T
        ]
        weights = class_weights(torch.tensor(labels), power, maximum=6.0)
        assert weights.dtype == torch.float32
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_multi_class_weights_agree_with_counting(power):
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.eye(5, dtype=bool)[rng.choice(5, rng.integers(1, 40), p=rng.dirichlet(np.full(5, 0.5)))]
        counts = [int(column.sum()) for column in labels.T]
        present = sum(n > 0 for n in counts)
        expected = [1.0 if n == 0 else min(max((len(labels) / (present * n)) ** power, 1 / 6), 6) for n in counts]
        weights = class_weights(torch.tensor(labels), power, maximum=6.0, multi_label=False)
        assert weights.dtype == torch.float32
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_power_one_gives_all_classes_the_same_total_weight():
    labels = torch.eye(4)[[0] * 9 + [1] * 3 + [2] * 1]  # the last class is absent
    totals = class_weights(labels, power=1.0, multi_label=False) * labels.sum(0)
    torch.testing.assert_close(totals, torch.tensor([13 / 3, 13 / 3, 13 / 3, 0.0]))


def test_power_one_balances_positives_and_negatives():
    labels = torch.zeros(12, 2)
    labels[:3, 0] = 1
    labels[:8, 1] = 1
    positives = labels.sum(0)
    torch.testing.assert_close(class_weights(labels, power=1.0) * positives, 12 - positives)


@pytest.mark.parametrize(
    ("labels", "settings", "problem"),
    [
        (torch.zeros(0, 5), {}, "at least one clip, found none"),
        (torch.zeros(5), {}, "0 or 1 for each of N clips"),
        (torch.full((3, 5), 0.5), {}, "0 or 1 for each of N clips"),
        (torch.full((3, 5), torch.nan), {}, "0 or 1 for each of N clips"),
        (torch.zeros(3, 5), {"power": -1.0}, "power of at least 0"),
        (torch.zeros(3, 5), {"maximum": 0.5}, "maximum of at least 1"),
    ],
)
def test_impossible_labels_and_settings_are_refused(labels, settings, problem):
    with pytest.raises(SettingError, match=problem):
        class_weights(labels, **settings)
