/* The chat template of a model: what makes one text of a conversation, as transformers' apply_chat_template does, to the byte.
 *
 * Templates are written in Jinja2, and run here as transformers 5.24 runs them: sandboxed, nothing can be changed but namespaces,
 * with its raise_exception, strftime_now and tojson. What they use of Jinja2 is there; what is not is refused by name, with the
 * line, where it is reached. A template is untrusted: its size, nesting, steps, memory and output are bounded. */
#ifndef BESAD_ENGINE_CHAT_TEMPLATE_H
#define BESAD_ENGINE_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/place.h"

/* Both are UTF-8. */
struct chat_message {
	const char *role, *content;
};

struct chat_template;

/* Reads the template of a model directory: chat_template.jinja, or tokenizer_config.json's `chat_template`, and the special
 * tokens it may name. STATUS_NOT_FOUND where the model has no template; STATUS_INVALID or STATUS_UNSUPPORTED where it cannot be
 * read. */
enum status chat_template_open(const struct place *model, struct chat_template **ret, struct error *err);

/* The conversation's text, which the caller frees; with what begins an answer where `add_generation_prompt` says so. The text has
 * the special tokens in it, bos_token too where the template puts it there: it is encoded without adding any. STATUS_INVALID where
 * the template itself refuses the conversation, with its words, or fails; STATUS_UNSUPPORTED for what is not supported, or takes
 * more than it may. Any number of threads may render at one time. */
enum status chat_template_render(const struct chat_template *, const struct chat_message *messages, size_t count,
				 bool add_generation_prompt, char **ret_text, struct error *err);

void chat_template_close(struct chat_template *); /* takes NULL */

#endif
