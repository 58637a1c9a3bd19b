"""A port of GPT-2 by another hand, and bugs to plant in it.

It stands for somebody else's port: another program, in float32 (or rounded to half
precision after every op), which dumps what it computes. Nothing of minigpt2 computes
here, and nothing here was taken from the code that is to find the bugs. A bug is a
function that takes the place of one of Port's ops, in all layers or in some.
"""

import math

import ml_dtypes
import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float32])
HALF = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class Port:
    """GPT-2 step by step, as a port does it.

    Args:
        model: whose parameters and sizes to take.
        dtype: float32, or what every result is rounded to.
        bugs: {op, or "op@module": function(port, *the op's arguments)}.
        layers: in which layers the bugs are; None: in all, and outside the blocks.
    """

    def __init__(self, model, dtype="float32", bugs=None, layers=None):
        self.dtype, self.bugs, self.layers = dtype, bugs or {}, layers
        config = model.config
        self.heads, self.eps = config.n_head, config.layer_norm_epsilon
        self.n_layer, self.width = config.n_layer, config.n_embd
        self.activation = config.activation_function
        self.scaled = config.scale_attn_weights
        self.by_layer = config.scale_attn_by_inverse_layer_idx
        self.p = {
            name.removeprefix("transformer."): self.round(np.asarray(array, np.float32))
            for name, array in model.state_dict().items()
        }
        self.layer = self.module = None

    def round(self, x):
        x = np.asarray(x, np.float32)
        return (
            x.astype(HALF[self.dtype]).astype(np.float32) if self.dtype in HALF else x
        )

    def do(self, op, *arguments, module=None):
        """The op, or the bug that is planted in its place."""
        self.module = module
        bug = self.bugs.get(f"{op}@{module}", self.bugs.get(op))
        if bug and (self.layers is None or self.layer in self.layers):
            return bug(self, *arguments)
        return getattr(self, op)(*arguments)

    def __call__(self, ids, attention_mask=None, position_ids=None):
        """Dump everything, by the names that minigpt2 has for it."""
        with np.errstate(all="ignore"):
            return self._pass(np.asarray(ids), attention_mask, position_ids)

    def _pass(self, ids, attention_mask, position_ids):
        dump = {}

        def note(name, array):
            dump[name] = self.round(array)
            return dump[name]

        rows, length = ids.shape
        self.keys = np.ones(ids.shape, bool)
        if attention_mask is not None:
            self.keys = np.asarray(attention_mask).astype(bool)
        if position_ids is None:
            position_ids = np.broadcast_to(np.arange(length), ids.shape)
        self.layer = None
        token, place = self.do("tables", ids, np.asarray(position_ids))
        note("wte", token), note("wpe", place)
        x = self.entry = note("drop", self.do("embed", dump["wte"], dump["wpe"]))
        for layer in range(self.n_layer):
            self.layer = layer

            def name(local, layer=layer):
                return f"h.{layer}.{local}"

            self.entry = x
            a = note(name("ln_1"), self.norm_of("ln_1", x))
            qkv = note(name("attn.c_attn"), self.linear_of("attn.c_attn", a))
            q, k, v = self.do("split", qkv)
            q, k, v = (
                note(name(f"attn.{n}"), array) for n, array in zip("qkv", (q, k, v))
            )
            scores = note(name("attn.scores"), self.do("scores", q, k))
            masked = note(name("attn.masked"), self.do("mask", scores))
            weights = note(name("attn.weights"), self.do("softmax", masked, scores))
            z = note(name("attn.z"), self.do("mix", weights, v))
            merged = self.do("merge", z)
            out = note(name("attn.c_proj"), self.linear_of("attn.c_proj", merged))
            mid = self.do("add", x, out, a, module="resid_mid")
            mid = note(name("resid_mid"), mid)
            b = note(name("ln_2"), self.norm_of("ln_2", self.do("branch", mid)))
            hidden = note(name("mlp.c_fc"), self.linear_of("mlp.c_fc", b))
            hidden = note(name("mlp.act"), self.do("act", hidden))
            out = note(name("mlp.c_proj"), self.linear_of("mlp.c_proj", hidden))
            x = note(f"h.{layer}", self.do("add", mid, out, b, module="block"))
        self.layer = None
        self.last = x
        y = note("ln_f", self.norm_of("ln_f", x))
        note("lm_head", self.do("head", y))
        return dump

    # The ops. Biases and gains are read here, so that a bug may forget them.

    def tables(self, ids, positions):
        return self.p["wte.weight"][ids], self.p["wpe.weight"][positions]

    def embed(self, token, place):
        return token + place

    def path(self, module):
        return module if self.layer is None else f"h.{self.layer}.{module}"

    def norm_of(self, module, x):
        path = self.path(module)
        gain, bias = self.p[f"{path}.weight"], self.p[f"{path}.bias"]
        return self.do("norm", x, gain, bias, module=module)

    def norm(self, x, gain, bias):
        mean = x.mean(axis=-1, keepdims=True)
        var = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
        return (x - mean) / np.sqrt(var + np.float32(self.eps)) * gain + bias

    def linear_of(self, module, x):
        path = self.path(module)
        weight, bias = self.p[f"{path}.weight"], self.p[f"{path}.bias"]
        return self.do("linear", x, weight, bias, module=module)

    def linear(self, x, weight, bias):
        return np.einsum("bti,io->bto", x, weight) + bias

    def split(self, qkv):
        rows, length, _ = qkv.shape
        three = qkv.reshape(rows, length, 3, self.heads, -1)
        return np.moveaxis(three, (2, 3), (0, 2))  # 3 B H T D

    def factor(self, q):
        factor = 1 / math.sqrt(q.shape[-1]) if self.scaled else 1.0
        return factor / (self.layer + 1) if self.by_layer else factor

    def scores(self, q, k):
        return np.einsum("bhtd,bhsd->bhts", q, k) * np.float32(self.factor(q))

    def mask(self, scores):
        length = scores.shape[-1]
        seen = np.tril(np.ones((length, length), bool)) & self.keys[:, None, None, :]
        return np.where(seen, scores, np.float32(-np.inf))

    def softmax(self, masked, scores):
        peak = np.maximum(masked.max(axis=-1, keepdims=True), np.float32(-1e30))
        e = np.exp(masked - peak)
        return e / np.maximum(e.sum(axis=-1, keepdims=True), np.float32(1e-30))

    def mix(self, weights, v):
        return np.einsum("bhts,bhsd->bhtd", weights, v)

    def merge(self, z):
        return np.moveaxis(z, 1, 2).reshape(z.shape[0], z.shape[2], -1)

    def add(self, residual, out, normed):
        return residual + out

    def branch(self, mid):
        return mid  # what the MLP's half of the block reads

    def act(self, x):
        if self.activation == "gelu_new":
            return gelu_tanh(x)
        return {
            "gelu": gelu_erf,
            "relu": lambda x: np.maximum(x, 0),
            "silu": lambda x: x / (1 + np.exp(-x)),
            "tanh": np.tanh,
        }[self.activation](x)

    def head(self, y):
        weight = self.p.get("lm_head.weight", self.p["wte.weight"])
        return np.einsum("btc,vc->btv", y, weight)


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(np.float32(0.7978845608) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return x / 2 * (1 + erf(x / np.float32(math.sqrt(2))))


def softmax(x, axis=-1):
    e = np.exp(x - np.maximum(x.max(axis=axis, keepdims=True), -1e30))
    return e / np.maximum(e.sum(axis=axis, keepdims=True), 1e-30)


# What to plant. Each: (the cause's name in the report, the first wrong step in a block,
# {op: function}). Strengths are arguments of the makers below.


def norm_with(eps=None, ddof=0, outside=False, mean=True, gain=True, bias=True, plus=0):
    def norm(port, x, g, b):
        e = np.float32(port.eps if eps is None else eps)
        y = x - x.mean(axis=-1, keepdims=True) if mean else x
        var = (y**2).sum(axis=-1, keepdims=True) / (x.shape[-1] - ddof)
        y = y / (np.sqrt(var) + e if outside else np.sqrt(var + e))
        y = y * (g + plus) if gain else y
        return y + b if bias else y

    return norm


def unnormed(port, x, g, b):
    return x


def without_bias(port, x, weight, bias):
    return port.linear(x, weight, 0 * bias)


def bias_twice(port, x, weight, bias):
    return port.linear(x, weight, 2 * bias)


def transposed(port, x, weight, bias):
    return port.linear(x, weight.T, bias)


def other_memory_order(port, x, weight, bias):
    return port.linear(x, weight.reshape(weight.shape[::-1]).T, bias)


def of_next_layer(port, x, weight, bias):
    path = f"h.{(port.layer + 1) % port.n_layer}.{port.module}"
    return port.linear(x, port.p[f"{path}.weight"], port.p[f"{path}.bias"])


def parameters_in(dtype):
    def linear(port, x, weight, bias):
        weight, bias = (a.astype(dtype).astype(np.float32) for a in (weight, bias))
        return port.linear(x, weight, bias)

    return linear


def split_by(order="qkv", layout="3HD"):
    def split(port, qkv):
        rows, length, width = qkv.shape
        size = {"3": 3, "H": port.heads, "D": width // 3 // port.heads}
        array = qkv.reshape(rows, length, *(size[axis] for axis in layout))
        axes = [2 + layout.index(axis) for axis in "3HD"]
        array = array.transpose(axes[0], 0, axes[1], 1, axes[2])
        return [array["qkv".index(letter)] for letter in order]

    return split


def split_as_view(port, qkv):
    rows, length, width = qkv.shape
    shape = (rows, port.heads, length, width // 3 // port.heads)
    return [third.reshape(shape) for third in np.split(qkv, 3, axis=-1)]


def scores_times(factor):
    """`factor(port, q)` in place of 1 / sqrt(D)."""

    def scores(port, q, k):
        return np.einsum("bhtd,bhsd->bhts", q, k) * np.float32(factor(port, q))

    return scores


def mask_with(diagonal=0, fill=-np.inf, padding=True, causal=True, inverted=False):
    def mask(port, scores):
        length = scores.shape[-1]
        seen = np.tril(np.ones((length, length), bool), diagonal)
        if not causal:
            seen = np.ones_like(seen)
        if inverted:
            seen = ~seen
        if padding:
            seen = seen & port.keys[:, None, None, :]
        return np.where(seen, scores, np.float32(fill))

    return mask


def softmax_over(axis):
    def over(port, masked, scores):
        return softmax(masked, axis)

    return over


def mask_after_softmax(port, masked, scores):
    return np.where(np.isneginf(masked), 0, softmax(scores))


def not_swapped_back(port, z):
    return z.reshape(z.shape[0], z.shape[2], -1)


def from_the_norm(port, residual, out, normed):
    return normed + out


def no_residual(port, residual, out, normed):
    return out


def around_the_block(port, residual, out, normed):
    return port.entry + out


def reads_the_entry(port, mid):
    return port.entry


def activation(function):
    return lambda port, x: function(x)


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def positions_shifted_by(n):
    def tables(port, ids, positions):
        last = len(port.p["wpe.weight"]) - 1
        return port.tables(ids, np.minimum(positions + n, last))

    return tables


def padding_is_counted(port, ids, positions):
    return port.tables(ids, np.arange(ids.shape[1])[None] + 0 * ids)


def unplaced(port, token, place):
    return token


def embeddings_times(factor):
    return lambda port, token, place: token * np.float32(factor(port)) + place


def type_zero(port, token, place):
    return token + place + port.p["wte.weight"][0]


def unnormed_head(port, y):
    return port.head(port.last)


def head_times(factor):
    return lambda port, y: port.head(y) * np.float32(factor(port))


def head_of_wte(port, y):
    return np.einsum("btc,vc->btv", y, port.p["wte.weight"])


# {what it is: (the cause that the report is to name, local name of the first wrong step,
# what is planted)}
BUGS = {
    "exact GELU": ("exact GELU", "mlp.act", {"act": activation(gelu_erf)}),
    "quick GELU": ("quick GELU", "mlp.act", {"act": activation(quick_gelu)}),
    "ReLU": ("ReLU", "mlp.act", {"act": activation(lambda x: np.maximum(x, 0))}),
    "no activation": ("no activation", "mlp.act", {"act": activation(lambda x: x)}),
    "eps 1e-3": ("other eps", "ln_1", {"norm": norm_with(eps=1e-3)}),
    "eps 1e-6 in ln_1": ("other eps", "ln_1", {"norm@ln_1": norm_with(eps=1e-6)}),
    "eps outside": ("eps outside the root", "ln_1", {"norm": norm_with(outside=True)}),
    "unbiased": ("unbiased variance", "ln_1", {"norm": norm_with(ddof=1)}),
    "no gain": ("gain dropped", "ln_1", {"norm": norm_with(gain=False)}),
    "no norm bias": ("norm's bias dropped", "ln_1", {"norm": norm_with(bias=False)}),
    "RMS norm": ("RMS norm", "ln_1", {"norm": norm_with(mean=False)}),
    "1 + gain": ("1 added to the gain", "ln_1", {"norm": norm_with(plus=1)}),
    "no biases": ("bias dropped", "attn.c_attn", {"linear": without_bias}),
    "no bias in c_fc": ("bias dropped", "mlp.c_fc", {"linear@mlp.c_fc": without_bias}),
    "bias twice": ("bias added twice", "mlp.c_proj", {"linear@mlp.c_proj": bias_twice}),
    "transposed c_proj": (
        "weight transposed",
        "attn.c_proj",
        {"linear@attn.c_proj": transposed},
    ),
    "memory order of c_fc": (
        "weight in another memory order",
        "mlp.c_fc",
        {"linear@mlp.c_fc": other_memory_order},
    ),
    "weights of the next layer": (
        "another layer's parameters",
        "mlp.c_fc",
        {"linear@mlp.c_fc": of_next_layer},
    ),
    "k q v": ("q, k, v in another order", "attn.q", {"split": split_by("kqv")}),
    "v q k": ("q, k, v in another order", "attn.q", {"split": split_by("vqk")}),
    "interleaved heads": (
        "heads interleaved",
        "attn.q",
        {"split": split_by("qkv", "H3D")},
    ),
    "heads last": ("heads interleaved", "attn.q", {"split": split_by("qkv", "3DH")}),
    "split as a view": (
        "heads split without a transpose",
        "attn.q",
        {"split": split_as_view},
    ),
    "no scale": ("scale", "attn.scores", {"scores": scores_times(lambda p, q: 1)}),
    "scale sqrt(C)": (
        "scale",
        "attn.scores",
        {"scores": scores_times(lambda p, q: p.width**-0.5)},
    ),
    "scale by layer": (
        "scale",
        "attn.scores",
        {"scores": scores_times(lambda p, q: q.shape[-1] ** -0.5 / (p.layer + 1))},
    ),
    "sees one ahead": ("mask sees one ahead", "attn.masked", {"mask": mask_with(1)}),
    "strict mask": (
        "mask hides the query itself",
        "attn.masked",
        {"mask": mask_with(-1)},
    ),
    "zeros for the masked": (
        "masked scores are 0",
        "attn.masked",
        {"mask": mask_with(fill=0)},
    ),
    "inverted mask": (
        "mask inverted",
        "attn.masked",
        {"mask": mask_with(inverted=True)},
    ),
    "no mask": ("no causal mask", "attn.masked", {"mask": mask_with(causal=False)}),
    "padding is seen": (
        "padding is seen",
        "attn.masked",
        {"mask": mask_with(padding=False)},
    ),
    "softmax over queries": (
        "softmax over the queries",
        "attn.weights",
        {"softmax": softmax_over(-2)},
    ),
    "softmax over heads": (
        "softmax over the heads",
        "attn.weights",
        {"softmax": softmax_over(1)},
    ),
    "mask after softmax": (
        "mask after the softmax",
        "attn.weights",
        {"softmax": mask_after_softmax},
    ),
    "heads not swapped back": (
        "heads not swapped back",
        "attn.c_proj",
        {"merge": not_swapped_back},
    ),
    "residual from the norm": (
        "residual from the norm",
        "resid_mid",
        {"add@resid_mid": from_the_norm},
    ),
    "no residual": ("no residual", "resid_mid", {"add@resid_mid": no_residual}),
    "no residual around the MLP": ("no residual", "", {"add@block": no_residual}),
    "residual around the block": (
        "residual from the block's input",
        "",
        {"add@block": around_the_block},
    ),
    "parallel MLP": ("MLP beside attention", "ln_2", {"branch": reads_the_entry}),
    "positions from 1": ("positions", "wpe", {"tables": positions_shifted_by(1)}),
    "padding counted": ("positions", "wpe", {"tables": padding_is_counted}),
    "no positions": ("no positions", "drop", {"embed": unplaced}),
    "scaled embeddings": (
        "embeddings scaled by sqrt(C)",
        "drop",
        {"embed": embeddings_times(lambda p: p.width**0.5)},
    ),
    "token type 0": ("token type 0 added", "drop", {"embed": type_zero}),
    "no ln_f": ("ln_f skipped", "ln_f", {"norm@ln_f": unnormed}),
    "no ln_1": ("norm skipped", "ln_1", {"norm@ln_1": unnormed}),
    "head reads the residual stream": (
        "ln_f skipped",
        "lm_head",
        {"head": unnormed_head},
    ),
    "scaled logits": (
        "logits scaled by 1/sqrt(C)",
        "lm_head",
        {"head": head_times(lambda p: p.width**-0.5)},
    ),
}

# Bugs that the report has no name for.


def softmax_plus_one(port, masked, scores):
    e = np.exp(masked)
    return e / (1 + e.sum(axis=-1, keepdims=True))


def rotated(port, qkv):
    q, k, v = port.split(qkv)
    angle = np.arange(q.shape[2], dtype=np.float32)[:, None]
    half = q.shape[-1] // 2
    turned = []
    for x in (q, k):
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        c, s = np.cos(angle), np.sin(angle)
        turned.append(np.concatenate([a * c - b * s, a * s + b * c, rest], axis=-1))
    return [*turned, v]


def capped(port, q, k):
    return 3 * np.tanh(port.scores(q, k) / 3)


def norm_over_positions(port, x, g, b):
    y = x - x.mean(axis=1, keepdims=True)
    return y / np.sqrt((y**2).mean(axis=1, keepdims=True) + port.eps) * g + b


def sliding_window(port, scores):
    masked = port.mask(scores)
    length = scores.shape[-1]
    near = np.triu(np.ones((length, length), bool), -2)
    return np.where(near, masked, -np.inf)


def one_wrong_number(port, x, weight, bias):
    weight = weight.copy()
    weight[1, 2] += 0.5
    return port.linear(x, weight, bias)


UNLISTED = {
    "softmax with 1 more": ("attn.weights", {"softmax": softmax_plus_one}),
    "rotary positions": ("attn.q", {"split": rotated}),
    "capped scores": ("attn.scores", {"scores": capped}),
    "norm over positions": ("ln_1", {"norm@ln_1": norm_over_positions}),
    "sliding window": ("attn.masked", {"mask": sliding_window}),
    "one wrong number": ("mlp.c_fc", {"linear@mlp.c_fc": one_wrong_number}),
}
