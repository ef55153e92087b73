/* What besactl shows (ctl/view.h, ctl/text.h, ctl/table.h): lines of events, the bar at every width, tables, hostile text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/table.h"
#include "ctl/text.h"
#include "ctl/view.h"

/* Feeds one event; `wanted` is its line, NULL for none. */
static void expect_line(struct view *view, const char *type, const char *json, const char *wanted)
{
	struct buffer line = {0};
	cJSON *data = cJSON_Parse(json);
	assert_non_null(data);
	assert_int_equal(view_take_event(view, type, data, &line), wanted != NULL);
	if (wanted) assert_string_equal(line.data, wanted);
	buffer_free(&line);
	cJSON_Delete(data);
}

static void test_lines(void **state)
{
	(void)state;
	struct view view;
	view_init(&view);
	expect_line(&view, "job.queued", "{\"reason\":\"submitted\"}", "queued");
	expect_line(&view, "job.started", "{\"attempt\":1}", "started");
	expect_line(&view, "job.started", "{\"attempt\":2,\"blocks_done\":3}", "started, attempt 2");
	expect_line(&view, "block.finished",
		    "{\"block\":1,\"blocks\":6,\"sparsity\":0.5,\"perplexity\":19.5,\"perplexity_dense\":18.25,\"seconds\":75}",
		    "block 2/6  sparsity 50.0 %  perplexity 19.50 (dense 18.25)  1 min 15 s");
	expect_line(&view, "eval.finished", "{\"dataset\":\"wiki\",\"model\":\"dense\",\"perplexity\":18.6231}",
		    "dense perplexity on wiki: 18.62");
	expect_line(&view, "task.finished",
		    "{\"task\":\"piqa\",\"model\":\"pruned\",\"acc\":0.625,\"acc_norm\":0.5,\"acc_bytes\":0.375}",
		    "pruned accuracy on piqa: 62.5 %, by characters 50.0 %, by bytes 37.5 %");
	expect_line(&view, "block.started", "{\"block\":2,\"blocks\":6}", NULL);
	expect_line(&view, "block.step",
		    "{\"block\":2,\"step\":5,\"steps\":128,\"loss\":0.5,\"reconstruction\":0.4,\"sparsity\":0.49}", NULL);
	expect_line(&view, "block.finished",
		    "{\"block\":2,\"blocks\":6,\"loss\":0.1,\"reconstruction\":0.01234,\"sparsity\":0.5,\"perplexity\":null,"
		    "\"seconds\":1.25}",
		    "block 3/6  reconstruction 0.01234  sparsity 50.0 %  1.2 s");
	expect_line(&view, "block.finished",
		    "{\"block\":0,\"blocks\":6,\"reconstruction\":null,\"sparsity\":0.5,\"perplexity\":19.5,\"seconds\":75}",
		    "block 1/6  sparsity 50.0 %  perplexity 19.50  1 min 15 s");
	expect_line(&view, "warning", "{\"message\":\"a dead column\"}", "warning: a dead column");
	expect_line(&view, "job.failed", "{\"code\":\"no_space\",\"message\":\"the disk is full\"}",
		    "failed: no_space: the disk is full");
	expect_line(&view, "something.new", "{}", NULL);
	expect_line(&view, "block.finished", "[]", "block 1/0"); /* not the contract's, and no crash */
}

static void test_hostile_text(void **state)
{
	(void)state;
	struct view view;
	view_init(&view);
	expect_line(&view, "warning", "{\"message\":\"a\\u001b[2Jb\\nc\\u009bd\xc3\xa9\"}", "warning: a?[2Jb?c?d\xc3\xa9");
	expect_line(&view, "job.\x1b]0;x", "{}", "?]0;x");
}

static void bar(const struct view *view, size_t columns, char ret[256])
{
	struct buffer text = {0};
	buffer_append(&text, "", 0);
	view_bar(view, columns, &text);
	assert_true(text_width(text.data) <= columns);
	assert_true(text.size < 256);
	strcpy(ret, text.data);
	buffer_free(&text);
}

static void test_bar(void **state)
{
	(void)state;
	struct view view;
	char text[256];
	cJSON *job =
		cJSON_Parse("{\"state\":\"running\",\"progress\":{\"phase\":\"pruning\",\"block\":2,\"blocks\":6,\"fraction\":0.5,"
			    "\"eta_seconds\":72}}");
	cJSON *step = cJSON_Parse("{\"block\":2,\"step\":5,\"steps\":128,\"loss\":0.25,\"sparsity\":0.498}");
	struct buffer none = {0};
	view_init(&view);
	view_take_job(&view, job);
	assert_false(view_take_event(&view, "block.step", step, &none));
	bar(&view, 120, text);
	assert_string_equal(text,
			    "pruning  block 3/6  [###################-------------------]  50.0 %  loss 0.2500  sparsity 49.8 %  "
			    "1 min 12 s left");
	bar(&view, 16, text);
	assert_string_equal(text, "pruning  50.0 %");
	for (size_t columns = 0; columns <= 200; columns++)
		bar(&view, columns, text);

	/* A step of the whole model. */
	cJSON *tune = cJSON_Parse("{\"step\":2,\"steps\":64,\"loss\":0.125,\"attempt\":1}");
	strcpy(view.phase, "tuning");
	assert_false(view_take_event(&view, "tune.step", tune, &none));
	bar(&view, 80, text);
	assert_string_equal(text, "tuning  [################----------------]  50.0 %  loss 0.1250  1 min 12 s left");
	cJSON_Delete(tune);

	/* What is measured of a block says nothing about a job that waits again. */
	strcpy(view.state, "queued");
	bar(&view, 200, text);
	assert_null(strstr(text, "loss"));
	assert_int_equal(strncmp(text, "queued  [", 9), 0);

	view_init(&view);
	strcpy(view.state, "queued");
	bar(&view, 80, text);
	assert_string_equal(text, "queued");
	cJSON_Delete(job);
	cJSON_Delete(step);
}

static void test_bar_of_odd_fractions(void **state)
{
	(void)state;
	static const double fractions[] = {-1, 0, 1, 1.5, 1e300, NAN, INFINITY};
	struct view view;
	char text[256];
	view_init(&view);
	strcpy(view.state, "running");
	for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) {
		view.fraction = fractions[i];
		bar(&view, 60, text);
	}
}

static void test_formats(void **state)
{
	(void)state;
	char text[TEXT_ROOM];
	assert_string_equal(format_seconds(1.25, text), "1.2 s");
	assert_string_equal(format_seconds(9.96, text), "10 s");
	assert_string_equal(format_seconds(59.6, text), "1 min 00 s");
	assert_string_equal(format_seconds(7499, text), "2 h 04 min");
	assert_string_equal(format_seconds(-1, text), "-");
	assert_string_equal(format_seconds(NAN, text), "-");
	assert_string_equal(format_percent(0.49875, text), "49.9 %");
	assert_string_equal(format_bytes(0, text), "0 B");
	assert_string_equal(format_bytes(999, text), "999 B");
	assert_string_equal(format_bytes(999.9e6, text), "1 GB");
	assert_string_equal(format_bytes(13.476e9, text), "13.5 GB");
	assert_string_equal(format_bytes(1e14, text), "100 TB");
	assert_string_equal(format_bytes(1e300, text), "-");
	assert_string_equal(format_number(18.6231, text), "18.62");
	assert_string_equal(format_number(0.000123456, text), "0.0001235");
	assert_string_equal(format_number(54321, text), "54321");
	assert_string_equal(format_number(NAN, text), "-");
	assert_string_equal(format_time("2024-05-06T07:08:09.012Z", text), "2024-05-06 07:08:09");
	assert_string_equal(format_time(NULL, text), "-");
	assert_string_equal(format_time("\033[2J-05-06T07:08:09.012Z", text), "-");
}

static void test_table(void **state)
{
	(void)state;
	char text[256] = "";
	FILE *file = fmemopen(text, sizeof text, "w");
	struct table table = {.align = "lr"};
	assert_non_null(file);
	table_add(&table, "NAME");
	table_add(&table, "N");
	table_add(&table, "M");
	table_end_row(&table);
	table_add(&table, "tr\xc3\xa8s");
	table_add_format(&table, "%d", 1000);
	table_end_row(&table);
	table_add(&table, "a\tb");
	table_add(&table, "2");
	table_add(&table, "3");
	table_end_row(&table);
	table_print(&table, file);
	table_free(&table);
	fclose(file);
	assert_string_equal(text, "NAME     N  M\n"
				  "tr\xc3\xa8s  1000   \n"
				  "a?b      2  3\n");
}

int main(void)
{
	setlocale(LC_CTYPE, "C.UTF-8");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),   cmocka_unit_test(test_hostile_text),
		cmocka_unit_test(test_bar),     cmocka_unit_test(test_bar_of_odd_fractions),
		cmocka_unit_test(test_formats), cmocka_unit_test(test_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
