/* One thread beside the walk over the blocks. It is given work in two stages: the walk waits for the first sooner than for the
 * second. */
#ifndef BESAD_ENGINE_BACKGROUND_H
#define BESAD_ENGINE_BACKGROUND_H

#include <stdbool.h>

#include "base/error.h"

struct background;
typedef enum status (*background_fn)(void *context, struct error *err);

enum status background_create(struct background **ret, struct error *err);
/* Waits for what runs. Takes NULL. */
void background_destroy(struct background *);

/* Runs `first`, where it is not NULL, and then `second`, even if the first fails. Nothing may be running. */
void background_start(struct background *, background_fn first, background_fn second, void *context);

/* Whether the first stage of the last start is over. */
bool background_first_over(struct background *);

/* Wait for a stage and give its status, as often as asked. Before any start they give STATUS_OK. */
enum status background_wait_first(struct background *, struct error *err);
enum status background_wait_second(struct background *, struct error *err);

#endif
