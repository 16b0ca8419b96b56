import pytest

from tests.testing import task_faults
from tests.testing.faults import ADAPTER, FAULTS, MODEL


@pytest.fixture
def faulty(install, tmp_path) -> None:
    """Install the plugin `faulty`: one conforming network, and others with one fault each."""
    install("faulty", ADAPTER.format(faults=list(FAULTS)))
    (tmp_path / "site" / "faulty_model.py").write_text(MODEL)


@pytest.fixture
def faulty_tasks(install, tmp_path) -> None:
    """Install the plugin `tasks_of`: one conforming task, and others with one fault each."""
    names = ["sound", *task_faults.TASK_FAULTS]
    install("tasks_of", task_faults.ADAPTER.format(names=names))
    (tmp_path / "site" / "faulty_tasks.py").write_text(task_faults.TASKS)
