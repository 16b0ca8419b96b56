"""Linear probe: heads at the optimum of logistic regression on cached features."""
