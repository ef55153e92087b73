#include "engine/chat/chat_template.h"

enum status chat_template_open(const struct place *model, struct chat_template **ret, struct error *err)
{
	(void)model;
	(void)ret;
	return error_set(err, STATUS_UNSUPPORTED, "chat templates are not supported");
}

enum status chat_template_render(const struct chat_template *template, const struct chat_message *messages, size_t count,
				 bool add_generation_prompt, char **ret_text, struct error *err)
{
	(void)template;
	(void)messages;
	(void)count;
	(void)add_generation_prompt;
	(void)ret_text;
	return error_set(err, STATUS_UNSUPPORTED, "chat templates are not supported");
}

void chat_template_close(struct chat_template *template)
{
	(void)template;
}
