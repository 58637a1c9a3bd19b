"""For contributors: the rooms, the words, and how to add what.

Rooms
=====
Text travels through them in this order, which is also the order to read them in. What a
room may import is another order, ROOMS below: what stands before it there.
tests/test_tree.py reads every import, also those inside functions. There is one
exception: model/gpt2.py imports the class that gives a model `generate`.

    plain.py             GPT-2 on one page
    bpe.py, tokenizer/   text -> ids, by the definition of byte-pair encoding and fast
    config.py            the sizes
    hub/                 a name -> a folder
    checkpoints/         files <-> {name: array}
    ops.py               the arithmetic, and activations.py: those of other checkpoints
    quantization/        matrices in fewer bits, by formula, and their files
    model/               ids -> logits: the documented classes
    generation/          logits -> ids
    tracing/             every number of a forward pass, by name
    training/            the way back: gradients by hand, in ops.py's order
    kernels/             the ops' names again, compiled (it is minigpt2.kernels: setup.cfg)
    tasks/               whole jobs: score, verify, convert
    testing/             what other projects' tests import; pytest_plugin.py: fixtures of it
    runtime/             whole files, memory, progress, threads, random numbers
    commands/, cli.py    the command line: a thin layer on all of these

A folder's `__init__` says what lives there, in reading order. What a reader studies is
what runs, or has a twin that does: kernels have the ops' names and replace them one by
one; tokenizer/fast_bpe.py encodes as bpe.py defines; model/ computes what plain.py shows.
A test holds each pair together. training/backward.py is ops.py in a mirror: the same
names in the same order.

Words
=====
One word for one idea, in code, documents and messages:

    ids              whole numbers that stand for tokens; rows of them are sequences
    text             a str
    parameters       the learned numbers, by name; a layer's are its `weight` and `bias`
    attention scores    q k^T, scaled; attention weights: softmax of that. In prose never
                     "scores" or "weights" alone. (Weights are also parameters in "GPT-2's
                     weights", the field's phrase.)
    weight format    in how many bits a matrix is kept: float32, bfloat16, int8, int4.
                     (`weights=` stays the public keyword.) Quantized: in fewer than 32
    checkpoint       a file or folder of parameters
    logits           what the model computes; scores: logits after processors, which
                     `generate` chooses by; log_probs: log p of ids
                     (`logprobs` in public names, as OpenAI's API spells it)
    residual stream  the sum that flows through the blocks: never "stream" alone, which
                     is `model.stream()`
    z                attention's weighted sum of the values, TransformerLens' name
    generator        of random numbers
    forward pass     one call of the model; a pass, for short
    DecodingState    the rows under way in generation: cache, positions, masks
    capacity         how much something has memory for: a cache in positions
    beam_indices     for each new id, which row (beam) it was appended to

Shapes are written with the letters of model/gpt2.py's legend. Sentences are plain: short,
active, in the present. Docstrings have Google's sections (Args, Returns, Raises) where
these say more than the signature; types stand in the signature. The first sentence says
what a function does; of an op, or a small helper of the kernels, it may be the value
itself, as in "max(x, 0)" and "The largest lane".

How to add an op
================
Write the formula in ops.py as a NumPy function on the last axes, with its shapes and its
source in the docstring; constants are Python floats, so that float32 stays float32. Test
it against a definition that was written elsewhere (tests/test_ops.py: math, float64,
torch), and name it in kernels/__init__.py, which lists every op. Its way back has the
same name and place in training/backward.py: the forward line, what follows from it, and
a case in tests/test_backward.py, which proves it by differences and by torch's autograd.

How to add a kernel
===================
Give it the op's name and signature and export it in kernels/__init__.py. Sum in a fixed
order, whatever the batch: a row has the same bits alone, in a batch, prefilled, decoded, on
one thread or many (tests/test_kernels.py proves it for every linear kernel). The
module's docstring says what it replaces, the measured gain and the tolerance. Work that
threads share is a function that does one part of it, under `@in_parts` (jit.py). Add the
kernel to kernels/prepare.py, so that it is compiled while a model loads.

How to add an option of generation
==================================
Declare it in generation/config.py: a field with its default, its bounds and its help.
Checks and `help()` follow from that, and for a number with a `metavar` the command line
(others are read by hand in commands/generate.py). A name that transformers has leaves
config.py's LACKED. If it excludes a strategy or a feature, features.py gets a row. What
it does to the scores is a function in generation/processors.py, and chain.py gives it its
place in transformers' order. A test compares it with transformers
(tests/test_generation_peers.py).

How to add a file format
========================
A reader is a TensorFile in checkpoints/ that maps names to arrays; open.py knows it by its
suffix, names.py translates what it calls the parameters, and layouts.py turns matrices
that lie otherwise. It believes no size before the bytes are there, and raises
CheckpointError for whatever is not right: tools/fuzz.py mutates its files.

How to add a step to a pass
===========================
Give it a row in tracing/steps.py, the one table of them, and show it where it is computed
in model/: `see(self, "name", array)`. (What only the way back needs, dropout's masks, is
shown without a row.) Trace, golden files and whoever explains a pass follow.
tests/test_trace.py compares every name with hooks on transformers.

How to add a format of golden files
===================================
A file in tracing/ that writes and reads named tensors and a value of JSON, and a line in
golden.py's save_golden and open_tensors. tests/test_golden.py runs every format through
the same tests: all numbers come back bit for bit, and damage is a CheckpointError.

How to add a cause
==================
What another port did wrong, and `minigpt2 golden diff` does not name yet: a function in
tracing/variants.py that gives what such a port gives at that step. Its docstring is the
advice. Plant the mistake in tests/ports.py first, without a look at the function: tests
then want it named from all names, from hidden states and from logits, and never instead
of another.

How to add a test
=================
A file a module, sentence-long names, hypothesis for shapes and settings. The expected
numbers come from elsewhere: transformers, torch, TensorFlow, tiktoken, the format's
definition. Mark a test `peers` if it needs one installed. A tolerance stands beside its
reason.

Goldens are made by tools/make_*_goldens.py, which write the versions they were made with
into tests/data; run them in an environment that has the peer.

How to measure
==============
`python tools/bench.py decode` (prefill, startup, memory, ...) runs all contestants in
turn, round after round, and prints the machine's load and read bandwidth. Ratios within a
round count; speeds drift. To compare with an older commit, install it in another
environment and name its interpreter:

    python tools/bench.py decode --only 'minigpt2 numba' --against OLD/bin/python
"""

# From the bottom to the top. What a room imports stands before it.
ROOMS = (
    "runtime",
    "activations",
    "ops",
    "bpe",
    "checkpoints",
    "quantization",
    "kernels",
    "hub",
    "config",
    "tokenizer",
    "plain",
    "model",
    "generation",
    "tracing",
    "training",
    "tasks",
    "testing",
    "pytest_plugin",
    "commands",
    "cli",
)
