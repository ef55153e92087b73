/* Rows that describe a struct (engine/spec/descriptor.h): every kind of them parsed, filled with defaults, refused, printed and
 * freed; and a method's settings, which no file of engine/spec/ knows. */
#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/spec/schema.h"
#include "engine/spec/sections.h"

struct point {
	char *label;
	int x;
};

struct thing {
	bool big;
	int whole;
	int64_t wide;
	int every; /* −1: "auto" */
	double real;
	int colour;
	char *text;
	unsigned sides;
	struct point origin;
	struct point points[3];
	int n_points;
	cJSON *notes;
	int calls; /* of settle */
};

static const char *const colours[] = {"red", "green", NULL}, *const later_colours[] = {"blue", "green", NULL},
			 *const side_names[] = {"left", "right", NULL};

static void find_real_range(const struct spec_parser *parser, struct spec_range *range)
{
	range->high = (double)parser->max_positions;
}

static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct thing *thing = at;
	(void)parser;
	thing->calls++;
	if (thing->whole == 13) fields_problem(fields, "whole", "brings bad luck");
}

static bool has_points(const void *at)
{
	return ((const struct thing *)at)->n_points > 0;
}

static const struct spec_row point_rows[] = {
	{.key = "label", .kind = SPEC_TEXT, SPEC_AT(struct point, label), .limit = 4, .required = "is required"},
	{.key = "x", .kind = SPEC_INT, SPEC_AT(struct point, x), .range = {-5, 5, 2}},
};
static const struct spec_section point = {SPEC_ROWS(point_rows), .size = sizeof(struct point)};

static const struct spec_row rows[] = {
	{.key = "real", .kind = SPEC_NUMBER, SPEC_AT(struct thing, real), .range = {0, 1, 0.5}, .find_range = find_real_range},
	{.key = "whole", .kind = SPEC_INT, SPEC_AT(struct thing, whole), .range = {0, 99, 7}},
	{.key = "wide", .kind = SPEC_INT, SPEC_AT(struct thing, wide), .range = {0, 0x1p53 - 1, 0x1p40}},
	{.key = "every",
	 .kind = SPEC_INT,
	 SPEC_AT(struct thing, every),
	 .range = {0, 9, -1},
	 .word = "auto",
	 .wrong = "is neither"},
	{.key = "big", .kind = SPEC_BOOL, SPEC_AT(struct thing, big), .range = {.standard = true}},
	{.key = "colour", .kind = SPEC_CHOICE, SPEC_AT(struct thing, colour), .names = colours, .later = later_colours},
	{.key = "text", .kind = SPEC_TEXT, SPEC_AT(struct thing, text), .limit = 5, .empty = "is empty", .text = "t"},
	{.key = "sides",
	 .kind = SPEC_SET,
	 SPEC_AT(struct thing, sides),
	 .names = side_names,
	 .alias = "main",
	 .noun = "left and right"},
	{.key = "origin", .kind = SPEC_SECTION, SPEC_AT(struct thing, origin), .section = &point},
	{.key = "points",
	 .kind = SPEC_LIST,
	 SPEC_AT(struct thing, points),
	 .count = offsetof(struct thing, n_points),
	 .section = &point,
	 .range = {1, 3, 0},
	 .noun = "points",
	 .shown = has_points},
	{.key = "notes", .kind = SPEC_MAP, SPEC_AT(struct thing, notes), .range = {0, 2}, .limit = 3, .key_limit = 2},
	{.key = "mass", .kind = SPEC_REFUSED},
};
static const struct spec_section section = {SPEC_ROWS(rows), .settle = settle, .size = sizeof(struct thing)};

/* Parses `text` as a thing; its problems, "pointer: detail" and a newline each, go to `told`. */
static void parse(struct scratch *s, const char *text, struct thing *thing, char told[2048])
{
	cJSON *json;
	struct spec_problems problems = {0};
	struct spec spec = {0};
	struct spec_parser parser = {.spec = &spec, .max_positions = 8};
	SUCCEEDS(json_parse(text, strlen(text), "thing", &json, &s->err));
	struct fields fields = {.problems = &problems, .object = json};
	*thing = (struct thing){0};
	spec_section_parse(&parser, &fields, &section, thing);
	assert_false(parser.no_memory || problems.no_memory);
	told[0] = 0;
	for (int i = 0; i < problems.count; i++)
		snprintf(told + strlen(told), 2048 - strlen(told), "%s: %s\n", problems.items[i].pointer, problems.items[i].detail);
	spec_problems_free(&problems);
	cJSON_Delete(json);
}

static void assert_printed(const struct thing *thing, const char *wanted)
{
	cJSON *json = cJSON_CreateObject();
	assert_true(spec_section_print(NULL, &section, thing, json));
	char *text = cJSON_PrintUnformatted(json);
	assert_string_equal(text, wanted);
	free(text);
	cJSON_Delete(json);
}

static void test_defaults(void **state)
{
	struct thing thing;
	char told[2048];
	parse(*state, "{\"origin\":{\"label\":\"o\"},\"wide\":null,\"notes\":{\"k\":null}}", &thing, told);
	assert_string_equal(told, "");
	assert_int_equal(thing.calls, 1);
	assert_true(thing.wide == (int64_t)1 << 40);
	assert_printed(&thing,
		       "{\"real\":0.5,\"whole\":7,\"wide\":1099511627776,\"every\":\"auto\",\"big\":true,\"colour\":\"red\","
		       "\"text\":\"t\",\"origin\":{\"label\":\"o\",\"x\":2}}");
	spec_section_free(&section, &thing);
}

static void test_given(void **state)
{
	static const char text[] =
		"{\"real\":7.5,\"whole\":0,\"wide\":1099511627777,\"every\":3,\"big\":false,\"colour\":\"green\","
		"\"text\":\"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\",\"sides\":[\"left\",\"right\"],\"origin\":{\"label\":\"\","
		"\"x\":-5},"
		"\"points\":[{\"label\":\"a\",\"x\":1},{\"label\":\"b\",\"x\":2}],\"notes\":{\"k\":\"\",\"\xc3\xa4/\":\"abc\"}}";
	struct thing thing;
	char told[2048];
	parse(*state, text, &thing, told);
	assert_string_equal(told, "");
	assert_int_equal(thing.n_points, 2);
	assert_printed(&thing, text);
	spec_section_free(&section, &thing);
}

/* In whatever order, and the first of them by its other word: printed in theirs, each by its own name. */
static void test_sets(void **state)
{
	static const char *const cases[][2] = {
		{"[]", "{\"real\":0.5"},
		{"[\"right\"]", "\"sides\":[\"right\"]"},
		{"[\"right\",\"left\"]", "\"sides\":[\"left\",\"right\"]"},
		{"[\"main\"]", "\"sides\":[\"left\"]"},
		{"[\"right\",\"main\"]", "\"sides\":[\"left\",\"right\"]"},
		{"[\"left\",\"main\"]", "\"sides\":[\"left\"]"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[80], told[2048];
		struct thing thing;
		cJSON *json = cJSON_CreateObject();
		snprintf(text, sizeof text, "{\"sides\":%s,\"origin\":{\"label\":\"o\"}}", cases[i][0]);
		parse(*state, text, &thing, told);
		assert_string_equal(told, "");
		assert_true(spec_section_print(NULL, &section, &thing, json));
		char *printed = cJSON_PrintUnformatted(json);
		assert_non_null(strstr(printed, cases[i][1]));
		assert_int_equal(strstr(printed, "\"sides\"") != NULL, i > 0);
		free(printed);
		cJSON_Delete(json);
		spec_section_free(&section, &thing);
	}
}

static void test_problems(void **state)
{
	static const struct {
		const char *text, *told;
	} cases[] = {
		{"{\"real\":8.5}", "/real: must be a number from 0 to 8, not 8.5\n"},
		{"{\"whole\":100}", "/whole: must be an integer from 0 to 99, not 100\n"},
		{"{\"whole\":13}", "/whole: brings bad luck\n"},
		{"{\"every\":10}", "/every: must be an integer from 0 to 9, not 10\n"},
		{"{\"every\":\"often\"}", "/every: is neither\n"},
		{"{\"sides\":\"left\"}", "/sides: must be a list, of left and right\n"},
		{"{\"sides\":[\"up\"]}", "/sides: 'up' is none of left and right\n"},
		{"{\"sides\":[\"left\",\"left\"]}", "/sides: 'left' is there twice\n"},
		{"{\"sides\":[\"main\",\"main\"]}", "/sides: 'main' is there twice\n"},
		{"{\"big\":1}", "/big: must be true or false, not 1\n"},
		{"{\"colour\":\"blue\"}", "/colour: 'blue' is not supported by this version\n"},
		{"{\"colour\":\"grey\"}", "/colour: must be one of: red, green, not \"grey\"\n"},
		{"{\"text\":\"\"}", "/text: is empty\n"},
		{"{\"text\":\"123456\"}", "/text: must be at most 5 characters long, not 6\n"},
		{"{\"origin\":{}}", "/origin/label: is required\n"},
		{"{\"origin\":1}", "/origin: must be an object, not 1\n"},
		{"{\"points\":[]}", "/points: must be a list of 1 to 3 points\n"},
		{"{\"points\":[{\"label\":\"a\"},{\"label\":\"b\",\"x\":6}]}",
		 "/points/1/x: must be an integer from -5 to 5, not 6\n"},
		{"{\"points\":[{},2]}", "/points/0/label: is required\n/points/1: must be an object, not 2\n"},
		{"{\"notes\":[]}", "/notes: must be an object, not []\n"},
		{"{\"notes\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}", "/notes: must have at most 2 keys, not 3\n"},
		{"{\"notes\":{\"a\":1}}", "/notes/a: must be a string, not 1\n"},
		{"{\"notes\":{\"a\":\"abcd\"}}", "/notes/a: must be at most 3 characters long, not 4\n"},
		{"{\"notes\":{\"abc\":\"\"}}", "/notes/abc: a key must be at most 2 characters long, not 3\n"},
		{"{\"notes\":{\"\":\"\"}}", "/notes/: a key must have a character\n"},
		{"{\"notes\":{\"\\n\":\"\"}}", "/notes/\n: a key must not have control characters\n"},
		{"{\"mass\":1}", "/mass: is not supported by this version\n"},
		{"{\"origin\":{\"y\":1,\"label\":\"a\"}}", "/origin/y: unknown key; the keys here are label, x\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct thing thing;
		char told[2048];
		parse(*state, cases[i].text, &thing, told);
		assert_string_equal(told, cases[i].told);
		spec_section_free(&section, &thing);
	}
}

/* ---- settings of a method -------------------------------------------------------------------------------------------------- */

struct settings {
	double dampening;
	char *note;
};

static const struct spec_row settings_rows[] = {
	{.key = "dampening", .kind = SPEC_NUMBER, SPEC_AT(struct settings, dampening), .range = {0, 1, 0.01}},
	{.key = "note", .kind = SPEC_TEXT, SPEC_AT(struct settings, note), .limit = 9},
};
static const struct spec_section settings = {SPEC_ROWS(settings_rows), .size = sizeof(struct settings)};
static const struct spec_row rows_with_settings[] = {{.key = "wanda", .kind = SPEC_SETTINGS, .section = &settings, .late = true}};
static const struct spec_section with_settings = {SPEC_ROWS(rows_with_settings)};

/* The settings of a spec of `method`, as they are printed again. */
static char *settings_of(struct scratch *s, const char *text, enum method_id method, double *ret_dampening)
{
	cJSON *json, *printed = cJSON_CreateObject();
	struct spec_problems problems = {0};
	struct spec *spec = calloc(1, sizeof *spec);
	spec->method = method;
	struct spec_parser parser = {.spec = spec};
	SUCCEEDS(json_parse(text, strlen(text), "spec", &json, &s->err));
	spec_section_parse(&parser, &(struct fields){.problems = &problems, .object = json}, &with_settings, spec);
	assert_int_equal(problems.count, 0);
	const struct settings *values = spec_settings(spec, &settings);
	*ret_dampening = values ? values->dampening : -1;
	assert_true(spec_section_print(spec, &with_settings, spec, printed));
	char *result = cJSON_PrintUnformatted(printed);
	cJSON_Delete(printed);
	cJSON_Delete(json);
	spec_free(spec);
	return result;
}

static void test_settings_of_a_method(void **state)
{
	static const struct {
		const char *text;
		enum method_id method;
		double dampening;
		const char *printed;
	} cases[] = {
		{"{}", METHOD_WANDA, 0.01, "{\"wanda\":{\"dampening\":0.01}}"}, /* the method's defaults */
		{"{\"wanda\":{\"dampening\":0.5,\"note\":\"n\"}}", METHOD_WANDA, 0.5,
		 "{\"wanda\":{\"dampening\":0.5,\"note\":\"n\"}}"},
		{"{\"wanda\":{\"note\":\"n\"}}", METHOD_NONE, 0.01, "{\"wanda\":{\"dampening\":0.01,\"note\":\"n\"}}"}, /* given */
		{"{}", METHOD_MAGNITUDE, -1, "{}"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		double dampening;
		char *printed = settings_of(*state, cases[i].text, cases[i].method, &dampening);
		assert_string_equal(printed, cases[i].printed);
		assert_true(dampening == cases[i].dampening);
		free(printed);
	}
}

/* ---- where a spec leads ---------------------------------------------------------------------------------------------------- */

struct visits {
	char names[256];
	int left;
};

static bool visit(void *context, bool model, const char *text, const struct place *place)
{
	struct visits *visits = context;
	snprintf(visits->names + strlen(visits->names), sizeof visits->names - strlen(visits->names), "%s:%s:%s ",
		 model ? "model" : "data", text, place->path);
	return --visits->left > 0;
}

static void test_places(void **state)
{
	(void)state;
	struct spec spec = {.model = "m", .model_place = PLACE("M"), .n_perplexity = 2, .n_tasks = 1};
	spec.calibration.n_sources = 2;
	spec.calibration.sources[0] = (struct source){.path = "a", .place = PLACE("A")};
	spec.calibration.sources[1] = (struct source){.path = "b", .place = PLACE("B")};
	spec.perplexity[1] = (struct dataset){.path = "c", .place = PLACE("C")}; /* the first has no path: it was wrong */
	spec.tasks[0] = (struct task){.path = "d", .place = PLACE("D")};
	struct visits all = {.left = 9}, some = {.left = 2};
	assert_true(spec_section_places(&spec, &spec_top, &spec, visit, &all));
	assert_string_equal(all.names, "model:m:M data:a:A data:b:B data:c:C data:d:D ");
	assert_false(spec_section_places(&spec, &spec_top, &spec, visit, &some));
	assert_string_equal(some.names, "model:m:M data:a:A ");
}

/* ---- the schema
 * ------------------------------------------------------------------------------------------------------------------ */

/* What a JSON pointer leads to, or NULL; of objects alone, and of keys without '~'. */
static const cJSON *value_at(const cJSON *at, const char *pointer)
{
	char key[64];
	int used;
	for (; at && sscanf(pointer, "/%63[^/]%n", key, &used) == 1; pointer += used)
		at = cJSON_GetObjectItemCaseSensitive(at, key);
	return *pointer ? NULL : at;
}

static const char *schema_text(const cJSON *schema, const char *pointer, char ret[512])
{
	const cJSON *at = value_at(schema, pointer);
	char *text = at ? cJSON_PrintUnformatted(at) : NULL;
	snprintf(ret, 512, "%s", text ? text : "nothing");
	free(text);
	return ret;
}

static void test_schema(void **state)
{
	static const struct {
		const char *pointer, *text;
	} cases[] = {
		{"/type", "\"object\""},
		{"/additionalProperties", "false"},
		{"/required", "nothing"},
		{"/properties/real/type", "[\"number\",\"null\"]"},
		{"/properties/real/default", "0.5"},
		{"/properties/real/maximum", "1"},
		{"/properties/whole/minimum", "0"},
		{"/properties/whole/default", "7"},
		{"/properties/wide/maximum", "9007199254740991"},
		{"/properties/every/anyOf",
		 "[{\"const\":\"auto\"},{\"type\":\"null\"},{\"type\":\"integer\",\"minimum\":0,\"maximum\":9}]"},
		{"/properties/every/default", "\"auto\""},
		{"/properties/big/default", "true"},
		{"/properties/colour/enum", "[\"red\",\"green\",null]"},
		{"/properties/colour/default", "\"red\""},
		{"/properties/text/minLength", "1"},
		{"/properties/text/maxLength", "5"},
		{"/properties/text/default", "\"t\""},
		{"/properties/sides/items/enum", "[\"left\",\"right\",\"main\"]"},
		{"/properties/sides/x-besad", "{\"optional\":true,\"alias\":\"main\"}"},
		{"/properties/origin/required", "[\"label\"]"},
		{"/properties/origin/properties/label/type", "\"string\""},
		{"/properties/origin/properties/label/minLength", "nothing"},
		{"/properties/points/minItems", "1"},
		{"/properties/points/maxItems", "3"},
		{"/properties/points/items/additionalProperties", "false"},
		{"/properties/points/items/properties/x/default", "2"},
		{"/properties/points/x-besad", "{\"optional\":true}"},
		{"/properties/notes/maxProperties", "2"},
		{"/properties/notes/propertyNames/maxLength", "2"},
		{"/properties/notes/additionalProperties/maxLength", "3"},
		{"/properties/mass/type", "\"null\""},
		{"/$defs", "{}"},
	};
	cJSON *schema = spec_schema(&section);
	char found[512];
	(void)state;
	assert_non_null(schema);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (strcmp(schema_text(schema, cases[i].pointer, found), cases[i].text) != 0)
			fail_msg("%s: %s, not %s", cases[i].pointer, found, cases[i].text);
	cJSON_Delete(schema);
}

/* Every field has a property that says what it is for, and every reference leads to a definition. */
static void expect_described(const cJSON *schema, const cJSON *at, const char *where)
{
	const cJSON *child;
	const char *reference = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(at, "$ref"));
	if (reference && !value_at(schema, reference + 1)) fail_msg("%s: there is no '%s'", where, reference);
	cJSON_ArrayForEach(child,
			   cJSON_GetObjectItemCaseSensitive(at, "properties")) if (!cJSON_HasObjectItem(child, "description") &&
										   !cJSON_HasObjectItem(child, "$ref") &&
										   !cJSON_HasObjectItem(child, "anyOf"))
		fail_msg("%s has no description", child->string);
	cJSON_ArrayForEach(child, at) expect_described(schema, child, child->string ? child->string : where);
}

static void test_schema_of_a_spec(void **state)
{
	struct scratch *s = *state;
	char found[512];
	cJSON *raw = spec_schema(&spec_top), *schema;
	char *text = cJSON_PrintUnformatted(raw);
	SUCCEEDS(json_parse(text, strlen(text), "schema", &schema, &s->err)); /* of numbers that are written as they are */
	assert_string_equal(schema_text(schema, "/required", found), "[\"model\"]");
	assert_string_equal(schema_text(schema, "/properties/model/x-besad/names", found), "\"model\"");
	for (int i = 0; i < spec_top.n_rows; i++)
		assert_non_null(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(schema, "properties"),
								 spec_top.rows[i].key));
	expect_described(schema, schema, "the schema");
	free(text);
	cJSON_Delete(schema);
	cJSON_Delete(raw);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_given),
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_settings_of_a_method),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_schema),
		cmocka_unit_test(test_schema_of_a_spec),
	};
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
