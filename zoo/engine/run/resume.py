"""Resume a training from what its run folder stores: name, options and plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote
from typing import Any

from zoo.engine.backends.choice import AUTO, TORCH
from zoo.engine.plan.options import Options
from zoo.engine.plan.plan import Plan
from zoo.engine.run.claim import RECORD, has_checkpoint
from zoo.engine.run.environment import environment
from zoo.engine.training.checkpoints import ESCAPE, STORED
from zoo.errors import UnknownBackbone, UsageError, WeightsError, one_line, unknown_format
from zoo.files import write_bytes
from zoo.modelfile import CHECKPOINTS
from zoo.models.own_file import locate_model, locate_weights
from zoo.options import OPTIONS
from zoo.registry.registry import Registry
from zoo.tensorfile import read_file
from zoo.terminal import Progress

FORMAT = 1
RECIPE_OPTIONS = {"train": "recipe", "recipe": "train"}
# Options of this start of a training, not of the training.
PER_START = ("resume", "override", "out", "time_limit")
# Values of a plan that change no result, and its data's location.
IGNORED = ("reasons", "workers", "cache_images", "data.name")
# Without these equal, a training goes on correctly, but perhaps not to the same bits.
EXACT = ("versions", "python", "threads", "gpu")


@dataclass(frozen=True)
class StoredRun:
    """What a run folder stores of an unfinished training, in `checkpoints/plan.json`.

    Args:
        name: of the backbone, as given.
        options: as given, in the form that `Options` reads.
        omitted: names of the options that are Python objects, and have to be given again.
        plan: as plain data.
        environment: versions, threads and device.
        run_id: of the training.
        begun: when the training began first, in nanoseconds since the epoch; None where an earlier
            zoo stored it.
    """

    name: str
    options: Mapping[str, Any]
    omitted: tuple[str, ...]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    run_id: str
    begun: int | None = None

    def write(self, folder: Path) -> None:
        """Write it into a run folder.

        Raises:
            EnvironmentProblem: the system refuses.
        """
        plain = {"format": FORMAT, **vars(self)}
        text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
        write_bytes(folder / CHECKPOINTS / STORED, f"{text}\n".encode(errors=ESCAPE))

    @classmethod
    def read(cls, folder: Path) -> StoredRun:
        """Read it from a run folder.

        Raises:
            UsageError: the folder has no training to resume.
            WeightsError: it is damaged.
        """
        path = folder / CHECKPOINTS / STORED
        if not path.exists():
            raise _nothing_to_resume(folder)
        data, _ = read_file(path)
        try:
            plain = json.loads(data.decode(errors=ESCAPE))
            version = plain.pop("format")
            if version != FORMAT:
                raise unknown_format(path, version, FORMAT)
            plain["omitted"] = tuple(plain["omitted"])
            stored = cls(**plain)
            Options(**stored.options)
        except WeightsError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise WeightsError(f"{path} is damaged: {error}") from error
        return stored

    def complete(self, name: str | None, given: Options) -> tuple[str, Options]:
        """Return name and options of the training, with those that are given again.

        Raises:
            UsageError: an option that is a Python object is missing.
        """
        own = {name: getattr(given, name) for name in given.given}
        missing = [each for each in self.omitted if each not in own]
        if missing:
            names = ", ".join(missing)
            raise UsageError(f"{names} of this training is a Python object", "give it again")
        # An option that is given now replaces a stored one that it excludes.
        replaced = {RECIPE_OPTIONS[each] for each in RECIPE_OPTIONS.keys() & own.keys()}
        kept = {key: value for key, value in self.options.items() if key not in replaced}
        return name or self.name, Options(**{**kept, **own})

    def inexact(self, environment: Mapping[str, Any]) -> list[str]:
        """Return what differs in the environment, so that results may differ in their last bits."""
        before, now = dict(_flat(self.environment)), dict(_flat(as_json(environment)))
        changed = _changed(before, now)
        return [text for key, text in changed.items() if key.split(".")[0] in EXACT]


def stored_run(
    name: str,
    options: Options,
    plan: Plan,
    run_id: str,
    registry: Registry,
    begun: int | None = None,
) -> StoredRun:
    """Return what is stored of a training, with paths made absolute.

    What is a path is decided as when the training was resolved, and a tag or a name is not one,
    whatever the current folder contains.

    Args:
        name: of the backbone, as given.
        options: as given.
        plan: resolved from them.
        run_id: of the training.
        registry: of backbones; another name is a path, or of a registered model.
        begun: when the training began first, in nanoseconds since the epoch.
    """
    plain, omitted = {}, []
    weights = locate_weights(options.weights, registry.get(plan.backbone))
    paths = {"features"} if weights is None or weights.registered else {"features", "weights"}
    for option in OPTIONS:
        value = getattr(options, option.name)
        if option.name in PER_START or value == option.default:
            continue
        text = _plain(value)
        if option.name in paths:
            text = str(Path(text).absolute())
        elif option.name == "data" and text is not None:
            text = _absolute_data(text)
        if text is None:
            omitted.append(option.name)
        else:
            plain[option.name] = text
    try:
        registry.get(name)
    except UnknownBackbone:
        model = locate_model(name)
        if model is not None and model.registered is None:
            name = str(Path(name).absolute())
    ran_with = as_json(environment(plan.device))
    planned = as_json(plan.to_dict())
    return StoredRun(name, plain, tuple(omitted), planned, ran_with, run_id, begun)


def command_line(name: str, options: Options) -> str | None:
    """Return the command that trains with these options; None if one is a Python object.

    Args:
        name: of the backbone, as given.
        options: as given.
    """
    words = ["zoo", "finetune", name]
    for option in OPTIONS:
        value = getattr(options, option.name)
        if option.name in PER_START or value is None or value == option.default:
            continue
        if option.python_only or _plain(value) is None:
            return None
        if option.switch:
            words += [option.flag] if value else []
        else:
            several = isinstance(value, tuple)
            words += [option.flag, ",".join(map(str, value)) if several else str(value)]
    return join(words)


def differences(stored: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    """Return how a plan differs from a stored one, as `key: stored, now other` by key.

    More epochs of the last phase are no difference.
    """
    before, now = dict(_flat(stored)), dict(_flat(as_json(plan.to_dict())))
    before.setdefault("engine", "torch")  # of earlier versions, which had no other
    last = f"phases.{len(plan.phases) - 1}.epochs"
    if isinstance(before.get(last), int) and before[last] < now[last]:
        before[last] = now[last]
    changed = _changed(before, now)
    return {key: text for key, text in changed.items() if not key.startswith(IGNORED)}


def is_longer(stored: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a plan has more epochs in its last phase than a stored one."""
    return bool(plan.phases[-1].epochs > stored["phases"][-1]["epochs"])


def _nothing_to_resume(folder: Path) -> UsageError:
    """Return the error for a folder without a stored plan."""
    if (folder / RECORD).exists():
        message = f"--resume {folder}: an earlier zoo trained it, which stored no checkpoints"
        return UsageError(message, f"go on from its model with `zoo finetune {quote(str(folder))}`")
    what = "is not a run folder" if folder.exists() else "does not exist"
    return UsageError(f"--resume {folder}: it {what}", "give the folder of a training")


def resolve_resume(
    name: str | None, options: Options
) -> tuple[tuple[str, Options], StoredRun | None]:
    """Complete name and options by those of a training to resume.

    Raises:
        UsageError: neither a backbone nor a training is given, or that cannot be resumed.
        WeightsError: what its folder stores is damaged.
    """
    if options.resume is None:
        if name is None:
            raise UsageError("no backbone is named", "give NAME, or --resume RUN")
        return (name, options), None
    stored = StoredRun.read(Path(options.resume))
    return stored.complete(name, options), stored


def resolve_engine(options: Options, resumed: StoredRun | None) -> str:
    """Return the engine as given; of a training to resume, the one that it began with.

    Args:
        options: as given, completed by those of the training.
        resumed: the training; None for a new one.
    """
    # `auto` in place of the one that was stored was given now.
    if options.engine != AUTO or resumed is None or "engine" in resumed.options:
        return options.engine
    return str(resumed.plan.get("engine", TORCH))


def check_same_plan(stored: StoredRun, plan: Plan, options: Options, progress: Progress) -> None:
    """Check that a training to resume is the one that was begun.

    Raises:
        UsageError: data, backbone, classes or settings differ; lists all differences. Or it is
            finished, without a checkpoint to go on from.
    """
    folder = Path(str(options.resume))
    if (folder / RECORD).exists() and not has_checkpoint(folder):
        message = f"--resume {folder}: its training is finished, and left no checkpoint"
        hint = f"go on from its model with `zoo finetune {quote(str(folder))}`"
        raise UsageError(message, hint)
    for difference in stored.inexact(environment(plan.device)):
        progress.notice(f"resuming correctly, but maybe not to the same bits: {difference}")
    different = "; ".join(differences(stored.plan, plan).values())
    if different and not options.override:
        message = f"--resume {folder}: this training differs: {different}"
        raise UsageError(message, "add --override to go on all the same")
    if different:
        progress.notice(f"resuming with differences: {different}")


def finished_record(options: Options) -> dict[str, Any] | None:
    """Return the record of a training to resume if it is finished, and no more epochs are given.

    Args:
        options: as given.

    Raises:
        UsageError: the folder of `resume` has no training to resume.
        WeightsError: what it stores is damaged.
    """
    if options.resume is None or not (path := Path(options.resume) / RECORD).exists():
        return None
    stored = StoredRun.read(path.parent)
    if options.epochs and options.epochs[-1] > stored.plan["phases"][-1]["epochs"]:
        return None
    return _record(path, stored)


def is_finished(folder: Path) -> bool:
    """Whether the training of a run folder is finished.

    Raises:
        WeightsError: what it stores is damaged.
    """
    path = folder / RECORD
    return path.exists() and _record(path, StoredRun.read(folder)) is not None


def _record(path: Path, stored: StoredRun) -> dict[str, Any] | None:
    """Return the record of a run; None if it is of fewer epochs than the stored plan."""
    data, _ = read_file(path)
    try:
        record: dict[str, Any] = json.loads(data)
        same = record["plan"]["phases"] == stored.plan["phases"]
    except (ValueError, KeyError, TypeError) as error:
        command = f"`zoo finetune --resume {quote(str(path.parent))}`"
        hint = f"remove it, and {command} writes it again"
        raise WeightsError(f"{path} is damaged: {one_line(error)}", hint) from error
    return record if same else None


def as_json(value: Any) -> Any:
    """Return plain data as JSON returns it: tuples as lists."""
    return json.loads(json.dumps(value, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Return an option's value in the form that `Options` reads; None of a Python object."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, (str, Path)):
        return str(value)
    parses = type(value).__module__.startswith("zoo.options")
    return str(value) if parses else None


def _absolute_data(text: str) -> str:
    """Return a path of data, also after `cifar10:`, as an absolute one; other text unchanged.

    A path that exists comes before other readings of the text, as where data is opened.
    """
    path = Path(text)
    if path.exists():
        return str(path.absolute())
    scheme, colon, rest = text.partition(":")
    return f"{scheme}:{Path(rest).absolute()}" if colon and Path(rest).exists() else text


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{key}: {_text(before.get(key))}, now {_text(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested mappings, and of lists of mappings."""
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        items = enumerate(value)
    else:
        yield prefix, value
    for key, item in items:
        yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))


def _text(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
