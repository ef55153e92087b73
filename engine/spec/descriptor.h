/* The fields of a job's spec as rows: each says what a field is called, what it may be, what it is where it is left out, where its
 * value lies in a struct, and what people are told of it. The rows parse what a client sends, fill in defaults, print and free;
 * and they are printed themselves, as a JSON schema (schema.h), of which `make generate` makes what openapi.yaml, the dashboard's
 * form, besactl's options, completions and manual say of them. So a new field is a row and a member of the struct.
 *
 * The list of all is spec_top (sections.h). A method's settings are a section of their own, with a struct of their own, that may
 * lie with the method: a row of the kind SPEC_SETTINGS in the list is all that others know of it. */
#ifndef BESAD_ENGINE_DESCRIPTOR_H
#define BESAD_ENGINE_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/place.h"
#include "engine/model/layout.h"
#include "engine/spec/fields.h"
#include "engine/spec/spec.h"

enum spec_kind {
	SPEC_BOOL,     /* bool */
	SPEC_INT,      /* int or int64_t */
	SPEC_NUMBER,   /* double */
	SPEC_CHOICE,   /* an enum: the index of the value in `names` */
	SPEC_SET,      /* several of `names`: bits of an unsigned int, by their index */
	SPEC_TEXT,     /* char * */
	SPEC_FILE,     /* char * as the client wrote it, and a struct place below the data roots */
	SPEC_MODEL,    /* the same for a directory below the model roots */
	SPEC_SECTION,  /* an object: a struct within the struct */
	SPEC_SETTINGS, /* an object of its own (spec_settings): there where `method` has its name, or the client gave it */
	SPEC_LIST,     /* objects: an array of structs, and an int that counts them */
	SPEC_MAP,      /* texts under keys of the client's: a cJSON object, NULL where there are none */
	SPEC_REFUSED,  /* what later versions know */
};

/* What parsing carries along. */
struct spec_parser {
	const struct roots *roots;
	struct spec *spec;
	int64_t max_positions; /* of the model; INT_MAX while it is unknown */
	int64_t columns;       /* a divisor of the columns of all its linears, the greatest; 0 while it is unknown */
	struct spec_linear {
		char path[LAYOUT_MAX_PATH];
		int64_t rows, cols;
	} linears[LAYOUT_MAX_KINDS]; /* of its first block, one of each kind: n_linears; none while it is unknown */
	int n_linears;
	const char *unpackable; /* why its linears cannot be packed (engine/model/packed.h); NULL: they can */
	char no_gguf[256];      /* why the model cannot be exported; "" where it can, or is unknown */
	bool feeds_back;        /* quantization takes data; known before it is parsed */
	bool no_memory;
	struct error trouble; /* the machine's with a file that is named, which is no problem of the spec; STATUS_OK for none */
};

/* What a number may be, and what it is where it is left out. */
struct spec_range {
	double low, high, standard;
};

/* The option of `besactl submit` that sets a field; `name` is NULL for none. */
struct spec_option {
	const char *name, *argument;
	char letter;      /* 0: none */
	bool percent;     /* takes "50%" for 0.5 */
	const char *help; /* NULL: the row's, or what a choice may be */
};

struct spec_section;

struct spec_row {
	const char *key;
	enum spec_kind kind;
	size_t offset, size; /* of the value in the section's struct: SPEC_AT */
	size_t place;        /* where the struct place of a file or model lies */
	size_t count;        /* where the int of a list lies */
	const struct spec_section *section;

	struct spec_range
		range;  /* of a number; `standard` also of a bool (1: true) and a choice. Of a list or map: how many there may be */
	int limit;      /* characters of a text, or of each in a map */
	int key_limit;  /* characters of a key of a map */
	bool multiline; /* control characters are allowed in it */
	const char *text; /* that is left out; NULL: none */
	const char *noun; /* of what a list holds: "files" */

	const char *const *names, *const *later; /* of a choice, NULL-terminated; and those that later versions know, or NULL */
	int resolved;                            /* how many of the names a resolved spec may show; 0: all */
	const char *alias; /* of a set: another word for the first of its names, which stands for it; or NULL */

	const char *word, *wrong; /* a word that an int may be instead, which stands for -1; and what is said of anything else */

	const char *required; /* what is said where it is missing; NULL: it need not be there */
	const char *empty;    /* what is said of a text without characters; NULL: it may be empty */
	bool depends;         /* what it is where it is left out depends on other fields: `help` says on which */
	bool late;            /* parsed after the other rows, which its own ranges depend on */
	bool request;         /* only clients give it: a resolved spec has what it came to */
	bool lent;            /* what lies there is another row's, which frees it */

	/* Where a row needs code: */
	void (*find_range)(const struct spec_parser *, struct spec_range *); /* narrows the range to what this spec allows */
	void (*parse)(struct spec_parser *, const struct fields *, const struct spec_row *,
		      void *at);       /* in place of the kind's own */
	bool (*shown)(const void *at); /* is it in a resolved spec? NULL: always, or, of a text, where it is not NULL */

	/* For people. */
	const char *help, *more;  /* what it is, in a sentence; and what else the contract says */
	const char *label, *hint; /* in the form; without a label it is not there. The hint is `help` where it is NULL */
	const char *group;        /* of the form; NULL: the section's title, or that of the row before */
	bool folded;              /* a group that begins here is closed until it is wanted */
	const char *placeholder,
		*start;                /* in the form: what stands in an empty field (NULL: the default), and what it begins with */
	const char *pattern, *example; /* in the contract */
	const struct spec_row *type;   /* what several rows share: a definition of its own in the contract */
	struct spec_option option;
};

/* Where the value of a row lies. */
#define SPEC_AT(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)

struct spec_section {
	const struct spec_row *rows;
	int n_rows;
	size_t size; /* of the struct, where it is an element of a list or SPEC_SETTINGS */

	/* After all rows: what hangs together, and defaults that depend on other fields. NULL: nothing. */
	void (*settle)(struct spec_parser *, const struct fields *, void *at);

	const char *title; /* in the form */
	bool folded;       /* closed there until it is wanted */
	bool of_method;    /* shown there for the method of its name alone */
	const char *help;
};

#define SPEC_ROWS(array) .rows = (array), .n_rows = sizeof(array) / sizeof *(array)

/* Fills the struct at `at` from what the client sent; whatever is wrong is a problem of `fields`. What is filled, also in part, is
 * freed with spec_section_free. */
void spec_section_parse(struct spec_parser *, const struct fields *, const struct spec_section *, void *at);

/* Adds the section's fields to `object`; false without memory. `spec` is that of SPEC_SETTINGS, or NULL where there are none. */
bool spec_section_print(const struct spec *spec, const struct spec_section *, const void *at, cJSON *object);

void spec_section_free(const struct spec_section *, void *at);

/* Calls `visit` with each file and model that the section names, as the client wrote it and where it lies, until it returns false;
 * false then. `spec` as in spec_section_print. */
typedef bool spec_visit(void *context, bool model, const char *text, const struct place *);
bool spec_section_places(const struct spec *spec, const struct spec_section *, const void *at, spec_visit *visit, void *context);

/* A copy of `text`, or NULL; notes where there is no memory. */
char *spec_copy(struct spec_parser *, const char *text);

#endif
