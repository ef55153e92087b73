/* The command line. */
#ifndef BESAD_DAEMON_OPTIONS_H
#define BESAD_DAEMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/token.h"
#include "base/error.h"
#include "engine/export/type.h"
#include "engine/generate/generator.h"
#include "engine/spec/spec.h"

enum { MAX_LISTEN = 4, MAX_NOTIFY_HOSTS = 16 };

enum command {
	COMMAND_SERVE,
	COMMAND_RUN,
	COMMAND_BENCH,
	COMMAND_GENERATE,
	COMMAND_PACK,
	COMMAND_UNPACK,
	COMMAND_VERIFY,
	COMMAND_EXPORT,
	COMMAND_BACKUP,
	COMMAND_CHECK,
	COMMAND_RESTORE,
	COMMAND_SCHEMA,
	COMMAND_HELP,
	COMMAND_VERSION
};
enum backend_choice { BACKEND_AUTO, BACKEND_CPU, BACKEND_CUDA };

struct options {
	enum command command;
	struct roots roots; /* real paths */
	enum backend_choice backend;
	int threads;                         /* 0: all that the process may use */
	size_t device_memory;                /* bytes; 0: all there is */
	int64_t keep_replaced;               /* seconds that an output which was overwritten is kept */
	int64_t keep_succeeded, keep_failed; /* seconds that a job which ended so is remembered; -1: for ever */
	int64_t save_every;                  /* seconds between two checkpoints, 0 for each block; -1: as the backend asks for */

	/* serve */
	const char *listen[MAX_LISTEN];
	size_t n_listen;
	char *state_dir;                /* absolute */
	char *token_file;               /* real path; NULL: none */
	struct tokens *tokens;          /* its; NULL: none */
	const char *tls_cert, *tls_key; /* files; NULL: no TLS */
	bool no_seccomp;                /* no system call is taken from the process */
	int64_t queue_limit;
	int64_t max_state_bytes; /* of the database, checkpoints and unfinished outputs of ended jobs; -1: no bound */
	int64_t min_free;        /* bytes below the state directory and the output root; less, and no job is accepted or goes on */
	int64_t max_attempts;    /* of a job, that may die with besad in a row; 0: no limit */
	int64_t retry_failed;    /* how often a job that failed by what may pass is tried again in a row */
	int64_t retry_after;     /* seconds before the first time */
	char *limits_file;       /* real path; NULL: none */
	const char *port_file;   /* or NULL */
	const char *notify_hosts[MAX_NOTIFY_HOSTS];
	size_t n_notify_hosts;
	char *notify_key; /* NULL: notifications are not signed */
	char *on_finish;  /* a program's real path; or NULL */
	bool serve_models;
	int64_t serve_memory; /* bytes that a served model and its sequence may take */
	int64_t serve_idle;   /* seconds that it is kept when nobody asks for it */

	/* run */
	const char *job_file;
	char *checkpoint_dir; /* absolute; NULL: beside the output */
	char *scores_dir;     /* absolute; NULL: none */
	bool json;            /* the result on standard output; of bench, generate, backup, check and restore too */

	/* bench, generate */
	const char *model_dir;
	bool simulate;

	/* generate */
	const char *prompt; /* NULL: what is on standard input */
	bool chat;          /* it is a user's message */
	int64_t max_tokens;
	struct sampling sampling;
	struct decoder_wishes decoder;

	/* pack, unpack, verify, export, backup, check, restore */
	const char *from, *to; /* directories, and `to` a file for export; NULL: none, or, of the last three, the state directory */
	bool coded;
	enum export_type export_type;
};

/* STATUS_INVALID for a command line that makes no sense. *ret is freed with options_free, also after a failure. */
enum status options_parse(int argc, char **argv, struct options *ret, struct error *err);
void options_free(struct options *);

/* {"queue": N}: what is there replaces *queue_limit. */
enum status options_read_limits(const char *path, int64_t *queue_limit, struct error *err);

/* The token in a file's first line; the caller frees *ret, which is freed first where it is not NULL. */
enum status options_read_token(const char *path, char **ret, struct error *err);

extern const char options_help[];

#endif
