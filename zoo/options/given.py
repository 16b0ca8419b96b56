"""The options of a training as type checkers see them; `OPTIONS` is what is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PILImage
    from torch import Tensor

    from zoo.options.augmentation import Augmentation
    from zoo.options.class_weights import ClassWeights
    from zoo.options.columns import Columns
    from zoo.options.head_spec import HeadSpec
    from zoo.options.policy import Policy
    from zoo.options.schedule import Schedule

BadImages: TypeAlias = Literal["error", "skip"]
Crop: TypeAlias = Literal["center", "squash", "border"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
MemoryFormat: TypeAlias = Literal["auto", "contiguous", "channels_last"]
Optimizer: TypeAlias = Literal["sgd", "adam", "adamw"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Recipe: TypeAlias = Literal["probe", "head", "all", "head-then-all", "ridge"]

Engine: TypeAlias = Literal["auto", "torch", "openvino", "compile"]

FilePath: TypeAlias = "str | PathLike[str]"
# A name, the path of a file, or one of torchvision's enumerations of weights.
NameOrPath: TypeAlias = "str | PathLike[str] | Enum"
Encoded: TypeAlias = "bytes | bytearray | memoryview | BinaryIO"
Image: TypeAlias = "FilePath | Encoded | PILImage | NDArray[Any] | Tensor"
# One image, many, or a batch as one array or tensor.
Images: TypeAlias = "Image | Iterable[Image]"
UserColumns: TypeAlias = "Columns | str | Mapping[str, str]"
UserMetrics: TypeAlias = "Mapping[str, Callable[[Any, Any], Any]]"


class TrainingOptions(TypedDict, total=False):
    """Types of the options of `zoo.finetune` and `zoo.plan`; None is automatic."""

    data: Any
    features: FilePath | None
    classes: int | None
    val: float | None
    columns: UserColumns | None
    group: str | None
    group_by: str | None
    augment: Augmentation | str | None
    views: int | None
    bad_images: BadImages | None
    weights: NameOrPath | None
    head: HeadSpec | str | None
    head_at: str | None
    input_size: int | None
    crop: Crop | None
    resize: int | None
    interpolation: Interpolation | None
    in_chans: int | None
    train: Policy | str | None
    recipe: Recipe | None
    epochs: int | list[int] | tuple[int, ...] | None
    batch_size: int | None
    lr: float | list[float] | tuple[float, ...] | None
    optimizer: Optimizer | None
    momentum: float | None
    weight_decay: float | None
    schedule: Schedule | str | None
    class_weights: ClassWeights | Mapping[str, float] | str | None
    label_smoothing: float | None
    select: str | None
    patience: int | None
    seed: int | None
    loss: Callable[[Any, Any], Tensor] | None
    metrics: UserMetrics | None
    device: str | None
    precision: Precision | None
    memory_format: MemoryFormat | None
    engine: Engine | None
    workers: int | None
    cache_images: bool | None
    micro_batch_size: int | None
    out: FilePath | None
    resume: FilePath | None
    override: bool | None
    checkpoint_every: float | None
    keep: int | None
    time_limit: float | str | None
