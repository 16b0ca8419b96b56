"""Temperature scaling: one number that makes probabilities agree with accuracy.

Guo et al. (2017), arXiv 1706.04599: logits are divided by the temperature of the least negative
log-likelihood. The most probable class stays the same.
"""

from __future__ import annotations

from torch import Tensor

# With fewer images, the temperature is less certain than what it corrects.
MIN_IMAGES = 100
# Beyond these, the logits are not those of a useful classifier.
LOWEST, HIGHEST = 0.05, 20.0
STEPS, TOLERANCE = 60, 1e-6
CHUNK = 1 << 22


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """Return the temperature, to six digits; None for fewer than `MIN_IMAGES` or at a bound.

    Args:
        logits: `[images, classes]`, of images that the classifier has not been trained on.
        labels: `[images]`.
    """
    if len(labels) < MIN_IMAGES or logits.shape[1] < 2:
        return None
    low, high = 1 / HIGHEST, 1 / LOWEST
    # The log-likelihood is concave in the inverse temperature, so its derivative falls.
    if _derivative(logits, labels, low) <= 0 or _derivative(logits, labels, high) >= 0:
        return None
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        if _derivative(logits, labels, middle) > 0:
            low = middle
        else:
            high = middle
        if high / low - 1 < TOLERANCE:
            break
    return float(f"{1 / (low * high) ** 0.5:.6g}")


def _derivative(logits: Tensor, labels: Tensor, inverse: float) -> float:
    """Return the derivative of the log-likelihood by the inverse temperature, in float64."""
    total, rows = 0.0, max(CHUNK // logits.shape[1], 1)
    for part, true in zip(logits.split(rows), labels.split(rows), strict=True):
        exact = part.double()
        # Those of classes without images are the lowest of float32.
        exact = exact.clamp(min=float(exact[exact > -1e30].min()) - 1e3)
        probabilities = (exact * inverse).softmax(dim=1)
        mean = (probabilities * exact).sum(dim=1)
        total += float((exact.gather(1, true[:, None])[:, 0] - mean).sum())
    return total
