/* The "post_processor" of a tokenizer.json. */
#ifndef BESAD_ENGINE_POST_PROCESSOR_H
#define BESAD_ENGINE_POST_PROCESSOR_H

#include <stdint.h>

#include "base/json.h"

/* *ret_bos becomes the id that stands in front of a single text, or -1. What is put behind is not used: texts are cut into
 * windows. Known: TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel, Sequence, and null. `what` is the file's
 * path. */
enum status post_processor_parse(const cJSON *json, const char *what, int32_t *ret_bos, struct error *err);

#endif
