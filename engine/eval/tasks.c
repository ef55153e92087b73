#include "engine/eval/tasks.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/text/reader.h"

enum { MAX_CHOICES = 64, MAX_QUESTIONS = 1 << 24 };

const char *const task_format_names[] = {"choices", "piqa", "boolq", "hellaswag", "winogrande", "arc", NULL};

/* A line of the file, and what is made of it. */
struct line {
	const cJSON *json;
	char where[300]; /* "file, line 7", for errors */
	struct question question;
};

/* ---- fields --------------------------------------------------------------------------------------------------------------- */

static enum status text_field(const struct line *line, const cJSON *object, const char *key, const char **ret, struct error *err)
{
	*ret = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
	return *ret ? STATUS_OK : error_set(err, STATUS_INVALID, "%s: '%s' must be a string", line->where, key);
}

static enum status list_field(const struct line *line, const cJSON *object, const char *key, const cJSON **ret, struct error *err)
{
	*ret = cJSON_GetObjectItemCaseSensitive(object, key);
	int n = cJSON_IsArray(*ret) ? cJSON_GetArraySize(*ret) : 0;
	if (n >= 2 && n <= MAX_CHOICES) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: '%s' must be a list of 2 to %d choices", line->where, key, MAX_CHOICES);
}

/* An index below `n` that is a number or, as some files have it, a string of digits, counted from `first`. */
static enum status index_field(const struct line *line, const char *key, int first, int n, int *ret, struct error *err)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(line->json, key);
	const char *text = cJSON_GetStringValue(value);
	double number = cJSON_IsNumber(value) ? value->valuedouble : -1;
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

/* Takes context and continuation, which are freed if it fails. */
static enum status add_choice(struct question *question, char *context, char *continuation, int64_t bytes, struct error *err)
{
	struct choice *longer = realloc(question->choices, (size_t)(question->n + 1) * sizeof *longer);
	if (longer) question->choices = longer;
	if (!longer || !context || !continuation) {
		free(context);
		free(continuation);
		return error_set(err, STATUS_NO_MEMORY, "no memory for a task's questions");
	}
	longer[question->n++] = (struct choice){context, continuation, bytes > 0 ? bytes : 1};
	return STATUS_OK;
}

/* The choice stands behind the context and a space. */
static enum status add_behind(struct question *question, const char *context, const char *choice, struct error *err)
{
	return add_choice(question, strdup(context), join(" ", choice, "", ""), (int64_t)strlen(choice), err);
}

/* All choices of a list of strings behind one context. */
static enum status add_list(struct line *line, const char *context, const cJSON *list, const char *key, struct error *err)
{
	const cJSON *item;
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsString(item)) return error_set(err, STATUS_INVALID, "%s: '%s' must be strings", line->where, key);
		TRY(add_behind(&line->question, context, item->valuestring, err));
	}
	return STATUS_OK;
}

/* ---- the data sets -------------------------------------------------------------------------------------------------------- */

static enum status read_choices(struct line *line, struct error *err)
{
	const char *context;
	const cJSON *list;
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
	const cJSON *answer = cJSON_GetObjectItemCaseSensitive(line->json, "answer"); /* of the original; SuperGLUE's has `label` */
	if (!cJSON_IsBool(answer)) return index_field(line, "label", 0, 2, &line->question.answer, err);
	line->question.answer = cJSON_IsTrue(answer);
	return STATUS_OK;
}

/* hellaswag/utils.py: strip, " [title]" becomes ". ", what is in brackets goes, and double spaces become single ones once. In place. */
static void clean_hellaswag(char *text)
{
	static const char title[] = " [title]";
	char *to = text, *from = text + strspn(text, " \t\r\n\f\v");
	size_t length = strlen(from);
	while (length && strchr(" \t\r\n\f\v", from[length - 1]))
		length--;
	from[length] = 0;
	char *copy = strdup(from);
	if (!copy) return;
	for (const char *s = copy; *s;) {
		const char *end = *s == '[' ? strchr(s, ']') : NULL;
		const char *newline = *s == '[' ? strchr(s, '\n') : NULL; /* the expression's dot stops at a newline */
		if (strncmp(s, title, sizeof title - 1) == 0) {
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
	free(copy);
	char *single = text;
	for (const char *s = text; *s; s++) {
		*single++ = *s;
		if (s[0] == ' ' && s[1] == ' ') s++;
	}
	*single = 0;
}

static enum status read_hellaswag(struct line *line, struct error *err)
{
	const char *activity, *a, *b;
	const cJSON *list, *item;
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
	cJSON_ArrayForEach(item, list)
	{
		char *ending = cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
		if (!ending) status = error_set(err, STATUS_INVALID, "%s: 'endings' must be strings", line->where);
		if (ending) clean_hellaswag(ending);
		if (ending && !status) status = add_behind(&line->question, context, ending, err);
		free(ending);
	}
	free(context);
	return status ? status : index_field(line, "label", 0, line->question.n, &line->question.answer, err);
}

/* winogrande/preprocess_winogrande.py: what is scored is the same rest of the sentence behind either option. */
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
		TRY(add_choice(&line->question, context, continuation, (int64_t)length, err));
	}
	return index_field(line, "answer", 1, 2, &line->question.answer, err);
}

/* The choices as Hugging Face has them, {"text": […], "label": […]}, or as AI2 does, [{"text", "label"}, …]. */
static enum status read_arc(struct line *line, struct error *err)
{
	const cJSON *question = cJSON_GetObjectItemCaseSensitive(line->json, "question");
	const cJSON *source = cJSON_IsObject(question) ? question : line->json;
	const cJSON *choices = cJSON_GetObjectItemCaseSensitive(source, "choices"), *texts = choices, *labels = choices;
	const char *stem, *key, *text, *label;
	TRY(text_field(line, source, source == question ? "stem" : "question", &stem, err));
	TRY(text_field(line, line->json, "answerKey", &key, err));
	if (cJSON_IsObject(choices)) {
		TRY(list_field(line, choices, "text", &texts, err));
		TRY(list_field(line, choices, "label", &labels, err));
	} else {
		TRY(list_field(line, source, "choices", &choices, err));
	}
	if (cJSON_GetArraySize(texts) != cJSON_GetArraySize(labels))
		return error_set(err, STATUS_INVALID, "%s: 'choices' has other numbers of texts and labels", line->where);
	char *context = join("Question: ", stem, "\nAnswer:", "");
	if (!context) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	enum status status = STATUS_OK;
	line->question.answer = -1;
	for (int i = 0; i < cJSON_GetArraySize(texts) && !status; i++) {
		const cJSON *item = cJSON_GetArrayItem(texts, i), *name = cJSON_GetArrayItem(labels, i);
		text = cJSON_GetStringValue(cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, "text") : item);
		label = cJSON_GetStringValue(cJSON_IsObject(name) ? cJSON_GetObjectItemCaseSensitive(name, "label") : name);
		if (!text || !label)
			status = error_set(err, STATUS_INVALID, "%s: 'choices' must have texts and labels", line->where);
		else
			status = add_behind(&line->question, context, text, err);
		if (!status && strcmp(label, key) == 0) line->question.answer = i;
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

static enum status add_question(struct questions *questions, int64_t *room, const struct question *question, struct error *err)
{
	if (questions->count == *room) {
		int64_t more = *room ? 2 * *room : 256;
		struct question *longer = realloc(questions->items, (size_t)more * sizeof *longer);
		if (!longer) return error_set(err, STATUS_NO_MEMORY, "no memory for a task's questions");
		questions->items = longer;
		*room = more;
	}
	questions->items[questions->count++] = *question;
	return STATUS_OK;
}

static enum status read_line(const char *path, int64_t number, const char *text, size_t bytes, enum task_format format,
			     struct question *ret, struct error *err)
{
	struct line line = {0};
	cJSON *json;
	snprintf(line.where, sizeof line.where, "%.250s, line %" PRId64, path, number);
	TRY(json_parse(text, bytes, line.where, &json, err));
	line.json = json;
	enum status status = cJSON_IsObject(json) ? readers[format](&line, err)
						  : error_set(err, STATUS_INVALID, "%s: must be an object", line.where);
	cJSON_Delete(json);
	if (status)
		question_free(&line.question);
	else
		*ret = line.question;
	return status;
}

static bool is_blank(const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (!strchr(" \t\r", text[i])) return false;
	return true;
}

static enum status read_questions(const struct file *file, enum task_format format, int64_t limit, struct questions *questions,
				  struct error *err)
{
	struct reader *reader;
	int64_t room = 0;
	TRY(reader_open(file, &reader, err));
	enum status status = STATUS_OK;
	while (!status && questions->count < limit) {
		const char *text;
		size_t bytes;
		struct question question = {0};
		status = reader_line(reader, &text, &bytes, err);
		if (status || !text) break;
		if (is_blank(text, bytes)) continue;
		status = read_line(file->path, reader_line_number(reader), text, bytes, format, &question, err);
		if (!status) status = add_question(questions, &room, &question, err);
	}
	reader_close(reader);
	if (!status && !questions->count) status = error_set(err, STATUS_INVALID, "%s: has no questions", file->path);
	return status;
}

enum status questions_load(const struct place *data, enum task_format format, int64_t limit, struct questions *ret,
			   struct error *err)
{
	struct file file;
	struct questions questions = {0};
	TRY(place_open(data, NULL, &file, err));
	enum status status = read_questions(&file, format, limit && limit < MAX_QUESTIONS ? limit : MAX_QUESTIONS, &questions, err);
	file_close(&file);
	if (status)
		questions_free(&questions);
	else
		*ret = questions;
	return status;
}
