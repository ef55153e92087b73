/* besactl's command line (ctl/options.h) and the spec that it makes (ctl/jobspec.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/jobspec.h"

#define PARSE(options, ...) parse(options, (char *[]){"besactl", __VA_ARGS__, NULL})

static enum exit_code parse(struct options *options, char **argv)
{
	int argc = 0;
	while (argv[argc])
		argc++;
	return options_parse(argc, argv, options);
}

/* The spec of a command line, as text; freed by the caller. */
static char *build(struct options *options)
{
	struct error err;
	cJSON *spec;
	const char *file = options->n_args ? options->args[0] : NULL;
	if (jobspec_build(file, options->settings, options->n_settings, &spec, &err) != STATUS_OK) fail_msg("%s", err.message);
	char *text = cJSON_PrintUnformatted(spec);
	cJSON_Delete(spec);
	return text;
}

#define EXPECT(wanted, ...)                                                                                                        \
	do {                                                                                                                       \
		struct options options_;                                                                                           \
		assert_int_equal(PARSE(&options_, "submit", __VA_ARGS__), EXIT_OK);                                                \
		char *text_ = build(&options_);                                                                                    \
		assert_string_equal(text_, wanted);                                                                                \
		free(text_);                                                                                                       \
	} while (0)

#define REFUSE(reason, ...)                                                                                                        \
	do {                                                                                                                       \
		struct options options_;                                                                                           \
		struct error err_;                                                                                                 \
		cJSON *spec_;                                                                                                      \
		assert_int_equal(PARSE(&options_, "submit", __VA_ARGS__), EXIT_OK);                                                \
		const char *file_ = options_.n_args ? options_.args[0] : NULL;                                                     \
		assert_int_equal(jobspec_build(file_, options_.settings, options_.n_settings, &spec_, &err_), STATUS_INVALID);     \
		assert_non_null(strstr(err_.message, reason));                                                                     \
	} while (0)

static void test_options_make_a_spec(void **state)
{
	(void)state;
	EXPECT("{\"model\":\"m\",\"sparsity\":0.5}", "-m", "m", "-s", "0.5");
	EXPECT("{\"sparsity\":0.625}", "--sparsity=62.5%");
	EXPECT("{\"method\":\"wanda\",\"output\":\"o-{date}\",\"overwrite\":true,\"name\":\"n\",\"precision\":\"f32\",\"priority\":"
	       "-3,"
	       "\"timeout_seconds\":60}",
	       "--method", "wanda", "-o", "o-{date}", "--overwrite", "-n", "n", "--precision", "f32", "--priority", "-3",
	       "--timeout", "60");
	EXPECT("{\"calibration\":{\"path\":\"c4.gz\",\"samples\":64,\"seed\":7}}", "-c", "c4.gz", "--samples", "64", "--seed", "7");
	EXPECT("{\"evaluation\":{\"perplexity\":[{\"name\":\"wiki\",\"path\":\"w.txt\",\"sequence_length\":256},"
	       "{\"path\":\"p.txt\",\"sequence_length\":256}]},\"calibration\":{\"sequence_length\":256}}",
	       "--sequence-length", "256", "-e", "wiki=w.txt", "-e", "p.txt");
}

static void test_set(void **state)
{
	(void)state;
	EXPECT("{\"besa\":{\"epochs\":2,\"granularity\":\"layer\"}}", "--set", "besa.epochs=2", "--set", "besa.granularity=layer");
	EXPECT("{\"a\":{\"b\":{\"c\":[1,{\"d\":null}]}}}", "--set", "a.b.c=[1,{\"d\":null}]");
	EXPECT("{\"x\":true}", "--set", "x=1", "--set", "x=true");
	EXPECT("{\"x\":\"a=b\",\"y\":\"\"}", "--set", "x=a=b", "--set", "y=");
	REFUSE("--set takes KEY=VALUE", "--set", "besa.epochs");
	REFUSE("--set takes KEY=VALUE", "--set", "=2");
	REFUSE("names no field", "--set", "besa..epochs=2");
	REFUSE("'x' is not an object", "--set", "x=1", "--set", "x.y=2");
	REFUSE("'a.b' is not an object", "--set", "a.b=1", "--set", "a.b.c=2");
}

static void test_set_in_lists(void **state)
{
	(void)state;
	EXPECT("{\"evaluation\":{\"perplexity\":[{\"path\":\"a.txt\",\"join\":\"\"},{\"path\":\"b.txt\"}]}}", "--set",
	       "evaluation.perplexity.0.path=a.txt", "--set", "evaluation.perplexity.1.path=b.txt", "--set",
	       "evaluation.perplexity.0.join=");
	EXPECT("{\"x\":[1,5,[6]]}", "--set", "x=[1,2]", "--set", "x.1=5", "--set", "x.2.0=6");
	EXPECT("{\"evaluation\":{\"perplexity\":[{\"path\":\"b\"}]}}", "-e", "a", "--set", "evaluation.perplexity.0.path=b");
	EXPECT("{\"output\":\"{date}\",\"name\":\"[x\"}", "--set", "output={date}", "--set", "name=\"[x\"");
	REFUSE("the list 'x' has 0 elements, so the next one is 'x.0'", "--set", "x.1.path=a");
	REFUSE("the list 'e.p' has 1 element, so the next one is 'e.p.1'", "--set", "e.p=[{}]", "--set", "e.p.7=1");
	REFUSE("the list 'x' has 0 elements", "--set", "x.99999999999999999999=1");
	REFUSE("'x' is a list, so a number from 0 to 2 must follow, not 'path'", "--set", "x=[1,2]", "--set", "x.path=1");
	REFUSE("'x' is a list, so a number from 0 to 1 must follow, not '-1'", "--set", "x=[1]", "--set", "x.-1=1");
	REFUSE("'x.0' is not an object", "--set", "x=[1]", "--set", "x.0.y=1");
	REFUSE("--set x: the value: not valid JSON", "--set", "x=[1,");
	REFUSE("--set x: the value: not valid JSON", "--set", "x={\"a\":");
	REFUSE("--set x: the value: not valid JSON", "--set", "x=\"a");
}

/* Its name is whole in the message, however long it is. */
static void test_set_long_keys(void **state)
{
	(void)state;
	char setting[520] = "";
	memset(setting, 'k', 400);
	strcat(setting, "=1");
	struct options options;
	assert_int_equal(PARSE(&options, "submit", "--set", setting), EXIT_OK);
	char *text = build(&options);
	assert_int_equal(strlen(text), strlen("{\"\":1}") + 400);
	free(text);
}

static void test_wrong_values(void **state)
{
	(void)state;
	REFUSE("--sparsity takes a number", "-s", "half");
	REFUSE("--sparsity takes a number", "-s", "0.5x");
	REFUSE("--sparsity takes a number", "-s", "%");
	REFUSE("--sparsity takes a number", "-s", "nan");
	REFUSE("--samples takes a number", "--samples", "50%");
	REFUSE("--samples takes a number", "--samples", "0x10");
	REFUSE("--eval takes [NAME=]FILE", "-e", "=file");
	REFUSE("--eval takes [NAME=]FILE", "-e", "name=");
}

static void test_file(void **state)
{
	(void)state;
	char path[] = "/tmp/besactl-test-XXXXXX";
	static const char text[] = "{\"model\":\"m\",\"sparsity\":0.5,\"besa\":{\"epochs\":1},"
				   "\"evaluation\":{\"perplexity\":[{\"path\":\"a\",\"sequence_length\":8}]}}";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	EXPECT("{\"model\":\"m\",\"besa\":{\"epochs\":3},\"evaluation\":{\"perplexity\":[{\"path\":\"a\",\"sequence_length\":8},"
	       "{\"path\":\"b\",\"sequence_length\":16}]},\"sparsity\":0.7,\"calibration\":{\"sequence_length\":16}}",
	       path, "-s", "70%", "--set", "besa.epochs=3", "-e", "b", "--sequence-length", "16");

	assert_int_equal(ftruncate(fd, 10), 0);
	REFUSE(path, path);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, "[1]", 3, 0), 3);
	REFUSE("a job is a JSON object", path);
	assert_int_equal(ftruncate(fd, (1 << 20) + 1), 0);
	REFUSE("is larger than", path);
	close(fd);
	unlink(path);
}

static void test_command_lines(void **state)
{
	(void)state;
	struct options options;
	unsetenv("BESAD_URL");
	unsetenv("BESAD_TOKEN_FILE");
	assert_int_equal(PARSE(&options, "list"), EXIT_OK);
	assert_int_equal(options.command, COMMAND_LIST);
	assert_string_equal(options.url, "http://127.0.0.1:8642");
	assert_null(options.token_file);
	assert_int_equal(options.limit, 20);

	setenv("BESAD_URL", "http://a:1", 1);
	setenv("BESAD_TOKEN_FILE", "/t", 1);
	assert_int_equal(PARSE(&options, "rm", "x", "--json", "y"), EXIT_OK);
	assert_int_equal(options.n_args, 2);
	assert_string_equal(options.args[1], "y");
	assert_true(options.json);
	assert_string_equal(options.url, "http://a:1");
	assert_string_equal(options.token_file, "/t");
	assert_int_equal(PARSE(&options, "--url", "http://b", "-j", "info", "--token-file", "/u"), EXIT_OK);
	assert_string_equal(options.url, "http://b");
	assert_string_equal(options.token_file, "/u");
	assert_true(options.json);
	assert_int_equal(PARSE(&options, "--help"), EXIT_OK);
	assert_true(options.help);
	assert_int_equal(PARSE(&options, "submit", "-", "--wait", "-k", "{date}", "--reconnect", "1.5"), EXIT_OK);
	assert_true(options.wait && options.reconnect_seconds == 1.5);
}

static void test_wrong_command_lines(void **state)
{
	(void)state;
	struct options options;
	assert_int_equal(PARSE(&options, NULL), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "lsit"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "list", "x"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "compare", "one"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "cancel"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "list", "--model", "m"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "list", "--unknown"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "list", "--limit", "-1"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "list", "--limit", ""), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "submit", "-m", "m", "--keep", "3"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "submit", "-m", "m", "--wait", "--watch"), EXIT_USAGE);
	assert_int_equal(PARSE(&options, "watch", "x", "--reconnect", "1.2.3"), EXIT_USAGE);

	char *many[MAX_SETTINGS + 4] = {"besactl", "submit"};
	for (int i = 2; i < MAX_SETTINGS + 3; i++)
		many[i] = "--overwrite";
	assert_int_equal(parse(&options, many), EXIT_USAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_make_a_spec), cmocka_unit_test(test_set),
		cmocka_unit_test(test_set_in_lists),        cmocka_unit_test(test_set_long_keys),
		cmocka_unit_test(test_wrong_values),        cmocka_unit_test(test_file),
		cmocka_unit_test(test_command_lines),       cmocka_unit_test(test_wrong_command_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
