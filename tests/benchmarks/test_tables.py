from benchmarks import memory


def test_memory_is_said_for_each_further_image():
    rows = {
        "train 1,000": {"images": 1_000, "memory_mb": 600, "seconds": 9.0},
        "train 17,000": {"images": 17_000, "memory_mb": 616, "seconds": 90.0},
        "plan table 1,000": {"images": 1_000, "memory_mb": 400, "seconds": 9.0},
    }
    lines = list(memory.table({"machine": "here", "rows": rows}))
    assert "| train 17,000 | 17,000 | 616 | 90.0 |" in lines
    assert lines[-1] == "train: 1,049 bytes more for each further image"
