from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import kstest

from mer4d.clip import Problem
from mer4d.models import FocalLoss, decide, decide_one
from mer4d.models.baselines import ConstantPredictor, PriorRandom
from mer4d.models.baselines.prior import uniform

ROOT = Path(__file__).parents[3]
CONFIGS, DEFAULTS = ROOT / "configs" / "baselines", ROOT / "mer4d" / "defaults.yaml"
PRIOR = np.array([0.15, 0.55, 0.25, 0.08, 0.3])
PREDICTORS = {"constant": ConstantPredictor, "prior_random": PriorRandom}


def clips(number=4000, seed=0):
    return torch.randn(number, 2, 2, 3, 1, 1, generator=torch.Generator().manual_seed(seed))


def predictor_of(prior=PRIOR, multi_label=True, **settings):
    """A predictor whose bias says what it would after training."""
    problem = Problem(classes=tuple("abcde")[: len(prior)], multi_label=multi_label)
    predictor = PriorRandom(problem, **settings).eval()
    with torch.no_grad():
        predictor.bias.copy_(torch.from_numpy(logit(prior) if multi_label else np.log(prior)))
    return predictor


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("multi_label", [True, False])
def test_the_bias_becomes_the_frequency_of_each_class(name, multi_label):
    config, defaults = (yaml.safe_load(file.read_text()) for file in (CONFIGS / f"{name}.yaml", DEFAULTS))
    generator = torch.Generator().manual_seed(0)
    if multi_label:
        labels = (torch.rand(240, 5, generator=generator) < torch.from_numpy(PRIOR)).float()
    else:
        shares = torch.tensor([0.1, 0.5, 0.25, 0.05, 0.1])
        labels = torch.eye(5)[shares.multinomial(240, replacement=True, generator=generator)]
    predictor = PREDICTORS[name](Problem(multi_label=multi_label))
    loss = FocalLoss(5, config["model"]["gamma"], multi_label)
    adam = config["model"]["optimizer"]
    assert adam["class_path"] == "torch.optim.Adam" and config["data"]["batch_size"] >= len(labels)
    optimizer = torch.optim.Adam(predictor.parameters(), **adam["init_args"])
    for _ in range(defaults["trainer"]["max_epochs"]):
        optimizer.zero_grad()
        loss(predictor(clips(240)), labels).backward()
        optimizer.step()
    learnt = predictor.bias.sigmoid() if multi_label else predictor.bias.softmax(-1)
    torch.testing.assert_close(learnt, labels.mean(0), atol=0.01, rtol=0)


def test_the_configurations_weigh_no_class():
    for name in PREDICTORS:
        callbacks = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["trainer"]["callbacks"]
        defaults = yaml.safe_load(DEFAULTS.read_text())["trainer"]["callbacks"]
        names, expected = ([each["class_path"] for each in rows] for rows in (callbacks, defaults))
        assert names == [name for name in expected if "ClassWeights" not in name]
        assert [each["init_args"]["monitor"] for each in callbacks[:2]] == ["val/loss"] * 2  # least at the frequencies


def test_the_constant_predictor_answers_every_clip_alike():
    predictor = ConstantPredictor()
    with torch.no_grad():
        predictor.bias.copy_(torch.arange(5.0))
    assert torch.equal(predictor(clips(3)), torch.arange(5.0).expand(3, -1))


def test_random_only_in_evaluation():
    predictor = predictor_of()
    assert torch.equal(predictor.train()(clips(3)), predictor.bias.expand(3, -1))
    assert predictor.eval()(clips(3)).std(0).min() > 0


def test_each_class_is_drawn_with_its_own_probability():
    drawn = decide(predictor_of()(clips()).sigmoid(), at_least_one=False).double()
    np.testing.assert_allclose(drawn.mean(0), PRIOR, atol=4 * 0.5 / 4000**0.5)
    correlation = np.corrcoef(drawn.T.numpy()) - np.eye(5)
    assert np.abs(correlation).max() < 4 / 4000**0.5, "classes are drawn independently"


def test_exactly_one_class_is_drawn_with_its_probability():
    prior = np.array([0.6, 0.3, 0.1])
    drawn = decide_one(predictor_of(prior, multi_label=False)(clips()).softmax(-1)).double()
    np.testing.assert_allclose(drawn.mean(0), prior, atol=4 * 0.5 / 4000**0.5)


def test_what_at_least_one_adds():
    probabilities = predictor_of()(clips()).sigmoid()
    alone, filled = (decide(probabilities, at_least_one=each).double() for each in (False, True))
    bias = logit(PRIOR)

    def closest(k):
        """Probability that no class is drawn and k comes closest: its logit is the largest, and below 0."""
        others = np.delete(bias, k)

        def density(x):
            return expit(x - bias[k]) * expit(bias[k] - x) * expit(x - others).prod()

        return quad(density, -40, 0)[0]

    expected = [closest(k) for k in range(5)]
    assert sum(expected) == pytest.approx((1 - PRIOR).prod())
    np.testing.assert_allclose((filled - alone).mean(0), expected, atol=4 * 0.5 / 4000**0.5)


def test_the_draw_depends_on_the_clip_and_the_seed_alone():
    flow, predictor = clips(50), predictor_of()
    expected = predictor(flow)
    torch.manual_seed(1)
    order = torch.randperm(50)
    assert torch.equal(predictor(flow[order]), expected[order])
    assert torch.equal(torch.cat([predictor(each) for each in flow.split(7)]), expected)
    assert torch.equal(predictor(flow.transpose(1, 2).contiguous().transpose(1, 2)), expected), "layout in memory"
    assert torch.equal(predictor_of()(flow), expected)
    assert not torch.isclose(predictor_of(seed=1)(flow), expected).any()
    changed = flow.clone()
    changed[:, 1, 1, 2] += 1e-6
    assert not torch.isclose(predictor(changed), expected).any()


def test_uniform_numbers():
    numbers = np.concatenate([uniform(f"clip {clip}".encode(), seed=0, numbers=5) for clip in range(1000)])
    assert kstest(numbers, "uniform").pvalue > 0.01 and numbers.min() > 0 and numbers.max() < 1


def test_uniform_numbers_leave_out_0_and_1(monkeypatch):
    class Extreme:
        def __init__(self, content):
            pass

        def digest(self, length):
            return bytes(8) + b"\xff" * (length - 8)

    monkeypatch.setattr("hashlib.shake_256", Extreme)
    low, high = uniform(b"", seed=0, numbers=2)
    assert 0 < low < 1e-15 and 1 - 1e-15 < high < 1
