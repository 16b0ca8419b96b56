"""What a task prints of predictions and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.errors import counted
from zoo.tasks.results import Table


class PrintingTask:
    """The part of a task that formats its results for a terminal."""

    columns: tuple[str, ...]

    def prediction_lines(self, answer: Mapping[str, Any]) -> list[str]:
        """Return the terminal lines of one image, one for each item of `predictions`."""
        return [
            "  ".join(f"{v:.5g}" if isinstance(v, float) else str(v) for v in prediction.values())
            for prediction in answer["predictions"]
        ]

    def metric_line(self, values: Mapping[str, Any], chance: float | None) -> str:
        """Return the metrics of a split as one line for the terminal."""
        numbers = [f"{name} {values[name]:.4f}" for name in self.columns]
        return f"{', '.join(numbers)} on {counted(values['images'], 'image')}"

    def metric_table(self, values: Mapping[str, Any]) -> tuple[list[str], Table | None]:
        """Return the lines that `zoo evaluate` prints, and an optional table."""
        lines = [f"{'images':<8}{values['images']:,}"]
        return lines + [f"{name:<8}{values[name]:.4f}" for name in self.columns], None
