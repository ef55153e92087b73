/* tokenizer.json: byte-level BPE (GPT-2, Llama 3, Qwen) and SentencePiece-style BPE (Llama 2, Mistral, Gemma, Phi-3), with the
 * ids that the tokenizers package gives. */
#ifndef BESAD_ENGINE_BPE_H
#define BESAD_ENGINE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

struct bpe;

/* Loads a tokenizer.json of `bytes` bytes; `path` names it in errors. STATUS_UNSUPPORTED names the place and the value of what
 * the file asks for and besad lacks. The "decoder" is not used, nor are "truncation" and "padding", which transformers
 * overrides. */
enum status bpe_load(const char *json, size_t bytes, const char *path, struct bpe **ret, struct error *err);
void bpe_free(struct bpe *);

/* Encodes text as one piece, without the post-processor's special tokens; those spelled out in the text become their ids. Text
 * that is not valid UTF-8 is read as utf8_repair has it (unicode.h). *ret_ids (*ret_count of them) is freed by the caller.
 * Threads may share a bpe. */
enum status bpe_encode(const struct bpe *, const char *text, size_t bytes, int32_t **ret_ids, size_t *ret_count, struct error *err);

int64_t bpe_vocab_size(const struct bpe *); /* 1 + the largest id */

/* The id that the post-processor puts in front of a single text, or -1. What it puts behind is not used: texts are cut into
 * windows. */
int32_t bpe_bos(const struct bpe *);

#endif
