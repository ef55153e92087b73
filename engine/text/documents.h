/* The texts of a data file's rows, one after the other. */
#ifndef BESAD_ENGINE_DOCUMENTS_H
#define BESAD_ENGINE_DOCUMENTS_H

#include <stddef.h>

#include "base/error.h"
#include "base/file.h"
#include "base/warnings.h"
#include "engine/text/kind.h"

struct documents;

/* `kind` is a JSON kind; `field` names the text of a row (field.h). `file` and `field` are borrowed. `warnings` may be NULL. */
enum status documents_open(const struct file *, enum data_kind, const char *field, struct warnings *, struct documents **ret,
			   struct error *err);
void documents_close(struct documents *);

/* The next row's text, valid until the next call; *ret is NULL at the end. A row without text is as if it were not there. At
 * the end of the file some of these give a warning that says how many of how many, and STATUS_INVALID if all rows are so, with
 * what the first of them has; so a file gives the same verdict whatever is drawn from it. */
enum status documents_next(struct documents *, const char **ret, size_t *ret_bytes, struct error *err);

#endif
