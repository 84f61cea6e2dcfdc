"""The values of TensorBoard's dashboards, as its plugins read them: scalars, histograms, images, model graphs, texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_FLOAT, DT_STRING


def scalar(tag: str, value: float) -> Any:
    """Return a point of a curve.

    Args:
        tag: The curve's name.
        value: The number; kept in single precision, as TensorFlow does.

    Example:
        >>> scalar("epoch_loss", 0.5).tensor.float_val
        [0.5]
    """
    return _value(tag, "scalars", TensorProto(dtype=DT_FLOAT, tensor_shape=_shape(), float_val=[_single(value)]))


def histogram(tag: str, rows: Sequence[tuple[float, float, float]]) -> Any:
    """Return a histogram.

    Args:
        tag: Its name.
        rows: For each bucket its left edge, its right edge and its count.

    Example:
        >>> histogram("kernel/histogram", [(0.0, 1.0, 5.0)]).metadata.plugin_data.plugin_name
        'histograms'
    """
    numbers = [number for row in rows for number in row]
    return _value(
        tag, "histograms", TensorProto(dtype=DT_DOUBLE, tensor_shape=_shape(len(rows), 3), double_val=numbers)
    )


def image(tag: str, width: int, height: int, pictures: Sequence[bytes]) -> Any:
    """Return pictures of one size.

    Args:
        tag: Their name.
        width: In pixels.
        height: In pixels.
        pictures: PNG files.

    Example:
        >>> image("kernel/image", 3, 2, [b"png"]).tensor.string_val
        [b'3', b'2', b'png']
    """
    strings = [str(width).encode(), str(height).encode(), *pictures]
    return _value(tag, "images", TensorProto(dtype=DT_STRING, tensor_shape=_shape(len(strings)), string_val=strings))


def model_graph(tag: str, config: str) -> Any:
    """Return a model's graph for the Graphs dashboard.

    Args:
        tag: Its name; Keras writes "keras".
        config: The model's configuration as JSON, in the form of Keras's `to_json`.

    Example:
        >>> model_graph("keras", "{}").metadata.plugin_data.plugin_name
        'graph_keras_model'
    """
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=_shape(), string_val=[config.encode()])
    # The dashboard reads only what says that it is of version 1.
    return _value(tag, "graph_keras_model", tensor, b"1")


def text(tag: str, words: str) -> Any:
    """Return a text, which the page shows as Markdown.

    Args:
        tag: Its name.
        words: The text.

    Example:
        >>> text("decisions", "- stopped").tensor.string_val
        [b'- stopped']
    """
    return _value(tag, "text", TensorProto(dtype=DT_STRING, tensor_shape=_shape(), string_val=[words.encode()]))


def _value(tag: str, plugin: str, tensor: Any, content: bytes = b"") -> Any:
    # The plugins' own content is a message whose only field that matters, the version, is 0: no bytes at all.
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content))
    return Summary.Value(tag=tag, metadata=about, tensor=tensor)


def _shape(*sizes: int) -> Any:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def _single(value: float) -> float:
    # Protobuf refuses a float beyond the range of single precision in some of its implementations.
    return float("inf") if value > 3.4028234e38 else float("-inf") if value < -3.4028234e38 else value
