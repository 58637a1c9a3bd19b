"""How another port is compared with this one: a worked example in four languages.

A port is right when every step gives what it gives here. So:

1. Make a golden: the numbers of one pass, by name.

    minigpt2 golden make --model shakespeare-1m --text "To be" --out golden.safetensors

   The suffix may be .npz or .json, for those who can't read safetensors; and no suffix
   makes ONNX's test data. For tests there are models with 13,000 parameters, made so that
   bugs show. This writes them, each with its golden:

    minigpt2 golden tiny FOLDER

   and in Python there are the fixtures of our pytest plugin:

    def test_my_port(minigpt2_tiny_folder, minigpt2_tiny_golden):
        dump = my_port(minigpt2_tiny_folder("tiny"), minigpt2_tiny_golden("tiny").inputs)
        assert_matches(minigpt2_tiny_golden("tiny"), dump)

2. Give the port the same parameters and the golden's inputs, and have it dump what its
   steps give. One step is enough to begin with; the more there are, the more exactly can
   be said what is wrong. Dump in float32 if the port computes in less.

3. Compare.

    minigpt2 golden diff golden.safetensors theirs.safetensors

The names are in minigpt2/tracing/steps.py: Hugging Face's paths of modules
(`transformer.h.0.attn.c_attn`), and after them q, k, v, scores, masked, weights and z of
attention [B, H, T, ...], and resid_mid. TransformerLens' and llm.c's are known as well.

tests/test_dumping.py runs what stands below: PyTorch and JavaScript, and C and Rust where
there are compilers. The lines for candle were not compiled.

PyTorch
=======
Hooks on a model of transformers, or on any whose modules have these names. (Attention's
inner steps are no modules: transformers' eager attention returns its weights.)

    import torch
    from safetensors.torch import load_file, save_file

    def dump_of(model, golden_file, dump_file):
        golden = load_file(golden_file)
        names = ["input_ids", "attention_mask", "position_ids"]
        inputs = {n: golden[f"inputs.{n}"] for n in names if f"inputs.{n}" in golden}
        dump = {}

        def keep(name):
            def hook(module, arguments, output):
                if isinstance(output, torch.Tensor):
                    dump[name] = output.detach().clone().contiguous()
            return hook

        for name, module in model.named_modules():
            module.register_forward_hook(keep(name))
        with torch.no_grad():
            model(**inputs)
        save_file(dump, dump_file)

JavaScript
==========
A golden in JSON has {golden, tensors}, and a tensor has {dtype, shape, data}, where the
data are flat and -Infinity is the text "-inf". A dump needs the tensors alone. Here the
port is one step, the activation:

    const fs = require('fs')

    const gelu = x => 0.5 * x *
      (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))

    const { golden, tensors } = JSON.parse(fs.readFileSync('golden.json'))
    const dump = {}
    for (const name of golden.order.filter(name => name.endsWith('mlp.c_fc'))) {
      const { dtype, shape, data } = tensors[name]
      const out = name.replace('c_fc', 'act')
      dump[out] = { dtype, shape, data: data.map(gelu) }
    }
    fs.writeFileSync('theirs.json', JSON.stringify({ tensors: dump }))

C
=
A safetensors file is a length, a header of JSON, and the numbers. In llm.c, whose
activations lie in one array each for all layers, `{"ln1", model.acts.ln1, {L, B, T, C}}`
and so on will do: such names and layouts are known.

    #include <stdio.h>
    #include <stdint.h>
    #include <string.h>

    typedef struct { const char *name; const float *data; long shape[4]; } Dump;

    static long count(const Dump *d) {  // a length of 0 ends the shape
        long n = 1;
        for (int i = 0; i < 4 && d->shape[i]; i++) n *= d->shape[i];
        return n;
    }

    int save_dump(const char *path, const Dump *dumps, int many) {
        static char header[1 << 20];
        long at = 0, end = 0;
        for (int k = 0; k < many; k++) {
            const Dump *d = &dumps[k];
            at += sprintf(header + at, "%s\\"%s\\":{\\"dtype\\":\\"F32\\",\\"shape\\":[",
                          k ? "," : "{", d->name);
            for (int i = 0; i < 4 && d->shape[i]; i++)
                at += sprintf(header + at, i ? ",%ld" : "%ld", d->shape[i]);
            at += sprintf(header + at, "],\\"data_offsets\\":[%ld,%ld]}",
                          4 * end, 4 * (end + count(d)));
            end += count(d);
        }
        at += sprintf(header + at, "}");
        uint64_t length = at;  // little-endian, as the numbers are
        FILE *file = fopen(path, "wb");
        if (!file) return -1;
        fwrite(&length, 8, 1, file);
        fwrite(header, 1, at, file);
        for (int k = 0; k < many; k++)
            fwrite(dumps[k].data, 4, count(&dumps[k]), file);
        return fclose(file);
    }

Rust
====
With candle:

    let mut dump: HashMap<String, Tensor> = HashMap::new();
    dump.insert("transformer.h.0.ln_1".into(), x.contiguous()?);  // where x is computed
    candle_core::safetensors::save(&dump, "theirs.safetensors")?;

And without any crate:

    use std::io::Write;

    /// Write (name, shape, numbers) as a safetensors file.
    pub fn save_dump(path: &str, dump: &[(&str, &[usize], &[f32])]) -> std::io::Result<()> {
        let (mut entries, mut end) = (Vec::new(), 0);
        for (name, shape, data) in dump {
            let start = end;
            end += 4 * data.len();
            entries.push(format!(
                "\\"{name}\\":{{\\"dtype\\":\\"F32\\",\\"shape\\":{shape:?},\\
                 \\"data_offsets\\":[{start},{end}]}}"
            ));
        }
        let header = format!("{{{}}}", entries.join(","));
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for number in dump.iter().flat_map(|(_, _, data)| data.iter()) {
            file.write_all(&number.to_le_bytes())?;
        }
        file.flush()
    }
"""
