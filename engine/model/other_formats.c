#include "engine/model/other_formats.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

static const struct format {
	const char *pattern, *what, *advice;
} formats[] = {
	{"besad-archive.json", "an archive of besad's", "restore the model with `besad unpack`, and use that"},
	{"adapter_model.*", "a LoRA adapter",
	 "merge it into its base model with peft (merge_and_unload) and write that with save_pretrained"},
	{"model-*-of-*.safetensors", "shards without model.safetensors.index.json", "fetch the index from where they came from"},
	{"pytorch_model*.bin", "weights in PyTorch's pickle format",
	 "load the model with transformers (AutoModelForCausalLM.from_pretrained) and write it with save_pretrained"},
	{"consolidated*", "weights as the model's maker published them",
	 "fetch the model in the Hugging Face form, or convert it with the script that transformers has for it"},
	{"*.gguf", "weights in llama.cpp's format",
	 "fetch the model they were made from, or load them with transformers (from_pretrained with gguf_file) and use "
	 "save_pretrained"},
	{"*.safetensors", "safetensors under another name", "rename it to model.safetensors if it holds the whole model"},
	{"*.index.json", "an index under another name", "rename it to model.safetensors.index.json if its shards are safetensors"},
	{"*.pth", "weights in PyTorch's pickle format",
	 "convert them with the script that transformers has for the model, or save_pretrained"},
	{"*.pt", "weights in PyTorch's pickle format",
	 "convert them with the script that transformers has for the model, or save_pretrained"},
	{"*.bin", "weights in PyTorch's pickle format",
	 "load the model with transformers (AutoModelForCausalLM.from_pretrained) and write it with save_pretrained"},
	{"tf_model*.h5", "TensorFlow weights", "fetch the model as safetensors"},
	{"flax_model*.msgpack", "Flax weights", "fetch the model as safetensors"},
	{"*.onnx", "an ONNX model", "fetch the model as safetensors"},
};
enum { FORMATS = sizeof formats / sizeof *formats };

enum status other_formats_error(const struct place *place, struct error *err)
{
	int best = FORMATS;
	char found[256] = "";
	DIR *entries;
	TRY(place_list(place, NULL, &entries, err));
	for (const struct dirent *entry; (entry = readdir(entries));)
		for (int i = 0; i < best; i++)
			if (fnmatch(formats[i].pattern, entry->d_name, FNM_PERIOD) == 0) {
				best = i;
				snprintf(found, sizeof found, "%s", entry->d_name);
			}
	closedir(entries);
	char *directory = place_text(place, NULL);
	if (!directory) return error_set(err, STATUS_NO_MEMORY, "no memory to open a model");
	static const char wanted[] = "model.safetensors nor model.safetensors.index.json";
	enum status status = best == FORMATS
				     ? error_set(err, STATUS_NOT_FOUND, "%s: holds neither %s", directory, wanted)
				     : error_set(err, STATUS_UNSUPPORTED, "%s: holds neither %s, but %s: %s, which is not read; %s",
						 directory, wanted, found, formats[best].what, formats[best].advice);
	free(directory);
	return status;
}
