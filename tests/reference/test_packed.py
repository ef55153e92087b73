#!/usr/bin/env python3
"""Packed outputs of besad, unpacked here by the rules of compressed-tensors (quant_method compressed-tensors, format pack-quantized), against the
weights of the same job's plain output; and what besad makes of a packed model."""
import array
import json
import os
import shutil
import struct
import unittest

from bundled import ROOT, SHORT, BundledModel
from random_models import read_safetensors

NUMBERS = {"BF16": "H", "F16": "H", "F32": "I"}


def as_float(word, dtype):
    if dtype == "BF16":
        return struct.unpack("f", struct.pack("I", word << 16))[0]
    return struct.unpack("e", struct.pack("H", word))[0] if dtype == "F16" else struct.unpack("f", struct.pack("I", word))[0]


def as_word(value, dtype):
    bits = struct.unpack("I", struct.pack("f", value))[0]
    if dtype == "BF16":
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    return struct.unpack("H", struct.pack("e", value))[0] if dtype == "F16" else bits


def codes(words, count, bits):
    return [words[i * bits // 32] >> i * bits % 32 & (1 << bits) - 1 for i in range(count)]


def unpacked(tensors, name, weights):
    """The words of a linear's weights, and their type."""
    part = {key: tensors.pop(f"{name}.weight_{key}") for key in ("packed", "scale", "shape")}
    rows, cols = struct.unpack("<2q", part["shape"][2])
    bits, (dtype, (_, groups), steps) = weights["num_bits"], part["scale"]
    group = weights["group_size"] if weights["strategy"] == "group" else cols
    assert groups == cols // group and part["packed"][0] == "I32" and part["packed"][1] == [rows, -(-cols * bits // 32)]
    steps, words = array.array(NUMBERS[dtype], steps), array.array("I", part["packed"][2])
    if weights["symmetric"]:
        zeros = [[1 << bits - 1] * rows] * groups
    else:
        packed = array.array("I", tensors.pop(f"{name}.weight_zero_point")[2])
        zeros = [codes(packed[g::groups], rows, bits) for g in range(groups)]
    out, width = array.array(NUMBERS[dtype]), -(-cols * bits // 32)
    for r in range(rows):
        row = codes(words[r * width:(r + 1) * width], cols, bits)
        for g in range(groups):
            zero, step = zeros[g][r], as_float(steps[r * groups + g], dtype)
            read = [as_word((code - zero) * step, dtype) for code in range(1 << bits)]
            out.extend(read[code] for code in row[g * group:(g + 1) * group])
    return dtype, [rows, cols], out.tobytes()


def model_files(directory):
    """{tensor: (type, shape, bytes)}, packed linears as their weights; and config.json."""
    tensors = {}
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    for name in os.listdir(directory):
        if name.endswith(".safetensors"):
            tensors.update(read_safetensors(os.path.join(directory, name))[1])
    packed = [name[:-len(".weight_packed")] for name in tensors if name.endswith(".weight_packed")]
    for name in packed:
        (group,) = config["quantization_config"]["config_groups"].values()
        tensors[name + ".weight"] = unpacked(tensors, name, group["weights"])
    return tensors, config, packed


class Packed(BundledModel):
    evaluation = SHORT  # compared with itself alone

    def output(self, name):
        return os.path.join(self.directory, "output", name)

    def bytes(self, name):
        return os.path.getsize(os.path.join(self.output(name), "model.safetensors"))

    def both(self, name, **spec):
        """The reports of a job whose output is packed, and of the one whose is not, which must be the same model."""
        quantization = spec.pop("quantization")
        packed = self.run_job(name, quantization=quantization, **spec)
        plain = self.run_job(name + "-plain", quantization=dict(quantization, format="dequantized"), **spec)
        self.assertEqual((packed["result"]["format"], plain["result"]["format"]), ("packed", "dequantized"))
        self.assertEqual(packed["spec"]["quantization"]["format"], "packed")
        got, config, linears = model_files(self.output(name))
        expected, plain_config, none = model_files(self.output(name + "-plain"))
        self.assertEqual(none, [])
        self.assertEqual(set(got), set(expected))
        for tensor, value in expected.items():
            self.assertEqual([got[tensor][0], list(got[tensor][1]), got[tensor][2]], [value[0], list(value[1]), value[2]], tensor)
        said = config.pop("quantization_config")
        self.assertEqual((said["quant_method"], said["format"], config), ("compressed-tensors", "pack-quantized", plain_config))
        for key in ("zeros", "params", "sparsity"):
            self.assertEqual(packed["result"][key], plain["result"][key])
        return packed, plain, linears

    def test_weights_and_perplexity(self):
        packed, plain, linears = self.both("four", method="magnitude", sparsity=0.5, calibration=None, quantization={"bits": 4})
        self.assertEqual(self.perplexity(packed), self.perplexity(plain))
        self.assertEqual(len(linears), 42)
        packed, _, _ = self.both("eight", method="magnitude", sparsity=0.5, calibration=None, evaluation={},
                                 quantization={"bits": 8, "group_size": "channel", "symmetric": False})
        for name, share in (("four", 0.3), ("eight", 0.55)):  # of the bytes that the linears take
            saved = (self.bytes(name + "-plain") - self.bytes(name)) / (2 * packed["result"]["params"])
            self.assertGreater(saved, 1 - share)

    def test_learned_clipping(self):
        calibration = {"path": "calibration.safetensors", "samples": 8, "sequence_length": 256}
        self.both("joint", method="besa", sparsity=0.5, calibration=calibration, evaluation={},
                  quantization={"bits": 4, "group_size": 64, "symmetric": False})

    def test_linears_that_share_a_tensor(self):
        """GPT-NeoX has q, k and v head by head, Phi-3 one behind the other: zero points of several of them share words."""
        for family in ("gpt_neox", "phi3", "mixtral"):
            with self.subTest(family):
                shutil.copytree(os.path.join(ROOT, "tests", "data", "saved", family), os.path.join(self.models, family))
                self.both("of-" + family, model=family, method="magnitude", sparsity=0.5, calibration=None, evaluation={},
                          quantization={"bits": 4, "group_size": "channel", "symmetric": False})

    def test_a_packed_model_is_a_model(self):
        self.run_job("base", method="magnitude", sparsity=0.25, calibration=None, quantization={"bits": 4})
        shutil.copytree(self.output("base"), os.path.join(self.models, "base"))
        wanted = self.perplexity(self.run_job("base"))
        again = self.run_job("half", model="base", method="magnitude", sparsity=0.5, calibration=None)
        self.assertEqual(self.perplexity(again, "dense"), wanted)
        (before, _, _), (after, config, packed) = model_files(self.output("base")), model_files(self.output("half"))
        self.assertEqual((packed, set(after)), ([], set(before)))
        self.assertNotIn("quantization_config", config)
        for tensor, (dtype, shape, data) in after.items():
            pairs = zip(array.array("H", data), array.array("H", before[tensor][2]), strict=True)
            self.assertTrue(all(new in (0, old) for new, old in pairs), tensor)
        self.run_job("eight-of-four", model="base", method="magnitude", sparsity=0, calibration=None, evaluation={}, quantization={"bits": 8})
        finer, config, packed = model_files(self.output("eight-of-four"))
        self.assertEqual((len(packed), set(finer)), (42, set(before)))
        self.assertEqual(config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"], 8)


if __name__ == "__main__":
    unittest.main()
