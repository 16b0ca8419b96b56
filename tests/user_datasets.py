"""A `Dataset` as a user writes it."""

from PIL import Image
from torch.utils.data import Dataset


class Images(Dataset):
    """Twelve images of three classes, returned by `make`, with further attributes."""

    def __init__(self, make=None, item_labels=None, count=12, **attributes):
        self.make = make or (lambda index: Image.new("RGB", (20, 24), (10 * index, 0, 0)))
        self.item_labels = (
            [index % 3 for index in range(count)] if item_labels is None else item_labels
        )
        self.read = []
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.item_labels)

    def __getitem__(self, index):
        self.read.append(index)
        return self.make(index), self.item_labels[index]
