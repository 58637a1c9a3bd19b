"""A model folder as llama.cpp reads it: GGUF, by its own package `gguf`.

The names and keys are those of llama.cpp's conversion/gpt2.py. There is no tokenizer in
the file (tokenizer.ggml.model = "no_vocab"): the bench speaks in ids. What llama.cpp's
own quantization leaves in float32 is float32 here: vectors and position embeddings.
There is no head in the file: llama.cpp then takes the embeddings for it.
"""

import os

NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def write_gguf(folder: str | os.PathLike, file: str | os.PathLike, kind: str) -> None:
    """Write a folder's model with its matrices as `kind`: f32, bf16, q8_0 or q4_0.

    The embeddings of a q4_0 file, and so its head, are q8_0.
    """
    import gguf
    import numpy as np

    from minigpt2 import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder, backend="numpy")
    config = model.config
    writer = gguf.GGUFWriter(file, "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, array in model.transformer.state_dict().items():
        layer, part = name.rsplit(".", 1)
        block = ""
        if layer.startswith("h."):
            _, number, layer = layer.split(".", 2)
            block = f"blk.{number}."
            array = array.T  # [in, out] -> [out, in]; a vector stays as it is
        wanted = "f32" if array.ndim == 1 or layer == "wpe" else kind
        if layer == "wte" and kind == "q4_0":
            wanted = "q8_0"
        form = gguf.GGMLQuantizationType[wanted.upper()]
        array = np.ascontiguousarray(array, np.float32)
        writer.add_tensor(
            f"{block}{NAMES[layer]}.{part}",
            gguf.quants.quantize(array, form),
            raw_dtype=form,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
