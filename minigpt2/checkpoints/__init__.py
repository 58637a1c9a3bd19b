"""Checkpoint files -> {name: array}, without the frameworks that wrote them.

Each reader is a read-only mapping from tensor names, as the file has them, to NumPy
arrays. The arrays are views of the memory-mapped file wherever that is possible, and
never writable. Opening a file checks all that can be checked without reading the
tensors; `reader.shape(name)` and `reader.dtype(name)` cost nothing.

In reading order:

- tensor_file       what the readers share: the mapping, stored bytes <-> arrays
- safetensors_file  Hugging Face's `model.safetensors`
- tf_bundle         TensorFlow's `model.ckpt.index` and `.data-00000-of-00001`, which
                    stands on sstable (the index's container), protobuf (what is in
                    it) and crc32c;
                    tf_bundle_writer is the way back
- torch_file        PyTorch's `pytorch_model.bin`; inert_pickle reads its pickle and
                    runs nothing of it
- npz_file          NumPy's `.npz`
- llmc_file         llm.c's `gpt2_124M.bin`; llmc_data its tokenizer and token files
- open              finds the reader of any file or folder; reads sharded checkpoints
- names             GPT-2's parameters: their names, in OpenAI's files too, and shapes
- layouts           a file's tensors -> those parameters, whatever program saved them
"""


class CheckpointError(ValueError):
    """A file is not what it should be: the message names the file and the tensor."""
