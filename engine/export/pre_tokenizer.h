/* How llama.cpp is to split text before it applies merges. It knows no rules of a tokenizer.json but a list of tokenizers by
 * name; which of them one is, llama.cpp's converter tells by the ids that it gives to a certain text. */
#ifndef BESAD_ENGINE_EXPORT_PRE_TOKENIZER_H
#define BESAD_ENGINE_EXPORT_PRE_TOKENIZER_H

#include "engine/text/tokenizer.h"

/* What "tokenizer.ggml.pre" says of the tokenizer; NULL where it is none of the list. */
enum status pre_tokenizer_name(const struct tokenizer *, const char **ret, struct error *err);

#endif
