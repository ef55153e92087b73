/* What is measured: perplexity, tasks, and the perplexity while a job runs; and who is told of its end. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/spec/sections.h"

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
enum { NAME_LIMIT = 64 };

/* "data/wiki.test.txt.gz" → "wiki.test": the base name without its kind, other characters than [A-Za-z0-9_.-] replaced. */
static char *name_of_path(struct spec_parser *parser, const char *path)
{
	static const char *const kinds[] = {".gz", ".zst", ".txt", ".json", ".jsonl", ".ndjson", ".safetensors"};
	const char *slash = strrchr(path, '/');
	char *name = spec_copy(parser, slash ? slash + 1 : path);
	if (!name) return NULL;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (text_ends_with(name, kinds[i]) && strcmp(name, kinds[i]) != 0) name[strlen(name) - strlen(kinds[i])] = 0;
	if (strlen(name) > NAME_LIMIT) name[NAME_LIMIT] = 0;
	for (char *s = name; *s; s++)
		if (!strchr(NAME_CHARACTERS, *s)) *s = '_';
	return name;
}

/* The name of an element of a list, whose first has its name at `first` and each next one `size` bytes behind: the client's, or
 * made of `path`, and no earlier one's. */
static void settle_name(struct spec_parser *parser, const struct fields *fields, char **name, const char *path, char *const *first,
			size_t size, const char *what)
{
	if (*name && (!**name || (*name)[strspn(*name, NAME_CHARACTERS)])) {
		fields_problem(fields, "name", "must be letters, digits and _.- only");
		free(*name);
		*name = NULL;
		return;
	}
	if (!*name && path) *name = name_of_path(parser, path);
	if (!*name) return;
	for (char *const *other = first; other < name; other = (char *const *)((const char *)other + size))
		if (*other && strcmp(*other, *name) == 0) {
			fields_problem(fields, "name", "'%s' is the name of an earlier %s; names must differ", *name, what);
			return;
		}
}

static void settle_dataset(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct dataset *dataset = at;
	settle_name(parser, fields, &dataset->name, dataset->path, &parser->spec->perplexity[0].name, sizeof *dataset, "data set");
}

static void settle_task(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct task *task = at;
	settle_name(parser, fields, &task->name, task->path, &parser->spec->tasks[0].name, sizeof *task, "task");
}

static bool has_tasks(const void *at)
{
	return ((const struct spec *)at)->n_tasks > 0;
}

/* Which hosts may be told is the daemon's to say; here it must only be a web address. */
static void parse_url(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	const char *url = fields_string(fields, row->key, row->limit, false, NULL);
	bool web = url && (strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0);
	for (const char *c = url; web && *c; c++)
		web = *c > 0x20 && *c < 0x7f;
	if (web)
		((struct spec *)at)->notify_url = spec_copy(parser, url);
	else if (url)
		fields_problem(fields, row->key, "must be an http:// or https:// address in ASCII");
}

#define NAME(owner, what)                                                                                                          \
	.key = "name", .kind = SPEC_TEXT, SPEC_AT(owner, name), .limit = NAME_LIMIT, .depends = true,                              \
	.help = "names the " what " in events and results; default from the path. Names must differ",                              \
	.pattern = "^[A-Za-z0-9_.-]+$"

static const struct spec_row dataset_rows[] = {
	{NAME(struct dataset, "data set"), .label = "Name", .hint = "", .placeholder = "from the file"},
	{SPEC_DATA_PATH(struct dataset), .required = "is required", .label = "File", .hint = "Below the data roots."},
	{SPEC_SEQUENCE_LENGTH(struct dataset), .help = "tokens of each window: at most, and by default, as in calibration",
	 .hint = ""},
	{
		.key = "join",
		.kind = SPEC_TEXT,
		SPEC_AT(struct dataset, join),
		.limit = 1000,
		.multiline = true,
		.text = "\n\n",
		.help = "what stands between the texts of rows",
	},
	{SPEC_DATA_FIELD(struct dataset), .text = "text", .label = "Field of the text", .hint = ""},
};
static const struct spec_section dataset = {SPEC_ROWS(dataset_rows), .size = sizeof(struct dataset), .settle = settle_dataset};

static const struct spec_row task_rows[] = {
	{NAME(struct task, "task")},
	{SPEC_DATA_PATH(struct task), .required = "is required"},
	{
		.key = "format",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct task, format),
		.names = task_format_names,
		.range = {.standard = TASK_CHOICES},
		.help = "whose field names the rows have",
	},
	{
		.key = "limit",
		.kind = SPEC_INT,
		SPEC_AT(struct task, limit),
		.range = {0, INT32_MAX, 0},
		.help = "questions from the front of the file; 0 for all",
	},
};
static const struct spec_section task = {SPEC_ROWS(task_rows), .size = sizeof(struct task), .settle = settle_task};

static const struct spec_row rows[] = {
	{
		.key = "perplexity",
		.kind = SPEC_LIST,
		SPEC_AT(struct spec, perplexity),
		.count = offsetof(struct spec, n_perplexity),
		.section = &dataset,
		.range = {0, SPEC_MAX_DATASETS, 0},
		.noun = "data sets",
		.help = "data sets of which the perplexity is measured, with the dense and with the pruned model",
	},
	{
		.key = "tasks",
		.kind = SPEC_LIST,
		SPEC_AT(struct spec, tasks),
		.count = offsetof(struct spec, n_tasks),
		.section = &task,
		.range = {0, SPEC_MAX_TASKS, 0},
		.noun = "tasks",
		.shown = has_tasks,
		.help = "zero-shot multiple choice with the semantics of lm-evaluation-harness, from rows of JSON in the data "
			"sets' own field "
			"names: `piqa` {goal, sol1, sol2, label}, `boolq` {question, passage, answer or label}, `hellaswag` "
			"{activity_label, "
			"ctx_a, ctx_b, endings, label}, `winogrande` {sentence, option1, option2, answer}, `arc` {question, "
			"choices, "
			"answerKey}; `choices` {context, choices, answer}, the index of the right one",
	},
};
const struct spec_section spec_evaluation = {SPEC_ROWS(rows), .help = "what is measured before and after pruning"};

static const struct spec_row progress_rows[] = {
	{
		.key = "perplexity_every",
		.kind = SPEC_INT,
		SPEC_AT(struct spec, probe_every),
		.word = "auto", /* PROBE_AUTO */
		.wrong = "must be \"auto\" or a whole number of blocks, 0 for never",
		.range = {0, 10000, PROBE_AUTO},
		.help = "after how many blocks the perplexity of the model as it then is goes into `block.finished`, and after the "
			"last; 0 for "
			"never. `auto`: as often as fits into 7 % of the time",
		.more = "Taken over 2 to 8 sequences of the first evaluation data set, else of the calibration.",
	},
};
const struct spec_section spec_progress = {SPEC_ROWS(progress_rows), .help = "what is measured while a job runs"};

static const struct spec_row notify_rows[] = {
	{
		.key = "url",
		.kind = SPEC_TEXT,
		SPEC_AT(struct spec, notify_url),
		.limit = 2000,
		.required = "is required",
		.parse = parse_url,
		.help = "its host must be one of the daemon's `--notify-host`",
		.pattern = "^https?://[!-~]+$",
	},
};
const struct spec_section spec_notify = {
	SPEC_ROWS(notify_rows),
	.help = "Who is told of the job's end: a POST of `{\"event\": \"job.succeeded\" | \"job.failed\" | \"job.cancelled\", "
		"\"job\": {…}}` with "
		"the headers `X-Besad-Delivery` (the job's id) and, where the daemon has a key, `X-Besad-Signature: sha256=` and "
		"the HMAC of the "
		"body in hex. Any answer but 2xx, and none within 10 seconds, is tried again, later each time, for about a day; so "
		"it may come "
		"twice.",
};
