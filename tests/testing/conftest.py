import pytest

from tests.testing.faults import ADAPTER, FAULTS, MODEL


@pytest.fixture
def faulty(install, tmp_path) -> None:
    """Install the plugin `faulty`: a network that keeps every promise, and others that do not."""
    install("faulty", ADAPTER.format(faults=list(FAULTS)))
    (tmp_path / "site" / "faulty_model.py").write_text(MODEL)
