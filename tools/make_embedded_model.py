"""Make the small model that ships in the package from OpenAI's folder of it.

    python tools/make_embedded_model.py tests/data/shakespeare-1m

writes minigpt2/data/shakespeare-1m: config.json, vocab.json, merges.txt, and the
parameters as float16 safetensors. It checks that float16 holds them exactly.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from minigpt2 import GPT2Config
from minigpt2.checkpoints import names
from minigpt2.checkpoints.safetensors_file import SafetensorsFile, save_safetensors
from minigpt2.checkpoints.tf_bundle import TFBundle

TARGET = Path(__file__).parents[1] / "minigpt2" / "data" / "shakespeare-1m"


def main() -> None:
    """Write the folder from OpenAI's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="OpenAI's layout: hparams.json, ...")
    source = parser.parse_args().folder
    TARGET.mkdir(parents=True, exist_ok=True)
    config = GPT2Config.from_hparams(source / "hparams.json")
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(TARGET)
    ids = json.loads((source / "encoder.json").read_text("utf-8"))
    vocabulary = json.dumps(ids, ensure_ascii=False, separators=(",", ":"))
    (TARGET / "vocab.json").write_text(vocabulary, "utf-8")
    shutil.copyfile(source / "vocab.bpe", TARGET / "merges.txt")
    bundle = TFBundle(source)
    tensors = {
        names.PREFIX + names.canonical(name): names.without_leading_one(bundle[name])
        for name in bundle
    }
    halves = {name: array.astype(np.float16) for name, array in tensors.items()}
    path = TARGET / "model.safetensors"
    save_safetensors(path, halves, metadata={"format": "pt"})
    for name, array in SafetensorsFile(path).items():
        np.testing.assert_array_equal(array.astype(np.float32), tensors[name])
    total = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{TARGET}: {len(tensors)} tensors, {total:,} bytes in all")


if __name__ == "__main__":
    main()
