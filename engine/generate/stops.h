/* The tokens that end a text. */
#ifndef BESAD_ENGINE_GENERATE_STOPS_H
#define BESAD_ENGINE_GENERATE_STOPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/place.h"

enum { STOPS_MOST = 32 };

struct stops {
	int32_t ids[STOPS_MOST];
	int count;
};

/* `eos_token_id` of generation_config.json, or where that is not there, or has none, of config.json; a number or a list. */
enum status stops_read(const struct place *model, struct stops *ret, struct error *err);

bool stops_has(const struct stops *, int32_t id);

#endif
