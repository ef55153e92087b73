#!/usr/bin/env python3
"""Makes docs/families.md of the rows in engine/model/: the families, what each heeds of config.json, and what is refused.

Usage: engine/model/families.py [--check]; --check changes nothing and ends with 1 where the file is not what the rows say."""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(HERE, "..", "..", "docs", "families.md")

# A row's member: what it means where it is set.
TRAITS = {
    "layer_norm": "layer norms", "unbiased_norm": "without a bias", "learned_positions": "learned positions", "plain_mlp": "an MLP without a gate",
    "all_biases": "biases on all linears", "qkv_bias": "biases on q, k and v", "head_bias": "a bias of the head",
    "parallel": "attention and MLP side by side", "turns_neighbours": "rotary embeddings of neighbouring columns", "qk_norm": "norms of q and k", "qk_norm_whole": "over all of it, not head by head", "qk_norm_key": "norms of q and k where said so, of each head by weights of its own",
    "output_norms": "norms behind attention and the MLP", "stored_qkv": "q, k and v stored as one tensor", "stored_gate_up": "gate and up stored as one tensor", "qkv_by_head": "q, k and v stored as one tensor, head by head", "transposed": "weights that lie transposed, q, k and v in one tensor",
    "experts_key": "experts", "shared_key": "a shared expert with a gate", "paired_experts": "sinks of attention, and experts with biases and a clamped SwiGLU (`swiglu_alpha`, `swiglu_limit`), in tensors of all", "normalised_routing": "routing normalised over the chosen", "scaled_embeddings": "scaled embeddings",
    "tied_embeddings": "tied embeddings unless said otherwise", "norm_offset": "norm weights stored less 1",
    "gelu_is_tanh": "`gelu` is the tanh form", "multipliers": "multipliers", "still_interval": "layers that do not turn q and k",
    "full_are_still": "layers without a window that do not turn q and k", "logit_scale": "scaled logits",
    "partial_rotary": "heads that turn in part", "scaled_queries": "queries scaled by position",
    "rope_local_base_freq": "sliding layers that turn by a base of their own", "query_pre_attn_scalar": "a scale of attention of its own, and caps",
}
HEEDED = {
    "attention_bias": ["attention_bias"], "mlp_bias": ["mlp_bias"], "heeds_norm_topk_prob": ["norm_topk_prob"],
    "heeds_window_pattern": ["sliding_window_pattern"], "still_interval": ["no_rope_layers", "no_rope_layer_interval"],
    "multipliers": ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"],
    "logit_scale": ["logit_scale"], "scaled_queries": ["llama_4_scaling_beta"],
    "original_positions": ["original_max_position_embeddings"], "rope_local_base_freq": ["rope_local_base_freq"],
    "query_pre_attn_scalar": ["query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"],
}
NAMED = ("norm_eps_key", "parallel_key", "qk_norm_key", "rotary_key", "theta_key", "bias_key", "qkv_bias_key", "intermediate_key", "activation_key", "experts_key", "shared_key")


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


def between(text, start, end="\n};"):
    return text.split(start, 1)[1].split(end, 1)[0]


def rows():
    """[{member: value}] of the families."""
    return [dict(re.findall(r"\.(\w+) = (.+?),\n", row + "\n"))
            for row in re.findall(r"\n\t\{\n(.*?)\n\t\},", between(read("families.c"), "const struct family families[] = {"), re.S)]


def sizes(name):
    return strings(between(read("families.c"), f"static const struct size_names {name} = {{", "};"))


def row_line(row):
    row = dict(row)
    said = {"parallel": TRAITS["parallel"]}
    if "parallel_key" in row:
        said["parallel"] += " unless said otherwise" if "parallel" in row else " where said so"
        row["parallel"] = "true"
    traits = ", ".join(said.get(member, words) for member, words in TRAITS.items() if member in row)
    if row.get("window", "WINDOW_NEVER") != "WINDOW_NEVER":
        traits += (", " if traits else "") + "windows"
    heeded = [row[key].strip('"') for key in NAMED if key in row]
    if "sizes" in row:
        heeded = sizes(row["sizes"].lstrip("&")) + heeded
    if "partial_rotary" in row and "rotary_key" not in row:
        heeded.append("partial_rotary_factor")
    heeded += [key for member, keys in HEEDED.items() if member in row for key in keys]
    name, architecture = row["model_type"].strip('"'), row["architecture"].strip('"')
    return f"| `{name}` | `{architecture}` | {traits or '–'} | {', '.join(f'`{key}`' for key in heeded) or '–'} |"


def strings(text):
    return re.findall(r'"([^"]+)"', text)


def document():
    families, fields = read("families.c"), read("config_fields.c")
    words = {"NULL": ""} | dict(re.findall(r'#define (\w+) "([^"]+)"', families)) | dict(
        re.findall(r'static const char (\w+)\[\] = "([^"]+)"', families))
    wrappers = [strings(line) for line in re.findall(r"\n\t(\{\".*?\}\}),", between(families, "struct wrapper wrappers[] = {"))]
    missing = [(name, why.strip('"') if why.startswith('"') else words[why]) for name, why in
               re.findall(r'\{"(\w+)", ("[^"]+"|\w+)\}', between(families, "struct missing_family missing_families[] = {"))]
    features = re.findall(r'\{"(\w+)", ([\d.]+), "([^"]+)"\}', between(fields, "} features[] = {"))
    harmless = strings(re.sub(r"/\*.*?\*/", "", between(fields, "static const char *const harmless[] = {"), flags=re.S))
    lines = ["# Families", "", "Made by `make generate` of the rows in `engine/model/families.c` and `config_fields.c`.", "",
             "Every family takes `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `vocab_size`, `layer_types`,",
             "`tie_word_embeddings` and `max_position_embeddings`, and all with rotary embeddings `num_key_value_heads`, `head_dim`,",
             "`rope_theta`, `rope_scaling` and `rope_parameters` (default, linear, dynamic, llama3, yarn, longrope); of these `gpt_neox` has",
             "its own names, and as many key-value heads as heads, of the hidden size divided by their number. `gpt2` has names of its",
             "own for `hidden_size`, `num_hidden_layers`, `num_attention_heads` and `max_position_embeddings`.", "",
             "| model_type | class | what it has besides a llama | fields it heeds besides |", "| --- | --- | --- | --- |",
             *map(row_line, rows()), "",
             "A class may be spelled in any letters' case, begin with `FSDP`, and be the model without its head.", "",
             "Language models inside models of texts and images, described by `text_config`; the other tensors are copied as they are:", "",
             "| model_type | class | its language model |", "| --- | --- | --- |",
             *(f"| `{w[0]}` | `{w[1]}` | {' or '.join(f'`{name}`' for name in w[2:])} |" for w in wrappers), "",
             "Known, and refused with the reason:", "", "| model_type | what besad lacks |", "| --- | --- |",
             *(f"| `{name}` | {why} |" for name, why in missing), "",
             "## Fields that are refused where they are on", "",
             "Unless a family heeds them. Off is null, false, empty, or the number here.", "",
             "| field | off at | what it turns on |", "| --- | --- | --- |",
             *(f"| `{key}` | {neutral} | {what} |" for key, neutral, what in features), "",
             "## Fields that change nothing", "", ", ".join(f"`{key}`" for key in harmless), ""]
    return "\n".join(lines)


def main():
    made = document()
    old = open(DOCUMENT, encoding="utf-8").read() if os.path.exists(DOCUMENT) else ""
    if made == old:
        return
    if "--check" in sys.argv:
        sys.exit("docs/families.md is not what engine/model/ says; make generate mends it")
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(made)
    print("made docs/families.md")


if __name__ == "__main__":
    main()
