"""The table of all options of a training.

The command line, `zoo.finetune` and the `[defaults]` of `registry.toml` read it, so each option's
name, default, range and description are defined once. In each group the most common ones are first.
"""

from __future__ import annotations

import math

from zoo.options.option import Option, Range
from zoo.options.readers import (
    read_class_weights,
    read_columns,
    read_data,
    read_duration,
    read_expression,
    read_module_path,
    weights_text,
)

# The policies of the phases, by name.
RECIPES = {
    "probe": ("head",),
    "head": ("head",),
    "all": ("all",),
    "head-then-all": ("head", "all"),
    "ridge": ("head",),
}
OPTIMIZERS = ("sgd", "adam", "adamw")
# Those of `zoo.spec.Preprocess`, which help does not import.
CROPS = ("center", "squash", "border")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
MEMORY_FORMATS = ("auto", "contiguous", "channels_last")
BAD_IMAGES = ("error", "skip")
# Of frozen features: each a class of `zoo.engine.backends`.
ENGINES = {
    "torch": "zoo.engine.backends.eager:TorchEngine",
    "openvino": "zoo.engine.backends.openvino:OpenVINOEngine",
    "compile": "zoo.engine.backends.compiled:CompileEngine",
}
MAX_VIEWS = 1000
COUNT = Range(int, 1, 2**31)
RATE = Range(float, 0, math.inf, open=True)

DATA = (
    Option(
        "data",
        "A folder, a table of path and label, cifar10:DIR or mnist:DIR",
        "DATA",
        "Or a dict of splits, each a Dataset or DataLoader of images and labels.",
        automatic="a demonstration on a small set",
        read_as=read_data,
    ),
    Option(
        "features",
        "In place of data: a folder of features of `zoo embed`",
        "DIR",
        "Or one file. The head alone trains; backbone, weights and preprocess are those of the "
        "features, with labels of the shards.",
        path=True,
    ),
    Option("classes", "Number of classes, checked against data", "N", range=Range(int, 2, 2**31)),
    Option(
        "val",
        "Share of the images to hold out for validation",
        "SHARE",
        "If the data has no validation split. 0 trains on all images without validation, and keeps "
        "the last epoch.",
        automatic="0.2",
        range=Range(float, 0, 1, below=True),
    ),
    Option(
        "columns",
        "Columns of a table: image=NAME,label=NAME,split=NAME",
        "COLUMNS",
        "Those that are not given are recognised by usual names and by their values; `split=none` "
        "ignores splits; without a header, columns are numbers from 1.",
        read_as=read_columns,
    ),
    Option(
        "group",
        "Column of a table whose groups stay on one side of a split",
        "COLUMN",
        "Such as a patient or a camera: images are held out by groups, and the folds of the probe "
        "consist of groups.",
        read_as=str,
    ),
    Option(
        "group_by",
        "As --group, by what REGEX finds in the path",
        "REGEX",
        "The first group in parentheses, as in `(p[0-9]+)_`, or all that matches; searched in the "
        "path relative to the data.",
        read_as=read_expression,
    ),
    Option(
        "augment",
        "Augment training images: crop,flip, or a list of "
        "crop, flip, vflip, rotate, color, trivial, erase",
        "NAMES",
        "Each with an optional strength after a colon: `crop:0.5`; `none` for no augmentation.",
        value="zoo.options.augmentation:Augmentation",
        bare="crop,flip",
    ),
    Option(
        "views",
        "Cache features of K augmented views per image",
        "K",
        "Only where no more than the heads train.",
        range=Range(int, 1, MAX_VIEWS),
    ),
    Option(
        "bad_images",
        "Action for unreadable images: error or skip",
        "ACTION",
        automatic="error",
        choices=BAD_IMAGES,
    ),
)

NETWORK = (
    Option(
        "weights",
        "Initial weights: auto, none, a tag, a file, a run, hf:REPO",
        "TEXT",
        default="auto",
        read_as=weights_text,
    ),
    Option(
        "head",
        "The new head: linear, or mlp:4096,dropout=0.5",
        "HEAD",
        value="zoo.options.head_spec:HeadSpec",
    ),
    Option(
        "head_at",
        "Replace this whole module, not only its last layer",
        "PATH",
        read_as=read_module_path,
    ),
    Option(
        "input_size",
        "Height and width of the network's input in pixels",
        "N",
        range=Range(int, 1, 2**14),
    ),
    Option(
        "crop",
        "How images are fitted into the input: center, squash or border",
        "NAME",
        "Cut to the center, resized without keeping the aspect ratio, or padded. The last two show "
        "the whole image.",
        automatic="as the weights were trained",
        choices=CROPS,
    ),
    Option(
        "resize",
        "Length in pixels of the shorter side before the crop",
        "N",
        "The input's own size cuts no margin off.",
        automatic="as the weights were trained",
        range=Range(int, 1, 2**14),
    ),
    Option(
        "interpolation",
        "How images are resized: nearest, bilinear, bicubic or lanczos",
        "NAME",
        automatic="as the weights were trained",
        choices=INTERPOLATIONS,
    ),
    Option(
        "in_chans",
        "Input channels of the network; 1 for grayscale",
        "N",
        range=Range(int, 1, 2**10),
    ),
)

TRAINING = (
    Option(
        "train",
        "Layers to train: head, all, stages:N, or patterns",
        "POLICY",
        "The one-phase recipe.",
        value="zoo.options.policy:Policy",
    ),
    Option(
        "recipe",
        "The phases: probe, head, all, head-then-all, or ridge",
        "NAME",
        "`ridge` solves for the head of `features` in one pass, where they do not fit in memory.",
        choices=tuple(RECIPES),
        noun="recipe",
    ),
    Option(
        "epochs",
        "Passes over the training images, per phase: 5,3",
        "N",
        "One value applies to every phase.",
        range=Range(int, 1, math.inf),
        per_phase=True,
        config=("head_epochs", "all_epochs", "tune_epochs", "random_epochs"),
    ),
    Option("batch_size", "Images per step", "N", range=COUNT, config=("batch_size",)),
    Option(
        "lr",
        "Learning rate, per phase: 1e-3,1e-4",
        "X",
        "With one value, later phases use a tenth of it.",
        range=RATE,
        per_phase=True,
        config=("head_lr", "all_lr", "tune_lr", "random_lr"),
    ),
    Option(
        "optimizer", "Optimizer: sgd, adam or adamw", "NAME", choices=OPTIMIZERS, noun="optimizer"
    ),
    Option(
        "momentum",
        "Momentum of --optimizer sgd",
        "X",
        range=Range(float, 0, 1),
        config=("momentum",),
    ),
    Option(
        "weight_decay",
        "Weight decay of the optimizer",
        "X",
        range=Range(float, 0, 10**9),
        config=("weight_decay",),
    ),
    Option(
        "schedule",
        "Learning rate schedule: constant, step:7,0.1 or cosine:0.1",
        "NAME",
        "Times 0.1 every 7 epochs; or a warm-up over a tenth of the steps, then half a cosine.",
        value="zoo.options.schedule:Schedule",
    ),
    Option(
        "class_weights",
        "Class weights of the loss: balanced, or NAME=W,NAME=W",
        "WEIGHTS",
        "Or a dict; classes without a weight have 1. `balanced` is inversely proportional to the "
        "class frequencies of the training split, as in scikit-learn.",
        read_as=read_class_weights,
    ),
    Option(
        "label_smoothing",
        "Share of each target that is spread over all classes",
        "X",
        "As in torch, of the training loss only.",
        automatic="0",
        range=Range(float, 0, 1),
    ),
    Option(
        "select",
        "Metric that selects the best epoch, and the penalty of the probe",
        "METRIC",
        "One of the task's, such as `balanced_accuracy`, or of `metrics`, where higher is better.",
        automatic="accuracy for the epoch, log loss for the penalty",
    ),
    Option(
        "patience",
        "Stop a phase after N epochs without a better one",
        "N",
        "Better by the metric of `select`; the best epoch is kept, and the schedule is that of all "
        "epochs.",
        automatic="never",
        range=COUNT,
    ),
    Option(
        "seed",
        "Seed of all randomness",
        "N",
        automatic="0",
        range=Range(int, 0, 2**63 - 1),
        config=("seed",),
    ),
    Option(
        "loss",
        "The loss to minimise",
        details="Called with logits `[images, classes]` in float32 and labels `[images]`, returns "
        "a scalar. The reported loss of a split is always cross-entropy.",
        automatic="cross-entropy",
        python_only=True,
    ),
    Option(
        "metrics",
        "Additional metrics, by name",
        details="Each is called with all logits and labels of a split on the CPU, and returns a "
        "number that is reported beside zoo's own.",
        python_only=True,
    ),
)

MACHINE = (
    Option(
        "device",
        "Where to train: auto, cpu, cuda, cuda:1, ...",
        "TEXT",
        default="auto",
        read_as=str,
    ),
    Option(
        "precision",
        "Precision of the forward pass: auto, fp32 or bf16",
        "TEXT",
        default="auto",
        read_as=str,
    ),
    Option(
        "memory_format",
        "Memory format: auto, contiguous or channels_last",
        "NAME",
        "Of images and convolutions, as in torch; a model file records one that was given.",
        default="auto",
        choices=MEMORY_FORMATS,
        noun="memory format",
    ),
    Option(
        "engine",
        "Engine of frozen features: auto, torch, openvino or compile",
        "NAME",
        "`openvino` needs `pip install zoo-registry[openvino]`, and is chosen where it pays; "
        "`compile` is `torch.compile`.",
        default="auto",
        choices=("auto", *ENGINES),
        noun="engine",
    ),
    Option("workers", "Processes that decode images", "N", range=Range(int, 0, 2**10)),
    Option("cache_images", "Decode each image once"),
    Option(
        "micro_batch_size",
        "Images per micro-batch, to save memory",
        "N",
        "The gradients of a step's micro-batches are accumulated.",
        range=COUNT,
    ),
)

OUTPUT = (
    Option("out", "The run folder", "DIR", automatic="runs/NAME-1, -2, ...", path=True),
    Option(
        "resume",
        "Resume the training of a run folder, with its options",
        "RUN",
        "From its newest checkpoint, or from the start before the first. A finished training goes "
        "on if `epochs` is more than it had.",
        path=True,
    ),
    Option("override", "With --resume: accept data and settings that differ"),
    Option(
        "checkpoint_every",
        "Seconds between checkpoints, and one after each epoch",
        "SECONDS",
        automatic="60, or less often if they took more than 2 % of the time",
        range=Range(float, 0, math.inf),
    ),
    Option(
        "keep",
        "Checkpoints to keep; 0 removes the last one after the training",
        "N",
        default=1,
        range=Range(int, 0, 2**31),
    ),
    Option(
        "time_limit",
        "Stop with a checkpoint before a time such as 90s, 45m or 3h is over",
        "TIME",
        "Raises `zoo.errors.TimeLimit`. A number is in seconds.",
        read_as=read_duration,
    ),
)

_GROUPED = {
    "data": DATA,
    "network": NETWORK,
    "training": TRAINING,
    "machine": MACHINE,
    "output": OUTPUT,
}
GROUPS = tuple(_GROUPED)
OPTIONS = tuple(
    option._replace(group=name) for name, options in _GROUPED.items() for option in options
)

# The ranges of `[defaults]` in `registry.toml`: those of options, and of keys without an option.
DEFAULTS: dict[str, Range] = {
    **{key: option.range for option in OPTIONS for key in option.config if option.range},
    "val_fraction": Range(float, 0, 1, open=True),
    "cache_gib": Range(float, 0, 10**6),
}
