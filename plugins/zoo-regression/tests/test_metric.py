"""Metrics of a regression, compared with scikit-learn."""

import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from zoo_regression.data import RegressionSchema
from zoo_regression.task import RegressionMetric

from zoo.tasks.base import Outputs


@pytest.mark.parametrize("sizes", [[13], [1] * 13, [4, 9], [6, 6, 1]])
def test_metrics_are_scikit_learn_s_in_units_of_the_data(sizes: list[int]) -> None:
    torch.manual_seed(0)
    schema = RegressionSchema((), ("brightness", "x"), (20.0, -3.0), (5.0, 0.1))
    true, found = torch.randn(2, 13, 2).unbind()
    further = {"bias": lambda outputs, targets: (outputs - targets).mean()}
    metric = RegressionMetric(schema, torch.device("cpu"), further)
    for outputs, targets in zip(found.split(sizes), true.split(sizes), strict=True):
        metric.update(Outputs(outputs), targets)
    in_units = [schema.in_units(each).numpy() for each in (true, found)]
    values = metric.compute()
    assert values["mae"] == pytest.approx(mean_absolute_error(*in_units))
    assert values["rmse"] == pytest.approx(root_mean_squared_error(*in_units))
    assert values["r2"] == pytest.approx(r2_score(*in_units))
    assert values["loss"] == pytest.approx(torch.nn.functional.mse_loss(found, true).item())
    assert values["bias"] == pytest.approx((in_units[1] - in_units[0]).mean(), rel=1e-5)
    each = r2_score(*in_units, multioutput="raw_values")
    assert [m["r2"] for m in metric.report()["per_target"].values()] == pytest.approx(list(each))


def test_r2_of_targets_that_do_not_vary_is_scikit_learn_s() -> None:
    schema = RegressionSchema((), ("a", "b"), (0.0, 0.0), (1.0, 1.0))
    true = torch.tensor([[0.1, 7.0]] * 5)
    found = true + torch.tensor([0.0, 1.0])
    metric = RegressionMetric(schema, torch.device("cpu"))
    metric.update(Outputs(found), true)
    assert [m["r2"] for m in metric.report()["per_target"].values()] == [1.0, 0.0]
    assert metric.compute()["r2"] == r2_score(true.numpy(), found.numpy()) == 0.5
