"""The functions of the `backend` of Keras 1 and 2, and the functions and types of TensorFlow that stood beside Keras."""

from __future__ import annotations

from oncue.legacy.words import KERAS_1, KERAS_2, TENSORFLOW, Old, Refused, since

_FUNCTIONS = "oncue.legacy.backend_functions"
_SAME_IN_OPS = (
    "abs all any arange argmax argmin cast clip concatenate cos cumprod cumsum dot equal exp expand_dims eye greater "
    "greater_equal less less_equal log logsumexp max maximum mean min minimum ndim not_equal one_hot ones ones_like "
    "prod relu repeat reshape round shape sigmoid sign sin softmax softplus softsign sqrt square squeeze stack std "
    "stop_gradient sum tanh tile transpose var zeros zeros_like elu in_top_k hard_sigmoid binary_crossentropy "
    "categorical_crossentropy sparse_categorical_crossentropy switch dtype is_tensor"
).split()

BACKEND: dict[str, Old] = {
    **since(KERAS_1, {name: f"ops.{name}" for name in _SAME_IN_OPS}),
    **since(
        KERAS_1,
        {
            "batch_dot": "ops.einsum",
            "batch_flatten": "ops.reshape",
            "batch_get_value": "model.get_weights",
            "batch_set_value": "model.set_weights",
            "bias_add": "ops.add",
            "constant": "ops.convert_to_tensor",
            "count_params": "ops.size",
            "dropout": "random.dropout",
            "eval": "ops.convert_to_numpy",
            "flatten": "ops.ravel",
            "function": "Model(inputs, outputs)",
            "gather": "ops.take",
            "image_dim_ordering": "backend.image_data_format",
            "in_test_phase": "training",
            "in_train_phase": "training",
            "int_shape": "ops.shape",
            "l2_normalize": "ops.normalize",
            "learning_phase": "training",
            "permute_dimensions": "ops.transpose",
            "pow": "ops.power",
            "random_binomial": "random.binomial",
            "random_normal": "random.normal",
            "random_normal_variable": "Variable",
            "random_uniform": "random.uniform",
            "random_uniform_variable": "Variable",
            "repeat_elements": "ops.repeat",
            "reverse": "ops.flip",
            "set_image_dim_ordering": "config.set_image_data_format",
            "set_learning_phase": "training",
            "spatial_2d_padding": "ops.pad",
            "temporal_padding": "ops.pad",
            "update": "Variable.assign",
            "update_add": "Variable.assign_add",
            "update_sub": "Variable.assign_sub",
            "variable": "Variable",
        },
    ),
    **since(
        KERAS_2,
        {
            "cast_to_floatx": "ops.cast",
            "manual_variable_initialization": None,
            "name_scope": "name_scope",
            "reset_uids": "backend.clear_session",
            "truncated_normal": "random.truncated_normal",
            "random_bernoulli": "random.binomial",
        },
    ),
}
"""From the name of a function in `keras.backend` to today's; the functions are those of `backend_functions`."""

BACKEND_REFUSED: dict[str, Refused] = {
    **dict.fromkeys(
        ("get_session", "set_session"),
        Refused(KERAS_1, "there are no sessions", "Leave it out; torch takes memory of a GPU as it needs it."),
    ),
    "gradients": Refused(
        KERAS_1,
        "it made a graph of gradients",
        "Use torch's autograd: `torch.autograd.grad(outputs, inputs)` on tensors with `requires_grad`.",
    ),
    "placeholder": Refused(KERAS_1, "there are no placeholders", "Use `Input(shape)`, or pass a tensor to a function."),
    "rnn": Refused(
        KERAS_1, "loops over time are layers", "Use `layers.RNN(cell)`, or a loop of Python over the steps."
    ),
    **dict.fromkeys(
        ("scan", "map_fn", "foldl", "foldr"),
        Refused(KERAS_1, "loops are Python's", "Use a loop of Python over the first axis, and `torch.stack`."),
    ),
    **dict.fromkeys(
        ("ctc_batch_cost", "ctc_decode", "ctc_label_dense_to_sparse"),
        Refused(
            KERAS_1,
            "its arguments were TensorFlow's",
            "Use the loss `losses.CTC()`, or `ops.ctc_loss` and `ops.ctc_decode`.",
        ),
    ),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "pool2d", "pool3d", "separable_conv2d", "depthwise_conv2d", "conv2d_transpose"),
        Refused(
            KERAS_1,
            "its arguments were TensorFlow's",
            "Use a layer, such as `layers.Conv2D`, or `ops.conv` and `ops.max_pool`.",
        ),
    ),
    **dict.fromkeys(
        ("normalize_batch_in_training", "batch_normalization"),
        Refused(
            KERAS_1, "its arguments were TensorFlow's", "Use `layers.BatchNormalization`, or `ops.batch_normalization`."
        ),
    ),
    **dict.fromkeys(
        ("to_dense", "is_sparse"),
        Refused(
            KERAS_1,
            "tensors are dense here",
            "Leave it out, or use torch's `tensor.to_dense()` and `tensor.is_sparse`.",
        ),
    ),
    "print_tensor": Refused(KERAS_1, "nothing waits in a graph", "Use `print(tensor)`."),
}
"""Functions of `keras.backend` that can't be honoured."""


_TENSORFLOW_FUNCTIONS = {
    "abs": "abs", "add": "add", "argmax": "argmax", "argmin": "argmin", "cast": "cast", "clip_by_value": "clip",
    "concat": "concatenate", "constant": "constant", "convert_to_tensor": "constant", "equal": "equal", "exp": "exp",
    "expand_dims": "expand_dims", "eye": "eye", "gather": "gather", "greater": "greater", "identity": "identity",
    "less": "less", "matmul": "matmul", "maximum": "maximum", "minimum": "minimum", "one_hot": "one_hot", "ones": "ones",
    "ones_like": "ones_like", "pow": "pow", "range": "arange", "reduce_all": "all", "reduce_any": "any",
    "reduce_max": "max", "reduce_mean": "mean", "reduce_min": "min", "reduce_prod": "prod", "reduce_sum": "sum",
    "reshape": "reshape", "round": "round", "shape": "shape", "sigmoid": "sigmoid", "sqrt": "sqrt", "square": "square",
    "squeeze": "squeeze", "stack": "stack", "stop_gradient": "stop_gradient", "subtract": "subtract", "tanh": "tanh",
    "tile": "tile", "transpose": "transpose", "where": "where", "zeros": "zeros", "zeros_like": "zeros_like",
    "math.abs": "abs", "math.argmax": "argmax", "math.cos": "cos", "math.equal": "equal", "math.exp": "exp",
    "math.log": "log", "math.maximum": "maximum", "math.minimum": "minimum", "math.pow": "pow", "math.reduce_max": "max",
    "math.reduce_mean": "mean", "math.reduce_min": "min", "math.reduce_std": "std", "math.reduce_sum": "sum",
    "math.reduce_variance": "var", "math.round": "round", "math.sigmoid": "sigmoid", "math.sin": "sin",
    "math.sqrt": "sqrt", "math.square": "square", "math.tanh": "tanh", "nn.elu": "elu", "nn.l2_normalize": "l2_normalize",
    "nn.relu": "relu", "nn.sigmoid": "sigmoid", "nn.softmax": "softmax", "nn.softplus": "softplus", "nn.tanh": "tanh",
    "math.multiply": "multiply", "multiply": "multiply", "divide": "divide", "math.divide": "divide",
    "random.normal": "random_normal", "random.uniform": "random_uniform",
}  # fmt: skip
_OTHERS = {
    "config.experimental.list_physical_devices": "list_physical_devices",
    "config.experimental.set_memory_growth": "set_memory_growth",
    "config.list_physical_devices": "list_physical_devices",
    "config.run_functions_eagerly": "run_functions_eagerly",
    "executing_eagerly": "executing_eagerly",
    "get_logger": "get_logger",
    "test.gpu_device_name": "gpu_device_name",
    "test.is_built_with_cuda": "is_built_with_cuda",
    "test.is_gpu_available": "is_gpu_available",
}
_TODAY = {
    "list_physical_devices": "torch.cuda.device_count",
    "is_gpu_available": "torch.cuda.is_available",
    "gpu_device_name": "oncue.backend.device",
    "is_built_with_cuda": "torch.cuda.is_available",
    "set_memory_growth": None,
    "executing_eagerly": None,
    "run_functions_eagerly": None,
    "get_logger": "logging.getLogger",
}
_TYPES = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "string")

TENSORFLOW_NAMES: dict[str, Old] = {
    **{
        f"oncue.{old}": Old(
            (f"oncue.{'random' if name.startswith('random') else 'ops'}.{name.removeprefix('random_')}"),
            TENSORFLOW,
            f"{_FUNCTIONS}.{name}",
        )
        for old, name in _TENSORFLOW_FUNCTIONS.items()
    },
    **{
        f"oncue.{old}": Old(_TODAY[name], TENSORFLOW, f"oncue.legacy.tensorflow_functions.{name}")
        for old, name in _OTHERS.items()
    },
    **{
        f"oncue.{old}": Old("oncue.utils.set_random_seed", TENSORFLOW, "oncue.utils.set_random_seed")
        for old in ("random.set_seed", "random.set_random_seed", "set_random_seed")
    },
    **{
        f"oncue.{name}": Old(f'"{name}"', TENSORFLOW, f"oncue.legacy.tensorflow_functions.{name}")
        for name in _TYPES
        if name != "bool"
    },
    **{
        f"oncue.data.{name}": Old("torch.utils.data", TENSORFLOW, f"oncue.legacy.tf_data.{name}")
        for name in ("AUTOTUNE", "Dataset", "experimental")
    },
    "oncue.Tensor": Old("torch.Tensor", TENSORFLOW, "torch.Tensor"),
}
"""From a name of TensorFlow, with `oncue` for `tensorflow`, to today's; the functions stand in `legacy`."""

_DATA = Refused(
    TENSORFLOW, "it belongs to TensorFlow", "Use `oncue.data.Dataset.from_tensor_slices`, or torch's `DataLoader`."
)

TENSORFLOW_REFUSED: dict[str, Refused] = {
    "oncue.GradientTape": Refused(
        TENSORFLOW,
        "gradients are torch's",
        "Use torch's autograd: `loss.backward()`, or `torch.autograd.grad`; in `train_step`, `self.zero_grad()`, "
        "`loss.backward()` and `self.optimizer.apply([w.grad ...], weights)`.",
    ),
    "oncue.function": Refused(
        TENSORFLOW, "functions need no graph here", "Leave it out; `compile(jit_compile=True)` compiles whole steps."
    ),
    "oncue.Module": Refused(TENSORFLOW, "modules are torch's", "Use `torch.nn.Module`, or `Layer`."),
    "oncue.Graph": Refused(TENSORFLOW, "there are no graphs to fill", "Leave it out."),
    **dict.fromkeys(
        ("oncue.Session", "oncue.ConfigProto", "oncue.InteractiveSession", "oncue.get_default_graph"),
        Refused("TensorFlow 1", "there are no sessions", "Leave it out; torch takes memory of a GPU as it needs it."),
    ),
    "oncue.compat": Refused(
        "TensorFlow 1",
        "the ways of TensorFlow 1 are not here",
        "Use the names without `compat.v1`, or leave the call out.",
    ),
    "oncue.distribute": Refused(
        TENSORFLOW, "several processes are torch's", "Start the script by `torchrun`: docs/many_processes.md."
    ),
    "oncue.saved_model": Refused(
        TENSORFLOW, "SavedModel is TensorFlow's format", "Use `model.save('model.keras')`, or `torch.export`."
    ),
    "oncue.lite": Refused(TENSORFLOW, "it is TensorFlow's format", "Use `torch.export`, or ExecuTorch."),
    "oncue.train": Refused(
        TENSORFLOW,
        "it writes TensorFlow's files",
        "Use `callbacks.ModelCheckpoint` or `callbacks.BackupAndRestore`; optimizers are in `optimizers`.",
    ),
    "oncue.summary": Refused(
        TENSORFLOW,
        "it writes TensorFlow's files",
        "Use `callbacks.TensorBoard`, or torch's `torch.utils.tensorboard.SummaryWriter`.",
    ),
    **dict.fromkeys(
        ("oncue.estimator", "oncue.feature_column"),
        Refused(TENSORFLOW, "TensorFlow has taken it out too", "Use a model, and `layers.Normalization` for features."),
    ),
    "oncue.image": Refused(
        TENSORFLOW, "pictures are Keras's or torchvision's", "Use `ops.image`, `torchvision.transforms`, or Pillow."
    ),
    "oncue.io": Refused(TENSORFLOW, "files are Python's", "Use `open`, Pillow, or `utils.load_img`."),
    "oncue.strings": Refused(TENSORFLOW, "tensors hold no text", "Use Python's `str` before the text becomes numbers."),
    "oncue.linalg": Refused(TENSORFLOW, "it is torch's", "Use `torch.linalg`, or `ops.linalg`."),
    "oncue.device": Refused(
        TENSORFLOW, "it is torch's", "Use `oncue.backend.set_device('cuda:0')` before the model is made."
    ),
    "oncue.debugging": Refused(
        TENSORFLOW, "it is torch's", "Use `torch.testing`, or `torch.autograd.detect_anomaly()`."
    ),
    "oncue.py_function": Refused(TENSORFLOW, "functions are Python's here", "Call the function itself."),
    "oncue.numpy_function": Refused(TENSORFLOW, "functions are Python's here", "Call the function itself."),
    "oncue.RaggedTensor": Refused(TENSORFLOW, "it is TensorFlow's", "Use `pad_sequences`, or torch's nested tensors."),
    "oncue.ragged": Refused(TENSORFLOW, "it is TensorFlow's", "Use `pad_sequences`, or torch's nested tensors."),
    **dict.fromkeys(("oncue.data.TFRecordDataset", "oncue.data.TextLineDataset"), _DATA),
    "oncue.experimental.numpy": Refused(TENSORFLOW, "it is NumPy's", "Use NumPy, or `ops`."),
}
"""Names of TensorFlow that can't be honoured."""
