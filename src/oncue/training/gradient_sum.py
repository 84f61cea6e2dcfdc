"""GradientSum: the gradients of all processes, summed in few messages, with what processes ask of each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oncue.core.warn import warn

if TYPE_CHECKING:
    from oncue.distribution.group import Group


_DIVIDED_FROM = 2_000_000
"""How many numbers gradients have at least where they are sent in several messages."""
_LEAST = 1 << 20
"""How many numbers a message has at least, but the last one."""
_MOST_MESSAGES = 4


def messages_of(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Return which parameters' gradients go in each message, by their places, in the order in which they are sent.

    The last parameters come first, as a backward pass begins with them. It is the same on all processes, because it follows
    from the parameters alone: one may run a graph where another runs eagerly.

    Args:
        parameters: The parameters.

    Returns:
        At least one message, which may be empty. Each has gradients of one type on one device; the last one has those that are
        like the first parameter's.

    Example:
        >>> messages_of([torch.zeros(2), torch.zeros(3)])
        [[0, 1]]
        >>> messages_of([torch.zeros(1 << 20) for _ in range(3)])
        [[2], [1], [0]]
    """
    divided = sum(p.numel() for p in parameters) >= _DIVIDED_FROM
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for place, parameter in enumerate(parameters):
        kinds.setdefault((parameter.dtype, parameter.device), []).append(place)
    messages: list[list[int]] = []
    for places in reversed(kinds.values()):
        least = max(_LEAST, math.ceil(sum(parameters[place].numel() for place in places) / _MOST_MESSAGES))
        of_kind: list[list[int]] = [[]]
        size = 0
        for place in reversed(places):
            if divided and size >= least:
                of_kind.append([])
                size = 0
            of_kind[-1].append(place)
            size += parameters[place].numel()
        messages += [sorted(message) for message in of_kind]
    return messages or [[]]


class GradientSum:
    """Sums the gradients of parameters over processes: as one flat tensor of its type, or several where they are many.

    Afterwards each `.grad` is a part of such a tensor, so that nothing is copied back. A parameter that got no gradient on any
    process has none afterwards; one that got it on some has their sum. The first of several messages may be sent before, while
    the backward pass goes on.

    torch's `DistributedDataParallel` isn't used: it takes means where one process wouldn't (sums, masks, weights, fewer rows
    at the end), wants a forward pass through itself, which a `train_step` of the user's doesn't make, and has no place for
    what processes ask of each other.

    Args:
        parameters: The parameters.
        extra: How many numbers ride along.
        group: The processes.
        late: Reads the numbers a step late; by default where the gradients are on a device that computes by itself.

    Attributes:
        is_late: Whether the numbers that were returned last are those of the step before.
    """

    def __init__(self, parameters: Sequence[Tensor], extra: int, group: Group, late: LateNumbers | None = None) -> None:
        self._parameters, self._group, self._extra = list(parameters), group, extra
        self._kinds = [(p.dtype, p.device) for p in self._parameters]
        self._messages = messages_of(self._parameters)
        self._flats: list[Tensor] = []
        # What waits for those that were sent in this step already.
        self._sent: list[Callable[[], None]] = []
        views: dict[int, Tensor] = {}
        for places in self._messages:
            # What rides along comes last: the numbers, the divisor, and how many are missing.
            more = extra + 2 if len(self._flats) == len(self._messages) - 1 else 0
            dtype, device = self._kinds[places[0]] if places else (torch.float32, torch.device("cpu"))
            length = sum(self._parameters[place].numel() for place in places) + more
            flat = torch.zeros(length, dtype=dtype, device=device)
            begin = 0
            for place in places:
                parameter = self._parameters[place]
                view = flat[begin : begin + parameter.numel()]
                # As the parameter lies in memory: the kernels of some optimizers go by that.
                views[place] = torch.as_strided(view, parameter.shape, _dense_strides(parameter), view.storage_offset())
                begin += parameter.numel()
            self._flats.append(flat)
        self._views = [views[place] for place in range(len(self._parameters))]
        self._parts = [[views[place] for place in places] for places in self._messages]
        self._tail = self._flats[-1][-(extra + 2) :]
        on_host = self._tail.device.type == "cpu" and self._tail.dtype in (torch.float32, torch.float64)
        # A write through NumPy's view costs a tenth of one through torch.
        self._written = self._tail.numpy() if on_host else None
        self.is_late = False
        self._late = LateNumbers(extra + 2) if late is None and self._tail.is_cuda else late
        # Which gradients there are on any process, None for all, and by which number that is known; since the first step where
        # later ones aren't waited for.
        self._get: list[bool] | None = None
        self._lacking = 0.0

    def suits(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether it was made for these parameters, as they are."""
        mine = self._parameters
        same = len(parameters) == len(mine) and all(map(is_, parameters, mine))
        return same and [(p.dtype, p.device) for p in parameters] == self._kinds

    @torch.no_grad()
    def __call__(
        self, numbers: Sequence[float], scale: float = 1.0, divisor: Tensor | None = None
    ) -> tuple[list[float], float | Tensor]:
        """Sum the gradients, in place of each `.grad`.

        Args:
            numbers: The numbers of this process that ride along.
            scale: What its gradients are multiplied with before.
            divisor: This process's part of what the sums are divided by; None for nothing.

        Returns:
            The sums of the numbers, where `is_late` those of the step before; and what was divided by, 1 for nothing.
        """
        gradients = [parameter.grad for parameter in self._parameters]
        # Not by `count`, which would compare each tensor with None by torch's `==`.
        missing = [place for place, gradient in enumerate(gradients, 1) if gradient is None]
        for number in range(len(self._sent), len(self._messages) - 1):
            self.send(number, dict(enumerate(gradients)), scale)
        self._fill(-1, [gradients[place] for place in self._messages[-1]], scale)
        # By which are missing, not by how many, another pattern is known.
        self._write(numbers, divisor, float(sum(missing)))
        sent, self._sent = self._sent, []
        self._group.sum_(self._flats[-1])
        for wait in sent:
            wait()
        divided: float | Tensor = 1.0
        self.is_late = self._late is not None and self._get is not None
        if self.is_late:
            sums = self._sums_of_before(len(numbers))
            if divisor is not None:
                total = self._tail[-2]
                divided = torch.where(total == 0, torch.ones_like(total), total)
        else:
            *sums, total_read, lacking = self._group.read(self._tail)
            divided = total_read if divisor is not None and total_read else 1.0
            self._lacking, self._get = lacking, None
            if lacking:
                # Rare: a layer that some batch doesn't use. All processes know that some gradient is missing somewhere.
                have = torch.tensor([gradient is not None for gradient in gradients], dtype=torch.float32)
                self._get = self._group.sum_(have).bool().tolist()
            elif self._late is not None:
                self._get = [True] * len(gradients)
        if isinstance(divided, Tensor) or divided != 1.0:
            for flat in self._flats:
                flat.div_(divided)
        for place, (parameter, view) in enumerate(zip(self._parameters, self._views, strict=True)):
            parameter.grad = view if self._get is None or self._get[place] else None
        return sums, divided

    @torch.no_grad()
    def send(self, number: int, gradients: Mapping[int, Tensor | None], scale: float = 1.0) -> None:
        """Begin to sum the gradients of a message that isn't the last one, in the order of `messages_of`.

        Args:
            number: Which one it is.
            gradients: Those that there are, by the places of their parameters; it takes its own.
            scale: What they are multiplied with before.
        """
        assert number == len(self._sent), "messages are sent in one order on all processes"
        self._fill(number, [gradients.get(place) for place in self._messages[number]], scale)
        self._sent.append(self._group.begin_sum(self._flats[number]))

    def _fill(self, number: int, gradients: Sequence[Tensor | None], scale: float) -> None:
        views = self._parts[number]
        missing = [view for view, gradient in zip(views, gradients, strict=True) if gradient is None]
        if missing:
            torch._foreach_zero_(missing)
            views = [view for view, gradient in zip(views, gradients, strict=True) if gradient is not None]
        if views:
            torch._foreach_copy_(views, [_dense(gradient) for gradient in gradients if gradient is not None])
            if scale != 1.0:
                torch._foreach_mul_(views, scale)

    @property
    def is_divided(self) -> bool:
        """Whether there are several messages."""
        return len(self._messages) > 1

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send each message but the last one as soon as the backward pass in the block has its gradients."""
        early = [[self._parameters[place] for place in places] for places in self._messages[:-1]]
        # Of one that isn't trained nothing arrives.
        trained = [[parameter for parameter in each if parameter.requires_grad] for each in early]
        awaited = [set(map(id, each)) for each in trained]

        def arrived(parameter: Tensor) -> None:
            for each in awaited:
                each.discard(id(parameter))
            while (number := len(self._sent)) < len(awaited) and not awaited[number]:
                self.send(number, {place: self._parameters[place].grad for place in self._messages[number]})

        hooks = [
            one.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]
            for each in trained
            for one in each
        ]
        try:
            yield
        except BaseException:
            self.forget()
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def forget(self) -> None:
        """Forget what was sent in a step that has failed."""
        self._sent = []

    def _sums_of_before(self, count: int) -> list[float]:
        """Return what the numbers were in the step before, which the device is done with: no step waits for itself."""
        assert self._late is not None
        found = self._late.exchange(self._tail, self._group)
        if found is None:
            return [0.0] * count
        *sums, _, lacking = found
        if lacking != self._lacking:
            self._late = None
            warn(
                "Which weights get a gradient has changed from one step to another. In the step before this one, those without "
                "one were updated by a gradient of zeros, and new ones were left out; from here on each step waits for the "
                "processes, and updates as one process would."
            )
        return sums

    def _write(self, numbers: Sequence[float], divisor: Tensor | None, missing: float) -> None:
        if self._written is not None:
            self._written[:] = [*numbers, 0.0 if divisor is None else float(divisor), missing]
            return
        self._tail.copy_(torch.tensor([*numbers, 0.0, missing]))
        if divisor is not None:
            self._tail[-2:-1].copy_(divisor.reshape(1))


class LateNumbers:
    """Numbers on a device, read when the next ones are there: by then the device is done with them.

    Args:
        length: How many.
        make_event: Makes what `record` puts behind all that a stream has to do, and what `synchronize` waits for.

    Example:
        >>> class Event:
        ...     def record(self, stream): pass
        ...     def synchronize(self): pass
        >>> late = LateNumbers(1, Event)
        >>> late.exchange(torch.ones(1)), late.exchange(torch.zeros(1))
        (None, [1.0])
    """

    def __init__(self, length: int, make_event: Callable[[], Any] = torch.cuda.Event) -> None:
        pinned = torch.cuda.is_available()
        self._pairs = [(torch.zeros(length, pin_memory=pinned), make_event()) for _ in range(2)]
        self._given = 0

    def exchange(self, numbers: Tensor, group: Group | None = None) -> list[float] | None:
        """Take numbers, and return those before; None for the first ones.

        Args:
            numbers: The numbers on the device.
            group: The processes, which are told what this one waits for.
        """
        host, event = self._pairs[self._given % 2]
        host.copy_(numbers, non_blocking=True)
        # Where the copy is, which needn't be on the current device.
        event.record(torch.cuda.current_stream(numbers.device) if numbers.is_cuda else None)
        self._given += 1
        if self._given == 1:
            return None
        before, done = self._pairs[self._given % 2]
        if group is None:
            done.synchronize()
        else:
            group.wait(done.synchronize)
        found: list[float] = before.tolist()
        return found


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """Return strides in the order of the tensor's own, without gaps."""
    order = sorted(range(tensor.ndim), key=lambda axis: (tensor.stride(axis), -axis))
    strides, step = [0] * tensor.ndim, 1
    for axis in order:
        strides[axis] = step
        step *= tensor.shape[axis]
    return tuple(strides)
