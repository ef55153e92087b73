/* A job goes on with the spec that it was submitted with. That spec is stored as it was resolved then, every default filled in,
 * and beside it where the names in it led; it is not resolved again, since the operator's roots and defaults may be others by
 * now. What a later version has added to specs takes its default, which therefore has to be what jobs did before there was such
 * a field. */
#ifndef BESAD_ENGINE_RESTORE_H
#define BESAD_ENGINE_RESTORE_H

#include "engine/spec/spec.h"

/* {"model": {name: {"root", "path"}}, "data": {name: {"root", "path"}}}, without "root" where nothing confines; what a name is
 * of is said by the first key. The caller frees it; NULL: no memory. */
cJSON *spec_places(const struct spec *spec);

/* Reads a stored spec. Neither the model nor the data are looked at: that is for those who open them. `places` is of
 * spec_places; what it does not have, as NULL has nothing, and what is not there any more, is looked up below `roots`.
 * STATUS_INVALID, naming the first field that is wrong. *ret is freed with spec_free. */
enum status spec_restore(const cJSON *json, const cJSON *places, const struct roots *roots, struct spec **ret, struct error *err);

/* A copy of a spec, or of a request for one, without what changes nothing of the work that it asks for: `metadata`. Compared
 * with another, it says whether a job may go on. NULL is taken for null. The caller frees it; NULL: no memory. */
cJSON *spec_work(const cJSON *json);

/* For the parser: the place that `name` led to, a name of a model or of data, if it is kept and still there. *ret is freed with
 * place_free. */
enum status spec_find_kept(const struct roots *roots, bool model, const char *name, bool *ret_found, struct place *ret,
			   struct error *err);

#endif
