"""The tasks that come with zoo; what each decides is imported only to train."""

from collections.abc import Iterator

from zoo.hookspecs import hookimpl
from zoo.spec import IMAGE_CLASSIFICATION, Task

SEMANTIC_SEGMENTATION = "semantic-segmentation"


@hookimpl
def zoo_register_tasks() -> Iterator[Task]:
    """Register the built-in tasks."""
    yield Task(
        IMAGE_CLASSIFICATION,
        "one class for each image",
        target="zoo.tasks.classification.task:ImageClassification",
    )
    yield Task(
        SEMANTIC_SEGMENTATION,
        "one class for each pixel",
        target="zoo.tasks.segmentation.task:SemanticSegmentation",
    )
