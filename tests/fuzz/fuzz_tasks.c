/* libFuzzer over the files of multiple-choice tasks, plain and packed. The first byte says the format. */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/eval/tasks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct questions *questions)
{
	for (int64_t i = 0; i < questions->count; i++) {
		const struct question *question = &questions->items[i];
		if (question->n < 1 || question->answer < 0 || question->answer >= question->n) abort();
		for (int c = 0; c < question->n; c++)
			if (!question->choices[c].context || !question->choices[c].continuation ||
			    question->choices[c].bytes < question->choices[c].characters)
				abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[] = "/tmp/fuzz-tasks-XXXXXX";
	static int fd = -1;
	struct questions questions;
	struct error err = {0};
	if (fd < 0 && (fd = mkstemp(path)) < 0) abort();
	if (size < 1) return 0;
	if (ftruncate(fd, 0) || pwrite(fd, data + 1, size - 1, 0) != (ssize_t)size - 1) abort();
	enum status status =
		questions_load(&PLACE(path), "a.jsonl", (enum task_format)(data[0] % TASK_FORMATS), 0, &questions, &err);
	if (status != STATUS_OK) {
		if (!err.message[0]) abort();
		return 0;
	}
	check(&questions);
	questions_free(&questions);
	return 0;
}
