"""What other loops can't give to callbacks, and what to use there instead."""

from __future__ import annotations

from oncue.core.needs import Lacks

_WEIGHTS = "save the weights, with `save_weights_only=True` and a `filepath` that ends in '.safetensors'."
_OF_A_MODULE = {
    "whole_model": f"But it can {_WEIGHTS}",
    "weights_h5": "Give a `filepath` that ends in '.safetensors', which every library reads.",
    "average": "Use `torch.optim.swa_utils.AveragedModel`.",
}

_IN_THE_LOADER = "Change batches in the `collate_fn` of the loader, as with `torchvision.transforms.v2.MixUp`."

LOOP = Lacks(
    "a loop of your own",
    {
        **_OF_A_MODULE,
        "batches": "Change each batch yourself, after `run.batches(loader)` has given it.",
        "average": "Use `torch.optim.swa_utils.AveragedModel`, and name it in `keep=[...]`.",
    },
)
KERAS = Lacks(
    "Keras's own loop",
    {
        "batches": _IN_THE_LOADER,
        "run_state": "Give the adapter a `keras.callbacks.BackupAndRestore(folder)`; or use oncue's loop, with "
        "`oncue.Model(keras_model)`.",
        "average": "Use `keras.callbacks.SwapEMAWeights`.",
        "background_save": "Leave out `asynchronous=True`.",
    },
)
LIGHTNING = Lacks(
    "Lightning's Trainer",
    {
        **_OF_A_MODULE,
        "batches": _IN_THE_LOADER,
        "whole_model": f"Its own `ModelCheckpoint` writes whole checkpoints; or {_WEIGHTS}",
        "run_state": "Its own checkpoints have the state of oncue's callbacks: `trainer.fit(model, ckpt_path='last')`.",
        "average": "Use `lightning.pytorch.callbacks.EMAWeightAveraging`.",
    },
)
TRANSFORMERS = Lacks(
    "transformers' Trainer",
    {
        **_OF_A_MODULE,
        "batches": _IN_THE_LOADER,
        "whole_model": f"Its own `save_strategy` writes whole checkpoints; or {_WEIGHTS}",
        "run_state": "Its own checkpoints have the state of oncue's callbacks: `trainer.train(resume_from_checkpoint=True)`.",
        "batch_values": "It tells callbacks the loss only now and then, and leaves out what isn't finite: set "
        "`logging_nan_inf_filter=False`, and watch `loss` by the epoch, with `EarlyStopping('loss')`.",
        "average": "Keep one in a `TrainerCallback` of your own, with `torch.optim.swa_utils.AveragedModel`.",
        "around_validation": "Keep an average in a `TrainerCallback` of your own, with "
        "`torch.optim.swa_utils.AveragedModel`.",
    },
)
IGNITE = Lacks(
    "an engine of Ignite",
    {
        **_OF_A_MODULE,
        "batches": _IN_THE_LOADER,
        "run_state": "Ignite's own `Checkpoint` has the state of oncue's callbacks: `to_save={\"callbacks\": adapter, ...}`.",
        "average": "Use `ignite.handlers.EMAHandler`.",
        "around_validation": "Use `ignite.handlers.EMAHandler`.",
    },
)
SKORCH = Lacks(
    "skorch's net",
    {
        **_OF_A_MODULE,
        "batches": _IN_THE_LOADER,
        "around_validation": "Use `torch.optim.swa_utils.AveragedModel`.",
        "run_state": "Use `skorch.callbacks.Checkpoint` with `LoadInitState`, without the state of oncue's callbacks.",
    },
)
POUTYNE = Lacks(
    "Poutyne's Model",
    {
        **_OF_A_MODULE,
        "batches": _IN_THE_LOADER,
        "around_validation": "Use `torch.optim.swa_utils.AveragedModel`.",
        "run_state": "Use `poutyne.Experiment`, without the state of oncue's callbacks.",
    },
)
SPREAD = Lacks(
    "a module whose weights are spread over processes",
    {
        **dict.fromkeys(
            ("whole_model", "weights_h5", "safetensors", "run_state"),
            "Use the checkpoints of the loop's own library, or `torch.distributed.checkpoint`.",
        ),
        "numbers": "Leave `histogram_freq` and `weights_freq` at 0.",
    },
)
