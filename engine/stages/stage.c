#include "engine/stages/stage.h"

#include <stddef.h>

#define DECLARE(name) extern const struct stage stage_##name;
STAGES(DECLARE)

const struct stage *stage_of(const struct spec *spec, int i)
{
#define ROW(name) &stage_##name,
	static const struct stage *const stages[] = {STAGES(ROW) NULL};
	for (const struct stage *const *stage = stages; *stage; stage++)
		if ((*stage)->wanted(spec) && i-- == 0) return *stage;
	return NULL;
}
