"""Every private name of torch that oncue uses, each behind a function that says what breaks without it.

torch may rename or drop these in any release. Where one is gone, the function here falls back on public ways, or raises an
error that names it; nothing else in oncue has to change. `torch._foreach_*`, which torch documents, is not among them.
"""

from __future__ import annotations

import linecache
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

_MISSING = object()


def _gone(name: str, purpose: str) -> RuntimeError:
    return RuntimeError(f"torch {torch.__version__} has no `{name}`, which oncue needs to {purpose}.")


# Modules ------------------------------------------------------------------------------------------------------------


def own_tensors(module: torch.nn.Module) -> list[str]:
    """Return the attributes by which a module itself has its parameters and its persistent buffers.

    Names: `Module._parameters`, `Module._buffers`, `Module._non_persistent_buffers_set`. torch has no public way to ask
    whether a buffer is persistent. Without the names, the state dict of the module and all modules inside it is made.

    Args:
        module: Any torch module.

    Returns:
        The parameters' names, then the buffers', in order of registration; also of those that are None.

    Example:
        >>> own_tensors(torch.nn.BatchNorm1d(2))
        ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """
    try:
        hidden = module._non_persistent_buffers_set
        return [*module._parameters, *(name for name in module._buffers if name not in hidden)]
    except AttributeError:
        kept = module.state_dict(keep_vars=True)
        parameters = [name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)]
        buffers = [name for name, _ in module.named_buffers(recurse=False, remove_duplicate=False)]
        return parameters + [name for name in buffers if name in kept]


def tensor_tables(module: torch.nn.Module) -> list[dict[str, Any]]:
    """Return the tables in which a module itself has its parameters and its buffers, by name.

    Names: `Module._parameters`, `Module._buffers`. Without them copies of the tables are made: a tensor that was replaced
    can't be put back by writing to one.

    Example:
        >>> [list(table) for table in tensor_tables(torch.nn.BatchNorm1d(2, affine=False))]
        [['weight', 'bias'], ['running_mean', 'running_var', 'num_batches_tracked']]
    """
    try:
        return [module._parameters, module._buffers]
    except AttributeError:
        return [dict(module.named_parameters(recurse=False)), dict(module.named_buffers(recurse=False))]


def children_of(module: torch.nn.Module) -> dict[str, torch.nn.Module | None]:
    """Return the modules that a module has as attributes, under every name.

    Name: `Module._modules`. `Module.named_children()` leaves the second name of a module out, and the places in Keras's
    weight files go by the alphabet. Without it, a module with two names is kept under the one it was given first.

    Example:
        >>> list(children_of(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU())))
        ['0', '1']
    """
    try:
        return dict(module._modules)
    except AttributeError:
        return dict(module.named_children())


def modules_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return a module and all modules inside, each once, in the order of `Module.modules()`.

    Name: `Module._modules`. `Module.modules()` makes the path of each as well, in five times the time, which counts where a
    model is looked at before each call of `predict`. Without it, that method is used.

    Example:
        >>> module = torch.nn.Sequential(torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Tanh())
        >>> modules_of(module) == list(module.modules())
        True
    """
    found: dict[int, torch.nn.Module] = {}
    waiting: list[torch.nn.Module | None] = [module]
    try:
        while waiting:
            part = waiting.pop()
            if part is not None and id(part) not in found:
                found[id(part)] = part
                if inside := part._modules:
                    waiting += [*inside.values()][::-1]
    except AttributeError:
        return list(torch.nn.Module.modules(module))
    return list(found.values())


def tables(module: torch.nn.Module) -> list[dict[str, Any]]:
    """Return the dicts in which a module itself keeps its parameters and the modules inside.

    Names: `Module._parameters`, `Module._modules`. After each hook of the user's it must be seen whether one was added or
    replaced; the public iterators tell, too, in many times the time. Without the names there is nothing to look at, and
    weights that a hook adds are trained from the next run on.

    Args:
        module: Any torch module.

    Returns:
        The dicts themselves, not copies.

    Example:
        >>> [list(table) for table in tables(torch.nn.Linear(2, 1))]
        [['weight', 'bias'], []]
    """
    try:
        return [module._parameters, module._modules]
    except AttributeError:
        return []


_COMPILED = "_orig_mod"


def uncompiled(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the module inside of what `torch.compile(module)` returned; None for other modules.

    Name: `OptimizedModule._orig_mod`. Without it, the weights of such a module are kept under the names that torch gives
    them, instead of the module's own.

    Example:
        >>> module = torch.nn.Linear(2, 1)
        >>> uncompiled(torch.compile(module)) is module, uncompiled(module)
        (True, None)
    """
    inner = getattr(module, _COMPILED, None)
    return inner if isinstance(inner, torch.nn.Module) else None


def uncompiled_name(name: str) -> str:
    """Return the name of a tensor in a state dict without what `torch.compile` adds to it; see `uncompiled`.

    Example:
        >>> uncompiled_name("encoder._orig_mod.weight")
        'encoder.weight'
    """
    return ".".join(part for part in name.split(".") if part != _COMPILED)


# Writes ---------------------------------------------------------------------------------------------------------------

_DispatchMode: Any = getattr(getattr(torch.utils, "_python_dispatch", None), "TorchDispatchMode", None)
_PLAIN = frozenset({Tensor, torch.nn.Parameter})
# The statistics of `native_batch_norm` and its like, which don't say that they write them.
_WRITTEN = frozenset({"running_mean", "running_var"})


class _Watch:
    """What `watched_writes` does at each operation; torch's own class, which it is mixed with, pushes and pops it."""

    supports_higher_order_operators = True

    def __init__(self, before: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._before = before
        # The places and names of the arguments that an operation writes.
        self._written: dict[Any, list[tuple[int, str]]] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        # Else what is compiled for the first time in the block would never be compiled after it.
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = self._written.get(func)
        if written is None:
            written = self._written.setdefault(func, _arguments_written(func))
        if written:
            with subclasses_unasked():
                for place, name in written:
                    value = args[place] if place < len(args) else kwargs.get(name)
                    for tensor in value if isinstance(value, (list, tuple)) else (value,):
                        if isinstance(tensor, Tensor):
                            self._before(tensor)
        # Tensors that consist of others run their own code, whose operations come here.
        return NotImplemented if types and any(map(_consists_of_others, types)) else func(*args, **kwargs)


def _consists_of_others(kind: type) -> bool:
    return hasattr(kind, "__tensor_flatten__")


def _arguments_written(operation: Any) -> list[tuple[int, str]]:
    schema = getattr(operation, "_schema", None)
    # One that runs Python functions, such as `torch.cond`, has none.
    arguments = [] if schema is None else list(enumerate(schema.arguments))
    written = [
        (place, argument.name)
        for place, argument in arguments
        if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in _WRITTEN
    ]
    if not written and schema is not None and schema.name.endswith("_"):
        # Those of torch.distributed don't say what they write.
        written = [(place, argument.name) for place, argument in arguments]
    return written


@contextmanager
def watched_writes(before: Callable[[Tensor], None]) -> Iterator[bool]:
    """Call a function with each tensor that an operation of torch is about to write, in the block, in this thread.

    Names: `torch.utils._python_dispatch.TorchDispatchMode`, `OpOverload._schema`, `torch._dynamo` in `sys.modules`. Nothing
    public tells of a write before it is done. Without the first name, nothing is watched, and the block gets False.
    What `torch.compile` has compiled runs eagerly in the block.

    Args:
        before: The function.

    Example:
        >>> numbers = torch.zeros(2)
        >>> with watched_writes(lambda tensor: print("before:", tensor.tolist())) as watched:
        ...     _ = numbers[:1].add_(1)
        before: [0.0]
        >>> watched
        True
    """
    if _DispatchMode is None:
        yield False
        return
    # A compiled function writes as one.
    compiles = "torch._dynamo" in sys.modules
    with torch.compiler.set_stance("force_eager") if compiles else nullcontext(), _mode()(before):
        yield True


@cache
def _mode() -> Any:
    # torch imports its compiler, in a second, at the first call of a `__torch_dispatch__` that a class has itself.
    return type("_WatchMode", (_Watch, _DispatchMode), {})


@contextmanager
def modes_put_back() -> Iterator[None]:
    """Put torch's modes back, at the end of the block, which Ctrl-C has left on by ending the `__exit__` that puts them back.

    These are whether gradients are noted, autocast, and the classes that stand between a program and torch's functions and
    operations. Names: `torch._C._len_torch_function_stack`, `torch._C._pop_torch_function_stack`, and the same of `dispatch`.
    Without them such classes stay.

    Example:
        >>> with modes_put_back():
        ...     _ = torch.set_grad_enabled(False)
        >>> torch.is_grad_enabled()
        True
    """
    gradients, cache = torch.is_grad_enabled(), torch.is_autocast_cache_enabled()
    casts = [
        (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda", "mps", "xpu")
    ]
    nesting = _autocast_nesting()
    stacks = [_stack("function"), _stack("dispatch")]
    depths = [length() for length, _ in stacks]
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        for (length, pop), depth in zip(stacks, depths, strict=True):
            while length() > depth:
                pop()
        left = _autocast_nesting()
        for device, enabled, kind in casts if left > nesting else ():
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, kind)
        while left > nesting:
            left = torch.autocast_decrement_nesting()
            if not left:
                torch.clear_autocast_cache()
            torch.set_autocast_cache_enabled(cache)


def _autocast_nesting() -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _stack(kind: str) -> tuple[Callable[[], int], Callable[[], object]]:
    """Return how many modes of a kind are on, and what takes the last of them off."""
    length = getattr(torch._C, f"_len_torch_{kind}_stack", None)
    pop = getattr(torch._C, f"_pop_torch_{kind}_stack", None)
    return (lambda: 0, lambda: None) if length is None or pop is None else (length, pop)


def subclasses_unasked() -> AbstractContextManager[Any]:
    """Return a block in which classes derived from `Tensor` aren't told what is asked of their tensors.

    Name: `torch._C.DisableTorchFunctionSubclass`. Without it they are: a class that counts them sees more.

    Example:
        >>> with subclasses_unasked():
        ...     torch.nn.Parameter(torch.zeros(2)).shape
        torch.Size([2])
    """
    context: AbstractContextManager[Any] = getattr(torch._C, "DisableTorchFunctionSubclass", nullcontext)()
    return context


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """Return the memory of a tensor; None where it has none of its own, or none with values.

    A class derived from `Tensor` isn't asked in a block of `subclasses_unasked`.

    Example:
        >>> tensor = torch.zeros(3)
        >>> storage_of(tensor[:1]) is storage_of(tensor), storage_of(torch.zeros(3).to_sparse())
        (True, None)
    """
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested:
        return None
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        # One that consists of others.
        return None


def parts_of(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that a tensor consists of: itself, but for classes of torch that wrap others.

    Name: `__tensor_flatten__`. Without it, the tensor itself.

    Example:
        >>> tensor = torch.zeros(3)
        >>> parts_of(tensor) == [tensor]
        True
    """
    if type(tensor) in _PLAIN or not _consists_of_others(type(tensor)):
        return [tensor]
    wrapper: Any = tensor
    # Of a tensor that processes have parts of, its mesh of devices is among them.
    found = [getattr(tensor, name) for name in wrapper.__tensor_flatten__()[0]]
    return [part for one in found if isinstance(one, Tensor) for part in parts_of(one)]


def version_of(tensor: Tensor) -> int:
    """Return how often operations have written a tensor or a view of it; 0 where that isn't counted, or there are no values.

    Name: `Tensor._version`. Without it, 0: what is written past `watched_writes`, by another thread for example, then goes
    unnoticed.

    Example:
        >>> numbers = torch.zeros(2)
        >>> before = version_of(numbers)
        >>> _ = numbers[:1].add_(1)
        >>> version_of(numbers) - before
        1
    """
    return 0 if tensor.is_inference() or tensor.is_meta else getattr(tensor, "_version", 0)


# Data, profiles -----------------------------------------------------------------------------------------------------


def drop_workers(loader: torch.utils.data.DataLoader[Any]) -> None:
    """Let a loader's persistent worker processes end, so that its next pass begins with new ones.

    Name: `DataLoader._iterator`. A resumed pass needs workers with the random states of the saved ones, and only new
    workers can be given them. Without the name, a clear error.

    Args:
        loader: The loader.

    Raises:
        RuntimeError: When the name is gone.

    Example:
        >>> drop_workers(torch.utils.data.DataLoader([1, 2]))
    """
    if not hasattr(loader, "_iterator"):
        raise _gone("utils.data.DataLoader._iterator", "begin new worker processes")
    # Around a subclass's `__setattr__`, as torch's own refuses some of a loader's attributes.
    vars(loader)["_iterator"] = None


def profiler_is_running() -> bool:
    """Return whether a profiler of torch is running, started by any code.

    Name: `torch._C._autograd._profiler_enabled`. torch begins a second profiler without an error and spoils both.
    Without the name, False: two at once then go unnoticed.

    Example:
        >>> profiler_is_running()
        False
    """
    try:
        return bool(torch._C._autograd._profiler_enabled())
    except AttributeError:
        return False


def record_memory(on: bool) -> bool:
    """Let torch note, or note no longer, who allocates memory of CUDA devices.

    Names: `torch.cuda.memory._record_memory_history`, `torch._C._cuda_isHistoryEnabled`. torch's documentation tells to
    use the first, and has no other. Without it, a clear error; without the second, notes that others had begun are taken over.

    Args:
        on: Whether to begin or to end.

    Returns:
        Whether it was begun; False where others had begun it, who end it then.

    Raises:
        RuntimeError: When the name is gone.
    """
    record = getattr(torch.cuda.memory, "_record_memory_history", None)
    if record is None:
        raise _gone("cuda.memory._record_memory_history", "take a snapshot of memory")
    is_on = getattr(torch._C, "_cuda_isHistoryEnabled", lambda: False)
    if on and is_on():
        return False
    if on:
        record(max_entries=_MOST_NOTED)
    else:
        record(enabled=None)
    return on


_MOST_NOTED = 200_000
"""Allocations and releases, of some hundred bytes each."""


def write_memory(path: str) -> None:
    """Write what memory of CUDA devices is used for, and what was noted, as a file for https://pytorch.org/memory_viz.

    Name: `torch.cuda.memory._dump_snapshot`; see `record_memory`. Without it, a clear error.

    Raises:
        RuntimeError: When the name is gone.
        OSError: When the file can't be written.
    """
    dump = getattr(torch.cuda.memory, "_dump_snapshot", None)
    if dump is None:
        raise _gone("cuda.memory._dump_snapshot", "take a snapshot of memory")
    dump(path)


# Optimizers ---------------------------------------------------------------------------------------------------------


def fused_sgd() -> Callable[..., None] | None:
    """Return torch's kernel of SGD with momentum, for real floats on the CPU or CUDA.

    Name: `torch._fused_sgd_`. `torch.optim.SGD` has no option to include the learning rate in the velocity, as Keras does.
    Without it, None: the same arithmetic takes two `_foreach` calls.

    Example:
        >>> weight, velocity = torch.tensor([1.0]), torch.tensor([0.5])
        >>> kernel = fused_sgd()
        >>> options = {"weight_decay": 0.0, "dampening": 1.5, "nesterov": False, "maximize": False}
        >>> kernel([weight], [torch.tensor([1.0])], [velocity], lr=-1.0, momentum=0.5, is_first_step=False, **options)
        >>> weight
        tensor([0.7500])
    """
    kernel: Callable[..., None] | None = getattr(torch, "_fused_sgd_", None)
    return kernel


Unscale = Callable[[list[Tensor], Tensor, Tensor], Any]
MoveScale = Callable[[Tensor, Tensor, Tensor, float, float, Any], Any]


def loss_scaling(fused: bool = True) -> tuple[Unscale, MoveScale]:
    """Return the two kernels of `torch.amp.GradScaler`, which never wait for the device.

    Names: `torch._amp_foreach_non_finite_check_and_unscale_`, `torch._amp_update_scale_`. Without them, the same
    arithmetic in several kernels for each gradient.

    Args:
        fused: Whether to return the kernels; without it, the same arithmetic in operations that a compiler can fuse.

    Returns:
        A function of gradients of one type, a number found and an inverse, which multiplies the gradients by the inverse
        and sets the number to 1 where one isn't finite; and a function of a scale, a count of steps, what was found, a
        growth factor, a backoff factor and an interval, which moves the first two. All tensors are changed in place.

    Example:
        >>> unscale, move = loss_scaling()
        >>> gradient, found = torch.tensor([8.0]), torch.tensor(0.0)
        >>> unscale([gradient], found, torch.tensor(0.25))
        >>> gradient, found
        (tensor([2.]), tensor(0.))
    """
    if not fused:
        return _unscale, _move_scale
    unscale = getattr(torch, "_amp_foreach_non_finite_check_and_unscale_", None)
    move = getattr(torch, "_amp_update_scale_", None)
    return unscale or _unscale, move or _move_scale


def _unscale(gradients: list[Tensor], found: Tensor, inverse: Tensor) -> None:
    for gradient in gradients:
        found.copy_(torch.maximum(found, gradient.isfinite().logical_not().any().to(found.dtype)))
        gradient.copy_(gradient.to(torch.promote_types(gradient.dtype, inverse.dtype)) * inverse)


def _move_scale(
    scale: Tensor, steps: Tensor, found: Tensor, growth: float, backoff: float, interval: int | Tensor
) -> None:
    bad = found != 0
    due = steps + 1 == interval
    grown = torch.where(due & (scale * growth).isfinite(), scale * growth, scale)
    scale.copy_(torch.where(bad, scale * backoff, grown))
    steps.copy_(torch.where(bad | due, torch.zeros_like(steps), steps + 1))


def parts_of_scheduler(scheduler: Any) -> list[Any]:
    """Return the schedulers that one is made of, such as a `SequentialLR` or a `ChainedScheduler`; else itself alone.

    Names: `SequentialLR._schedulers`, `ChainedScheduler._schedulers`. Without them such a scheduler is its own only part, whose
    rates nobody can scale: callbacks that set the learning rate are refused beside it.

    Args:
        scheduler: A scheduler of torch, or one like it.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
        >>> decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        >>> joined = torch.optim.lr_scheduler.ChainedScheduler([decay])
        >>> parts_of_scheduler(joined) == [decay]
        True
    """
    parts = getattr(scheduler, "_schedulers", None)
    return [scheduler] if parts is None else [inner for part in parts for inner in parts_of_scheduler(part)]


def can_skip_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer's kernel can skip a step by itself, as `step_unless` wants it to.

    Name: `Optimizer._step_supports_amp_scaling`, by which `torch.amp.GradScaler` asks. Without it, False: the host then
    waits for the device at every step of loss scaling, to know whether the gradients are finite.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> can_skip_steps(torch.optim.SGD([weight], fused=True)), can_skip_steps(torch.optim.SGD([weight]))
        (True, False)
    """
    able = getattr(optimizer, "_step_supports_amp_scaling", False)
    return bool(able) and all([group.get("fused") for group in optimizer.param_groups])


def step_unless(found: Tensor, optimizer: torch.optim.Optimizer, step: Callable[[list[Tensor]], None]) -> None:
    """Step, unless a number on the device is 1; the device decides, and the host doesn't wait.

    Names: `Optimizer.found_inf`, `Optimizer.grad_scale`, which the fused kernels read. Without them every step would be
    taken; ask `can_skip_steps` and `reads_found_inf` first.

    Args:
        found: 0.0 or 1.0 on the device of the parameters.
        optimizer: One for which `can_skip_steps` is true.
        step: Steps the optimizer; called with an empty list, of the parameters without a gradient.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> weight.grad = torch.ones(1)
        >>> optimizer = torch.optim.SGD([weight], fused=True)
        >>> step_unless(torch.tensor(1.0), optimizer, lambda missing: optimizer.step())
        >>> weight.data
        tensor([1.])
    """
    given: Any = optimizer
    given.found_inf, given.grad_scale = found, None
    try:
        step([])
    finally:
        del given.found_inf, given.grad_scale


def reads_found_inf(kind: type[torch.optim.Optimizer]) -> bool:
    """Return whether a class of optimizers does what `step_unless` wants: it is tried on one number on the CPU.

    Names: `Optimizer.found_inf`, `Optimizer.grad_scale`. Nothing declares these attributes, so only a try tells whether
    they are read. Without them, False: the host then waits for the device at every step of loss scaling.

    Args:
        kind: A class; others than torch's SGD, Adam and AdamW are taken at their word, `_step_supports_amp_scaling`.

    Example:
        >>> reads_found_inf(torch.optim.Adam)
        True
    """
    if kind not in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        return True
    weight = torch.nn.Parameter(torch.ones(1, device="cpu"))
    weight.grad = torch.ones_like(weight)
    made: Any = kind
    optimizer = made([weight], lr=1.0, fused=True)
    step_unless(torch.ones((), device="cpu"), optimizer, lambda missing: optimizer.step())
    return torch.equal(weight, torch.ones_like(weight))


def count_as_stepped(optimizer: torch.optim.Optimizer) -> None:
    """Let torch's schedulers know that an optimizer's parameters are updated, though nobody calls its `step`.

    Name: `Optimizer._opt_called`, which the first step of a scheduler asks for. Without it, torch warns that the scheduler
    was stepped before the optimizer.

    Args:
        optimizer: The optimizer of a step that is a graph.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
        >>> decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        >>> count_as_stepped(optimizer)
        >>> decay.step()  # without a warning
    """
    stepped: Any = optimizer
    stepped._opt_called = True


# Recurrent networks -------------------------------------------------------------------------------------------------

_LSTM, _GRU = 2, 3
"""torch's numbers for the kinds of cells."""
_FORWARD = (
    "input weight0 weight1 weight2 weight3 hx_ cx_ reverse batch_sizes mode hidden_size num_layers has_biases "
    "bidirectional batch_first train"
)
_BACKWARD = (
    "input weight1 weight2 weight3 weight4 hx_ cx_tmp output hy_ cy_ grad_output grad_hy grad_cy reverse mode hidden_size "
    "num_layers has_biases train bidirectional batch_sizes batch_first workspace"
)


def has_lstm_kernel() -> bool:
    """Return whether this torch has the operations of `lstm_layer`, with the arguments that are given to them here.

    Names: `torch.ops.aten.mkldnn_rnn_layer`, `torch.ops.aten.mkldnn_rnn_layer_backward`. `torch.lstm` itself is unrolled by
    torch's compiler into an operation for each step. Without them, False: steps with an LSTM aren't compiled.

    Example:
        >>> has_lstm_kernel()
        True
    """
    return _take({"mkldnn_rnn_layer": _FORWARD, "mkldnn_rnn_layer_backward": _BACKWARD})


def _take(operations: dict[str, str]) -> bool:
    """Return whether torch has operations, by name, that take arguments of these names."""
    try:
        found = [getattr(torch.ops.aten, name).default._schema.arguments for name in operations]
    except AttributeError:
        return False
    return [" ".join([argument.name for argument in one]) for one in found] == list(operations.values())


def lstm_layer(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    h: Tensor,
    c: Tensor,
    reverse: bool,
    notes: bool,
) -> tuple[Tensor, ...]:
    """Run one layer of an LSTM in one direction, on the CPU in float32; see `has_lstm_kernel`.

    Args:
        x: The inputs, of shape (steps, batch, features).
        w_ih: The weights of the inputs, of shape (4 units, features).
        w_hh: The weights of the states, of shape (4 units, units).
        b_ih: A bias of shape (4 units,).
        b_hh: The other one.
        h: The first state, of shape (1, batch, units).
        c: The first cell, likewise.
        reverse: Whether to go from the last step to the first.
        notes: Whether to note what `lstm_layer_backward` needs.

    Returns:
        The outputs, of shape (steps, batch, units), the last state, the last cell, and the notes.
    """
    # Only where gradients are on does the kernel note what its backward pass needs.
    with torch.set_grad_enabled(notes):
        found: tuple[Tensor, ...] = torch.ops.aten.mkldnn_rnn_layer.default(
            x, w_ih, w_hh, b_ih, b_hh, h, c, reverse, [], _LSTM, h.shape[-1], 1, True, False, False, notes
        )
    return found


def lstm_layer_backward(*given: Any) -> tuple[Tensor, ...]:
    """Return the gradients of one layer of an LSTM; see `has_lstm_kernel`.

    Args:
        *given: The tensors and `reverse` that `lstm_layer` was given, what it returned, and the gradients of the outputs,
            the last state and the last cell.

    Returns:
        The gradients of the inputs, of both weights, of either bias, of the first state and of the first cell.
    """
    *tensors, reverse, y, h_n, c_n, notes, grad_y, grad_h, grad_c = given
    size = tensors[5].shape[-1]
    x, w_ih, w_hh, bias, _, h, c = torch.ops.aten.mkldnn_rnn_layer_backward.default(
        *tensors, y, h_n, c_n, grad_y, grad_h, grad_c, reverse, _LSTM, size, 1, True, True, False, [], False, notes
    )
    return x, w_ih, w_hh, bias, h, c


_OF_CUDNN = {
    "_cudnn_rnn_flatten_weight": (
        "weight_arr weight_stride0 input_size mode hidden_size proj_size num_layers batch_first bidirectional"
    ),
    "_cudnn_rnn": (
        "input weight weight_stride0 weight_buf hx cx mode hidden_size proj_size num_layers batch_first dropout train "
        "bidirectional batch_sizes dropout_state"
    ),
    "_cudnn_rnn_backward": (
        "input weight weight_stride0 weight_buf hx cx output grad_output grad_hy grad_cy mode hidden_size proj_size "
        "num_layers batch_first dropout train bidirectional batch_sizes dropout_state reserve output_mask"
    ),
}


def has_cudnn_rnn() -> bool:
    """Return whether this torch has the operations of `cudnn_rnn`, with the arguments that are given to them here.

    Names: `torch.ops.aten._cudnn_rnn`, `_cudnn_rnn_backward`, `_cudnn_rnn_flatten_weight`. torch's compiler unrolls
    `torch.lstm` and `torch.gru` on CUDA, too. Without them, False: steps with either aren't compiled there.

    Example:
        >>> has_cudnn_rnn()
        True
    """
    return _take(_OF_CUDNN)


def cudnn_rnn(
    x: Tensor, weights: Sequence[Tensor], states: Sequence[Tensor], layers: int, both_ways: bool, notes: bool
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Run all layers of an LSTM or a GRU by cuDNN, without dropout between them; see `has_cudnn_rnn`.

    Args:
        x: The inputs, of shape (steps, batch, features), contiguous as all others.
        weights: The weights, and the biases where there are some, of every layer and direction in turn.
        states: The first states and, of an LSTM, cells, of shape (layers times directions, batch, units) each.
        layers: How many there are.
        both_ways: Whether each layer also goes from the last step to the first.
        notes: Whether to note what `cudnn_rnn_backward` needs.

    Returns:
        The outputs, of shape (steps, batch, units times directions), the last states, the notes, whose size only cuDNN
        knows, and all weights as one block, laid out as cuDNN wants them.
    """
    kind, h, c, width, units = _form_of(weights, states, layers, both_ways)
    # Those that it is given become views of the block.
    copies = [weight.clone(memory_format=torch.contiguous_format) for weight in weights]
    block = torch.ops.aten._cudnn_rnn_flatten_weight.default(
        copies, width, x.shape[-1], kind, units, 0, layers, False, both_ways
    )
    y, h_n, c_n, noted, block = torch.ops.aten._cudnn_rnn.default(
        x, copies, width, block, h, c, kind, units, 0, layers, False, 0.0, notes, both_ways, [], None
    )
    return y, [h_n, c_n][: len(states)], noted, block


def cudnn_rnn_backward(
    x: Tensor,
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    layers: int,
    both_ways: bool,
    y: Tensor,
    noted: Tensor,
    block: Tensor,
    of_y: Tensor,
    of_states: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the gradients of an LSTM or a GRU; see `has_cudnn_rnn`. The notes can be used once.

    Args:
        x: As `cudnn_rnn` got it, and so the next four.
        weights: The weights.
        states: The first states.
        layers: How many there are.
        both_ways: Whether each goes both ways.
        y: The outputs that `cudnn_rnn` returned.
        noted: Its notes.
        block: Its block of weights.
        of_y: The gradients of the outputs.
        of_states: Those of the last states.

    Returns:
        The gradients of the inputs, of each of the weights, and of the first states.
    """
    kind, h, c, width, units = _form_of(weights, states, layers, both_ways)
    of_h, of_c = (*of_states, None)[:2]
    wanted = [True, True, c is not None, True]
    of_x, of_h, of_c, found = torch.ops.aten._cudnn_rnn_backward.default(
        x, weights, width, block, h, c, y, of_y, of_h, of_c, kind, units, 0, layers, False, 0.0, True, both_ways, [], None,
        noted, wanted,
    )  # fmt: skip
    # They are parts of a block, where numbers of 16 bits may begin at addresses that compiled kernels don't take.
    return of_x, [one.clone() for one in found], [of_h, of_c][: len(states)]


def _form_of(
    weights: Sequence[Tensor], states: Sequence[Tensor], layers: int, both_ways: bool
) -> tuple[int, Tensor, Tensor | None, int, int]:
    h, c = (*states, None)[:2]
    assert h is not None
    width = len(weights) // (layers * (2 if both_ways else 1))
    return _GRU if c is None else _LSTM, h, c, width, h.shape[-1]


# The compiler -------------------------------------------------------------------------------------------------------


def compiler_options(device: torch.device) -> dict[str, Any]:
    """Return the settings of torch's compiler for a step on a device.

    Names: `torch._inductor.config.cpp_wrapper`, `fallback_random`. On the CPU, where they cost no more, the first calls
    kernels from C++ instead of Python, and the second draws the random numbers of torch's generator, as the eager step
    does. `compile_traced` refuses settings that are gone.

    Args:
        device: Where the step runs.
    """
    return {"cpp_wrapper": True, "fallback_random": True} if device.type == "cpu" else {}


def _quicker_options(graph: torch.fx.GraphModule, settings: Any) -> dict[str, Any]:
    """Return settings with which the first step on the CPU comes in two thirds of the time.

    Names: `torch._inductor.config.cpp.vec_isa_ok`, `cpp_cache_precompile_headers`, `use_joint_graph_passes`. Without one of
    them, compiling takes longer.

    Args:
        graph: What is to be compiled.
        settings: `torch._inductor.config`.
    """
    # Headers that are compiled beforehand pay for themselves with the fourth graph, and are looked at in each process.
    options: dict[str, Any] = {"cpp_cache_precompile_headers": False}
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        # Which vectors the processor has, torch knows; each kind would be tried by a program that is compiled for that.
        options["cpp.vec_isa_ok"] = True
    if not any(node.target is torch.ops.aten.bmm.default for node in graph.graph.nodes):
        # Patterns of attention, which are made in each process, and nothing else that matters on the CPU.
        options["use_joint_graph_passes"] = False
    return {
        name: value for name, value in options.items() if getattr(settings, name, _MISSING) not in (_MISSING, False)
    }


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Keep torch's compiler from logging what it can't trace, in a hundred lines, before it raises it.

    Name: the logger "torch._subclasses.fake_tensor". Without it, the log is longer.

    Example:
        >>> with quiet_tracing():
        ...     logging.getLogger("torch._subclasses.fake_tensor").disabled
        True
    """
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keep what torch's compiler advises about settings, such as TF32, from users who didn't ask for it.

    Names: the modules and loggers "torch._inductor", "torch._functorch" and "torch._dynamo". Without them, its advice is seen.
    A level that was set for a logger stays, as `TORCH_LOGS` does it.

    Example:
        >>> with quiet_compiler():
        ...     logging.getLogger("torch._inductor.lowering").isEnabledFor(logging.WARNING)
        False
    """
    loggers = [logging.getLogger(f"torch.{name}") for name in ("_inductor", "_functorch", "_dynamo")]
    unasked = [(logger, logger.level) for logger in loggers if logger.level in (logging.NOTSET, logging.WARNING)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\._(inductor|functorch|dynamo)(\.|$)")
        for logger, _ in unasked:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in unasked:
                logger.setLevel(level)


# Tracing ------------------------------------------------------------------------------------------------------------


@contextmanager
def sources_forgotten() -> Iterator[None]:
    """Forget, after a block, the code of the graphs that were made in it, which torch keeps for tracebacks as long as it runs.

    Names: `torch.fx.graph_module._loader`, its `eval_cache`. Without them, each graph that is made costs the process the length
    of its code.

    Example:
        >>> before = len(torch.fx.graph_module._loader.eval_cache)
        >>> with sources_forgotten():
        ...     _ = torch.fx.symbolic_trace(torch.nn.ReLU())
        >>> len(torch.fx.graph_module._loader.eval_cache) - before
        0
    """
    loader: Any = getattr(torch.fx.graph_module, "_loader", None)
    kept: dict[str, str] = getattr(loader, "eval_cache", {})
    before = set(kept)
    try:
        yield
    finally:
        # Copied at once: another thread may make a graph.
        for name in list(kept):
            if name not in before:
                kept.pop(name, None)
                linecache.cache.pop(name, None)


def traced(function: Callable[..., Any], inputs: Sequence[Tensor]) -> torch.fx.GraphModule:
    """Run a function once on stand-ins without values, and return what it did with them as a graph.

    Names: `torch.fx.experimental.proxy_tensor.make_fx`, which torch doesn't promise to keep. Without it, a clear error, and
    with it eager steps.

    Args:
        function: Takes tensors and returns a list of tensors; may change those that it takes.
        inputs: Tensors of the shapes that it is for.

    Returns:
        A module that does the same to tensors of these shapes.

    Raises:
        RuntimeError: When the name is gone.
        Exception: Whatever the function raises.

    Example:
        >>> graph = traced(lambda x: [x + 1], [torch.zeros(2)])
        >>> graph(torch.ones(2))
        [tensor([2., 2.])]
    """
    try:
        from torch.fx.experimental.proxy_tensor import make_fx
    except ImportError as error:
        raise _gone("fx.experimental.proxy_tensor.make_fx", "trace a training step") from error
    with quiet_tracing():
        return make_fx(function, tracing_mode="fake")(*inputs)


def import_compiler() -> None:
    """Import what `compile_traced` calls, which takes longer than to trace a small step.

    Raises:
        RuntimeError: When a name is gone.

    Example:
        >>> import_compiler()
    """
    try:
        import torch._functorch.config
        import torch._inductor.compile_fx
        import torch._inductor.config  # noqa: F401  # that they can be imported is what is asked
    except ImportError as error:
        raise _gone("_inductor.compile_fx", "compile a training step") from error


def compile_traced(
    graph: torch.fx.GraphModule, inputs: Sequence[Tensor], device: torch.device
) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph of `traced` by torch's compiler.

    Names: `torch._inductor.compile_fx.compile_fx` and `compile_fx_inner`, `CompiledFxGraph.current_callable`,
    `UntypedStorage._cdata`, `torch._functorch.config.enable_autograd_cache`, `torch._inductor.config.layout_optimization`,
    `reorder_for_peak_memory`, and the settings of `compiler_options`. Without them, a clear error, and
    with it eager steps. What `compile_fx` returns wraps the compiled code in what only results that share memory with inputs
    or each other need, and takes a third of a tiny step for it: a graph without such results is called without.

    Args:
        graph: The graph; where its `meta` says so by "is_in_order", its operations stay in their order.
        inputs: Tensors such as it will be called with.
        device: Where they are.

    Returns:
        A function that does the same, to be called without gradients.

    Raises:
        RuntimeError: When a name is gone.
        Exception: Whatever the compiler raises.
    """
    import_compiler()
    import torch._functorch.config as cache
    import torch._inductor.config as known
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    options = compiler_options(device)
    if has_channels_last(graph):
        # The compiler would store all images anew with their second axis last, also those whose axes are in another order.
        options["layout_optimization"] = False
    for name in options:
        if not hasattr(known, name):
            raise _gone(f"_inductor.config.{name}", "compile a training step")
    if device.type == "cpu":
        options |= _quicker_options(graph, known)
    if graph.meta.get("is_in_order") and hasattr(known, "reorder_for_peak_memory"):
        # What it sends is to be on its way while the rest is computed.
        options["reorder_for_peak_memory"] = False
    made: list[Any] = []
    sizes: list[tuple[int, int]] = []

    def keep(module: Any, given: Sequence[Any], **kwargs: Any) -> Any:
        sizes.append((len(given), len(module.graph.output_node().args[0])))
        made.append(compile_fx_inner(module, given, **kwargs))
        return made[-1]

    # A whole function that comes out of torch's own cache wouldn't pass `keep`; the code inside has a cache of its own.
    uncached = cache.patch(enable_autograd_cache=False) if hasattr(cache, "enable_autograd_cache") else nullcontext()
    with torch.no_grad(), uncached, quiet_compiler():
        whole: Any = compile_fx(graph, list(inputs), inner_compile=keep, config_patches=options)
    inner = getattr(made[0], "current_callable", None) if len(made) == 1 else None
    # The code inside takes the tensors that the graph holds itself as inputs, too.
    results: Any = graph.graph.output_node().args[0]
    if inner is None or sizes != [(len(inputs), len(results))] or not _has_memory_of_its_own(results, graph):
        function: Callable[..., Sequence[Tensor]] = whole
        return function
    return lambda *given: inner(list(given))


def _has_memory_of_its_own(results: Sequence[torch.fx.Node], graph: torch.fx.GraphModule) -> bool:
    """Return whether no two results of a graph share memory, nor one with an input."""
    inputs = [node for node in graph.graph.nodes if node.op in ("placeholder", "get_attr")]
    taken = {node.meta["val"].untyped_storage()._cdata for node in inputs if "val" in node.meta}
    own = [node.meta["val"].untyped_storage()._cdata for node in results]
    return len(set(own)) == len(own) and taken.isdisjoint(own)


def has_channels_last(graph: torch.fx.GraphModule) -> bool:
    """Return whether a convolution in a graph gets images that are stored with their channels last already.

    Args:
        graph: The graph.
    """
    images = [
        node.args[0].meta["val"]
        for node in graph.graph.nodes
        if node.target is torch.ops.aten.convolution.default and node.args[0].meta["val"].ndim == 4
    ]
    last = torch.channels_last
    return any(image.is_contiguous(memory_format=last) and not image.is_contiguous() for image in images)


def tracing_problem(error: BaseException) -> str | None:
    """Return in plain words what a tracer's error means; None for other errors.

    Names: `torch._subclasses.fake_tensor.DataDependentOutputException`, `DynamicOutputShapeException`,
    `UnsupportedOperatorException`, and the text about tensors that aren't stand-ins. Without them, the error's own text is
    shown.

    Example:
        >>> tracing_problem(ValueError("other")) is None
        True
    """
    kind = type(error).__name__
    if kind in ("DataDependentOutputException", "GuardOnDataDependentSymNode"):
        return "Python code reads the value of a tensor, which a graph doesn't have"
    if kind == "DynamicOutputShapeException":
        return "the shape of a result depends on the values of a tensor"
    if "convert all Tensors to FakeTensors" in str(error):
        return "it uses a tensor that is made outside of torch's functions in each step"
    return None


def is_wrapped(tensor: Tensor) -> bool:
    """Return whether a tensor is what `torch.func` puts in place of another while one of its functions runs.

    Name: `torch._C._functorch.is_functorch_wrapped_tensor`. Without it, False: a step with `vmap` runs eagerly.

    Args:
        tensor: The tensor.

    Example:
        >>> found = []
        >>> _ = torch.func.vmap(lambda row: found.append(is_wrapped(row)) or row)(torch.ones(2, 3))
        >>> found, is_wrapped(torch.ones(2))
        ([True], False)
    """
    try:
        return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))
    except AttributeError:
        return False


def checks_arguments(function: Any) -> bool:
    """Return whether a function of torch is the one that decides whether the arguments of a distribution are good.

    Name: `torch._is_all_true`, which `torch.distributions.Distribution` asks. Without it, False: a step that makes a
    distribution runs eagerly, unless its `validate_args` is off.

    Example:
        >>> checks_arguments(torch.all)
        False
    """
    return function is getattr(torch, "_is_all_true", _MISSING)


def hooks_of_all_modules() -> bool:
    """Return whether something is called in the passes of all modules.

    Names: `torch.nn.modules.module._global_forward_hooks`, `_global_forward_pre_hooks`, `_global_backward_hooks`,
    `_global_backward_pre_hooks`. Without them, there seems to be nothing.

    Example:
        >>> hooks_of_all_modules()
        False
    """
    module = vars(torch.nn.modules.module)
    return any(map(module.get, _GLOBAL_HOOKS))


def any_hooks(weights: Iterable[Tensor]) -> bool:
    """Return whether one of some weights has hooks of a backward pass.

    Names: `Tensor._backward_hooks`, `_post_accumulate_grad_hooks`. Without them, there seem to be none.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> before, _ = any_hooks([weight]), weight.register_hook(print)
        >>> before, any_hooks([weight])
        (False, True)
    """
    for weight in weights:
        if getattr(weight, "_backward_hooks", None) or getattr(weight, "_post_accumulate_grad_hooks", None):
            return True
    return False


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether something is to be called around each step of a torch optimizer, or of all.

    Names: `Optimizer._optimizer_step_pre_hooks`, `_optimizer_step_post_hooks`,
    `torch.optim.optimizer._global_optimizer_pre_hooks`, `_global_optimizer_post_hooks`. Without them, there seems to be
    nothing.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        >>> before, _ = has_step_hooks(optimizer), optimizer.register_step_post_hook(print)
        >>> before, has_step_hooks(optimizer)
        (False, True)
    """
    of_all = sys.modules["torch.optim.optimizer"]
    own = (getattr(optimizer, name, None) for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"))
    every = (getattr(of_all, name, None) for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"))
    return any(map(bool, (*own, *every)))


_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in _MODULE_HOOKS)


def has_hooks(module: torch.nn.Module) -> bool:
    """Return whether a module has hooks of a forward or a backward pass.

    Names: `Module._forward_hooks`, `_forward_pre_hooks`, `_backward_hooks`, `_backward_pre_hooks`. Without them, there seem to
    be none: the trial of a graph may still show a difference.

    Example:
        >>> layer = torch.nn.Linear(1, 1)
        >>> before, _ = has_hooks(layer), layer.register_forward_hook(print)
        >>> before, has_hooks(layer)
        (False, True)
    """
    return any(bool(getattr(module, name, None)) for name in _MODULE_HOOKS)
