/* Chat templates, against what transformers makes of the same templates and conversations (tests/data/chat). */
#include "tests/unit/scratch.h"

#include <time.h>

#include "base/json.h"
#include "engine/chat/chat_template.h"
#include "engine/chat/run.h"

static const struct chat_message hello[] = {{"user", "Hello"}};

static cJSON *read_golden(struct scratch *s)
{
	char *text;
	size_t bytes;
	cJSON *golden;
	SUCCEEDS(file_slurp("tests/data/chat/golden.json", 16 << 20, &text, &bytes, &s->err));
	SUCCEEDS(json_parse(text, bytes, "golden.json", &golden, &s->err));
	free(text);
	char *special = cJSON_Print(cJSON_GetObjectItem(golden, "special"));
	scratch_text(s, "tokenizer_config.json", special);
	cJSON_free(special);
	return golden;
}

static size_t read_conversation(const cJSON *conversation, struct chat_message messages[16])
{
	size_t count = 0;
	const cJSON *message;
	cJSON_ArrayForEach(message, conversation)
	{
		messages[count++] = (struct chat_message){cJSON_GetArrayItem(message, 0)->valuestring,
							  cJSON_GetArrayItem(message, 1)->valuestring};
	}
	return count;
}

/* What a template makes of a conversation; NULL where it is refused. */
static char *make(struct scratch *s, const char *source, const struct chat_message *messages, size_t count, bool prompt)
{
	struct chat_template *template;
	char *text = NULL;
	scratch_text(s, "chat_template.jinja", source);
	if (chat_template_open(&PLACE(s->directory), &template, &s->err) != STATUS_OK) return NULL;
	if (chat_template_render(template, messages, count, prompt, &text, &s->err) != STATUS_OK) text = NULL;
	chat_template_close(template);
	return text;
}

static int check(struct scratch *s, const char *what, const char *source, const cJSON *conversation, bool prompt,
		 const cJSON *expected)
{
	struct chat_message messages[16];
	size_t count = read_conversation(conversation, messages);
	char *text = make(s, source, messages, count, prompt);
	const char *wanted = cJSON_GetStringValue(expected);
	bool same = text && wanted ? strcmp(text, wanted) == 0 : !text && !wanted && s->err.status == STATUS_INVALID;
	if (!same) print_error("%s\nexpected %s\ngot %s\n", what, wanted ? wanted : "a refusal", text ? text : s->err.message);
	free(text);
	return !same;
}

static void test_snippets(void **state)
{
	struct scratch *s = *state;
	cJSON *golden = read_golden(s);
	const cJSON *snippet, *conversations = cJSON_GetObjectItem(golden, "conversations");
	int which = cJSON_GetObjectItem(golden, "snippet_conversation")->valueint, wrong = 0, count = 0;
	cJSON_ArrayForEach(snippet, cJSON_GetObjectItem(golden, "snippets"))
	{
		const char *source = cJSON_GetArrayItem(snippet, 0)->valuestring;
		wrong += check(s, source, source, cJSON_GetArrayItem(conversations, which), true, cJSON_GetArrayItem(snippet, 1));
		count++;
	}
	cJSON_Delete(golden);
	assert_true(count > 150);
	assert_int_equal(wrong, 0);
}

static void test_templates(void **state)
{
	struct scratch *s = *state;
	cJSON *golden = read_golden(s);
	const cJSON *template, *conversations = cJSON_GetObjectItem(golden, "conversations");
	int wrong = 0, count = 0;
	cJSON_ArrayForEach(template, cJSON_GetObjectItem(golden, "templates"))
	{
		char path[256], *source;
		size_t bytes;
		snprintf(path, sizeof path, "tests/data/chat/%s", template->string);
		SUCCEEDS(file_slurp(path, 1 << 20, &source, &bytes, &s->err));
		for (int i = 0; i < cJSON_GetArraySize(conversations); i++)
			for (int prompt = 0; prompt < 2; prompt++, count++)
				wrong += check(s, path, source, cJSON_GetArrayItem(conversations, i), prompt,
					       cJSON_GetArrayItem(cJSON_GetArrayItem(template, i), prompt));
		free(source);
	}
	cJSON_Delete(golden);
	assert_true(count > 100);
	assert_int_equal(wrong, 0);
}

static void expect(struct scratch *s, const char *source, const char *expected)
{
	char *text = make(s, source, hello, 1, true);
	if (!text) fail_msg("%s: %s", source, s->err.message);
	assert_string_equal(text, expected);
	free(text);
}

static void refuse(struct scratch *s, const char *source, enum status status, const char *part)
{
	char *text = make(s, source, hello, 1, true);
	if (text) fail_msg("%s: \"%.100s\"", source, text);
	FAILS(status, part, s->err.status);
}

struct refusal {
	const char *source, *part;
};

static void refuse_each(struct scratch *s, const struct refusal *cases, size_t count, enum status status)
{
	int wrong = 0;
	for (size_t i = 0; i < count; i++) {
		char *text = make(s, cases[i].source, hello, 1, true);
		bool refused = !text && s->err.status == status && strstr(s->err.message, cases[i].part);
		if (!refused) print_error("%s: %s, not '%s'\n", cases[i].source, text ? text : s->err.message, cases[i].part);
		wrong += !refused;
		free(text);
	}
	assert_int_equal(wrong, 0);
}

/* What is not supported is named, with the line, and only where it is reached. */
static void test_unsupported(void **state)
{
	struct scratch *s = *state;
	scratch_text(s, "tokenizer_config.json", "{}");
	refuse(s, "a\n\n{{ 'x' | wordwrap }}", STATUS_UNSUPPORTED, "chat_template.jinja, line 3: there is no filter 'wordwrap'");
	refuse(s, "{{ 1 is foo }}", STATUS_UNSUPPORTED, "line 1: there is no test 'foo'");
	refuse(s, "{{ 'a'.zfill(3) }}", STATUS_UNSUPPORTED, "'zfill' is not supported");
	refuse(s, "\n{% include 'x' %}", STATUS_UNSUPPORTED, "line 2: {% include %} is not supported");
	refuse(s, "{% for x in [] recursive %}{% endfor %}", STATUS_UNSUPPORTED, "a recursive loop");
	refuse(s, "{{ 9223372036854775807 + 1 }}", STATUS_UNSUPPORTED, "64 bits");
	refuse(s, "{{ '\\0' }}", STATUS_UNSUPPORTED, "zero byte");
	static const struct refusal cases[] = {
		{"{{ 'Ⅷ'.isnumeric() }}", "'isnumeric' is not supported"},
		{"{{ '%' | format }}", "a format of other than %s"},
		{"{{ '%x' | format(1) }}", "a format of other than %s"},
		{"{{ '%s' | safe | format(1) }}", "a string that is marked safe"},
		{"{{ '%(a)s' | format(a=1) }}", "a format by names"},
		{"{{ '%d' | format(1.5) }}", "%d of a value of type 'float'"},
		{"{{ [1, 2] | sort(attribute='a,b') }}", "sort by more than one attribute"},
		{"{{ [1] | batch(0) | list }}", "batch of 0"},
		{"{{ 1e19 | int }}", "a number beyond 64 bits"},
		{"{{ '5' | int(0, 36) }}", "int of the base 36"},
		{"{{ 1.5 | round(-1) }}", "round to -1 digits"},
		{"{{ 1.5 | round(16) }}", "round to 16 digits"},
		{"{{ (-9223372036854775807 - 1) | abs }}", "a number beyond 64 bits"},
		{"{{ -(-9223372036854775807 - 1) }}", "64 bits"},
		{"{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"},
		{"{{ 3 ** 64 }}", "64 bits"},
		{"{{ 4 ** 40 }}", "64 bits"},
		{"{{ 9223372036854775808 }}", "a number beyond 64 bits"},
		{"{{ [1, 2] * 9223372036854775807 }}", "it takes more than"},
		{"{{ (-2) ** 0.5 }}", "such a power"},
		{"{{ range(3000000000) }}", "such a range"},
		{"{{ range(-3000000000, 1) }}", "such a range"},
		{"{{ range(2) }}", "a value of type 'range' is put out"},
		{"{{ 'a'.upper }}", "a value of type 'function' is put out"},
		{"{{ [('a' | safe)] }}", "the repr of markup"},
		{"{{ ('a' | safe).split('b') }}", "a string that is marked safe"},
		{"{{ ('a' | safe).splitlines() }}", "a string that is marked safe"},
		{"{{ ('a' | safe).replace('a', 'b') }}", "a string that is marked safe"},
		{"{{ ('a' | safe).partition('a') }}", "a string that is marked safe"},
		{"{{ ('{}' | safe).format(1) }}", "a string that is marked safe"},
		{"{{ 'a b'.rsplit(none, 1) }}", "rsplit at white space"},
		{"{{ 'abc'.find('c', 1) }}", "find from a position"},
		{"{{ '½'.isdigit() }}", "isdigit of U+00BD"},
		{"{{ '{a.b}'.format(a=1) }}", "format with more than names"},
		{"{{ '{0:d}'.format(1) }}", "format with more than names"},
		{"{{ {'a': 1}.keys() == {'a': 1}.keys() }}", "the views of a dict are not compared"},
		{"{% for x in [1] %}{% for y in loop %}{% endfor %}{% endfor %}", "'loop' is gone through"},
		{"{{ 'ΐ' | upper }}", "the upper case of U+0390"},
		{"{{ 'ŉ' | upper }}", "the upper case of U+0149"},
		{"{{ 'ǰ' | upper }}", "the upper case of U+01F0"},
		{"{{ 'ΰ' | upper }}", "the upper case of U+03B0"},
		{"{{ 'և' | upper }}", "the upper case of U+0587"},
		{"{{ 'ẖ' | upper }}", "the upper case of U+1E96"},
		{"{{ 'ὐ' | upper }}", "the upper case of U+1F50"},
		{"{{ 'ᾀ' | title }}", "the upper case of U+1F80"},
		{"{{ 'ﬁ' | capitalize }}", "the upper case of U+FB01"},
		{"{{ '\\N{DASH}' }}", "a string's escape \\N"},
		{"{{ '\\ud800' }}", "half a surrogate pair"},
		{"{{ a[1, 2] }}", "a tuple in [ ]"},
		{"{{ x | upper.lower }}", "with a dot in its name"},
		{"{% set x | nothing %}a{% endset %}", "there is no filter 'nothing'"},
		{"{% filter nothing %}a{% endfilter %}", "there is no filter 'nothing'"},
		{"{{ é }}", "names that are not ASCII"},
		{"{% macro f(caller) %}{% endmacro %}", "a parameter 'caller'"},
		{"{{ 1 | replace(1, 2, other=3) }}", "replace has no argument 'other'"},
		{"{{ lipsum() }}", "'lipsum' is not supported"},
		{"{{ 1 < 2 < 3 < 4 < 5 < 6 < 7 < 8 < 9 < 10 < 11 < 12 < 13 < 14 < 15 < 16 < 17 < 18 < 19 < 20 < 21 < 22 < 23 < 24 "
		 "< 25 < 26 < 27 < 28 < 29 < 30 < 31 < 32 < 33 < 34 }}",
		 "comparisons in a row"},
		{"{{ 11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111 "
		 "}}",
		 "a number"},
		{"{{ strftime_now('%') }}", "such a format of time"},
		{"{{ strftime_now('%Q') }}", "such a format of time"},
	};
	refuse_each(s, cases, sizeof cases / sizeof *cases, STATUS_UNSUPPORTED);
	expect(s, "{% if tools %}{{ tools | wordwrap }}{{ 1 is foo }}{% endif %}x", "x");
}

/* Jinja2's tests, whose answers are those of Jinja2 3.1. */
static void test_tests(void **state)
{
	struct scratch *s = *state;
	scratch_text(s, "tokenizer_config.json", "{}");
	expect(s,
	       "{{ 1 is odd }} {{ 2 is odd }} {{ 2 is even }} {{ -3 is even }} {{ -3 is odd }} {{ 2.0 is even }} {{ 6 is "
	       "divisibleby(3) }} {{ 7 is divisibleby 3 }}",
	       "True False True False True True True False");
	expect(s,
	       "{{ 'a' is lower }} {{ 'aB' is lower }} {{ '' is lower }} {{ 'A1' is upper }} {{ 'Aa' is upper }} {{ 1 is upper }} "
	       "{{ none is lower }}",
	       "True False False True False False False");
	expect(s,
	       "{{ 1 is sameas 1 }} {{ none is sameas none }} {{ true is sameas true }} {{ 1 is sameas true }} {{ [] is sameas [] "
	       "}} {% set a = [1] %}{% set b = a %}{{ a is sameas b }} {{ a is sameas [1] }} {{ 'a' is sameas 'a' }} {{ {} is "
	       "sameas [] }}",
	       "True True True False False True False True False");
	expect(s, "{{ 1 is eq 1 }} {{ 1 is eq 1.0 }} {{ 'a' is equalto 'b' }} {{ 1 is ne 2 }} {{ 1 is ne 1 }}",
	       "True True False True False");
	expect(s,
	       "{{ 1 is lt 2 }} {{ 2 is lt 2 }} {{ 1 is le 1 }} {{ 2 is le 1 }} {{ 2 is gt 1 }} {{ 1 is gt 1 }} {{ 2 is ge 2 }} {{ "
	       "1 is ge 2 }} {{ 'a' is lt 'b' }} {{ [1, 2] is lessthan [1, 3] }} {{ 2 is greaterthan 1 }}",
	       "True False True False True False True False True True True");
	expect(s,
	       "{{ 1 is in [1] }} {{ 2 is in [1] }} {{ 'a' is in 'abc' }} {{ 'k' is in {'k': 1} }} {{ [3, 4, 5, 6] | "
	       "select('even') | list }} {{ [3, 4, 5, 6] | reject('divisibleby', 3) | list }} {{ [3, 4, 5] | select('gt', 3) | "
	       "list }} {{ [3, 4, 5] | select('>=', 4) | list }} {{ [3, 4] | select('==', 4) | list }} {{ [3, 4] | select('!=', 4) "
	       "| list }} {{ [3, 4] | select('<', 4) | list }} {{ [3, 4] | select('<=', 3) | list }}",
	       "True False True True [4, 6] [4, 5] [4, 5] [4, 5] [4] [3] [3] [3]");
	refuse(s, "{{ 'a' is gt 1 }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ [] is le 'x' }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ none is ge 1 }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ {} is lt {} }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ [] is odd }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ 1 is divisibleby(0) }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ none is even }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ 1 is in 1 }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ 1 is eq }}", STATUS_INVALID, "the test 'eq' takes one argument");
	refuse(s, "{{ 1 is odd(1) }}", STATUS_INVALID, "the test 'odd' takes no argument");
	refuse(s, "{{ 1 is sameas(other=1) }}", STATUS_UNSUPPORTED, "the test 'sameas' by an argument's name");
	refuse(s, "{{ 1.5 is sameas 1.5 }}", STATUS_UNSUPPORTED, "sameas of values of type 'float'");
	refuse(s, "{{ 1 is == 1 }}", STATUS_INVALID, "line 1");
	refuse(s, "{{ range is lower }}", STATUS_UNSUPPORTED, "a value of type 'function' is put out");
}

static void test_refusals(void **state)
{
	struct scratch *s = *state;
	scratch_text(s, "tokenizer_config.json", "{}");
	refuse(s, "a\n{{ raise_exception('Only \"user\"\nand so') }}", STATUS_INVALID,
	       "line 2: the template refuses the conversation: Only \"user\" and so");
	refuse(s, "{{ bos_token + 'a' }}", STATUS_INVALID, "'bos_token' is undefined");
	refuse(s, "{{ messages[0].x.y }}", STATUS_INVALID, "'dict object' has no attribute 'x'");
	refuse(s, "a\xff", STATUS_INVALID, "must be UTF-8");
	refuse(s, "{{ messages[0].content.role + 'a' }}", STATUS_INVALID, "'str object' has no attribute 'role'");
	static const struct refusal cases[] = {
		{"{{ none + 1 }}", "'NoneType'"},
		{"{{ [] + 1 }}", "'list'"},
		{"{{ range(2) + 1 }}", "'range'"},
		{"{{ {}.keys() + 1 }}", "'dict_keys'"},
		{"{{ {}.values() + 1 }}", "'dict_values'"},
		{"{{ {}.items() + 1 }}", "'dict_items'"},
		{"{{ ([1] | map('upper')) + 1 }}", "'generator'"},
		{"{{ namespace() + 1 }}", "'Namespace'"},
		{"{{ range + 1 }}", "'function'"},
		{"{{ ('a' | safe) + 1 }}", "'Markup'"},
		{"{% macro f() %}{% endmacro %}{{ f + 1 }}", "'Macro'"},
		{"{% for x in [1] %}{{ loop + 1 }}{% endfor %}", "'LoopContext'"},
		{"{% break", "line 1"},
		{"{{ '\x01' }}{{ raise_exception('\x7f') }}", "refuses the conversation: "},
		{"{{ dict([((1, [2]), 3)]) }}", "is no key of a dict"},
	};
	refuse_each(s, cases, sizeof cases / sizeof *cases, STATUS_INVALID);
	expect(s, "{{ 'a\\\nb' }}\r\n\rc\r\n", "ab\n\nc");
	char *text;
	struct chat_template *template;
	scratch_text(s, "chat_template.jinja", "x");
	SUCCEEDS(chat_template_open(&PLACE(s->directory), &template, &s->err));
	FAILS(STATUS_INVALID, "at least one message", chat_template_render(template, hello, 0, true, &text, &s->err));
	FAILS(STATUS_INVALID, "message 0 is not UTF-8",
	      chat_template_render(template, &(struct chat_message){"user", "\xc0"}, 1, true, &text, &s->err));
	chat_template_close(template);
	chat_template_close(NULL);
}

/* A template that would go on for ever, or take all memory or stack, is refused. */
static void test_bounds(void **state)
{
	struct scratch *s = *state;
	char *deep = malloc(200000);
	assert_non_null(deep);
	scratch_text(s, "tokenizer_config.json", "{}");
	refuse(s, "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", STATUS_UNSUPPORTED,
	       "it takes");
	refuse(s, "{% set a = 'a' * 9999999 %}{% for i in range(9999) %}{% if 'b' in a %}{% endif %}{% endfor %}",
	       STATUS_UNSUPPORTED, "steps");
	refuse(s,
	       "{% set x = 'x' * 9999999 %}{% set a = x ~ 'a' %}{% set b = x ~ 'b' %}{% for i in range(99) %}{{ a == b }}{% endfor "
	       "%}",
	       STATUS_UNSUPPORTED, "steps");
	refuse(s, "{% set x = ' ' * 30000000 %}{% for i in range(9) %}{{ x.strip() }}{% endfor %}", STATUS_UNSUPPORTED, "steps");
	refuse(s, "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
	       STATUS_UNSUPPORTED, "line 1: it ");
	refuse(s, "{% set ns = namespace(x=[1]) %}{% for a in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
	       STATUS_UNSUPPORTED, "chat_template.jinja, line 1: it takes");
	refuse(s, "{% set ns = namespace(x=1) %}{% for a in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
	       STATUS_UNSUPPORTED, "line 1: it ");
	refuse(s, "{% set ns = namespace(x=1) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
	       STATUS_UNSUPPORTED, "deep");
	refuse(s,
	       "{% set ns = namespace(x=1, y=1) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% "
	       "endfor %}"
	       "{{ ns.x == ns.y }}",
	       STATUS_UNSUPPORTED, "deep");
	refuse(s, "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", STATUS_UNSUPPORTED, "deep");
	refuse(s, "{{ 'a' * 1000000000000 }}", STATUS_UNSUPPORTED, "repeated");
	refuse(s, "{{ [1] * 1000000000000 }}", STATUS_UNSUPPORTED, "it takes");
	refuse(s, "{{ 'a' | indent(100000000) }}", STATUS_UNSUPPORTED, "repeated");
	refuse(s, "{{ 'a' | center(1000000000) }}", STATUS_UNSUPPORTED, "width");
	refuse(s, "{% for a in range(100000) %}{{ 'a' * 10000 }}{% endfor %}", STATUS_UNSUPPORTED, "line 1: it ");
	for (int kind = 0; kind < 4; kind++) {
		static const char *const repeated[] = {"(", "not ", "-", "1+"};
		strcpy(deep, "{{ ");
		for (int i = 0; i < 40000; i++)
			strcat(deep + 3 + (size_t)i * strlen(repeated[kind]), repeated[kind]);
		strcat(deep + 3 + 40000 * strlen(repeated[kind]), "1 }}");
		refuse(s, deep, STATUS_UNSUPPORTED, kind ? "nested more than" : "open brackets");
	}
	free(deep);
}

/* ---- what runs out
 * -------------------------------------------------------------------------------------------------------------- */

enum bound { BOUND_MEMORY, BOUND_STEPS, BOUND_DEPTH, BOUND_KINDS };

static void narrow(enum bound bound, long most)
{
	run_bounds = (struct run_bounds){RUN_MEMORY, RUN_STEPS, RUN_DEPTH};
	if (bound == BOUND_MEMORY) run_bounds.memory = (size_t)most;
	if (bound == BOUND_STEPS) run_bounds.steps = most;
	if (bound == BOUND_DEPTH) run_bounds.depth = (int)most;
}

struct narrowed {
	struct scratch *s;
	const struct chat_message *messages;
	size_t count;
	const char *source, *wanted;
	struct chat_template *template; /* opened without bounds, or NULL: it is opened within them too */
};

static enum status make_narrowed(struct narrowed *n, char **ret)
{
	struct scratch *s = n->s;
	struct chat_template *template = n->template;
	*ret = NULL;
	if (!template) TRY(chat_template_open(&PLACE(s->directory), &template, &s->err));
	enum status status = chat_template_render(template, n->messages, n->count, true, ret, &s->err);
	if (!n->template) chat_template_close(template);
	return status;
}

/* With more and more of what is bounded, until it is enough: the text is the same then, and until then it says what ran out.
 * Returns what was enough, or -1 where that was not so. */
static long widen(struct narrowed *n, enum bound bound, long most)
{
	static const struct {
		long step;
		const char *said;
	} kinds[] = {{48, "MiB of memory"}, {1, "it takes more than"}, {1, "deep"}};
	struct scratch *s = n->s;
	char *text;
	enum status status;
	for (;; most += kinds[bound].step + most / 512) {
		narrow(bound, most);
		memset(&s->err, 0, sizeof s->err);
		status = make_narrowed(n, &text);
		if (status != STATUS_UNSUPPORTED || !strstr(s->err.message, kinds[bound].said)) break;
	}
	bool well = status == STATUS_OK && strcmp(text, n->wanted) == 0;
	if (!well) print_error("%s\nwithin %ld of bound %d: %s\n", n->source, most, bound, text ? text : s->err.message);
	free(text);
	return well ? most : -1;
}

/* What the bounds must be for a template of nothing. */
static void widen_nothing(struct narrowed n, long least[BOUND_KINDS])
{
	n.source = n.wanted = "";
	scratch_text(n.s, "chat_template.jinja", "");
	for (enum bound bound = 0; bound < BOUND_KINDS; bound++) {
		least[bound] = widen(&n, bound, 0);
		assert_true(least[bound] >= 0);
	}
}

static int widen_all(struct narrowed *n, const long least[BOUND_KINDS])
{
	struct scratch *s = n->s;
	int wrong = 0;
	scratch_text(s, "chat_template.jinja", n->source);
	wrong += widen(n, BOUND_DEPTH, 0) < 0;
	wrong += widen(n, BOUND_MEMORY, least[BOUND_MEMORY]) < 0;
	narrow(BOUND_KINDS, 0);
	SUCCEEDS(chat_template_open(&PLACE(s->directory), &n->template, &s->err));
	wrong += widen(n, BOUND_MEMORY, 0) < 0;
	wrong += widen(n, BOUND_STEPS, 0) < 0;
	chat_template_close(n->template);
	n->template = NULL;
	return wrong;
}

/* Wherever memory, steps or depth run out, that is what is said; and with just enough the text is the same. */
static void test_narrow_bounds(void **state)
{
	struct scratch *s = *state;
	struct chat_message messages[16];
	long least[BOUND_KINDS];
	int wrong = 0, count = 0;
	cJSON *golden = read_golden(s);
	const cJSON *snippet, *conversations = cJSON_GetObjectItem(golden, "conversations");
	struct narrowed n = {.s = s, .messages = messages};
	n.count = read_conversation(
		cJSON_GetArrayItem(conversations, cJSON_GetObjectItem(golden, "snippet_conversation")->valueint), messages);
	widen_nothing(n, least);
	cJSON_ArrayForEach(snippet, cJSON_GetObjectItem(golden, "snippets"))
	{
		n.source = cJSON_GetArrayItem(snippet, 0)->valuestring;
		n.wanted = cJSON_GetStringValue(cJSON_GetArrayItem(snippet, 1));
		if (!n.wanted) continue;
		wrong += widen_all(&n, least);
		count++;
	}
	narrow(BOUND_KINDS, 0);
	cJSON_Delete(golden);
	assert_true(count > 100);
	assert_int_equal(wrong, 0);
}

/* ---- files
 * ---------------------------------------------------------------------------------------------------------------------- */

static void open_fails(struct scratch *s, const char *config, enum status status, const char *part)
{
	struct chat_template *template;
	scratch_text(s, "tokenizer_config.json", config);
	FAILS(status, part, chat_template_open(&PLACE(s->directory), &template, &s->err));
}

static void open_gives(struct scratch *s, const char *config, const char *expected)
{
	struct chat_template *template;
	char *text;
	scratch_text(s, "tokenizer_config.json", config);
	SUCCEEDS(chat_template_open(&PLACE(s->directory), &template, &s->err));
	SUCCEEDS(chat_template_render(template, hello, 1, false, &text, &s->err));
	assert_string_equal(text, expected);
	free(text);
	chat_template_close(template);
}

/* Where the template is, and the special tokens. */
static void test_files(void **state)
{
	struct scratch *s = *state;
	open_fails(s, "{}", STATUS_NOT_FOUND, "the model has no chat template");
	open_fails(s, "{\"chat_template\": null}", STATUS_NOT_FOUND, "the model has no chat template");
	open_fails(s, "{\"chat_template\": 5}", STATUS_INVALID, "must be a string");
	open_fails(s, "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}", STATUS_NOT_FOUND, "named 'default'");
	open_fails(s, "{\"chat_template\": \"{{ \"}", STATUS_INVALID, "tokenizer_config.json: chat_template, line 1: ");
	open_gives(
		s,
		"{\"chat_template\": \"{{ bos_token }}-{{ eos_token }}-{{ pad_token is defined }}-{{ messages[0].content }}\","
		"\"bos_token\": \"<b>\", \"eos_token\": {\"__type\": \"AddedToken\", \"content\": \"<e>\"}, \"pad_token\": null}",
		"<b>-<e>-False-Hello");
	open_gives(s,
		   "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"r\"}, {\"name\": \"default\", \"template\": \"d\"}]}",
		   "d");
	open_gives(s, "{\"chat_template\": \"{{ bos_token }}\", \"tokenizer_class\": \"LlamaTokenizer\"}",
		   "<s>"); /* the class's own */
	scratch_text(s, "special_tokens_map.json", "{\"bos_token\": {\"content\": \"<m>\"}}");
	open_gives(s, "{\"chat_template\": \"{{ bos_token }}\"}", "<m>");
	scratch_text(s, "chat_template.jinja", "file\n");
	open_gives(s, "{\"chat_template\": \"config\"}", "file");
	open_gives(s, "{}", "file");
}

static void format_now(char text[64])
{
	time_t now = time(NULL);
	struct tm local;
	localtime_r(&now, &local);
	strftime(text, 64, "%d %b %Y, %A %%  1", &local);
}

static void test_time(void **state)
{
	struct scratch *s = *state;
	char before[64], after[64]; /* a day may end just now */
	scratch_text(s, "tokenizer_config.json", "{}");
	format_now(before);
	char *text = make(s, "{{ strftime_now('%d %b %Y, %A %% %z%Z ') ~ strftime_now('%f') | length // 6 }}", hello, 1, true);
	format_now(after);
	assert_non_null(text);
	if (strcmp(text, before) != 0) assert_string_equal(text, after);
	free(text);
	refuse(s, "{{ strftime_now('%1000000d') }}", STATUS_UNSUPPORTED, "format of time");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_snippets),      SCRATCH_TEST(test_templates), SCRATCH_TEST(test_unsupported),
		SCRATCH_TEST(test_tests),         SCRATCH_TEST(test_refusals),  SCRATCH_TEST(test_bounds),
		SCRATCH_TEST(test_narrow_bounds), SCRATCH_TEST(test_files),     SCRATCH_TEST(test_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
