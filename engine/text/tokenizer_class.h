/* The tokenizer classes of transformers. Version 5 takes only the vocabulary and the post-processor of a tokenizer.json for a
 * class that has a constructor of its own, and builds the rest anew. */
#ifndef BESAD_ENGINE_TOKENIZER_CLASS_H
#define BESAD_ENGINE_TOKENIZER_CLASS_H

#include <stdbool.h>

#include "base/json.h"

struct tokenizer_config;

struct tokenizer_class {
	const char *name; /* without "Fast" */
	bool rebuilt;     /* the class builds its parts itself */
	bool known;       /* … and we can, too */

	/* The special tokens that it has where tokenizer_config.json does not say; NULL for none. */
	const char *bos, *eos, *unk, *pad, *mask;
	const char *const *own; /* further special tokens, ended by NULL, or NULL */

	/* Its parts as JSON, NULL for none; "model" holds what goes over the file's options. */
	const char *normalizer, *pretokenizer, *model;
	bool names_unk;                                                            /* the model's unk_token is the special token */
	enum { PREFIX_NONE, PREFIX_METASPACE, PREFIX_FIRST, PREFIX_BYTES } prefix; /* what add_prefix_space and legacy change */
	bool prefix_by_default;                                                    /* add_prefix_space where it is not there */
	enum {
		POST_FILE,
		POST_BOS,
		POST_NOTHING
	} post;             /* who puts a token in front: tokenizer.json, or the class does or does not */
	bool plain_special; /* special tokens lose their flags */
};

/* The class that AutoTokenizer takes, but that a tokenizer.json of no class of its own ("PreTrainedTokenizerFast") is taken as
 * it is even where transformers holds that to be a mistake for the model type: *ret_overruled is then the class it would take,
 * else NULL. `named`: what the tokenizer_config.json or the config.json says, or NULL; `model_type`: the config.json's, or
 * NULL; `bytes`: there is a tokenizer.json that names ByteLevel. Never NULL. */
const struct tokenizer_class *tokenizer_class_choose(const char *named, const char *model_type, bool bytes,
						     const struct tokenizer_class **ret_overruled);

/* Whether the class would split text by the same regular expression as the tree of a tokenizer.json does. */
bool tokenizer_class_splits_alike(const struct tokenizer_class *, const cJSON *tree);

/* Makes the tree of a tokenizer.json what the class would build of it. */
enum status tokenizer_class_rebuild(const struct tokenizer_config *, cJSON *tree, struct error *err);

#endif
