/* Makes texts of conversations for tests/data/chat/make.py: chat_text DIRECTORY, which has the chat template. Standard input is a
 * JSON array of {"conversation": [[ROLE, CONTENT], …], "prompt": BOOL}; prints one of the texts, with an object {"error": MESSAGE}
 * where there is none. */
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/json.h"
#include "engine/chat/chat_template.h"

enum { MOST_MESSAGES = 1000 };

static cJSON *read_input(void)
{
	struct buffer input = {0};
	struct error err;
	cJSON *asked;
	char part[65536];
	for (size_t got; (got = fread(part, 1, sizeof part, stdin)) > 0;)
		buffer_append(&input, part, got);
	if (json_parse(input.data ? input.data : "", input.size, "standard input", &asked, &err) != STATUS_OK) {
		fprintf(stderr, "%s\n", err.message);
		exit(2);
	}
	buffer_free(&input);
	return asked;
}

static cJSON *answer(const struct chat_template *template, const cJSON *asked)
{
	static struct chat_message messages[MOST_MESSAGES];
	struct error err;
	char *text;
	size_t count = 0;
	const cJSON *message, *conversation = cJSON_GetObjectItem(asked, "conversation");
	cJSON_ArrayForEach(message, conversation)
	{
		if (count == MOST_MESSAGES) exit(2);
		messages[count++] = (struct chat_message){cJSON_GetStringValue(cJSON_GetArrayItem(message, 0)),
							  cJSON_GetStringValue(cJSON_GetArrayItem(message, 1))};
	}
	bool prompt = cJSON_IsTrue(cJSON_GetObjectItem(asked, "prompt"));
	if (chat_template_render(template, messages, count, prompt, &text, &err) != STATUS_OK) {
		cJSON *error = cJSON_CreateObject();
		cJSON_AddStringToObject(error, "error", err.message);
		return error;
	}
	cJSON *string = cJSON_CreateString(text);
	free(text);
	return string;
}

int main(int argc, char **argv)
{
	struct chat_template *template;
	struct error err;
	if (argc != 2) return 2;
	if (chat_template_open(&PLACE(argv[1]), &template, &err) != STATUS_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	cJSON *all = read_input(), *answers = cJSON_CreateArray();
	const cJSON *asked;
	cJSON_ArrayForEach(asked, all) cJSON_AddItemToArray(answers, answer(template, asked));
	char *text = cJSON_PrintUnformatted(answers);
	puts(text);
	cJSON_free(text);
	cJSON_Delete(answers);
	cJSON_Delete(all);
	chat_template_close(template);
	return 0;
}
