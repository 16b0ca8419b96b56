"""Names of the classes."""

from collections import Counter

from timm.data import ImageNetInfo


def imagenet_classes() -> tuple[str, ...]:
    """Return unique names of ImageNet's 1,000 classes: the first synonym if it is unique."""
    info = ImageNetInfo("imagenet-1k")
    descriptions = info.label_descriptions()
    first = [words.partition(",")[0] for words in descriptions]
    counts = Counter(first) + Counter(words for words in descriptions if "," in words)
    return tuple(
        word if counts[word] == 1 else words if counts[words] == 1 else f"{word} ({synset})"
        for word, words, synset in zip(first, descriptions, info.label_names(), strict=True)
    )
