"""The folder of a training: which `--out` is refused, and how."""

from pathlib import Path

import pytest
from filelock import FileLock

from zoo.engine.plan.options import Options
from zoo.engine.run.folder import acquire_folder, check_out
from zoo.errors import Busy, ExitCode, UsageError


@pytest.mark.parametrize("take", [check_out, lambda options: acquire_folder(options, "name")])
def test_folder_of_running_training_is_busy(take, tmp_path):
    out = tmp_path / "run"
    (out / "checkpoints/checkpoint-000001").mkdir(parents=True)
    options = Options(out=str(out))
    with FileLock(out / ".claim"), pytest.raises(Busy, match="another run is writing") as refused:
        take(options)
    assert refused.value.exit_code == ExitCode.BUSY == 7
    with pytest.raises(UsageError, match="is not empty") as refused:
        take(options)
    assert "--resume" in refused.value.hint
    assert [path.name for path in Path(out).iterdir() if path.name != ".claim"] == ["checkpoints"]
