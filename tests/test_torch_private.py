"""Private names of torch are in one module, and each has a fallback or a clear error for the day when it is gone."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import cpu_only
from oncue import Sequential, layers, torch_private
from oncue.optimizers import SGD, Adam, sgd
from oncue.optimizers.deferred_overflow_check import DeferredOverflowCheck

PACKAGE = Path(__file__).parents[1] / "src" / "oncue"

# Private names that don't begin with an underscore, or that are reached through an object instead of a module.
DISGUISED = {
    "_flat_weights",
    "_flat_weights_names",
    "_non_persistent_buffers_set",
    "_schema",
    "_orig_mod",
    "_step_supports_amp_scaling",
    "_torchdynamo_orig_callable",
    "_version",
    "allow_rnn",
    "config_patches",
    "found_inf",
    "grad_scale",
    "inner_exception",
    "lookup_backend",
    "mkldnn_rnn_layer",
    "mkldnn_rnn_layer_backward",
    "real_stack",
}
# A module's own when it is `self`; an optimizer of oncue has `_parameters` as well.
HELD = {"_buffers", "_iterator", "_modules", "_parameters"}
OWN = {"cls", "inner", "optimizer", "self"}
# `_thread` is documented in Python's library reference. Its threads begin in 14 us, those of `threading` in 60.
# `sys._current_frames` is documented there, too; it says where a process is that others wait for.
ALLOWED = {
    ("checkpoints/writer.py", "_thread"),
    # Documented by Python, in spite of their names.
    ("core/interrupts.py", "sys._getframe"),
    ("distribution/failures.py", "sys._current_frames"),
}


def _dotted(node: ast.expr) -> list[str]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *names]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith(("__", "_foreach_"))


def _private_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = _dotted(node)
            if names[0] in ("torch", "sys", "threading") and any(map(_is_private, names[1:])):
                yield ".".join(names)
            elif node.attr in DISGUISED:
                yield node.attr
            elif node.attr in HELD and names[-2] not in OWN:
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")
            if _is_private(module[0]) or (module[0] == "torch" and any(map(_is_private, module))):
                yield node.module or ""
            elif module[0] == "torch":
                yield from (alias.name for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if any(map(_is_private, alias.name.split("."))))
        elif isinstance(node, ast.keyword):
            yield from (node.arg,) if node.arg in DISGUISED else ()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in DISGUISED | {"_iterator"} or node.value.startswith("torch._"):
                yield node.value


@pytest.mark.parametrize(
    "code",
    [
        "torch._C._autograd",
        "torch._dynamo.config.patch(x=1)",
        "from torch._inductor import config",
        "from torch.nn import _reduction",
        "import torch._dynamo",
        "import _thread",
        "vars(loader)['_iterator']",
        "getattr(graph, '_torchdynamo_orig_callable', graph)",
        "optimizer.found_inf = 1",
        "module._parameters",
        "self.inner.module._buffers",
        "patch(allow_rnn=True)",
        "torch.ops.aten.mkldnn_rnn_layer.default",
        "logging.getLogger('torch._subclasses.fake_tensor')",
        "torch._amp_update_scale_(a, b)",
    ],
)
def test_a_private_name_is_seen(code: str) -> None:
    assert list(_private_names(ast.parse(code)))


@pytest.mark.parametrize("code", ["torch._foreach_add_(a, b)", "self._parameters", "optimizer._parameters", "torch.nn"])
def test_other_names_are_unaffected(code: str) -> None:
    assert not list(_private_names(ast.parse(code)))


def test_private_names_are_in_one_module() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), name)
        for path in PACKAGE.rglob("*.py")
        for name in _private_names(ast.parse(path.read_text(encoding="utf-8")))
    }
    elsewhere = {(path, name) for path, name in found if path != "torch_private.py"}
    assert elsewhere == ALLOWED
    assert len(found) > len(elsewhere)


# When a name is gone ------------------------------------------------------------------------------------------------


class Public:
    """A module of which only the public methods are left."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.named_parameters, self.named_buffers = module.named_parameters, module.named_buffers
        self.named_children, self.state_dict = module.named_children, module.state_dict
        self.named_modules = module.named_modules


class Held(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.nn.Linear(2, 1)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("hidden", torch.ones(1), persistent=False)
        self.register_buffer("kept", torch.ones(1))


def test_persistent_buffers_without_the_name() -> None:
    module: Any = Public(Held())
    assert torch_private.own_tensors(module) == torch_private.own_tensors(Held()) == ["weight", "kept"]


def test_tables_without_the_names() -> None:
    module = Held()
    public: Any = Public(module)
    tables = torch_private.tensor_tables(public)
    assert [list(table) for table in tables] == [["weight"], ["hidden", "kept"]]
    assert tables[0]["weight"] is torch_private.tensor_tables(module)[0]["weight"] is module.weight


def test_a_module_with_two_names() -> None:
    module = Held()
    module.again = module.inside
    assert list(torch_private.children_of(module)) == ["inside", "again"]
    public: Any = Public(module)
    assert list(torch_private.children_of(public)) == ["inside"]


def test_all_modules_without_the_name() -> None:
    module = Held()
    module.around = torch.nn.Sequential(module.inside, torch.nn.Sequential(torch.nn.Tanh(), module.inside))
    module.register_module("nothing", None)
    public: Any = Public(module)
    found = torch_private.modules_of(module)
    assert found == torch_private.modules_of(public) == list(module.modules()) and len(found) == 5


def test_a_compiled_module_without_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: Any = torch.compile(torch.nn.Linear(2, 1))
    monkeypatch.setattr(torch_private, "_COMPILED", "_renamed")
    assert torch_private.uncompiled(compiled) is None
    assert [torch_private.uncompiled_name(name) for name in compiled.state_dict()] == list(compiled.state_dict())


def test_writes_without_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    numbers = torch.zeros(2)

    def see(tensor: torch.Tensor) -> None:
        seen.append(tensor.tolist())

    with monkeypatch.context() as patch:
        patch.delattr(torch._C, "DisableTorchFunctionSubclass")
        with torch_private.watched_writes(see) as watched:
            numbers[:1].add_(1)
            torch.add(numbers, 1, out=numbers)
        assert watched and seen == [[0], [1, 0]]
    monkeypatch.setattr(torch_private, "_DispatchMode", None)
    with torch_private.watched_writes(see) as watched:
        numbers.add_(1)
    assert not watched and len(seen) == 2


def test_watching_writes_doesnt_import_the_compiler() -> None:
    code = (
        "import sys, torch, oncue\n"
        "model = oncue.Sequential([oncue.layers.Input((2,)), torch.nn.Linear(2, 2)])\n"
        "model.predict(torch.ones(1, 2), verbose=0)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_without_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = torch.utils.data.DataLoader(torch.arange(4.0), num_workers=1, persistent_workers=True)  # type: ignore[arg-type]
    monkeypatch.delattr(torch.utils.data.DataLoader, "_iterator", raising=False)
    vars(loader).pop("_iterator", None)
    with pytest.raises(RuntimeError, match=r"has no `utils.data.DataLoader._iterator`, which oncue needs to begin new"):
        torch_private.drop_workers(loader)


def test_a_profiler_without_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert torch_private.profiler_is_running()
        monkeypatch.delattr(torch._C._autograd, "_profiler_enabled")
        assert not torch_private.profiler_is_running()


def test_memory_without_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, use in (
        ("_record_memory_history", torch_private.record_memory),
        ("_dump_snapshot", torch_private.write_memory),
    ):
        monkeypatch.delattr(torch.cuda.memory, name)
        with pytest.raises(RuntimeError, match=f"has no `cuda.memory.{name}`, which oncue needs to take a snapshot"):
            use("a.pickle")  # type: ignore[operator]


def test_momentum_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[torch.Tensor]:
        weight = torch.nn.Parameter(torch.linspace(-1.0, 1.0, 7))
        optimizer = SGD(0.1, momentum=0.9)
        for number in range(4):
            optimizer.apply([torch.linspace(0.5, 1.5, 7) * number], [weight])
        return [weight.detach(), *optimizer.slots()["momentum"]]

    expected = trained()
    monkeypatch.delattr(torch, "_fused_sgd_")
    assert torch_private.fused_sgd() is None
    monkeypatch.setattr(sgd, "_fused_sgd", None)
    torch.testing.assert_close(trained(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [1.0, float("inf"), float("nan")])
def test_loss_scaling_without_the_kernels(dtype: torch.dtype, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled() -> list[torch.Tensor]:
        unscale, move = torch_private.loss_scaling()
        scale, steps, found = torch.tensor(8.0), torch.tensor(0, dtype=torch.int32), torch.tensor(0.0)
        gradients = [torch.linspace(-3.0, 7.0, 9).to(dtype), torch.full((2,), 1e-4, dtype=dtype)]
        gradients[0][3] *= value
        unscale(gradients, found, torch.tensor(1.0 / 3.0))
        moves = []
        for now in (found, torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0), found):
            move(scale, steps, now, 2.0, 0.5, 2)
            moves += [scale.clone(), steps.clone()]
        return [*gradients, found, *moves]

    expected = scaled()
    monkeypatch.delattr(torch, "_amp_foreach_non_finite_check_and_unscale_")
    monkeypatch.delattr(torch, "_amp_update_scale_")
    torch.testing.assert_close(scaled(), expected, rtol=0, atol=0, equal_nan=True)


def test_a_scale_at_the_end_of_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = torch_private.loss_scaling()[1]
    monkeypatch.delattr(torch, "_amp_update_scale_")
    for move in (kernel, torch_private.loss_scaling()[1]):
        scale, steps = torch.tensor(3e38), torch.tensor(0, dtype=torch.int32)
        move(scale, steps, torch.tensor(0.0), 2.0, 0.5, 1)
        assert scale == torch.tensor(3e38) and steps == 0


def test_an_overflow_without_the_kernels_help(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = Adam()
    optimizer.build([torch.nn.Parameter(torch.ones(2))])
    assert DeferredOverflowCheck.suits(optimizer)
    monkeypatch.delattr(optimizer.torch_optimizer, "_step_supports_amp_scaling")
    assert not DeferredOverflowCheck.suits(optimizer)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_kernel_that_no_longer_reads_the_overflow(
    kind: type[torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch_private.reads_found_inf(kind)
    step = kind.step

    def unaware(self: Any) -> None:
        self.found_inf = None
        step(self)

    monkeypatch.setattr(kind, "step", unaware)
    assert not torch_private.reads_found_inf(kind)


@pytest.mark.parametrize(
    ("name", "are_there"),
    [
        ("mkldnn_rnn_layer", torch_private.has_lstm_kernel),
        ("mkldnn_rnn_layer_backward", torch_private.has_lstm_kernel),
        ("_cudnn_rnn_flatten_weight", torch_private.has_cudnn_rnn),
        ("_cudnn_rnn_backward", torch_private.has_cudnn_rnn),
    ],
)
def test_recurrent_networks_without_the_operations(
    name: str, are_there: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Others:
        def __getattr__(self, wanted: str) -> Any:
            if wanted == name:
                raise AttributeError(wanted)
            return getattr(aten, wanted)

    aten = torch.ops.aten
    assert are_there()
    monkeypatch.setattr(torch.ops, "aten", Others())
    assert not are_there()


def test_recurrent_networks_with_other_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "_FORWARD", torch_private._FORWARD.replace("reverse ", ""))
    monkeypatch.setitem(torch_private._OF_CUDNN, "_cudnn_rnn", "input weight")
    assert not torch_private.has_lstm_kernel() and not torch_private.has_cudnn_rnn()


def test_a_step_with_an_lstm_runs_eagerly_without_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.training.graph.lstm._HAS_KERNEL", False)
    assert "`torch.lstm` would be unrolled" in _reason([layers.Input((3, 2)), layers.LSTM(2), layers.Dense(1)])


def test_code_of_graphs_where_torch_keeps_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.fx.graph_module, "_loader")
    with torch_private.sources_forgotten():
        pass


def test_the_compiler_without_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, cpu = torch_private.traced(lambda x: [x + 1], [torch.ones(1)]), torch.device("cpu")
    monkeypatch.setattr(torch_private, "compiler_options", lambda device: {"renamed": True})
    with pytest.raises(
        RuntimeError, match=r"has no `_inductor.config.renamed`, which oncue needs to compile a training"
    ):
        torch_private.compile_traced(graph, [torch.ones(1)], cpu)
    monkeypatch.setitem(sys.modules, "torch._inductor.compile_fx", None)
    with pytest.raises(RuntimeError, match=r"has no `_inductor.compile_fx`, which oncue needs to compile a training"):
        torch_private.compile_traced(graph, [torch.ones(1)], cpu)


@cpu_only("the settings are those of the CPU")
def test_the_first_step_is_compiled_in_the_quickest_way(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def compiled(graph: Any, inputs: Any, inner_compile: Any, config_patches: dict[str, Any]) -> Any:
        given.append(config_patches)
        return graph

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiled)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    x = torch.ones(2, 2, 2)
    plain, attention = (torch_private.traced(one, [x]) for one in (lambda x: [x + 1], lambda x: [x @ x]))
    torch_private.compile_traced(plain, [x], x.device)
    torch_private.compile_traced(attention, [x], x.device)
    with torch._inductor.config.patch({"cpp.vec_isa_ok": False}):
        torch_private.compile_traced(attention, [x], x.device)
    needed = {"cpp_wrapper": True, "fallback_random": True, "cpp_cache_precompile_headers": False}
    # torch 2.9 has no such setting.
    without = {"use_joint_graph_passes": False} if hasattr(torch._inductor.config, "use_joint_graph_passes") else {}
    assert given[0] == {**needed, "cpp.vec_isa_ok": True, **without}
    # Patterns of attention are looked for where there may be one, and what the user says about vectors counts.
    assert given[1:] == [{**needed, "cpp.vec_isa_ok": True}, needed]


def test_a_compiled_graph_with_a_tensor_of_its_own_that_returns_nothing() -> None:
    def add(x: torch.Tensor) -> list[torch.Tensor]:
        x.add_(torch.tensor([1.0, 2.0, 3.0]))
        return []

    x = torch.zeros(3)
    graph = torch_private.traced(add, [x])
    assert any(node.op == "get_attr" for node in graph.graph.nodes)
    compiled = torch_private.compile_traced(graph, [x], x.device)
    for _ in range(2):
        compiled(x)
    assert x.tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("step", "wrapped"),
    [
        (lambda x, y: [x + 1], False),
        (lambda x, y: [x + 1, y.sum(0)], False),
        (lambda x, y: [x.add_(1) * 2], False),
        (lambda x, y: [x], True),
        (lambda x, y: [x + 1, y[:1]], True),
        (lambda x, y: [x.add_(1)], True),
        (lambda x, y: [(z := x + y), z.T], True),
        (lambda x, y: [x + torch.tensor([1.0, 2.0])], True),
    ],
)
def test_results_that_share_memory_are_wrapped(
    step: Callable[..., Any], wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.compile_fx as compiler

    calls: list[str] = []

    def compiled(graph: Any, inputs: Any, **options: Any) -> Any:
        def inner(given: list[Any]) -> Any:
            calls.append("inner")
            return graph(*given)

        return types.SimpleNamespace(current_callable=inner)

    def whole(graph: Any, inputs: Any, inner_compile: Any, config_patches: Any) -> Any:
        constants = [node for node in graph.graph.nodes if node.op == "get_attr"]
        inner_compile(graph, [*inputs, *constants])
        return lambda *given: calls.append("whole") or graph(*given)

    monkeypatch.setattr(compiler, "compile_fx", whole)
    monkeypatch.setattr(compiler, "compile_fx_inner", compiled)
    x, y = torch.ones(2, 2), torch.ones(2, 2)
    graph = torch_private.traced(step, [x, y])
    found = torch_private.compile_traced(graph, [x, y], x.device)(x.clone(), y)
    assert calls == ["whole" if wrapped else "inner"]
    assert all(torch.equal(one, other) for one, other in zip(found, step(x.clone(), y), strict=True))


@pytest.mark.slow
def test_results_of_compiled_graphs() -> None:
    def step(x: torch.Tensor, total: torch.Tensor) -> list[torch.Tensor]:
        total.add_(x.sum())
        y = x @ x
        return [y.T, (x + 1)[:, :1].expand(2, 2), (y * 2)[1:], torch.cat([x, y]).view(-1)]

    x, total = torch.arange(4.0).reshape(2, 2), torch.zeros(())
    graph = torch_private.traced(step, [x, total])
    compiled = torch_private.compile_traced(graph, [x, total], x.device)
    first, second = compiled(x, total), compiled(x + 1, total)
    assert total == 6 + 10
    for found, expected in zip([*first, *second], step(x, total) + step(x + 1, total), strict=True):
        assert found.shape == expected.shape
        assert torch.equal(found, expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_stay_as_they_are_stored(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.compile_fx as compiler

    given: list[dict[str, Any]] = []

    def noted(graph: Any, inputs: Any, inner_compile: Any, config_patches: dict[str, Any]) -> Any:
        given.append(config_patches)
        inner_compile(graph, inputs)
        return graph

    monkeypatch.setattr(compiler, "compile_fx", noted)
    monkeypatch.setattr(compiler, "compile_fx_inner", lambda *args: None)
    x, kernel = torch.zeros(2, 3, 5, 5), torch.zeros(4, 3, 3, 3)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    graph = torch_private.traced(lambda x, kernel: [torch.conv2d(x, kernel)], [x, kernel])
    torch_private.compile_traced(graph, [x, kernel], x.device)
    assert [options.get("layout_optimization", True) for options in given] == [not channels_last]


def test_a_step_runs_eagerly_where_a_setting_of_the_compiler_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "compiler_options", lambda device: {"renamed": True})
    assert "has no `_inductor.config.renamed`" in _reason([layers.Input((2,)), layers.Dense(1)])


def _reason(parts: list[Any]) -> str:
    model = Sequential(parts)
    model.compile(loss="mse", jit_compile=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(np.ones((4, *parts[0].shape[1:]), np.float32), np.ones((4, 1)), epochs=1, batch_size=2, verbose=0)
    return " ".join(str(one.message) for one in caught)


def test_the_log_is_as_it_was_after_tracing() -> None:
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    with pytest.raises(ValueError, match="untraced"), torch_private.quiet_tracing():
        assert logger.disabled
        raise ValueError("untraced")
    assert not logger.disabled


def test_the_compiler_gives_no_advice_that_nobody_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._inductor import compile_fx

    class Ampere:
        fp32_precision = "ieee"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "matmul", Ampere())
    advise, log = compile_fx._warn_tf32_disabled.__wrapped__, logging.getLogger("torch._inductor.lowering")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch_private.quiet_compiler():
            advise()
            log.warning("advice")
        assert not caplog.records
        with pytest.raises(UserWarning, match="TensorFloat32"):
            advise()
    with pytest.warns(UserWarning, match="of another"), torch_private.quiet_compiler():
        warnings.warn("of another", stacklevel=1)
    log.warning("advice")
    assert len(caplog.records) == 1
    monkeypatch.setattr(logging.getLogger("torch._inductor"), "level", logging.INFO)
    with torch_private.quiet_compiler():
        assert log.isEnabledFor(logging.INFO)


def test_the_parts_of_a_scheduler_without_the_name() -> None:
    """Then it has no rates to scale, so that callbacks which set the rate are refused beside it."""

    class Joined:
        pass

    joined = Joined()
    assert torch_private.parts_of_scheduler(joined) == [joined]


def test_functions_of_functions_without_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C._functorch, "is_functorch_wrapped_tensor")
    assert not torch_private.is_wrapped(torch.ones(1))


def test_checks_of_distributions_without_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check = torch._is_all_true
    assert torch_private.checks_arguments(check)
    monkeypatch.delattr(torch, "_is_all_true")
    assert not torch_private.checks_arguments(check)
