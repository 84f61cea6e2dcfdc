"""The arithmetic of the optimizers of `torch.optim`, for training steps that are one graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oncue.optimizers.adadelta import Adadelta
from oncue.optimizers.adagrad import Adagrad
from oncue.optimizers.adam import Adam, adam_numbers
from oncue.optimizers.adamax import Adamax
from oncue.optimizers.foreach import (
    Numbers,
    Rule,
    Slots,
    Tensors,
    add_scaled_,
    clamp_max_,
    clamp_min_,
    lerp_,
)
from oncue.optimizers.nadam import Nadam
from oncue.optimizers.rmsprop import RMSprop
from oncue.optimizers.sgd import SGD

Options = dict[str, Any]
"""A parameter group, with the numbers that the torch optimizer keeps of its parameters."""


def _zeros(key: str, parameter: Tensor, group: Options) -> Tensor | None:
    # A velocity of torch's SGD begins with the first gradient, which is what this gives without dampening.
    return torch.zeros_like(parameter, requires_grad=False)


def _nothing(options: Options, update: int) -> dict[str, float]:
    return {}


class TorchRule(NamedTuple):
    """How an update of a class of `torch.optim` is computed."""

    rule: Rule
    """One of oncue's own optimizers', or one that only torch has."""
    numbers: Callable[[Options, int], dict[str, float]]
    """Returns the numbers of an update, by the group's options and the number of the update, from 1."""
    slots: Callable[[Options], dict[str, str]]
    """Returns the names of the state that the group's options need: torch's by the rule's."""
    counts: bool = True
    """Whether it counts the updates of each parameter."""
    first: Callable[[str, Tensor, Options], Tensor | None] = _zeros
    """Returns the first state of a parameter by torch's name; None where that parameter has none of the name."""
    kept: Callable[[Options, int], dict[str, float]] = _nothing
    """Returns what it keeps as numbers of each parameter after an update of that number; 0 for what is there at first."""
    decays: bool = False
    """Whether the rule itself does the weight decay."""


# SGD --------------------------------------------------------------------------------------------------------------


def _sgd_numbers(group: Options, update: int) -> dict[str, float]:
    rate, momentum = float(group["lr"]), float(group["momentum"])
    if not momentum:
        return {"gradient_rate": -rate}
    # torch keeps the sum of gradients, and applies the present learning rate to it.
    numbers = {"momentum": momentum, "new_velocity": 1.0}
    if group["nesterov"]:
        return {**numbers, "velocity_rate": -rate * momentum, "gradient_rate": -rate}
    return {**numbers, "velocity_rate": -rate}


# Adam and AdamW -----------------------------------------------------------------------------------------------------


def _adam_numbers(group: Options, update: int) -> dict[str, float]:
    beta_1, beta_2 = group["betas"]
    return adam_numbers(update, float(group["lr"]), beta_1, beta_2, group["eps"], epsilon_hat=False)


_ADAM_SLOTS = {"momentum": "exp_avg", "velocity": "exp_avg_sq"}


def _adam_slots(group: Options) -> dict[str, str]:
    return {**_ADAM_SLOTS, "velocity_hat": "max_exp_avg_sq"} if group["amsgrad"] else _ADAM_SLOTS


# Adadelta, Adagrad, Adamax and RMSprop -----------------------------------------------------------------------------


def _adadelta_numbers(group: Options, update: int) -> dict[str, float]:
    rate, rho = float(group["lr"]), float(group["rho"])
    return {"rate": rate, "rho": rho, "new_square": 1.0 - rho, "epsilon": float(group["eps"])}


def _adamax_numbers(group: Options, update: int) -> dict[str, float]:
    beta_1, beta_2 = group["betas"]
    numbers = {"rate": float(group["lr"]) / (1.0 - beta_1**update), "new_momentum": 1.0 - beta_1, "beta_2": beta_2}
    return {**numbers, "epsilon": 0.0, "size_epsilon": float(group["eps"])}


def _adagrad_numbers(group: Options, update: int) -> dict[str, float]:
    rate = float(group["lr"]) / (1.0 + (update - 1) * float(group["lr_decay"]))
    return {"rate": rate, "epsilon": 0.0, "root_epsilon": float(group["eps"])}


def _rmsprop_numbers(group: Options, update: int) -> dict[str, float]:
    rate, rho, momentum = float(group["lr"]), float(group["alpha"]), float(group["momentum"])
    numbers = {"rho": rho, "new_square": 1.0 - rho, "epsilon": 0.0, "root_epsilon": float(group["eps"])}
    if not momentum:
        return {**numbers, "rate": rate}
    return {**numbers, "rate": 1.0, "momentum": momentum, "velocity_rate": rate}


def _rmsprop_slots(group: Options) -> dict[str, str]:
    slots = {"velocity": "square_avg"}
    if group["momentum"]:
        slots["momentum"] = "momentum_buffer"
    return {**slots, "average_gradient": "grad_avg"} if group["centered"] else slots


# NAdam and RAdam -----------------------------------------------------------------------------------------------------


def _nadam_momentum(options: Options, update: int) -> float:
    return float(options["betas"][0] * (1.0 - 0.5 * 0.96 ** (update * options["momentum_decay"])))


def _nadam_kept(options: Options, update: int) -> dict[str, float]:
    if not update:
        return {"mu_product": 1.0}
    # torch multiplies 32 bits by 32 bits, and a run that goes on from a file is to come to the same.
    return {"mu_product": float(np.float32(options["mu_product"]) * np.float32(_nadam_momentum(options, update)))}


def _nadam_numbers(options: Options, update: int) -> dict[str, float]:
    beta_1, beta_2 = options["betas"]
    rate, product = float(options["lr"]), _nadam_kept(options, update)["mu_product"]
    now, following = _nadam_momentum(options, update), _nadam_momentum(options, update + 1)
    return {
        "momentum_rate": rate * following / (1.0 - product * following),
        "gradient_rate": rate * (1.0 - now) / (1.0 - product),
        "correction": 1.0 - beta_2**update,
        "new_momentum": 1.0 - beta_1,
        "beta_2": beta_2,
        "new_square": 1.0 - beta_2,
        "epsilon": float(options["eps"]),
    }


def _radam_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
    Adam.update_rule(parameters, gradients, slots, numbers)
    add_scaled_(parameters, slots["momentum"], -numbers["plain_rate"])


def _radam_numbers(options: Options, update: int) -> dict[str, float]:
    beta_1, beta_2 = options["betas"]
    rate, kept = float(options["lr"]) / (1.0 - beta_1**update), beta_2**update
    longest = 2.0 / (1.0 - beta_2) - 1.0
    length = longest - 2.0 * update * kept / (1.0 - kept)
    numbers = {"new_momentum": 1.0 - beta_1, "beta_2": beta_2, "new_square": 1.0 - beta_2}
    if length <= 5.0:
        # The denominator, which doesn't count yet, must not be 0.
        return {**numbers, "rate": 0.0, "plain_rate": rate, "epsilon": 1.0}
    share = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
    adaptive = rate * math.sqrt(share * (1.0 - kept))
    return {**numbers, "rate": adaptive, "plain_rate": 0.0, "epsilon": float(options["eps"])}


# ASGD and Rprop ------------------------------------------------------------------------------------------------------


def _asgd_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
    torch._foreach_mul_(parameters, numbers["shrink"])
    add_scaled_(parameters, gradients, -numbers["rate"])
    lerp_(slots["average"], parameters, numbers["new_average"])


def _asgd_kept(options: Options, update: int) -> dict[str, float]:
    rate = float(options["lr"])
    if not update:
        return {"eta": rate, "mu": 1.0}
    eta = rate / (1.0 + options["lambd"] * rate * update) ** options["alpha"]
    return {"eta": eta, "mu": 1.0 / max(1.0, update - options["t0"])}


def _asgd_numbers(options: Options, update: int) -> dict[str, float]:
    # The rate of an update is computed after the one before it.
    rate = float(options["eta"])
    return {"rate": rate, "shrink": 1.0 - options["lambd"] * rate, "new_average": float(options["mu"])}


def _rprop_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
    for parameter, gradient, before, size in zip(
        parameters, gradients, slots["gradient_before"], slots["step_size"], strict=True
    ):
        product = gradient * before
        factor = torch.where(product < 0, numbers["smaller"], torch.where(product > 0, numbers["larger"], 1.0))
        size.mul_(factor)
        clamp_min_([size], numbers["least"])
        clamp_max_([size], numbers["most"])
        # Where the direction has turned, the weight waits for one update.
        before.copy_(torch.where(product < 0, 0.0, gradient))
        parameter.sub_(before.sign() * size)


def _rprop_numbers(options: Options, update: int) -> dict[str, float]:
    (smaller, larger), (least, most) = options["etas"], options["step_sizes"]
    return {"smaller": float(smaller), "larger": float(larger), "least": float(least), "most": float(most)}


def _rprop_first(key: str, parameter: Tensor, group: Options) -> Tensor:
    return torch.full_like(parameter, float(group["lr"]) if key == "step_size" else 0.0, requires_grad=False)


# Adafactor -----------------------------------------------------------------------------------------------------------


def _adafactor_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
    rows, columns, squares = [iter(slots.get(name, ())) for name in ("row", "column", "square")]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        least = numbers.get("least", torch.finfo(parameter.dtype).eps)
        rate = _root_mean_square(parameter).clamp_min(numbers["least_scale"]) * numbers["rate"]
        if "shrink" in numbers:
            parameter.mul_(numbers["shrink"])
        if parameter.dim() > 1:
            row, column = next(rows), next(columns)
            lerp_([row], [gradient.square().mean(-1, keepdim=True)], numbers["new_square"])
            lerp_([column], [gradient.square().mean(-2, keepdim=True)], numbers["new_square"])
            estimate = row @ column / row.mean(-2, keepdim=True).clamp_min(least)
        else:
            estimate = next(squares)
            lerp_([estimate], [gradient.square()], numbers["new_square"])
        change = gradient * estimate.clamp_min(least * least).rsqrt()
        parameter.sub_(change * (rate / (_root_mean_square(change) / numbers["most_change"]).clamp_min(1.0)))


def _root_mean_square(tensor: Tensor) -> Tensor:
    # A single number of 16 bits would round the whole update.
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).square().mean().sqrt()


def _adafactor_numbers(options: Options, update: int) -> dict[str, float]:
    rate, (least, least_scale) = float(options["lr"]), options["eps"]
    numbers = {
        "rate": min(rate, 1.0 / math.sqrt(update)),
        "new_square": float(update ** options["beta2_decay"]),
        "least_scale": float(least_scale),
        "most_change": float(options["d"]),
    }
    if least is not None:
        numbers["least"] = float(least)
    if options["weight_decay"]:
        numbers["shrink"] = 1.0 - rate * options["weight_decay"]
    return numbers


def _adafactor_first(key: str, parameter: Tensor, group: Options) -> Tensor | None:
    if (key == "variance") != (parameter.dim() <= 1):
        return None
    shape = list(parameter.shape)
    if key != "variance":
        shape[-1 if key == "row_var" else -2] = 1
    return parameter.detach().new_zeros(shape)


_ADAM = TorchRule(Adam.update_rule, _adam_numbers, _adam_slots)
TORCH_RULES: dict[type, TorchRule] = {
    torch.optim.SGD: TorchRule(
        SGD.update_rule,
        _sgd_numbers,
        lambda group: {"momentum": "momentum_buffer"} if group["momentum"] else {},
        counts=False,
    ),
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
    torch.optim.Adadelta: TorchRule(
        Adadelta.update_rule,
        _adadelta_numbers,
        lambda group: {"accumulated_grad": "square_avg", "accumulated_delta_var": "acc_delta"},
    ),
    torch.optim.Adamax: TorchRule(
        Adamax.update_rule, _adamax_numbers, lambda group: {"momentum": "exp_avg", "norm": "exp_inf"}
    ),
    torch.optim.Adagrad: TorchRule(Adagrad.update_rule, _adagrad_numbers, lambda group: {"accumulator": "sum"}),
    torch.optim.RMSprop: TorchRule(RMSprop.update_rule, _rmsprop_numbers, _rmsprop_slots),
    torch.optim.NAdam: TorchRule(Nadam.update_rule, _nadam_numbers, lambda group: _ADAM_SLOTS, kept=_nadam_kept),
    torch.optim.RAdam: TorchRule(_radam_rule, _radam_numbers, lambda group: _ADAM_SLOTS),
    torch.optim.ASGD: TorchRule(_asgd_rule, _asgd_numbers, lambda group: {"average": "ax"}, kept=_asgd_kept),
    torch.optim.Rprop: TorchRule(
        _rprop_rule,
        _rprop_numbers,
        lambda group: {"gradient_before": "prev", "step_size": "step_size"},
        first=_rprop_first,
    ),
    torch.optim.Adafactor: TorchRule(
        _adafactor_rule,
        _adafactor_numbers,
        lambda group: {"row": "row_var", "column": "col_var", "square": "variance"},
        first=_adafactor_first,
        decays=True,
    ),
}
"""The rules of the classes that have one."""
