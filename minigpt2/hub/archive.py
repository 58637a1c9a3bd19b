"""What was published as GPT-2: the models' names and sizes, their files and addresses.

    Hugging Face's name   OpenAI's folder   parameters
    gpt2                  124M (117M)         124,439,808
    gpt2-medium           355M (345M)         354,823,168
    gpt2-large            774M                774,030,080
    gpt2-xl               1558M             1,557,611,200

OpenAI's names count the parameters; the first two were miscounted at first, and 117M and
345M are other names of the same files.
"""

CONFIG_NAME = "config.json"  # Hugging Face's
HPARAMS_NAME = "hparams.json"  # OpenAI's
CKPT_NAME = "ckpt.pt"  # nanoGPT's: configuration and parameters

GPT2_SIZES = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}

# --- Hugging Face ---

# The models that have a name of their own on the Hub, and their full names.
HUB_IDS = {name: f"openai-community/{name}" for name in GPT2_SIZES} | {
    "distilgpt2": "distilbert/distilgpt2"
}


def _addresses(file: str) -> dict[str, str]:
    return {
        name: f"https://huggingface.co/{id}/resolve/main/{file}"
        for name, id in HUB_IDS.items()
    }


GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP = _addresses(CONFIG_NAME)
GPT2_PRETRAINED_MODEL_ARCHIVE_MAP = _addresses("model.safetensors")

# --- OpenAI ---

OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/models"
OPENAI_FOLDERS = {
    "gpt2": "124M",
    "gpt2-medium": "355M",
    "gpt2-large": "774M",
    "gpt2-xl": "1558M",
}
OPENAI_NAMES = {
    **{folder: name for name, folder in OPENAI_FOLDERS.items()},
    "117M": "gpt2",
    "345M": "gpt2-medium",
}
VOCABULARY = {  # the same for all sizes: bytes, SHA-256
    "encoder.json": (
        1_042_301,
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
    "vocab.bpe": (
        456_318,
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
}
INDEX, META = "model.ckpt.index", "model.ckpt.meta"
TENSORS = "model.ckpt.data-00000-of-00001"
OPENAI_FILES = ("checkpoint", HPARAMS_NAME, *VOCABULARY, INDEX, META, TENSORS)
TENSORS_SIZES = {  # bytes of that file: four a parameter
    "gpt2": 497_759_232,
    "gpt2-medium": 1_419_292_672,
    "gpt2-large": 3_096_120_320,
    "gpt2-xl": 6_230_444_800,
}
