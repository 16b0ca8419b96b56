"""What a task contributes to the export of a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zoo.data.exportable import Placement
from zoo.tasks.metric import Outputs


class ExportingTask:
    """The part of a task that decides what an exported network returns.

    Attributes:
        decision: name of what `export_decisions` returns.
    """

    decision: str = "classes"

    def export_outputs(self, outputs: Outputs, placement: Placement) -> dict[str, Tensor]:
        """Return the outputs of an exported network by name; by default those of the network.

        Operations of torch only, without conditions on values: it becomes a part of the graph.

        Args:
            outputs: of the network, divided by the temperature.
            placement: of the images in the network's input; all have one size.
        """
        return {"outputs": outputs.main}

    def export_decisions(self, exported: Mapping[str, Tensor]) -> Tensor | None:
        """Return what a user decides by, such as the most probable class of each image.

        The share of equal ones is reported when a network is exported.

        Args:
            exported: as `export_outputs` returns them.

        Returns:
            Integers; None where the outputs are no classes.
        """
        return None
