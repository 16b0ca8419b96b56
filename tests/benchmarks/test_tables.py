from benchmarks import all_layers, memory


def test_all_layers_are_compared_from_the_second_epoch_on():
    def both(ours, bare):
        return {"zoo": {"epochs": ours}, "bare": {"epochs": bare}}

    records = [both([40.0, 10.0, 10.0], [9.0, 8.0, 8.0]), both([90.0, 10.0, 10.0], [9.0, 8.0, 8.0])]
    results = {"pictures": {"images": 80}, "machine": "here", "networks": {"resnet18": records}}
    *_, last = all_layers.table(results)
    assert last == "| resnet18 | 8.0 | 10.0 | 0.80 | 1.2 |"


def test_memory_is_said_for_each_further_image():
    rows = {
        "train 1,000": {"images": 1_000, "memory_mb": 600, "seconds": 9.0},
        "train 17,000": {"images": 17_000, "memory_mb": 616, "seconds": 90.0},
        "plan table 1,000": {"images": 1_000, "memory_mb": 400, "seconds": 9.0},
    }
    lines = list(memory.table({"machine": "here", "rows": rows}))
    assert "| train 17,000 | 17,000 | 616 | 90.0 |" in lines
    assert lines[-1] == "train: 1,049 bytes more for each further image"
