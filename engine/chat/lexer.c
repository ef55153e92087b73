#include <stdlib.h>

#include "engine/chat/letters.h"
#include "engine/chat/token.h"
#include "engine/text/unicode.h"

enum { MAX_BRACKETS = 100 };

struct lexer {
	struct run *run;
	const char *at, *end;
	const char *counted; /* up to where lines are counted */
	int line;
	bool line_starts; /* what was read last ended a line */
	struct token *tokens;
	size_t count, room;
	char brackets[MAX_BRACKETS]; /* what closes those that are open */
	int open;
};

static const struct {
	const char *text;
	enum token_kind kind;
} operators[] = {
	{"**", TOKEN_POWER},
	{"//", TOKEN_FLOOR},
	{"==", TOKEN_EQUAL},
	{"!=", TOKEN_UNEQUAL},
	{">=", TOKEN_AT_LEAST},
	{"<=", TOKEN_AT_MOST},
	{">", TOKEN_GREATER},
	{"<", TOKEN_LESS},
	{"=", TOKEN_ASSIGN},
	{"+", TOKEN_ADD},
	{"-", TOKEN_SUBTRACT},
	{"*", TOKEN_MULTIPLY},
	{"/", TOKEN_DIVIDE},
	{"%", TOKEN_MODULO},
	{"~", TOKEN_TILDE},
	{"|", TOKEN_PIPE},
	{",", TOKEN_COMMA},
	{".", TOKEN_DOT},
	{":", TOKEN_COLON},
	{";", TOKEN_SEMICOLON},
	{"[", TOKEN_LEFT_BRACKET},
	{"]", TOKEN_RIGHT_BRACKET},
	{"(", TOKEN_LEFT_PARENTHESIS},
	{")", TOKEN_RIGHT_PARENTHESIS},
	{"{", TOKEN_LEFT_BRACE},
	{"}", TOKEN_RIGHT_BRACE},
};
enum { OPERATORS = sizeof operators / sizeof *operators };

const char *token_name(enum token_kind kind)
{
	for (int i = 0; i < OPERATORS; i++)
		if (operators[i].kind == kind) return operators[i].text;
	switch (kind) {
	case TOKEN_END:
		return "end of template";
	case TOKEN_DATA:
		return "text";
	case TOKEN_BLOCK_BEGIN:
		return "{%";
	case TOKEN_BLOCK_END:
		return "%}";
	case TOKEN_PRINT_BEGIN:
		return "{{";
	case TOKEN_PRINT_END:
		return "}}";
	case TOKEN_NAME:
		return "name";
	case TOKEN_STRING:
		return "string";
	default:
		return "number";
	}
}

/* ---- what all of it uses ------------------------------------------------------------------------------------------------- */
static enum status append(struct lexer *lexer, enum token_kind kind, const struct value *value)
{
	if (lexer->count == lexer->room) {
		size_t room = lexer->room ? lexer->room * 2 : 256;
		struct token *tokens = run_new(lexer->run, room, sizeof *tokens);
		if (!tokens) return lexer->run->status;
		if (lexer->count) memcpy(tokens, lexer->tokens, lexer->count * sizeof *tokens);
		lexer->tokens = tokens;
		lexer->room = room;
	}
	lexer->tokens[lexer->count++] = (struct token){kind, lexer->line, value ? *value : (struct value){0}};
	return STATUS_OK;
}

/* Goes on to `to`, which is not before what is counted already. */
static void move_to(struct lexer *lexer, const char *to)
{
	for (; lexer->counted < to; lexer->counted++)
		lexer->line += *lexer->counted == '\n';
	lexer->at = to;
	lexer->run->line = lexer->line;
}

/* Ends a token of more than one character: whether that ended a line counts for what follows. */
static void end_token(struct lexer *lexer, const char *to)
{
	move_to(lexer, to);
	lexer->line_starts = to[-1] == '\n';
}

static const char *skip_spaces(const char *at, const char *end)
{
	while (at < end) {
		const char *next = at;
		if (!letter_is_space(utf8_next(&next))) break;
		at = next;
	}
	return at;
}

static bool begins(const char *at, const char *end, const char *with)
{
	size_t bytes = strlen(with);
	return (size_t)(end - at) >= bytes && memcmp(at, with, bytes) == 0;
}

/* Behind the end of a tag whose last two characters are `close`, "%}" or "#}": NULL where `at` is not at it. */
static const char *block_end(const char *at, const char *end, const char *close)
{
	char signed_close[4] = {*at, close[0], close[1]};
	if (at < end && *at == '+' && begins(at, end, signed_close)) return at + 3;
	if (at < end && *at == '-' && begins(at, end, signed_close)) return skip_spaces(at + 3, end);
	if (!begins(at, end, close)) return NULL;
	at += 2;
	return at < end && *at == '\n' ? at + 1 : at; /* trim_blocks */
}

/* ---- text ---------------------------------------------------------------------------------------------------------------- */
/* Text up to `stop`, where a tag begins with the sign given: without the spaces that the tag takes away. */
static enum status take_data(struct lexer *lexer, const char *stop, char sign, bool is_print)
{
	const char *start = lexer->at, *last = stop;
	struct value text;
	if (sign == '-') {
		while (last > start) {
			const char *previous = utf8_previous(last), *next = previous;
			if (!letter_is_space(utf8_next(&next))) break;
			last = previous;
		}
	} else if (sign != '+' && !is_print) { /* lstrip_blocks */
		const char *line = stop;
		while (line > start && line[-1] != '\n')
			line--;
		if ((line > start || lexer->line_starts) && skip_spaces(line, stop) == stop) last = line;
	}
	if (last == start) return STATUS_OK;
	TRY(value_string(lexer->run, start, (size_t)(last - start), &text));
	return append(lexer, TOKEN_DATA, &text);
}

static char sign_at(const char *at, const char *end)
{
	return at < end && (*at == '-' || *at == '+') ? *at : 0;
}

/* `{%` or `{%-` and the word, and what ends it: behind that, or NULL. */
static const char *word_tag(const char *at, const char *end, const char *word, bool trims)
{
	at += 2;
	if (sign_at(at, end)) at++;
	at = skip_spaces(at, end);
	if (!begins(at, end, word)) return NULL;
	at = skip_spaces(at + strlen(word), end);
	if (trims) return at < end ? block_end(at, end, "%}") : NULL;
	if (begins(at, end, "-%}")) return skip_spaces(at + 3, end);
	return begins(at, end, "%}") ? at + 2 : NULL;
}

/* What follows `{% raw %}`, up to `{% endraw %}`. */
static enum status take_raw(struct lexer *lexer, const char *behind)
{
	end_token(lexer, behind);
	for (const char *at = behind; (at = memmem(at, (size_t)(lexer->end - at), "{%", 2)); at++) {
		const char *stop = word_tag(at, lexer->end, "endraw", true);
		if (!stop) continue;
		TRY(take_data(lexer, at, sign_at(at + 2, lexer->end), false));
		end_token(lexer, stop);
		return STATUS_OK;
	}
	if (behind < lexer->end) return run_fail(lexer->run, "{%% raw %%} has no end");
	return STATUS_OK;
}

static enum status take_comment(struct lexer *lexer, const char *from)
{
	for (const char *at = from; at < lexer->end; at++) {
		const char *stop = block_end(at, lexer->end, "#}");
		if (!stop) continue;
		end_token(lexer, stop);
		return STATUS_OK;
	}
	if (from < lexer->end) return run_fail(lexer->run, "a comment has no end");
	move_to(lexer, from);
	return STATUS_OK;
}

/* ---- in tags ------------------------------------------------------------------------------------------------------------- */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits with single underscores between them; `at` where there are none. */
static const char *digits(const char *at, const char *end, bool (*is)(char))
{
	if (at == end || !is(*at)) return at;
	while (at < end && (is(*at) || (*at == '_' && at + 1 < end && is(at[1]))))
		at++;
	return at;
}

static bool is_binary(char c)
{
	return c == '0' || c == '1';
}

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

static bool is_hexadecimal(char c)
{
	return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

static bool is_zero(char c)
{
	return c == '0';
}

/* The end of a float that begins at `at`, or `at` where there is none. */
static const char *float_end(const char *at, const char *end)
{
	const char *whole = digits(at, end, is_digit), *stop = whole;
	if (whole == at) return at;
	bool fraction = whole + 1 < end && *whole == '.' && is_digit(whole[1]);
	if (fraction) stop = digits(whole + 1, end, is_digit);
	if (stop < end && (*stop | 32) == 'e') {
		const char *exponent = stop + 1;
		if (exponent < end && (*exponent == '+' || *exponent == '-')) exponent++;
		const char *last = digits(exponent, end, is_digit);
		if (last > exponent) return last;
	}
	return fraction ? stop : at;
}

static enum status take_number(struct lexer *lexer)
{
	static const struct {
		char letter;
		int base;
		bool (*is)(char);
	} bases[] = {{'b', 2, is_binary}, {'o', 8, is_octal}, {'x', 16, is_hexadecimal}};
	const char *start = lexer->at, *stop = start, *end = lexer->end;
	char plain[64];
	size_t count = 0;
	int base = 10;
	if (lexer->count && lexer->tokens[lexer->count - 1].kind == TOKEN_DOT && start[-1] == '.')
		stop = start; /* a.1: no float */
	else
		stop = float_end(start, end);
	bool is_float = stop > start;
	for (size_t i = 0; !is_float && i < 3 && stop == start; i++) {
		if (*start != '0' || end - start < 3 || (start[1] | 32) != bases[i].letter) continue;
		const char *first = start[2] == '_' ? start + 3 : start + 2;
		const char *last = digits(first, end, bases[i].is);
		if (last == first) continue;
		base = bases[i].base;
		stop = last;
	}
	if (stop == start) stop = digits(start, end, *start == '0' ? is_zero : is_digit);
	for (const char *c = base == 10 ? start : start + 2; c < stop; c++) {
		if (*c == '_') continue;
		if (count == sizeof plain - 1) return run_refuse(lexer->run, "a number of more than %zu digits", sizeof plain - 1);
		plain[count++] = *c;
	}
	plain[count] = 0;
	unsigned long long whole = is_float ? 0 : strtoull(plain, NULL, base);
	if (whole > INT64_MAX) return run_refuse(lexer->run, "a number beyond 64 bits");
	struct value value = is_float ? VALUE_OF_FLOAT(strtod(plain, NULL)) : VALUE_OF_INT(whole);
	TRY(append(lexer, TOKEN_NUMBER, &value));
	end_token(lexer, stop);
	return STATUS_OK;
}

static bool is_name(char c)
{
	return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
}

static enum status take_name(struct lexer *lexer)
{
	struct value name;
	const char *stop = lexer->at;
	while (stop < lexer->end && is_name(*stop))
		stop++;
	TRY(value_string(lexer->run, lexer->at, (size_t)(stop - lexer->at), &name));
	TRY(append(lexer, TOKEN_NAME, &name));
	end_token(lexer, stop);
	return STATUS_OK;
}

/* The code point of \x41, \u0041, \U00000041 or \101, with *at behind the backslash and then behind it. */
static enum status code_point(struct run *run, const char **at, const char *end, struct buffer *buffer)
{
	char kind = **at, character[4], hex[9];
	const char *c = *at;
	unsigned long value;
	int count = 0, wanted = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
	bool octal = is_octal(kind);
	if (octal)
		wanted = 3;
	else
		c++;
	while (count < wanted && c < end && (octal ? is_octal(*c) : is_hexadecimal(*c)))
		hex[count++] = *c++;
	hex[count] = 0;
	value = strtoul(hex, NULL, octal ? 8 : 16);
	if ((!octal && count < wanted) || value > 0x10ffff) return run_fail(run, "a string's escape \\%c is cut short", kind);
	if (value >= 0xd800 && value < 0xe000) return run_refuse(run, "half a surrogate pair in a string");
	*at = c;
	return run_append(run, buffer, character, (size_t)utf8_write((uint32_t)value, character));
}

/* A string's escapes as Python's. */
static enum status unescape(struct run *run, const char *at, const char *end, struct buffer *buffer)
{
	static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
	while (at < end) {
		const char *plain = at;
		while (at < end && *at != '\\')
			at++;
		TRY(run_append(run, buffer, plain, (size_t)(at - plain)));
		if (at == end) break;
		at++;
		const char *known = *at ? strchr(from, *at) : NULL;
		if (known) {
			TRY(run_append(run, buffer, &to[known - from], 1));
			at++;
		} else if (*at == '\n') {
			at++;
		} else if (*at == 'x' || *at == 'u' || *at == 'U' || is_octal(*at)) {
			TRY(code_point(run, &at, end, buffer));
		} else if (*at == 'N') {
			return run_refuse(run, "a string's escape \\N");
		} else {
			TRY(run_append(run, buffer, "\\", 1)); /* what follows is plain */
		}
	}
	return STATUS_OK;
}

static enum status take_string(struct lexer *lexer)
{
	struct run *run = lexer->run;
	struct buffer buffer = {0};
	struct value value;
	const char quote = *lexer->at, *start = lexer->at + 1, *stop = start;
	bool escapes = false;
	while (stop < lexer->end && *stop != quote) {
		escapes = escapes || *stop == '\\';
		stop += *stop == '\\' ? 2 : 1;
	}
	if (stop >= lexer->end) return run_fail(run, "a string has no end");
	enum status status;
	if (escapes) {
		status = unescape(run, start, stop, &buffer);
		if (status == STATUS_OK) status = value_copy_string(run, buffer.data, buffer.size, &value);
	} else {
		status = value_string(run, start, (size_t)(stop - start), &value);
	}
	buffer_free(&buffer);
	TRY(status);
	TRY(append(lexer, TOKEN_STRING, &value));
	end_token(lexer, stop + 1);
	return STATUS_OK;
}

/* Brackets must close what is open: the end of a tag is none while one is. */
static enum status balance(struct lexer *lexer, char c)
{
	static const char opening[] = "([{", closing[] = ")]}";
	const char *opens = strchr(opening, c);
	if (opens) {
		if (lexer->open == MAX_BRACKETS) return run_refuse(lexer->run, "more than %d open brackets", MAX_BRACKETS);
		lexer->brackets[lexer->open++] = closing[opens - opening];
	} else if (strchr(closing, c)) {
		if (!lexer->open) return run_fail(lexer->run, "unexpected '%c'", c);
		if (lexer->brackets[--lexer->open] != c)
			return run_fail(lexer->run, "unexpected '%c', expected '%c'", c, lexer->brackets[lexer->open]);
	}
	return STATUS_OK;
}

static enum status take_operator(struct lexer *lexer)
{
	for (int i = 0; i < OPERATORS; i++) {
		if (!begins(lexer->at, lexer->end, operators[i].text)) continue;
		if (!operators[i].text[1]) TRY(balance(lexer, operators[i].text[0]));
		TRY(append(lexer, operators[i].kind, NULL));
		end_token(lexer, lexer->at + strlen(operators[i].text));
		return STATUS_OK;
	}
	if ((unsigned char)*lexer->at < 0x80) return run_fail(lexer->run, "unexpected character '%c'", *lexer->at);
	return run_refuse(lexer->run, "names that are not ASCII");
}

/* What is in a tag, to its end. */
static enum status take_tag(struct lexer *lexer, bool is_print)
{
	while (true) {
		if (lexer->at == lexer->end) return run_fail(lexer->run, "a tag has no end");
		const char *stop = NULL;
		if (!lexer->open && !is_print) stop = block_end(lexer->at, lexer->end, "%}");
		if (!lexer->open && is_print && begins(lexer->at, lexer->end, "-}}")) stop = skip_spaces(lexer->at + 3, lexer->end);
		if (!lexer->open && is_print && begins(lexer->at, lexer->end, "}}")) stop = lexer->at + 2;
		if (stop) {
			TRY(append(lexer, is_print ? TOKEN_PRINT_END : TOKEN_BLOCK_END, NULL));
			end_token(lexer, stop);
			return STATUS_OK;
		}
		stop = skip_spaces(lexer->at, lexer->end);
		if (stop > lexer->at)
			end_token(lexer, stop);
		else if (is_digit(*lexer->at))
			TRY(take_number(lexer));
		else if (is_name(*lexer->at))
			TRY(take_name(lexer));
		else if (*lexer->at == '\'' || *lexer->at == '"')
			TRY(take_string(lexer));
		else
			TRY(take_operator(lexer));
	}
}

/* Text up to the next tag, and that tag. */
static enum status take_part(struct lexer *lexer)
{
	const char *at = lexer->at, *end = lexer->end, *raw;
	while ((at = memchr(at, '{', (size_t)(end - at))) && !(at + 1 < end && strchr("%{#", at[1]) && at[1]))
		at++;
	if (!at) {
		TRY(take_data(lexer, end, '+', true));
		move_to(lexer, end);
		return STATUS_OK;
	}
	bool is_print = at[1] == '{';
	char sign = sign_at(at + 2, end);
	TRY(take_data(lexer, at, sign, is_print));
	move_to(lexer, at);
	if (at[1] == '%' && (raw = word_tag(at, end, "raw", false))) return take_raw(lexer, raw);
	if (at[1] == '#') return take_comment(lexer, at + (sign ? 3 : 2));
	TRY(append(lexer, is_print ? TOKEN_PRINT_BEGIN : TOKEN_BLOCK_BEGIN, NULL));
	move_to(lexer, at + (sign ? 3 : 2));
	return take_tag(lexer, is_print);
}

/* Newlines of all kinds are one kind, and one at the end is none. */
static enum status normalize(struct run *run, const char *source, size_t bytes, const char **ret, size_t *ret_bytes)
{
	char *copy = run_new(run, bytes + 1, 1);
	size_t count = 0;
	if (!copy) return run->status;
	for (size_t i = 0; i < bytes; i++) {
		if (source[i] == '\r' && i + 1 < bytes && source[i + 1] == '\n') continue;
		copy[count++] = source[i] == '\r' ? '\n' : source[i];
	}
	if (count && copy[count - 1] == '\n') count--;
	copy[count] = 0;
	*ret = copy;
	*ret_bytes = count;
	return STATUS_OK;
}

enum status template_lex(struct run *run, const char *source, size_t bytes, const struct token **ret)
{
	const char *text = NULL;
	TRY(normalize(run, source, bytes, &text, &bytes));
	struct lexer lexer = {.run = run, .at = text, .counted = text, .end = text + bytes, .line = 1, .line_starts = true};
	run->line = 1;
	while (lexer.at < lexer.end)
		TRY(take_part(&lexer));
	TRY(append(&lexer, TOKEN_END, NULL));
	*ret = lexer.tokens;
	return STATUS_OK;
}
