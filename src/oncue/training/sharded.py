"""Sharded models: each process keeps a part of every weight, by torch's `fully_shard`, which gathers them layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from oncue.core.builtin import is_builtin, stands_for
from oncue.layers.layer import Layer
from oncue.regularizers import L1, L1L2, L2
from oncue.shards import gathering, is_sharded, parts_of, run, summing
from oncue.torch_private import children_of, tensor_tables

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer

_CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
_ADDED_UP = (L1, L2, L1L2)
"""The penalties of which those of the parts of a weight add up to that of the weight."""


class Shards:
    """The parts of a model whose weights are sharded, for a run.

    torch takes means of gradients over processes; here they are summed, as the losses of the processes are parts of one. The
    messages of torch's engine go through the run's own, so that a process which fails ends those that wait for it.

    Args:
        model: A model of which at least a part is sharded.

    Attributes:
        scale: What this process's gradients are multiplied with before they are summed.
    """

    def __init__(self, model: Trainer) -> None:
        self.scale = 1.0
        self._begun = False
        self._sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
        self._parameters = [parameter for parameter in model.parameters() if is_sharded(parameter)]
        check(model)
        gather, scatter = _Gather(self), _Sum(self)
        for module in self._sharded:
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
            # The classes that torch wants are private; it calls these two, and `allocate`.
            module.set_custom_all_gather(gather)  # type: ignore[arg-type]
            module.set_custom_reduce_scatter(scatter)  # type: ignore[arg-type]
        inside = {id(part) for module in self._sharded for part in module.modules() if part is not module}
        self._roots = [module for module in self._sharded if id(module) not in inside]
        with _weights_unshown(model):
            # torch's engine looks at the attributes of its modules once, before the first pass: where layers show Variables.
            for module in self._sharded:
                module.unshard()
                module.reshard()
        self._begun = False

    def begin(self) -> None:
        """Take note of a pass, which may fail before its end."""
        self._begun = True

    @classmethod
    def of(cls, model: Trainer) -> Shards | None:
        """Return those of a model; None where no part of it is sharded."""
        return cls(model) if any(isinstance(module, FSDPModule) for module in model.modules()) else None

    def suits(self, model: Trainer) -> bool:
        """Return whether the model has the same sharded parts."""
        found = [module for module in model.modules() if isinstance(module, FSDPModule)]
        return len(found) == len(self._sharded) and all(map(_is, found, self._sharded))

    def reshard(self) -> None:
        """Let go of weights that a forward pass alone has gathered: what is read or set afterwards is a shard."""
        for module in self._sharded:
            module.reshard()

    def give_up(self) -> None:
        """Forget a step that has failed, and have shards again."""
        for module in self._roots if self._begun else ():
            module.reset_iter_state()

    def divide(self, divisor: float | Tensor) -> None:
        """Divide the gradients."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if gradients:
            torch._foreach_div_(parts_of(gradients), divisor)


@contextmanager
def _weights_unshown(model: torch.nn.Module) -> Iterator[None]:
    """Let the attributes of layers be torch's parameters in the block, and not the Variables that show them."""
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    shown = [(layer, dict(layer._variables)) for layer in layers]
    for layer, variables in shown:
        for name in variables:
            layer.__dict__.pop(name, None)
    try:
        yield
    finally:
        for layer, variables in shown:
            layer.__dict__.update(variables)


class _Gather:
    """How torch's engine gathers weights: as by default, but not for ever when another process has failed."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> dist.Work | None:
        def begin() -> Any:
            return gathering(output_tensor, input_tensor, group=group, async_op=True)

        self._shards.begin()
        if async_op:
            work: dist.Work = begin()
            return work
        run(begin, "the weights of a layer", output_tensor)
        return None


class _Sum:
    """How torch's engine sums gradients."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> dist.Work | None:
        if self._shards.scale != 1.0:
            input_tensor.mul_(self._shards.scale)

        def begin() -> Any:
            return summing(output_tensor, input_tensor, op=op, group=group, async_op=True)

        if async_op:
            work: dist.Work = begin()
            return work
        run(begin, "the gradients of a layer", input_tensor)
        return None


def shard(model: Trainer, least: int) -> None:
    """Shard the weights of a built model over the processes, in the place of the whole ones.

    Each layer whose weights have many numbers is gathered by itself; the others together with the model. So they come to the
    device, too: one layer after the other, of which only this process's part stays there.

    Args:
        model: The model, the same on all processes.
        least: How many numbers a layer of its own has at least.

    Raises:
        ValueError: With the name of what can't be computed on shards.
    """
    root = _root_of(model)
    units = _units(root, least)
    _check_types(root, units)
    device = model.device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # torch has no parts of a single number.
    single = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    for parameter in model.parameters():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
    for module in (*units, root):
        kind = type(module)
        move(module, device)
        fully_shard(module, mesh=mesh, ignored_params=single)
        # torch makes a class of the module's own, which would be seen in files, tables and messages.
        stands_for(type(module), kind)
    move(model, device)


def move(model: torch.nn.Module, device: torch.device) -> None:
    """Move what isn't sharded of a model to a device.

    Weights that can be sharded are others there: what still refers to those of before keeps no memory.

    Args:
        model: The model, or a part of it.
        device: The device.
    """
    moved: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for table in (table for module in model.modules() for table in tensor_tables(module)):
        for name, tensor in table.items():
            if tensor is None or is_sharded(tensor):
                continue
            if not isinstance(tensor, torch.nn.Parameter):
                table[name] = tensor.to(device)
            elif tensor.ndim == 0:
                tensor.data = tensor.data.to(device)
            elif tensor in moved:
                table[name] = moved[tensor]
            else:
                table[name] = moved[tensor] = torch.nn.Parameter(tensor.detach().to(device), tensor.requires_grad)
    for before in moved:
        # The optimizer still has it, until it gets the shards.
        before.data, before.grad = before.new_empty(0), None


def _root_of(model: Trainer) -> torch.nn.Module:
    inner = children_of(model).get("module")
    return model if inner is None else inner


def _units(root: torch.nn.Module, least: int) -> list[torch.nn.Module]:
    """Return the modules that are gathered by themselves, what is inside before what is outside."""
    owners: dict[int, int] = {}
    candidates = list(_candidates(root))
    for unit in candidates:
        for number in {id(parameter) for parameter in unit.parameters()}:
            owners[number] = owners.get(number, 0) + 1
    found: list[torch.nn.Module] = []
    taken: set[int] = set()
    # What is gathered together is of one type.
    types = Counter(one.dtype for one in root.parameters())
    usual = max(types, key=types.__getitem__, default=None)
    inside: dict[int, set[int]] = {id(unit): {id(one) for one in unit.modules()} for unit in candidates}
    for unit in candidates:
        own = {id(one): one for one in unit.parameters() if id(one) not in taken}
        # Weights that several layers share, side by side, are gathered with the model.
        around = sum(id(unit) in inside[id(other)] for other in candidates)
        shared = any(owners[number] > around for number in own)
        size = sum(one.numel() for one in own.values() if one.ndim)
        of_another_type = size > 0 and all(one.dtype != usual for one in own.values())
        if not shared and (size >= max(least, 1) or of_another_type):
            found.append(unit)
            taken |= own.keys()
    return found


def _check_types(root: torch.nn.Module, units: Sequence[torch.nn.Module]) -> None:
    """Refuse weights of several types that torch would have to gather together.

    Raises:
        ValueError: With the names of two of them.
    """
    names = {id(one): name for name, one in root.named_parameters()}
    taken: set[int] = set()
    for unit in (*units, root):
        own = [one for one in unit.parameters() if id(one) not in taken and one.requires_grad and one.ndim]
        taken |= {id(one) for one in own}
        first = {one.dtype: names[id(one)] for one in reversed(own)}
        if len(first) > 1:
            listed = " and ".join(f"`{name}` is of {dtype}" for dtype, name in first.items())
            raise ValueError(
                "`DataParallel(shard_weights=True)` needs weights of one type in each layer, and in what is in no layer: "
                f"{listed}. Give the layer one `dtype`, or leave `shard_weights` out."
            )


def _candidates(module: torch.nn.Module, listed: bool = True) -> Iterator[torch.nn.Module]:
    """Give the layers of a model: what is directly in it, and in containers and models at any depth; the innermost first.

    What is elsewhere inside a layer may be read by the layer itself, without a call that torch's engine would see.
    """
    for child in module.children():
        holds = isinstance(child, _CONTAINERS) or _holds_layers(child)
        yield from _candidates(child, holds)
        if listed and not holds:
            yield child


def _holds_layers(module: torch.nn.Module) -> bool:
    return isinstance(module, Layer) and module._holds_layers and not _overrides_call(module)


def _overrides_call(module: Layer) -> bool:
    owner = next(kind for kind in type(module).__mro__ if "call" in vars(kind))
    return not is_builtin(owner)


def check(model: Trainer) -> None:
    """Refuse by name what would be computed wrongly, or not at all, on shards."""
    for name, module in model.named_modules():
        if not isinstance(module, Layer):
            continue
        if not module.can_be_sharded:
            raise ValueError(
                f"`DataParallel(shard_weights=True)` can't shard the weights of {name or 'the model'}, a "
                f"{type(module).__name__}, which are those of another library. Leave `shard_weights` out: then each process "
                "has all weights."
            )
        for attribute, penalty in module._regularizers.items():
            if type(penalty) not in _ADDED_UP:
                raise ValueError(
                    f"The penalty on `{name}.{attribute}`, {type(penalty).__name__}, needs the whole weight, of which each "
                    "process has a part with `DataParallel(shard_weights=True)`. Use 'l1', 'l2' or 'l1_l2'; or leave "
                    "`shard_weights` out."
                )
                if "compute_loss" in model._overridden():
                    raise ValueError(
                        f"`{type(model).__name__}.compute_loss` would count the penalty on `{name}.{attribute}` by the rows of "
                        "each process, which have parts of the weight with `DataParallel(shard_weights=True)`. Leave out the "
                        "penalty, `compute_loss` or `shard_weights`."
                    )


def _is(one: object, other: object) -> bool:
    return one is other
