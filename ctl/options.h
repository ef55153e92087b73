/* The command line: one table of all options, and which commands take each. */
#ifndef BESAD_CTL_OPTIONS_H
#define BESAD_CTL_OPTIONS_H

#include <stdbool.h>

#include "ctl/exit.h"
#include "ctl/spec_options.h"

enum { MAX_SETTINGS = 64 };

/* One --model, --set … of submit, in the order of the command line. */
struct setting {
	int option; /* of enum option_code */
	const char *value;
};

enum option_code {
	OPTION_URL = 256,
	OPTION_TOKEN_FILE,
	OPTION_CA_FILE,
	OPTION_JSON,
	OPTION_HELP,
	OPTION_VERSION,
#define OPTION_CODE(code, ...) OPTION_##code,
	SPEC_OPTIONS(OPTION_CODE) /* from here on settings of the spec */
	OPTION_SEQUENCE_LENGTH,
	OPTION_EVAL,
	OPTION_AFTER,
	OPTION_METADATA, /* also of list: a filter */
	OPTION_SET,      /* to here */
	OPTION_DRY_RUN,
	OPTION_ESTIMATE,
	OPTION_IDEMPOTENCY_KEY,
	OPTION_WATCH,
	OPTION_WAIT,
	OPTION_RECONNECT,
	OPTION_STATE,
	OPTION_LIMIT,
	OPTION_NAMES,
	OPTION_CSV,
	OPTION_NOW,
};

/* Commands as bits, for the table of options. */
enum command {
	COMMAND_SUBMIT = 1 << 0,
	COMMAND_WATCH = 1 << 1,
	COMMAND_LIST = 1 << 2,
	COMMAND_SHOW = 1 << 3,
	COMMAND_REPORT = 1 << 4,
	COMMAND_COMPARE = 1 << 5,
	COMMAND_CANCEL = 1 << 6,
	COMMAND_RETRY = 1 << 7,
	COMMAND_RM = 1 << 8,
	COMMAND_MODELS = 1 << 9,
	COMMAND_INFO = 1 << 10,
	COMMAND_DATA = 1 << 11,
	COMMAND_ARTIFACTS = 1 << 12,
	COMMAND_PAUSE = 1 << 13,
	COMMAND_RESUME = 1 << 14,
	COMMAND_GC = 1 << 15,
	COMMAND_STUDY = 1 << 16,
	COMMAND_LOG = 1 << 17,
	COMMAND_AUDIT = 1 << 18,
	COMMAND_DRAIN = 1 << 19,
	COMMAND_UNDRAIN = 1 << 20,
	COMMAND_ANY = (1 << 21) - 1,
};

struct options {
	const char *url, *token_file, *ca_file;
	bool json, help, version;

	enum command command; /* 0 with --help or --version alone */
	char **args;          /* what the command works on */
	int n_args;

	/* submit, and list's --metadata */
	struct setting settings[MAX_SETTINGS];
	int n_settings;
	const char *idempotency_key;
	bool dry_run; /* also of gc */
	bool estimate, watch, wait;

	double reconnect_seconds;
	const char *state; /* list */
	int limit;
	bool names; /* models, data */
	bool csv;   /* study */
	bool now;   /* drain */
};

/* Fills *ret from the arguments and the environment. EXIT_USAGE, after a message, when they make no sense. */
enum exit_code options_parse(int argc, char **argv, struct options *ret);

void options_help(void);

#endif
