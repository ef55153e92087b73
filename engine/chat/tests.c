#include "engine/chat/letters.h"
#include "engine/chat/print.h"
#include "engine/chat/routine.h"
#include "engine/chat/scope.h"

/* `a` is the test's argument, where it has one. */
typedef enum status (*test_fn)(struct run *, const struct value *self, const struct value *a, bool *ret);

#define TEST(name) static enum status name(struct run *run, const struct value *self, const struct value *a, bool *ret)

/* A test of one value that cannot fail. */
#define PLAIN_TEST(name, holds)                                                                                                    \
	TEST(name)                                                                                                                 \
	{                                                                                                                          \
		(void)run;                                                                                                         \
		(void)a;                                                                                                           \
		*ret = (holds);                                                                                                    \
		return STATUS_OK;                                                                                                  \
	}

PLAIN_TEST(is_defined, self->kind != VALUE_UNDEFINED)
PLAIN_TEST(is_undefined, self->kind == VALUE_UNDEFINED)
PLAIN_TEST(is_none, self->kind == VALUE_NONE)
PLAIN_TEST(is_boolean, self->kind == VALUE_BOOL)
PLAIN_TEST(is_true, self->kind == VALUE_BOOL && self->truth)
PLAIN_TEST(is_false, self->kind == VALUE_BOOL && !self->truth)
PLAIN_TEST(is_integer, self->kind == VALUE_INT)
PLAIN_TEST(is_float, self->kind == VALUE_FLOAT)
PLAIN_TEST(is_number, value_is_number(self))
PLAIN_TEST(is_string, self->kind == VALUE_STRING)
PLAIN_TEST(is_mapping, self->kind == VALUE_DICT)
PLAIN_TEST(is_iterable, value_is_iterable(self))
PLAIN_TEST(is_sequence, self->kind == VALUE_STRING || self->kind == VALUE_LIST || self->kind == VALUE_TUPLE ||
				self->kind == VALUE_RANGE || self->kind == VALUE_DICT || self->kind == VALUE_UNDEFINED)
PLAIN_TEST(is_callable,
	   self->kind == VALUE_MACRO || self->kind == VALUE_ROUTINE || self->kind == VALUE_LOOP || self->kind == VALUE_UNDEFINED)
PLAIN_TEST(is_escaped, self->kind == VALUE_STRING && self->safe)

TEST(is_equal)
{
	return value_equal(run, self, a, ret);
}

TEST(is_unequal)
{
	TRY(value_equal(run, self, a, ret));
	*ret = !*ret;
	return STATUS_OK;
}

TEST(is_greater)
{
	int order;
	TRY(value_compare(run, self, a, &order));
	*ret = order > 0;
	return STATUS_OK;
}

TEST(is_at_least)
{
	int order;
	TRY(value_compare(run, self, a, &order));
	*ret = order >= 0;
	return STATUS_OK;
}

TEST(is_less)
{
	int order;
	TRY(value_compare(run, self, a, &order));
	*ret = order < 0;
	return STATUS_OK;
}

TEST(is_at_most)
{
	int order;
	TRY(value_compare(run, self, a, &order));
	*ret = order <= 0;
	return STATUS_OK;
}

TEST(is_in)
{
	return value_contains(run, a, self, ret);
}

/* Whether it is the same thing, not only equal. */
TEST(is_same)
{
	*ret = false;
	if (self->kind != a->kind) return STATUS_OK;
	switch (self->kind) {
	case VALUE_NONE:
	case VALUE_BOOL:
	case VALUE_INT:
	case VALUE_STRING:
		return value_equal(run, self, a, ret);
	case VALUE_FLOAT:
	case VALUE_TUPLE:
		return run_refuse(run, "sameas of values of type '%s'", value_type(self));
	default:
		*ret = self->list == a->list;
		return STATUS_OK;
	}
}

/* Whether the rest of a division is so much. */
static enum status leaves(struct run *run, const struct value *self, const struct value *divisor, int64_t rest, bool *ret)
{
	struct value found;
	const struct value wanted = VALUE_OF_INT(rest);
	TRY(operate(run, TOKEN_MODULO, self, divisor, &found));
	return value_equal(run, &found, &wanted, ret);
}

TEST(is_odd)
{
	(void)a;
	return leaves(run, self, &VALUE_OF_INT(2), 1, ret);
}

TEST(is_even)
{
	(void)a;
	return leaves(run, self, &VALUE_OF_INT(2), 0, ret);
}

TEST(is_divisible)
{
	return leaves(run, self, a, 0, ret);
}

static enum status by_method(struct run *run, const char *name, const struct value *self, bool *ret)
{
	struct value text, holds;
	TRY(value_to_string(run, self, &text));
	const struct text method = {name, strlen(name), strlen(name)};
	TRY(routine_run(run, python_method_find(&text, &method), &text, &(struct call){0}, &holds));
	*ret = holds.truth;
	return STATUS_OK;
}

TEST(is_lower)
{
	(void)a;
	return by_method(run, "islower", self, ret);
}

TEST(is_upper)
{
	(void)a;
	return by_method(run, "isupper", self, ret);
}

static const struct {
	const char *name;
	bool argument;
	test_fn test;
} tests[] = {
	{"defined", false, is_defined},
	{"undefined", false, is_undefined},
	{"none", false, is_none},
	{"boolean", false, is_boolean},
	{"true", false, is_true},
	{"false", false, is_false},
	{"integer", false, is_integer},
	{"float", false, is_float},
	{"number", false, is_number},
	{"string", false, is_string},
	{"mapping", false, is_mapping},
	{"iterable", false, is_iterable},
	{"sequence", false, is_sequence},
	{"callable", false, is_callable},
	{"escaped", false, is_escaped},
	{"odd", false, is_odd},
	{"even", false, is_even},
	{"lower", false, is_lower},
	{"upper", false, is_upper},
	{"divisibleby", true, is_divisible},
	{"sameas", true, is_same},
	{"in", true, is_in},
	{"eq", true, is_equal},
	{"equalto", true, is_equal},
	{"==", true, is_equal},
	{"ne", true, is_unequal},
	{"!=", true, is_unequal},
	{"gt", true, is_greater},
	{"greaterthan", true, is_greater},
	{">", true, is_greater},
	{"ge", true, is_at_least},
	{">=", true, is_at_least},
	{"lt", true, is_less},
	{"lessthan", true, is_less},
	{"<", true, is_less},
	{"le", true, is_at_most},
	{"<=", true, is_at_most},
};

enum status run_test(struct run *run, const struct text *name, const struct value *self, const struct call *call, bool *ret)
{
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		if (!text_is(name, tests[i].name)) continue;
		if (call->named_count) return run_refuse(run, "the test '%s' by an argument's name", tests[i].name);
		if (call->count != tests[i].argument)
			return run_fail(run, "the test '%s' takes %s argument", tests[i].name, tests[i].argument ? "one" : "no");
		return tests[i].test(run, self, call->positional, ret);
	}
	return run_refuse(run, "there is no test '%.*s'", name->bytes < 64 ? (int)name->bytes : 64, name->data);
}
