#include "ctl/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char default_url[] = "http://127.0.0.1:8642";

static const struct {
	enum command command;
	const char *name, *arguments, *help;
	int least, most; /* arguments */
} commands[] = {
	{COMMAND_SUBMIT, "submit", "[FILE]", "queue a job: from FILE ('-' is standard input), from options, or both", 0, 1},
	{COMMAND_WATCH, "watch", "[JOB]", "follow a job to its end", 0, 1},
	{COMMAND_LIST, "list", "", "jobs, the newest first", 0, 0},
	{COMMAND_SHOW, "show", "[JOB]", "one job: state, settings, result", 0, 1},
	{COMMAND_REPORT, "report", "[JOB]", "one job's blocks: sparsity of each layer, loss, perplexity", 0, 1},
	{COMMAND_LOG, "log", "[JOB]", "what besad has logged of one job", 0, 1},
	{COMMAND_ARTIFACTS, "artifacts", "[JOB]", "the files of one job's output: sizes and SHA-256", 0, 1},
	{COMMAND_COMPARE, "compare", "JOB JOB...", "jobs side by side", 2, 16},
	{COMMAND_CANCEL, "cancel", "JOB...", "stop jobs that are not finished", 1, 1000},
	{COMMAND_PAUSE, "pause", "JOB...", "have jobs wait; a running one saves first, and the next job runs", 1, 1000},
	{COMMAND_RESUME, "resume", "JOB...", "queue paused jobs again; they go on where they stopped", 1, 1000},
	{COMMAND_RETRY, "retry", "JOB...", "queue failed or cancelled jobs again; they go on where they stopped", 1, 1000},
	{COMMAND_RM, "rm", "JOB...", "forget finished jobs", 1, 1000},
	{COMMAND_STUDY, "study", "ACTION...", "studies: submit FILE, list, show, watch, cancel, rm", 1, 1000},
	{COMMAND_GC, "gc", "", "forget ended jobs by the daemon's rules, at once", 0, 0},
	{COMMAND_AUDIT, "audit", "", "who has changed what, from where, the newest first", 0, 0},
	{COMMAND_DRAIN, "drain", "", "have the daemon begin no job; the running one goes on, new ones wait", 0, 0},
	{COMMAND_UNDRAIN, "undrain", "", "have it begin jobs again", 0, 0},
	{COMMAND_MODELS, "models", "", "models, and why some cannot be pruned", 0, 0},
	{COMMAND_DATA, "data", "", "data files, and why some cannot be read", 0, 0},
	{COMMAND_INFO, "info", "", "the daemon: version, backend, device, limits", 0, 0},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const struct {
	enum option_code option;
	int letter; /* 0: none */
	const char *name, *argument;
	enum command commands;
	const char *help;
} table[] = {
#define OPTION_ROW(code, letter, name, argument, path, kind, help) {OPTION_##code, letter, name, argument, COMMAND_SUBMIT, help},
	SPEC_OPTIONS(OPTION_ROW) /* and what no single field is: */
	{OPTION_SEQUENCE_LENGTH, 0, "sequence-length", "N", COMMAND_SUBMIT, "tokens in each, and in each window of --eval"},
	{OPTION_EVAL, 'e', "eval", "[NAME=]FILE", COMMAND_SUBMIT, "measure perplexity on it; may be repeated"},
	{OPTION_SET, 0, "set", "KEY=VALUE", COMMAND_SUBMIT, "any other field: --set besa.epochs=2, evaluation.perplexity.0.path=F"},
	{OPTION_METADATA, 0, "metadata", "KEY=VALUE", COMMAND_SUBMIT | COMMAND_LIST,
	 "a note on the job, and in list only jobs that have it; may be repeated"},
	{OPTION_AFTER, 0, "after", "JOB", COMMAND_SUBMIT, "run once that job has succeeded, and fail if it fails; may be repeated"},
	{OPTION_ESTIMATE, 0, "estimate", NULL, COMMAND_SUBMIT, "say what the job would take: memory, disk, time; queue nothing"},
	{OPTION_IDEMPOTENCY_KEY, 'k', "idempotency-key", "KEY", COMMAND_SUBMIT | COMMAND_STUDY,
	 "sent twice, queues one job; {date} is today in UTC"},
	{OPTION_WATCH, 'w', "watch", NULL, COMMAND_SUBMIT | COMMAND_STUDY, "then follow the job"},
	{OPTION_WAIT, 0, "wait", NULL, COMMAND_SUBMIT, "then wait for its end and print the result"},
	{OPTION_DRY_RUN, 0, "dry-run", NULL, COMMAND_SUBMIT | COMMAND_GC,
	 "print the job file that would be sent, or list what would go"},
	{OPTION_RECONNECT, 0, "reconnect", "SECONDS", COMMAND_SUBMIT | COMMAND_WATCH | COMMAND_STUDY,
	 "how long a silent daemon is tried again (default 600)"},
	{OPTION_STATE, 0, "state", "STATE", COMMAND_LIST,
	 "queued, running, cancelling, pausing, paused, succeeded, failed, cancelled"},
	{OPTION_LIMIT, 0, "limit", "N", COMMAND_LIST | COMMAND_STUDY | COMMAND_AUDIT, "at most so many (default 20; 0: all)"},
	{OPTION_NAMES, 0, "names", NULL, COMMAND_MODELS | COMMAND_DATA, "only the names of what can be used, one a line"},
	{OPTION_CSV, 0, "csv", NULL, COMMAND_STUDY, "show the study as CSV"},
	{OPTION_NOW, 0, "now", NULL, COMMAND_DRAIN, "the running job stops, too, and goes on behind undrain"},
	{OPTION_URL, 'u', "url", "URL", COMMAND_ANY, "the daemon, or unix:/PATH (default $BESAD_URL, else http://127.0.0.1:8642)"},
	{OPTION_TOKEN_FILE, 0, "token-file", "FILE", COMMAND_ANY, "holds its token (default $BESAD_TOKEN_FILE)"},
	{OPTION_CA_FILE, 0, "ca-file", "FILE", COMMAND_ANY,
	 "certificates that https is checked by (default $BESAD_CA_FILE, else the system's)"},
	{OPTION_JSON, 'j', "json", NULL, COMMAND_ANY, "print JSON; with --watch and watch, each event as a line"},
	{OPTION_HELP, 'h', "help", NULL, COMMAND_ANY, "print this"},
	{OPTION_VERSION, 'V', "version", NULL, COMMAND_ANY, "print the version"},
};
enum { OPTIONS = sizeof table / sizeof *table };

static enum exit_code usage_error(const char *format, const char *what, const char *more)
{
	fputs("besactl: ", stderr);
	fprintf(stderr, format, what, more);
	fputs("\nTry 'besactl --help'.\n", stderr);
	return EXIT_USAGE;
}

static bool parse_number(const char *text, double high, bool whole, double *ret)
{
	char *end;
	if (!*text || strspn(text, whole ? "0123456789" : "0123456789.") != strlen(text)) return false;
	*ret = strtod(text, &end);
	return !*end && *ret <= high;
}

/* Takes option `index` of the table. False when its value is no number. */
static bool take(struct options *options, size_t index, const char *value)
{
	double number = 0;
	switch (table[index].option) {
	case OPTION_URL:
		options->url = value;
		return true;
	case OPTION_TOKEN_FILE:
		options->token_file = value;
		return true;
	case OPTION_CA_FILE:
		options->ca_file = value;
		return true;
	case OPTION_JSON:
		return options->json = true;
	case OPTION_HELP:
		return options->help = true;
	case OPTION_VERSION:
		return options->version = true;
	case OPTION_DRY_RUN:
		return options->dry_run = true;
	case OPTION_ESTIMATE:
		return options->estimate = true;
	case OPTION_IDEMPOTENCY_KEY:
		options->idempotency_key = value;
		return true;
	case OPTION_WATCH:
		return options->watch = true;
	case OPTION_WAIT:
		return options->wait = true;
	case OPTION_RECONNECT:
		return parse_number(value, 1e9, false, &options->reconnect_seconds);
	case OPTION_NAMES:
		return options->names = true;
	case OPTION_CSV:
		return options->csv = true;
	case OPTION_NOW:
		return options->now = true;
	case OPTION_STATE:
		options->state = value;
		return true;
	case OPTION_LIMIT:
		if (!parse_number(value, 1e9, true, &number)) return false;
		options->limit = (int)number;
		return true;
	default:
		options->settings[options->n_settings++] = (struct setting){(int)table[index].option, value};
		return true;
	}
}

static size_t find_option(int code)
{
	size_t i = 0;
	while ((int)table[i].option != code && table[i].letter != code)
		i++;
	return i;
}

/* The command that the first argument names; its arguments are what follows. */
static enum exit_code take_command(struct options *options, char **args, int count)
{
	if (count == 0) return options->help || options->version ? EXIT_OK : usage_error("a command is missing", "", "");
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(commands[i].name, args[0]) != 0) continue;
		options->command = commands[i].command;
		options->args = args + 1;
		options->n_args = count - 1;
		if (options->n_args >= commands[i].least && options->n_args <= commands[i].most) return EXIT_OK;
		return usage_error("the arguments of %s are: %s", args[0], *commands[i].arguments ? commands[i].arguments : "none");
	}
	return usage_error("there is no command '%s'", args[0], "");
}

enum exit_code options_parse(int argc, char **argv, struct options *ret)
{
	struct option known[OPTIONS + 1] = {{0}};
	char letters[2 * OPTIONS + 1] = "";
	bool given[OPTIONS] = {false};
	const char *url = getenv("BESAD_URL"), *token_file = getenv("BESAD_TOKEN_FILE"), *ca_file = getenv("BESAD_CA_FILE");
	struct options options = {.url = url && *url ? url : default_url,
				  .token_file = token_file && *token_file ? token_file : NULL,
				  .ca_file = ca_file && *ca_file ? ca_file : NULL,
				  .reconnect_seconds = 600,
				  .limit = 20};
	for (size_t i = 0, at = 0; i < OPTIONS; i++) {
		known[i] = (struct option){table[i].name, table[i].argument ? required_argument : no_argument, NULL,
					   (int)table[i].option};
		if (!table[i].letter) continue;
		letters[at++] = (char)table[i].letter;
		if (table[i].argument) letters[at++] = ':';
	}
	optind = 0; /* afresh, whatever was parsed before */
	for (int code; (code = getopt_long(argc, argv, letters, known, NULL)) != -1;) {
		if (code == '?') return usage_error("the arguments are not understood", "", ""); /* getopt said which */
		size_t index = find_option(code);
		given[index] = true;
		if (options.n_settings == MAX_SETTINGS)
			return usage_error("--%s: more options than can be taken", table[index].name, "");
		if (!take(&options, index, optarg)) return usage_error("--%s takes a number, not '%s'", table[index].name, optarg);
	}
	enum exit_code code = take_command(&options, argv + optind, argc - optind);
	for (size_t i = 0; i < OPTIONS && code == EXIT_OK && options.command; i++)
		if (given[i] && !(table[i].commands & options.command))
			code = usage_error("%s takes no --%s", options.args[-1], table[i].name);
	if (code == EXIT_OK && options.watch && options.wait) code = usage_error("--watch waits already: leave out --wait", "", "");
	if (code == EXIT_OK && options.estimate && (options.watch || options.wait || options.dry_run))
		code = usage_error("--estimate queues no job: leave out --watch, --wait and --dry-run", "", "");
	*ret = options;
	return code;
}

void options_help(void)
{
	puts("Usage: besactl COMMAND [OPTION]... [ARGUMENT]...\n"
	     "Talks to besad, the daemon that makes large language models sparse.\n");
	for (size_t i = 0; i < COMMANDS; i++) {
		char left[64];
		snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].arguments);
		printf("  %-20s %s\n", left, commands[i].help);
	}
	puts("\nJOB is a job's id, or 'last' for the newest job, which is also what an optional one defaults to.\n"
	     "So it is with studies: study show [STUDY], study watch [STUDY], study cancel STUDY..., study rm STUDY...");
	const char *title = NULL;
	for (size_t i = 0; i < OPTIONS; i++) {
		unsigned own = table[i].commands & ~(unsigned)(COMMAND_STUDY | COMMAND_AUDIT);
		const char *group = table[i].commands == COMMAND_ANY     ? "Everywhere:"
				    : table[i].commands == COMMAND_DRAIN ? "For drain:"
				    : !own                               ? "For study:"
				    : own == COMMAND_LIST                ? "For list:"
				    : own == COMMAND_SUBMIT              ? "For submit:"
				    : own & COMMAND_LIST                 ? "For submit and list:"
				    : own & COMMAND_DATA                 ? "For models and data:"
				    : own & COMMAND_GC                   ? "For submit and gc:"
									 : "For submit and watch:";
		char left[64], letter[8] = "    ";
		if (!title || strcmp(title, group) != 0) printf("\n%s\n", group);
		title = group;
		if (table[i].letter) snprintf(letter, sizeof letter, "-%c, ", table[i].letter);
		snprintf(left, sizeof left, "%s--%s%s%s", letter, table[i].name, table[i].argument ? " " : "",
			 table[i].argument ? table[i].argument : "");
		printf("  %-30s %s\n", left, table[i].help);
	}
	puts("\nExit status: 0 done; 1 wrong usage or a local file; 2 the daemon refused; 3 no answer from the daemon;\n"
	     "4 the job failed; 5 the job was cancelled; 6 an answer that is not besad's.");
}
