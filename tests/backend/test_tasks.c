/* Multiple-choice tasks against a straightforward computation with transformers: the same picks and scores
 * (tests/data/tasks/make.py made the files and golden.json); and files that are refused. */
#include <math.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/eval/choices.h"
#include "tests/backend/harness.h"

#define MODEL "tests/data/tiny-qwen"

static atomic_bool never;

static void ignore_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta)
{
	(void)context, (void)phase, (void)block, (void)blocks, (void)fraction, (void)eta;
}

static enum task_format format_of(const char *name)
{
	int i = 0;
	while (strcmp(task_format_names[i], name) != 0)
		i++;
	return (enum task_format)i;
}

static void check_number(const cJSON *golden, const char *key, double value)
{
	double wanted = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(golden, key));
	if (!(fabs(value - wanted) < 1e-12)) fail_msg("%s of %s: %.15g, not %.15g", key, golden->string, value, wanted);
}

static void check_task(struct scratch *s, const struct model *model, const struct tokenizer *tokenizer, const cJSON *golden)
{
	char path[128];
	struct questions questions;
	struct requests requests;
	struct score score;
	int answers[300];
	const struct engine_sink sink = {.progress = ignore_progress};
	struct progress progress = {0};
	progress_start(&progress, &sink, 1, 1e9, 0);
	enum task_format format = format_of(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(golden, "format")));
	snprintf(path, sizeof path, "tests/data/tasks/%s.jsonl", golden->string);
	SUCCEEDS(questions_load(&PLACE(path), path, format, 0, &questions, &s->err));
	assert_true(questions.count > 0 && questions.count <= 100);
	SUCCEEDS(requests_encode(&questions, tokenizer, 512, &requests, &s->err));
	SUCCEEDS(choices_score(model, BACKEND, DTYPE_F32, &questions, &requests, &never, &progress, &score, answers, &s->err));
	const cJSON *picks = cJSON_GetObjectItemCaseSensitive(golden, "picks"), *pick;
	int64_t q = 0;
	cJSON_ArrayForEach(pick, picks)
	{
		for (int way = 0; way < 3; way++) /* as it is, by characters, by bytes */
			if (answers[3 * q + way] != cJSON_GetArrayItem(pick, way)->valueint)
				fail_msg("%s: question %d, way %d", golden->string, (int)q, way);
		q++;
	}
	assert_int_equal(q, questions.count);
	assert_int_equal(score.questions, q);
	check_number(golden, "acc", score.acc);
	check_number(golden, "acc_stderr", score.acc_stderr);
	check_number(golden, "acc_norm", score.acc_norm);
	check_number(golden, "acc_norm_stderr", score.acc_norm_stderr);
	check_number(golden, "acc_bytes", score.acc_bytes);
	check_number(golden, "acc_bytes_stderr", score.acc_bytes_stderr);
	requests_free(&requests);
	questions_free(&questions);
}

static void test_picks(void **state)
{
	struct scratch *s = *state;
	struct model model;
	struct tokenizer *tokenizer;
	cJSON *golden;
	SUCCEEDS(model_open(&PLACE(MODEL), NULL, &model, &s->err));
	SUCCEEDS(tokenizer_load(&PLACE(MODEL), model.config.vocab, NULL, &tokenizer, &s->err));
	SUCCEEDS(json_read_place(&PLACE("tests/data/tasks/golden.json"), NULL, 1 << 20, &golden, &s->err));
	const cJSON *task;
	cJSON_ArrayForEach(task, golden) check_task(s, &model, tokenizer, task);
	cJSON_Delete(golden);
	tokenizer_free(tokenizer);
	model_close(&model);
}

static void test_limit(void **state)
{
	struct scratch *s = *state;
	struct questions questions;
	SUCCEEDS(questions_load(&PLACE("tests/data/tasks/piqa.jsonl"), "piqa", TASK_PIQA, 7, &questions, &s->err));
	assert_int_equal(questions.count, 7);
	questions_free(&questions);
}

static void test_refuses(void **state)
{
	struct scratch *s = *state;
	static const struct {
		enum task_format format;
		const char *text, *message;
	} cases[] = {
		{TASK_CHOICES, "", "is empty"},
		{TASK_CHOICES, "\n", "has no questions"},
		{TASK_CHOICES, "\n[1]\n", "row 1 (line 2): must be an object, and is a number"},
		{TASK_CHOICES, "{\"context\":1}", "'context' must be a string"},
		{TASK_CHOICES, "{\"context\":\"a\",\"choices\":[\"b\"],\"answer\":0}", "'choices' must be a list of 2 to 64"},
		{TASK_CHOICES, "{\"context\":\"a\",\"choices\":[\"b\",2],\"answer\":0}", "'choices' must be strings"},
		{TASK_CHOICES, "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":2}",
		 "'answer' must be a number from 0 to 1"},
		{TASK_PIQA, "{\"goal\":\"a\",\"sol1\":\"b\",\"label\":0}", "'sol2' must be a string"},
		{TASK_BOOLQ, "{\"question\":\"a\",\"passage\":\"b\"}", "'label' must be a number"},
		{TASK_HELLASWAG, "{\"activity_label\":\"a\",\"ctx_a\":\"b\",\"ctx_b\":\"c\",\"endings\":[1,2]}",
		 "'endings' must be strings"},
		{TASK_WINOGRANDE, "{\"sentence\":\"a b\",\"option1\":\"b\",\"option2\":\"c\",\"answer\":\"1\"}", "has no '_'"},
		{TASK_WINOGRANDE, "{\"sentence\":\"a _ b\",\"option1\":\"b\",\"option2\":\"c\",\"answer\":\"3\"}", "from 1 to 2"},
		{TASK_ARC, "{\"question\":\"a\",\"choices\":{\"text\":[\"b\",\"c\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"C\"}",
		 "'answerKey' is no choice's label"},
		{TASK_ARC,
		 "{\"question\":\"a\",\"choices\":{\"text\":[\"b\",\"c\"],\"label\":[\"A\",\"B\",\"C\"]},\"answerKey\":\"C\"}",
		 "other numbers of texts and labels"},
		{TASK_CHOICES, "{", "line 1"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct questions questions;
		char path[256];
		scratch_write(s, "task.jsonl", cases[i].text, strlen(cases[i].text));
		snprintf(path, sizeof path, "%s/task.jsonl", s->directory);
		assert_int_equal(questions_load(&PLACE(path), path, cases[i].format, 0, &questions, &s->err), STATUS_INVALID);
		if (!strstr(s->err.message, cases[i].message)) fail_msg("'%s' is not in '%s'", cases[i].message, s->err.message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_picks), SCRATCH_TEST(test_limit), SCRATCH_TEST(test_refuses)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	test_backend_end();
	return failed;
}
