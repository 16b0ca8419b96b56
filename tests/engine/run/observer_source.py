"""The source of plugins that observe a training."""

from zoo import hookspecs

HOOKS = [
    name
    for name in vars(hookspecs)
    if name.startswith("zoo_") and not name.startswith("zoo_register_")
]


def observer(body: str, setup: str = "") -> str:
    """Return the source of a plugin with the same body in every hook."""
    lines = ["import zoo", *setup.splitlines()]
    for hook in HOOKS:
        lines += ["@zoo.hookimpl", f"def {hook}(event):"]
        lines += [f"    {line}" for line in body.splitlines()]
    return "\n".join(lines)
