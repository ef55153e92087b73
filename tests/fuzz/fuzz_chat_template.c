/* libFuzzer over chat templates, which are made texts of with a fixed conversation: what comes of it is UTF-8, or an error that
 * names the file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "engine/chat/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct chat_message messages[] = {{"system", "  Be kind. "},
					       {"user", " h\xc3\xa9llo 'a' \"b\" \xf0\x9f\x99\x82 {{ x }}\n"},
					       {"assistant", "<think>\nhm\n</think>\n\n12"},
					       {"user", ""}};

static char directory[] = "/tmp/fuzz-chat-XXXXXX";

static struct file make_directory(void)
{
	struct file file, config;
	struct error err;
	char path[64];
	static const char tokens[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
	if (!mkdtemp(directory)) abort();
	snprintf(path, sizeof path, "%s/tokenizer_config.json", directory);
	if (file_create(path, sizeof tokens - 1, &config, &err) != STATUS_OK) abort();
	if (file_write(&config, tokens, sizeof tokens - 1, 0, &err) != STATUS_OK) abort();
	file_close(&config);
	snprintf(path, sizeof path, "%s/chat_template.jinja", directory);
	if (file_create(path, 0, &file, &err) != STATUS_OK) abort();
	return file;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct file file = {.fd = -1};
	struct error err = {0};
	struct chat_template *template;
	char *text;
	if (file.fd < 0) file = make_directory();
	if (ftruncate(file.fd, 0) || pwrite(file.fd, data, size, 0) != (ssize_t)size) abort();
	enum status status = chat_template_open(&PLACE(directory), &template, &err);
	if (status == STATUS_OK) {
		status = chat_template_render(template, messages, 4, true, &text, &err);
		if (status == STATUS_OK && !utf8_valid(text, strlen(text))) abort();
		if (status == STATUS_OK) free(text);
		chat_template_close(template);
	}
	if (status != STATUS_OK && !strstr(err.message, "chat_template.jinja")) abort();
	if (!utf8_valid(err.message, strlen(err.message))) abort();
	return 0;
}
