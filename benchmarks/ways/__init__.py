"""The ways to train that are timed: hand-written loops, oncue and its peers. This module imports none of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

TOGETHER = 20


@dataclass(frozen=True, eq=False)
class Way:
    """One row of the tables.

    Args:
        name: Its name for `--ways`.
        title: Its name in the tables.
        module: The module of `ways` with its `make`.
        imports: The modules to import before the time to the first step and memory are measured.
        settings: Arguments of `make`.
        peer: Its environment in `peers.toml`; None for oncue's own environment.
        environ: Further environment variables of its process.
        bare: For a full stack, the same way without callbacks.
        short: Whether the short form times it on every workload.
        cuda: Whether it can run on a GPU.
        cpu: Whether it is a separate way on a CPU too.
    """

    name: str
    title: str
    module: str
    imports: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    peer: str | None = None
    environ: dict[str, str] = field(default_factory=dict)
    bare: str | None = None
    short: bool = False
    cuda: bool = False
    cpu: bool = True


def _hand(name: str, title: str, short: bool = False, cpu: bool = True, **settings: Any) -> Way:
    return Way(name, title, "hand", ("torch",), settings, short=short, cuda=True, cpu=cpu)


def _oncue(name: str, title: str, bare: str | None = None, short: bool = False, **settings: Any) -> Way:
    settings = {"library": "oncue", "layers": False, "jit_compile": False, **settings}
    return Way(name, title, "keras_api", ("torch", "oncue"), settings, bare=bare, short=short, cuda=True)


def _keras(name: str, backend: str, bare: str | None = None, short: bool = False, **settings: Any) -> Way:
    title = f"Keras on {backend}"
    if bare is not None:
        title += ", full stack"
    if "steps_per_execution" in settings:
        title += f", {TOGETHER} steps per call"
    library = {"JAX": "jax", "torch": "torch"}[backend]
    return Way(
        name,
        title,
        "keras_api",
        (library, "keras"),
        {"library": "keras", **settings},
        peer=f"keras-{library}",
        environ={"KERAS_BACKEND": library},
        bare=bare,
        short=short,
    )


def _peer(name: str, title: str, module: str, imports: tuple[str, ...]) -> tuple[Way, Way]:
    return (
        Way(name, title, module, imports, peer=name),
        Way(f"{name}-full", f"{title}, full stack", module, imports, {"full": True}, peer=name, bare=name),
    )


WAYS = {
    way.name: way
    for way in (
        _hand("hand", "hand-written, in memory", short=True),
        _hand("hand-loader", "hand-written, DataLoader", loader=True),
        _hand("hand-compiled", "hand-written, whole step compiled", short=True, compiled=True),
        _hand("hand-graphs", "hand-written, compiled, CUDA graphs", cpu=False, compiled=True, mode="reduce-overhead"),
        _oncue("oncue", "oncue", short=True),
        _oncue("oncue-full", "oncue, full stack", "oncue", short=True, full=True),
        _oncue("oncue-listener", "oncue, with a batch listener", "oncue", listens=True),
        _oncue("oncue-loader", "oncue, DataLoader", loader=True),
        _oncue("oncue-layers", "oncue, Keras's layers", layers=True),
        _oncue("oncue-jit", "oncue, compiled", short=True, jit_compile=True),
        _oncue("oncue-jit-full", "oncue, compiled, full stack", "oncue-jit", jit_compile=True, full=True),
        _oncue(
            "oncue-jit-20",
            f"oncue, compiled, {TOGETHER} steps per call",
            short=True,
            jit_compile=True,
            steps_per_execution=TOGETHER,
        ),
        _oncue("oncue-layers-jit", "oncue, Keras's layers, compiled", layers=True, jit_compile=True),
        _keras("keras-jax", "JAX", short=True),
        _keras("keras-jax-full", "JAX", "keras-jax", full=True),
        _keras("keras-jax-20", "JAX", short=True, steps_per_execution=TOGETHER),
        _keras("keras-torch", "torch"),
        _keras("keras-torch-full", "torch", "keras-torch", full=True),
        *_peer("poutyne", "Poutyne", "poutyne_fit", ("torch", "poutyne")),
        *_peer("lightning", "Lightning", "lightning_fit", ("torch", "lightning.pytorch")),
        *_peer("transformers", "transformers.Trainer", "transformers_train", ("torch", "transformers")),
    )
}


def _model_of_keras(name: str, title: str, **settings: Any) -> Way:
    return Way(
        name,
        title,
        "keras_api",
        ("torch", "keras", "oncue"),
        {"library": "keras", "by_oncue": True, **settings},
        environ={"KERAS_BACKEND": "torch"},
    )


KERAS_WAYS = {
    way.name: way
    for way in (
        # In oncue's own environment, so that both have the same torch and Keras.
        replace(WAYS["keras-torch"], name="keras-here", peer=None),
        WAYS["keras-jax"],
        _model_of_keras("keras-oncue", "oncue, eager"),
        _model_of_keras("keras-oncue-jit", "oncue, compiled", jit_compile=True),
    )
}
"""The ways to train a model of the real Keras."""
