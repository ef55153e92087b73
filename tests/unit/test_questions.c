/* The questions of multiple-choice tasks, of a row each: what is made of it, and what is refused, by the field's name. */
#include "tests/unit/scratch.h"

#include "base/buffer.h"
#include "engine/eval/tasks.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* "context|continuation|characters/bytes", by ";", and the answer behind "=". */
static char *print_question(const struct question *question)
{
	struct buffer out = {0};
	for (int i = 0; i < question->n; i++) {
		const struct choice *choice = &question->choices[i];
		buffer_printf(&out, "%s%s|%s|%d/%d", i ? ";" : "", choice->context, choice->continuation, (int)choice->characters,
			      (int)choice->bytes);
	}
	buffer_printf(&out, "=%d", question->answer);
	assert_false(out.failed);
	return out.data;
}

static enum status load(struct scratch *s, enum task_format format, const char *row, struct questions *ret)
{
	scratch_text(s, "rows.jsonl", row);
	return questions_load(&PLACE(scratch_path(s, "rows.jsonl")), "rows.jsonl", format, 0, ret, &s->err);
}

static void test_rows(void **state)
{
	struct scratch *s = *state;
	static const struct {
		enum task_format format;
		const char *row, *question;
	} cases[] = {
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"h\\u00e9\"],\"answer\":1}", "c| a|1/1;c| h\xc3\xa9|2/3=1"},
		{TASK_CHOICES, "{\"context\":\"\",\"choices\":[\"\",\"b\",\"c\"],\"answer\":\"02\"}", "| |0/0;| b|1/1;| c|1/1=2"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":1.0}", "c| a|1/1;c| b|1/1=1"},
		{TASK_PIQA, "{\"goal\":\"g\",\"sol1\":\"x\",\"sol2\":\"y\",\"label\":0}",
		 "Question: g\nAnswer:| x|1/1;Question: g\nAnswer:| y|1/1=0"},
		{TASK_BOOLQ, "{\"question\":\"q\",\"passage\":\"p\",\"answer\":true}",
		 "p\nQuestion: q?\nAnswer:| no|2/2;p\nQuestion: q?\nAnswer:| yes|3/3=1"},
		{TASK_BOOLQ, "{\"question\":\"q\",\"passage\":\"p\",\"label\":0}",
		 "p\nQuestion: q?\nAnswer:| no|2/2;p\nQuestion: q?\nAnswer:| yes|3/3=0"},
		{TASK_HELLASWAG,
		 "{\"activity_label\":\" Act\",\"ctx_a\":\"One [title]two [x] [y\\nz] [w\",\"ctx_b\":\"aB\",\"endings\":[\" "
		 "[header] a  "
		 "b \",\"  \"],\"label\":\"1\"}",
		 "Act: One. two [y\nz] [w Ab|  a b|4/4;Act: One. two [y\nz] [w Ab| |0/0=1"},
		{TASK_HELLASWAG,
		 "{\"activity_label\":\"A\",\"ctx_a\":\"a\",\"ctx_b\":\"\",\"endings\":[\"[a\\n]b\",\"[c]\"],\"label\":0}",
		 "A: a| [a\n]b|5/5;A: a| |0/0=0"},
		{TASK_WINOGRANDE, "{\"sentence\":\"The _ is \\n\",\"option1\":\"cat\",\"option2\":\"dog\",\"answer\":\"2\"}",
		 "The cat| is|7/7;The dog| is|7/7=1"},
		{TASK_WINOGRANDE, "{\"sentence\":\"_  \",\"option1\":\"a\",\"option2\":\"b\",\"answer\":1}", "a| |1/1;b| |1/1=0"},
		{TASK_ARC, "{\"question\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"B\"}",
		 "Question: q\nAnswer:| a|1/1;Question: q\nAnswer:| b|1/1=1"},
		{TASK_ARC,
		 "{\"question\":{\"stem\":\"q\",\"choices\":[{\"text\":\"a\",\"label\":\"1\"},{\"text\":\"b\",\"label\":\"2\"}]},"
		 "\"answerKey\":\"1\"}",
		 "Question: q\nAnswer:| a|1/1;Question: q\nAnswer:| b|1/1=0"},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct questions questions;
		SUCCEEDS(load(s, cases[i].format, cases[i].row, &questions));
		assert_int_equal(questions.count, 1);
		char *text = print_question(&questions.items[0]);
		assert_string_equal(text, cases[i].question);
		free(text);
		questions_free(&questions);
	}
}

static void test_refused_rows(void **state)
{
	struct scratch *s = *state;
	static const struct {
		enum task_format format;
		const char *row, *part;
	} cases[] = {
		{TASK_CHOICES, "{}", "rows.jsonl: line 1: 'context' must be a string, and is not there"},
		{TASK_CHOICES, "{\"context\":5}", "'context' must be a string, and is a number"},
		{TASK_CHOICES, "{\"context\":\"a\\u0000b\"}", "'context' must be a string, and is one with U+0000 in it"},
		{TASK_CHOICES, "{\"context\":\"c\"}", "'choices' must be a list of 2 to 64 choices"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\"]}", "'choices' must be a list of 2 to 64 choices"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":\"ab\"}", "'choices' must be a list of 2 to 64 choices"},
		{TASK_CHOICES,
		 "{\"context\":\"c\",\"choices\":[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,"
		 "1,2,3,"
		 "4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5]}",
		 "'choices' must be a list of 2 to 64 choices"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",5]}", "'choices' must be strings"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\\u0000\"]}", "'choices' must be strings"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"]}", "'answer' must be a number from 0 to 1"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":2}",
		 "'answer' must be a number from 0 to 1"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":-1}",
		 "'answer' must be a number from 0 to 1"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":0.5}",
		 "'answer' must be a number from 0 to 1"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":\"\"}", "'answer' must be a number"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":\"a\"}", "'answer' must be a number"},
		{TASK_CHOICES, "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":\"0001\"}", "'answer' must be a number"},
		{TASK_PIQA, "{}", "'goal' must be a string"},
		{TASK_PIQA, "{\"goal\":\"g\"}", "'sol1' must be a string"},
		{TASK_PIQA, "{\"goal\":\"g\",\"sol1\":\"x\"}", "'sol2' must be a string"},
		{TASK_PIQA, "{\"goal\":\"g\",\"sol1\":\"x\",\"sol2\":\"y\"}", "'label' must be a number from 0 to 1"},
		{TASK_BOOLQ, "{}", "'question' must be a string"},
		{TASK_BOOLQ, "{\"question\":\"q\"}", "'passage' must be a string"},
		{TASK_BOOLQ, "{\"question\":\"q\",\"passage\":\"p\",\"answer\":1}", "'label' must be a number from 0 to 1"},
		{TASK_HELLASWAG, "{}", "'activity_label' must be a string"},
		{TASK_HELLASWAG, "{\"activity_label\":\"a\"}", "'ctx_a' must be a string"},
		{TASK_HELLASWAG, "{\"activity_label\":\"a\",\"ctx_a\":\"a\"}", "'ctx_b' must be a string"},
		{TASK_HELLASWAG, "{\"activity_label\":\"a\",\"ctx_a\":\"a\",\"ctx_b\":\"b\"}",
		 "'endings' must be a list of 2 to 64"},
		{TASK_HELLASWAG, "{\"activity_label\":\"a\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[1,\"b\"],\"label\":0}",
		 "'endings' must be strings"},
		{TASK_HELLASWAG, "{\"activity_label\":\"a\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[\"a\",\"b\"]}",
		 "'label' must be a number from 0 to 1"},
		{TASK_WINOGRANDE, "{}", "'sentence' must be a string"},
		{TASK_WINOGRANDE, "{\"sentence\":\"no blank\"}", "'sentence' has no '_'"},
		{TASK_WINOGRANDE, "{\"sentence\":\"a _\"}", "'option1' must be a string"},
		{TASK_WINOGRANDE, "{\"sentence\":\"a _\",\"option1\":\"a\"}", "'option2' must be a string"},
		{TASK_WINOGRANDE, "{\"sentence\":\"a _\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":0}",
		 "'answer' must be a number from 1 to 2"},
		{TASK_ARC, "{}", "'question' must be a string"},
		{TASK_ARC, "{\"question\":{}}", "'stem' must be a string"},
		{TASK_ARC, "{\"question\":\"q\"}", "'answerKey' must be a string"},
		{TASK_ARC, "{\"question\":\"q\",\"answerKey\":\"A\"}", "'choices' must be a list of 2 to 64"},
		{TASK_ARC, "{\"question\":\"q\",\"answerKey\":\"A\",\"choices\":{}}", "'text' must be a list of 2 to 64"},
		{TASK_ARC, "{\"question\":\"q\",\"answerKey\":\"A\",\"choices\":{\"text\":[\"a\",\"b\"]}}",
		 "'label' must be a list"},
		{TASK_ARC,
		 "{\"question\":\"q\",\"answerKey\":\"A\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\",\"C\"]}}",
		 "'choices' has other numbers of texts and labels"},
		{TASK_ARC, "{\"question\":\"q\",\"answerKey\":\"A\",\"choices\":{\"text\":[\"a\",5],\"label\":[\"A\",\"B\"]}}",
		 "'choices' must have texts and labels"},
		{TASK_ARC, "{\"question\":\"q\",\"answerKey\":\"A\",\"choices\":[{\"text\":\"a\"},{\"text\":\"b\"}]}",
		 "'choices' must have texts and labels"},
		{TASK_ARC, "{\"question\":\"q\",\"answerKey\":\"C\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]}}",
		 "'answerKey' is no choice's label"},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct questions questions;
		FAILS(STATUS_INVALID, cases[i].part, load(s, cases[i].format, cases[i].row, &questions));
	}
}

static void test_files(void **state)
{
	struct scratch *s = *state;
	struct questions questions;
	static const char row[] = "{\"context\":\"c\",\"choices\":[\"a\",\"b\"],\"answer\":1}\n";
	struct buffer many = {0};
	FAILS(STATUS_INVALID, "has no questions", load(s, TASK_CHOICES, "[]", &questions));
	for (int i = 0; i < 300; i++)
		buffer_append(&many, row, sizeof row - 1);
	SUCCEEDS(load(s, TASK_CHOICES, many.data, &questions));
	assert_int_equal(questions.count, 300);
	assert_int_equal(questions.items[299].answer, 1);
	questions_free(&questions);
	SUCCEEDS(questions_load(&PLACE(scratch_path(s, "rows.jsonl")), "r.jsonl", TASK_CHOICES, 7, &questions, &s->err));
	assert_int_equal(questions.count, 7);
	questions_free(&questions);
	SUCCEEDS(questions_load(&PLACE(scratch_path(s, "rows.jsonl")), "r.jsonl", TASK_CHOICES, INT64_MAX, &questions, &s->err));
	assert_int_equal(questions.count, 300);
	questions_free(&questions);
	buffer_free(&many);
	scratch_text(s, "plain.txt", "words");
	FAILS(STATUS_INVALID, "is plain text; a task's questions are rows of JSON",
	      questions_load(&PLACE(scratch_path(s, "plain.txt")), "plain.txt", TASK_PIQA, 0, &questions, &s->err));
	FAILS(STATUS_INVALID, "is a safetensors file; a task's questions are rows of JSON",
	      questions_load(&PLACE("tests/data/saved/llama/model.safetensors"), "m.safetensors", TASK_PIQA, 0, &questions,
			     &s->err));
	FAILS(STATUS_NOT_FOUND, "none",
	      questions_load(&PLACE(scratch_path(s, "none.jsonl")), "none.jsonl", TASK_PIQA, 0, &questions, &s->err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_rows), SCRATCH_TEST(test_refused_rows), SCRATCH_TEST(test_files)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
