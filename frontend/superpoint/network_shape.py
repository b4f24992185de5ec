"""The shapes of SuperPoint's parameters, computed without building a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .decoder import CELL

Shape = tuple[int, ...]

# Numbers of the encoder stages, and letters of the layers of a stage: 1a, 1b, 2a …
_STAGES = "1234"
_LETTERS = "abcdefgh"
# Names of the parameters of a batch norm, without its counter.
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def expected_shapes(kernels: Mapping[str, Sequence[int]], batch_norm: bool) -> dict[str, Shape]:
    """Return the shapes of all parameters, by their names in `SuperPoint`.

    Args:
        kernels: shapes (outputs, inputs, height, width) of the kernels, by layer: 1a, Pa, S1 …
            They decide the channels, the depth of each stage, and which stages halve the
            resolution.
        batch_norm: whether a batch norm follows each ReLU; its counters are left out.
    """
    shapes: dict[str, Shape] = {}
    for layer, inputs, outputs, size in _layers(kernels):
        shapes[f"conv{layer}.conv.weight"] = (outputs, inputs, size, size)
        shapes[f"conv{layer}.conv.bias"] = (outputs,)
        if batch_norm and not layer.startswith("S"):
            shapes |= {f"conv{layer}.bn.{part}": (outputs,) for part in _BATCH_NORM}
    return shapes


def _layers(kernels: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int, int, int]]:
    """Yield each layer with its input channels, output channels and kernel size."""
    strided = sum(kernels[f"{stage}a"][2] % 2 == 0 for stage in _STAGES[:3])
    inputs, widths = 1, []
    for number, stage in enumerate(_STAGES, start=1):
        depth = sum(layer.startswith(stage) for layer in kernels)
        outputs = kernels[f"{stage}a"][0]
        for letter in _LETTERS[:depth]:
            yield (
                f"{stage}{letter}",
                inputs,
                outputs,
                4 if number <= strided and letter == "a" else 3,
            )
            inputs = outputs
        widths.append(outputs)
    for head, last in (("P", CELL * CELL + 1), ("D", kernels["Db"][0])):
        yield f"{head}a", inputs, kernels[f"{head}a"][0], 3
        yield f"{head}b", kernels[f"{head}a"][0], last, 1
    if any(layer.startswith("S") for layer in kernels):
        for number, channels in enumerate(widths[:3], start=1):
            stride = 1 << (number if number <= strided else number - 1)
            yield f"S{number}", channels, stride**2, 3
