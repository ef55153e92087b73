#include "engine/eval/tasks.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/kind.h"
#include "engine/text/rows.h"

enum { MAX_CHOICES = 64, MAX_QUESTIONS = 1 << 24 };

const char *const task_format_names[] = {"choices", "piqa", "boolq", "hellaswag", "winogrande", "arc", NULL};

/* A row of the file, and what is made of it. */
struct line {
	const struct json_object *json;
	char where[300]; /* "file: line 7", for errors */
	struct question question;
};

/* ---- fields --------------------------------------------------------------------------------------------------------------- */

/* The member, or NULL. */
static struct json_object *member(const struct json_object *object, const char *key)
{
	struct json_object *value = NULL;
	if (json_object_is_type(object, json_type_object)) json_object_object_get_ex(object, key, &value);
	return value;
}

/* A string without U+0000, or NULL. */
static const char *string_of(struct json_object *value)
{
	if (!json_object_is_type(value, json_type_string)) return NULL;
	const char *text = json_object_get_string(value);
	return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static enum status text_field(const struct line *line, const struct json_object *object, const char *key, const char **ret,
			      struct error *err)
{
	struct json_object *value = member(object, key);
	*ret = string_of(value);
	if (*ret) return STATUS_OK;
	if (!value) return error_set(err, STATUS_INVALID, "%s: '%s' must be a string, and is not there", line->where, key);
	return error_set(err, STATUS_INVALID, "%s: '%s' must be a string, and is %s", line->where, key,
			 json_object_is_type(value, json_type_string) ? "one with U+0000 in it" : rows_type_name(value));
}

static enum status list_field(const struct line *line, const struct json_object *object, const char *key,
			      const struct json_object **ret, struct error *err)
{
	*ret = member(object, key);
	size_t n = json_object_is_type(*ret, json_type_array) ? json_object_array_length(*ret) : 0;
	if (n >= 2 && n <= MAX_CHOICES) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: '%s' must be a list of 2 to %d choices", line->where, key, MAX_CHOICES);
}

/* An index below `n` that is a number or, as some files have it, a string of digits, counted from `first`. */
static enum status index_field(const struct line *line, const char *key, int first, int n, int *ret, struct error *err)
{
	struct json_object *value = member(line->json, key);
	const char *text = string_of(value);
	bool is_number = json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double);
	double number = is_number ? json_object_get_double(value) : -1;
	if (text && *text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 4) number = atoi(text);
	if (number >= first && number < first + n && number == (int)number) {
		*ret = (int)number - first;
		return STATUS_OK;
	}
	return error_set(err, STATUS_INVALID, "%s: '%s' must be a number from %d to %d", line->where, key, first, first + n - 1);
}

/* ---- text ----------------------------------------------------------------------------------------------------------------- */

static char *join(const char *a, const char *b, const char *c, const char *d)
{
	char *text;
	return asprintf(&text, "%s%s%s%s", a, b, c, d) < 0 ? NULL : text;
}

/* Python's len(): code points. */
static int64_t count_characters(const char *text)
{
	int64_t count = 0;
	for (; *text; text++)
		count += (*text & 0xc0) != 0x80;
	return count;
}

/* Takes context and continuation, which are freed if it fails. `text` is what the scores are divided by the length of. */
static enum status add_choice(struct question *question, char *context, char *continuation, const char *text, struct error *err)
{
	struct choice *longer = realloc(question->choices, (size_t)(question->n + 1) * sizeof *longer);
	if (longer) question->choices = longer;
	if (!longer || !context || !continuation) {
		free(context);
		free(continuation);
		return error_set(err, STATUS_NO_MEMORY, "no memory for a task's questions");
	}
	longer[question->n++] = (struct choice){context, continuation, count_characters(text), (int64_t)strlen(text)};
	return STATUS_OK;
}

/* The choice stands behind the context and a space. */
static enum status add_behind(struct question *question, const char *context, const char *choice, struct error *err)
{
	return add_choice(question, strdup(context), join(" ", choice, "", ""), choice, err);
}

/* All choices of a list of strings behind one context. */
static enum status add_list(struct line *line, const char *context, const struct json_object *list, const char *key,
			    struct error *err)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		const char *choice = string_of(json_object_array_get_idx(list, i));
		if (!choice) return error_set(err, STATUS_INVALID, "%s: '%s' must be strings", line->where, key);
		TRY(add_behind(&line->question, context, choice, err));
	}
	return STATUS_OK;
}

/* ---- the data sets -------------------------------------------------------------------------------------------------------- */

static enum status read_choices(struct line *line, struct error *err)
{
	const char *context;
	const struct json_object *list;
	TRY(text_field(line, line->json, "context", &context, err));
	TRY(list_field(line, line->json, "choices", &list, err));
	TRY(add_list(line, context, list, "choices", err));
	return index_field(line, "answer", 0, line->question.n, &line->question.answer, err);
}

static enum status read_piqa(struct line *line, struct error *err)
{
	const char *goal, *solution;
	TRY(text_field(line, line->json, "goal", &goal, err));
	char *context = join("Question: ", goal, "\nAnswer:", "");
	if (!context) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	enum status status = STATUS_OK;
	for (int i = 0; i < 2 && !status; i++) {
		status = text_field(line, line->json, i ? "sol2" : "sol1", &solution, err);
		if (!status) status = add_behind(&line->question, context, solution, err);
	}
	free(context);
	return status ? status : index_field(line, "label", 0, 2, &line->question.answer, err);
}

static enum status read_boolq(struct line *line, struct error *err)
{
	const char *question, *passage;
	TRY(text_field(line, line->json, "question", &question, err));
	TRY(text_field(line, line->json, "passage", &passage, err));
	char *context = join(passage, "\nQuestion: ", question, "?\nAnswer:");
	if (!context) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	enum status status = add_behind(&line->question, context, "no", err);
	if (!status) status = add_behind(&line->question, context, "yes", err);
	free(context);
	TRY(status);
	struct json_object *answer = member(line->json, "answer"); /* of the original; SuperGLUE's has `label` */
	if (!json_object_is_type(answer, json_type_boolean)) return index_field(line, "label", 0, 2, &line->question.answer, err);
	line->question.answer = json_object_get_boolean(answer);
	return STATUS_OK;
}

/* hellaswag/utils.py: strip, " [title]" becomes ". ", what is in brackets goes, and double spaces become single ones once. In
 * place. */
static void clean_hellaswag(char *text)
{
	static const char title[] = " [title]";
	char *to = text;
	const char *s = text + strspn(text, " \t\r\n\f\v"), *stop = s + strlen(s);
	while (stop > s && strchr(" \t\r\n\f\v", stop[-1]))
		stop--;
	while (s < stop) {
		size_t rest = (size_t)(stop - s);
		const char *end = *s == '[' ? memchr(s, ']', rest) : NULL;
		const char *newline = *s == '[' ? memchr(s, '\n', rest) : NULL; /* the expression's dot stops at a newline */
		if (rest >= sizeof title - 1 && memcmp(s, title, sizeof title - 1) == 0) {
			*to++ = '.';
			*to++ = ' ';
			s += sizeof title - 1;
		} else if (end && (!newline || newline > end)) {
			s = end + 1;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
	char *single = text;
	for (s = text; *s; s++) {
		*single++ = *s;
		if (s[0] == ' ' && s[1] == ' ') s++;
	}
	*single = 0;
}

static enum status read_hellaswag(struct line *line, struct error *err)
{
	const char *activity, *a, *b;
	const struct json_object *list;
	TRY(text_field(line, line->json, "activity_label", &activity, err));
	TRY(text_field(line, line->json, "ctx_a", &a, err));
	TRY(text_field(line, line->json, "ctx_b", &b, err));
	TRY(list_field(line, line->json, "endings", &list, err));
	/* str.capitalize: the first character in upper case and all others in lower case. Letters beyond ASCII stay as they are. */
	char *capitalized = strdup(b), *context = NULL;
	for (char *s = capitalized; s && *s; s++)
		*s = (char)(s == capitalized ? toupper((unsigned char)*s) : tolower((unsigned char)*s));
	char *behind = capitalized ? join(a, " ", capitalized, "") : NULL;
	if (behind) context = join(activity, ": ", behind, "");
	free(capitalized);
	free(behind);
	if (!context) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	clean_hellaswag(context);
	enum status status = STATUS_OK;
	for (size_t i = 0; i < json_object_array_length(list) && !status; i++) {
		const char *text = string_of(json_object_array_get_idx(list, i));
		char *ending = text ? strdup(text) : NULL;
		if (!text) status = error_set(err, STATUS_INVALID, "%s: 'endings' must be strings", line->where);
		if (text && !ending) status = error_set(err, STATUS_NO_MEMORY, "no memory for a question");
		if (ending) clean_hellaswag(ending);
		if (ending && !status) status = add_behind(&line->question, context, ending, err);
		free(ending);
	}
	free(context);
	return status ? status : index_field(line, "label", 0, line->question.n, &line->question.answer, err);
}

/* winogrande/preprocess_winogrande.py: what is scored is the same rest of the sentence behind either option; the choices, whose
 * lengths count, are the sentence up to there. */
static enum status read_winogrande(struct line *line, struct error *err)
{
	const char *sentence, *option;
	TRY(text_field(line, line->json, "sentence", &sentence, err));
	const char *blank = strchr(sentence, '_');
	if (!blank) return error_set(err, STATUS_INVALID, "%s: 'sentence' has no '_'", line->where);
	for (int i = 0; i < 2; i++) {
		TRY(text_field(line, line->json, i ? "option2" : "option1", &option, err));
		char *before = strndup(sentence, (size_t)(blank - sentence));
		const char *rest = blank + 1 + strspn(blank + 1, " \t\r\n\f\v");
		size_t length = strlen(rest);
		while (length && strchr(" \t\r\n\f\v", rest[length - 1]))
			length--;
		char *end = strndup(rest, length);
		char *context = before ? join(before, option, "", "") : NULL, *continuation = end ? join(" ", end, "", "") : NULL;
		free(before);
		free(end);
		TRY(add_choice(&line->question, context, continuation, context ? context : "", err));
	}
	return index_field(line, "answer", 1, 2, &line->question.answer, err);
}

/* The choices as Hugging Face has them, {"text": […], "label": […]}, or as AI2 does, [{"text", "label"}, …]. */
static enum status read_arc(struct line *line, struct error *err)
{
	const struct json_object *question = member(line->json, "question");
	const struct json_object *source = json_object_is_type(question, json_type_object) ? question : line->json;
	const struct json_object *choices = member(source, "choices"), *texts = choices, *labels = choices;
	const char *stem, *key, *text, *label;
	TRY(text_field(line, source, source == question ? "stem" : "question", &stem, err));
	TRY(text_field(line, line->json, "answerKey", &key, err));
	if (json_object_is_type(choices, json_type_object)) {
		TRY(list_field(line, choices, "text", &texts, err));
		TRY(list_field(line, choices, "label", &labels, err));
	} else {
		TRY(list_field(line, source, "choices", &choices, err));
	}
	if (json_object_array_length(texts) != json_object_array_length(labels))
		return error_set(err, STATUS_INVALID, "%s: 'choices' has other numbers of texts and labels", line->where);
	char *context = join("Question: ", stem, "\nAnswer:", "");
	if (!context) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	enum status status = STATUS_OK;
	line->question.answer = -1;
	for (size_t i = 0; i < json_object_array_length(texts) && !status; i++) {
		struct json_object *item = json_object_array_get_idx(texts, i), *name = json_object_array_get_idx(labels, i);
		text = string_of(json_object_is_type(item, json_type_object) ? member(item, "text") : item);
		label = string_of(json_object_is_type(name, json_type_object) ? member(name, "label") : name);
		if (!text || !label)
			status = error_set(err, STATUS_INVALID, "%s: 'choices' must have texts and labels", line->where);
		else
			status = add_behind(&line->question, context, text, err);
		if (!status && strcmp(label, key) == 0) line->question.answer = (int)i;
	}
	free(context);
	TRY(status);
	return line->question.answer >= 0 ? STATUS_OK
					  : error_set(err, STATUS_INVALID, "%s: 'answerKey' is no choice's label", line->where);
}

static enum status (*const readers[TASK_FORMATS])(struct line *, struct error *) = {
	[TASK_CHOICES] = read_choices,       [TASK_PIQA] = read_piqa, [TASK_BOOLQ] = read_boolq, [TASK_HELLASWAG] = read_hellaswag,
	[TASK_WINOGRANDE] = read_winogrande, [TASK_ARC] = read_arc,
};

/* ---- the file ------------------------------------------------------------------------------------------------------------- */

static void question_free(struct question *question)
{
	for (int i = 0; i < question->n; i++) {
		free(question->choices[i].context);
		free(question->choices[i].continuation);
	}
	free(question->choices);
}

void questions_free(struct questions *questions)
{
	for (int64_t i = 0; i < questions->count; i++)
		question_free(&questions->items[i]);
	free(questions->items);
	*questions = (struct questions){0};
}

/* Takes what the question has, which is freed if it fails. */
static enum status add_question(struct questions *questions, int64_t *room, struct question *question, struct error *err)
{
	if (questions->count == *room) {
		int64_t more = *room ? 2 * *room : 256;
		struct question *longer = realloc(questions->items, (size_t)more * sizeof *longer);
		if (!longer) {
			question_free(question);
			return error_set(err, STATUS_NO_MEMORY, "no memory for a task's questions");
		}
		questions->items = longer;
		*room = more;
	}
	questions->items[questions->count++] = *question;
	return STATUS_OK;
}

static enum status read_row(const struct file *file, const struct rows *rows, const struct json_object *json,
			    enum task_format format, struct question *ret, struct error *err)
{
	struct line line = {.json = json};
	snprintf(line.where, sizeof line.where, "%.250s: %s", file->path, rows_where(rows));
	enum status status = readers[format](&line, err);
	if (status)
		question_free(&line.question);
	else
		*ret = line.question;
	return status;
}

static enum status read_rows(const struct file *file, enum data_kind kind, enum task_format format, int64_t limit,
			     struct questions *questions, struct error *err)
{
	struct rows *rows;
	int64_t room = 0;
	if (kind == DATA_TEXT || kind == DATA_TOKENS)
		return error_set(err, STATUS_INVALID,
				 "%s: is %s; a task's questions are rows of JSON, one object a line or in an array", file->path,
				 kind == DATA_TEXT ? "plain text" : "a safetensors file");
	TRY(rows_open(file, kind, &rows, err));
	enum status status = STATUS_OK;
	while (!status && questions->count < limit) {
		struct json_object *json;
		struct question question = {0};
		status = rows_next(rows, &json, err);
		if (status || !json) break;
		status = read_row(file, rows, json, format, &question, err);
		if (!status) status = add_question(questions, &room, &question, err);
	}
	rows_close(rows);
	return status;
}

enum status questions_load(const struct place *data, const char *name, enum task_format format, int64_t limit,
			   struct questions *ret, struct error *err)
{
	struct file file;
	enum data_kind kind;
	struct questions questions = {0};
	if (!limit || limit > MAX_QUESTIONS) limit = MAX_QUESTIONS;
	TRY(place_open(data, NULL, &file, err));
	enum status status = data_kind_find(&file, name, &kind, NULL, err);
	if (!status) status = read_rows(&file, kind, format, limit, &questions, err);
	if (!status && !questions.count) status = error_set(err, STATUS_INVALID, "%s: has no questions", file.path);
	file_close(&file);
	if (status)
		questions_free(&questions);
	else
		*ret = questions;
	return status;
}
