"""Small ONNX networks, written as text."""

import numpy as np

SIDE = 16
CONV = "c = Conv<kernel_shape=[3,3], strides=[2,2]>(x, w, b) r = Relu(c) "
POOLED = CONV + "g = GlobalAveragePool(r) z = Flatten<axis=1>(g)"


def weights(**shapes):
    """Random weights of some shapes, the same for each name."""
    made = {}
    for name, shape in shapes.items():
        random = np.random.default_rng([ord(letter) for letter in name])
        made[name] = random.standard_normal(shape).astype("float32")
    return made


W = weights(w=(4, 3, 3, 3), b=(4,))


def network(body, *, opset=17, ir=8, takes="float[N,3,16,16] x", gives="float[N,D] z", extra="", **values):
    """A model (onnx.ModelProto) of a text in the language of onnx.parser.

    Args:
        body: its nodes.
        takes, gives: inputs and outputs.
        extra: functions of the model.
        values: further weights, arrays by name, beside a convolution's w and b.
    """
    import onnx
    from onnx import numpy_helper

    domains = f'"" : {opset}' + (', "own" : 1' if extra else "")
    head = f"<ir_version: {ir}, opset_import: [{domains}]>"
    model = onnx.parser.parse_model(f"{head} net ({takes}) => ({gives}) {{ {body} }} {extra}")
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in {**W, **values}.items()
        if name in used or name in values
    )
    return model


def ints(*values):
    return np.array(values, dtype="int64")


def pooled(opset):
    return network(
        "c = Conv<kernel_shape=[3,3], strides=[2,2]>(x, w, b) n = BatchNormalization(c, s, t, m, v)"
        " r = Relu(n)"
        " g = GlobalAveragePool(r) z = Flatten<axis=1>(g)",
        opset=opset,
        ir=min(10, max(3, opset - 8)),
        **weights(s=4, t=4, m=4),
        v=np.array([0.5, 1, 2, 3], dtype="float32"),
    )


def attention(batch):
    """Tokens of patches that look at each other, reshaped to a batch of so many (0: of its own size)."""
    start = (
        "s = Shape(x) i = Constant<value = int64[1] {0}>() n = Gather<axis=0>(s, i)"
        " rest = Constant<value = int64[2] {4, 49}>() to = Concat<axis=0>(n, rest) "
        if not batch
        else f"to = Constant<value = int64[3] {{{batch}, 4, -1}}>() "
    )
    return network(
        CONV + start + "f = Reshape(r, to) k = Transpose<perm=[0,2,1]>(f) q = MatMul(k, a) e = MatMul(q, f)"
        " p = Softmax<axis=-1>(e) y = MatMul(p, k) back = Constant<value = int64[3] {-1, 49, 4}>()"
        " u = Reshape(y, back) z = ReduceMean<axes=[1], keepdims=0>(u)",
        **weights(a=(4, 4)),
    )


def in_half(model):
    """A model with its weights in half precision."""
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        values = np.frombuffer(tensor.raw_data, "float32").astype("float16")
        tensor.raw_data, tensor.data_type = values.tobytes(), TensorProto.FLOAT16
    return model


def double():
    return network(
        "f = Flatten<axis=1>(x) z = MatMul(f, a)",
        takes="double[N,3,16,16] x",
        gives="double[N,D] z",
        a=weights(a=(768, 5))["a"].astype("float64"),
    )


def quantized(batch="N"):
    scale, zero = np.float32(0.02), np.uint8(0)
    return network(
        CONV + "q = QuantizeLinear(r, qs, qz) d = DequantizeLinear(q, qs, qz) g = GlobalAveragePool(d)"
        " z = Flatten<axis=1>(g)",
        takes=f"float[{batch},3,16,16] x",
        qs=scale,
        qz=zero,
    )


RESIZE = CONV + 'big = Resize<mode = "%s">(r, roi, scales) k = Pad(big, pads) z = Flatten<axis=1>(k)'
NONE = np.empty(0, dtype="float32")
SCALES = np.array([1, 1, 2, 2], dtype="float32")
FUNCTION = '<domain: "own", opset_import: ["" : 17]> twice (a) => (c) { c = Add(a, a) }'


# Networks that have gradients: names, and functions that make them.
CONVERTED = {
    **{f"opset {opset}": lambda opset=opset: pooled(opset) for opset in range(9, 23)},
    "clip": lambda: network(POOLED.replace("Relu(c)", "Clip(c, lo, hi)"), lo=np.float32(0), hi=np.float32(6)),
    "hardswish": lambda: network(POOLED.replace("Relu", "HardSwish")),
    "gelu": lambda: network(POOLED.replace("Relu", "Gelu"), opset=20, ir=9),
    "mish": lambda: network(POOLED.replace("Relu", "Mish"), opset=18),
    "group norm 18": lambda: network(
        POOLED.replace("Relu(c)", "GroupNormalization<num_groups=2>(c, s, t)"), opset=18, **weights(s=2, t=2)
    ),
    "group norm 21": lambda: network(
        POOLED.replace("Relu(c)", "GroupNormalization<num_groups=2>(c, s, t)"),
        opset=21,
        ir=10,
        **weights(s=4, t=4),
    ),
    "layer norm": lambda: network(
        CONV + "n = LayerNormalization<axis=3>(r, s, t) z = Flatten<axis=1>(n)", **weights(s=7, t=7)
    ),
    "instance norm": lambda: network(
        CONV.replace("Relu(c)", "InstanceNormalization(c, s, t)") + "z = Flatten<axis=1>(r)",
        **weights(s=4, t=4),
    ),
    "mean, axes as input": lambda: network(
        CONV + "z = ReduceMean<keepdims=0>(r, axes)", opset=18, axes=ints(2, 3)
    ),
    "L2 norm": lambda: network(
        CONV + "g = ReduceMean<keepdims=0>(r, axes) one = Constant<value = int64[1] {-1}>()"
        " l = ReduceL2(g, one) z = Div(g, l)",
        opset=18,
        axes=ints(2, 3),
    ),
    "attention": lambda: attention(0),
    "einsum": lambda: network(CONV + 'z = Einsum<equation="bchw,cd->bd">(r, a)', **weights(a=(4, 6))),
    "resize": lambda: network(RESIZE % "linear", roi=NONE, scales=SCALES, pads=ints(0, 0, 1, 0, 0, 0, 0, 2)),
    "resize 18": lambda: network(
        RESIZE % "linear", opset=18, roi=NONE, scales=SCALES, pads=ints(0, 0, 1, 0, 0, 0, 0, 2)
    ),
    "asymmetric pads": lambda: network(POOLED.replace("strides", "pads=[0,0,1,1], strides")),
    "same upper": lambda: network(POOLED.replace("strides", 'auto_pad="SAME_UPPER", strides')),
    "split": lambda: network(
        CONV + "one, two = Split<axis=1, num_outputs=2>(r) s = Mul(one, two) z = Flatten<axis=1>(s)", opset=18
    ),
    "weights behind other nodes": lambda: network(
        "v = Identity(w) k = Constant<value = float[4] {1, 2, 3, 4}>() "
        + POOLED.replace("(x, w, b)", "(x, v, k)")
    ),
    "greater or equal": lambda: network(
        CONV + "m = GreaterOrEqual(r, k) o = Cast<to=1>(m) p = Mul(r, o) g = GlobalAveragePool(p)"
        " z = Flatten<axis=1>(g)",
        k=np.float32(0.5),
    ),
    "layer norm of unknown size": lambda: network(
        "s = Shape(x) f = Reshape<allowzero=0>(x, s)"
        " n = LayerNormalization(f, t, t) z = ReduceMean<axes=[2,3], keepdims=0>(n)",
        takes="float[N,C,H,V] x",
        **weights(t=SIDE),
    ),
    "max pool": lambda: network(
        CONV + "p = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(r) z = Flatten<axis=1>(p)"
    ),
    "dropout": lambda: network(POOLED.replace("Relu(c)", "Dropout(c)")),
    "function": lambda: network(POOLED.replace("Relu", "own.twice"), extra=FUNCTION),
    "half": lambda: in_half(network(POOLED, takes="float16[N,3,16,16] x", gives="float16[N,D] z")),
    "half inside": lambda: in_half(
        network(
            "h = Cast<to=10>(x) " + POOLED.replace("(x,", "(h,").replace("z =", "f =") + " z = Cast<to=1>(f)"
        )
    ),
    "double": double,
    "channels last": lambda: network(
        "t = Transpose<perm=[0,3,1,2]>(x) " + POOLED.replace("(x,", "(t,"), takes="float[N,16,16,3] x"
    ),
    "channels last, any size": lambda: network(
        "t = Transpose<perm=[0,3,1,2]>(x) " + POOLED.replace("(x,", "(t,"), takes="float[N,H,V,C] x"
    ),
    "any size": lambda: network(POOLED, takes="float[N,3,H,V] x"),
    "nothing fixed": lambda: network(POOLED, takes="float[N,C,H,V] x"),
    "batch of 1": lambda: network(POOLED, takes="float[1,3,16,16] x", gives="float[1,4] z"),
    "batch of 3": lambda: network(POOLED, takes="float[3,3,16,16] x", gives="float[3,4] z"),
    "batch of 1 in a reshape": lambda: network(
        CONV + "one = Constant<value = int64[2] {1, -1}>() z = Reshape(r, one)"
    ),
    "batch of 1 in attention": lambda: attention(1),
    "rows as maps": lambda: network(CONV + "z = GlobalAveragePool(r)", gives="float[N,4,1,1] z"),
    "rows as maps, channels last": lambda: network(
        CONV + "g = GlobalAveragePool(r) z = Transpose<perm=[0,2,3,1]>(g)", gives="float[N,1,1,4] z"
    ),
    "two outputs, one flat": lambda: network(POOLED, gives="float[N,4,7,7] r, float[N,4] z"),
    "input with a default": lambda: network(POOLED, takes="float[N,3,16,16] x, float[4] b"),
    "bytes": lambda: network(
        "f = Cast<to=1>(x) h = Div(f, s) " + POOLED.replace("(x,", "(h,"),
        takes="uint8[N,3,16,16] x",
        s=np.float32(255),
    ),
}

# Networks without gradients: names, functions that make them, and what is said about why.
BLACK_BOX = {
    "quantised": (quantized, "cannot convert (Dequantize|Quantize)Linear"),
    "quantised, batch of 2": (lambda: quantized(2), "cannot convert (Dequantize|Quantize)Linear"),
    "control flow": (
        lambda: network(
            CONV + "m = ReduceMax<keepdims=0>(r) o = Greater(m, t) y = If(o) <then_branch = one () => "
            "(float[N,4,7,7] p) { p = Add(r, r) }, else_branch = two () => (float[N,4,7,7] q) { q = Neg(r) }>"
            " g = GlobalAveragePool(y) z = Flatten<axis=1>(g)",
            t=np.float32(-1),
        ),
        "cannot convert If",
    ),
    "loop": (
        lambda: network(
            POOLED.replace("z = ", "f = ")
            + " many = Constant<value = int64 {3}>() go = Constant<value = bool {1}>()"
            " z = Loop(many, go, f) <body = step (int64 i, bool on, float[N,4] before) =>"
            " (bool off, float[N,4] after) "
            "{ off = Identity(on) after = Add(before, before) }>"
        ),
        "cannot convert Loop",
    ),
    "random": (
        lambda: network(POOLED.replace("z = ", "f = ") + " n = RandomNormalLike(f) z = Add(f, n)"),
        "cannot convert RandomNormalLike|it is random",
    ),
}

# What is no encoder: names, functions that make them, and what is said.
REFUSED = {
    "a map": (
        lambda: network(CONV, gives="float[N,4,7,7] r"),
        "r is a map of .* after its pooling by --output",
    ),
    "two embeddings": (
        lambda: network(POOLED + " y = Neg(z)", gives="float[N,4] z, float[N,4] y"),
        r"which output is the embedding\? Choose by --output: z \(N, 4\), y \(N, 4\)",
    ),
    "whole numbers": (
        lambda: network(POOLED + " y = Cast<to=7>(z)", gives="int64[N,4] y"),
        "embeddings of floating numbers, not of int64",
    ),
    "one number for all": (
        lambda: network(POOLED + " y = ReduceMean<keepdims=0>(z)", gives="float y"),
        r"one embedding for each of 1 images, y is \(\)",
    ),
    "a list": (
        lambda: network(POOLED + " y = SequenceConstruct(z, z)", gives="seq(float[N,4]) y"),
        "y is no tensor of numbers",
    ),
    "two inputs": (
        lambda: network(
            POOLED + " y = Add(z, k)", takes="float[N,3,16,16] x, float[N,4] k", gives="float[N,4] y"
        ),
        r"nothing else, it takes: x \(N, 3, 16, 16\), k \(N, 4\)",
    ),
    "no batch": (
        lambda: network("z = Flatten<axis=1>(x)", takes="float[3,16,16] x"),
        r"it takes x \(3, 16, 16\) of float",
    ),
    "texts": (
        lambda: network("z = Flatten<axis=1>(x)", takes="int64[N,77] x", gives="int64[N,77] z"),
        r"it takes x \(N, 77\) of int64",
    ),
    "no such operation": (lambda: network(POOLED.replace("Relu", "Rely")), "onnxruntime cannot run it"),
    "batch of 2 in attention": (lambda: attention(2), r"onnxruntime fails on pixels of \(1, 3, 16, 16\)"),
    "an empty graph": (lambda: network(""), "holds no network"),
}
