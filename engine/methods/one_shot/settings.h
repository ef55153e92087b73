#ifndef BESAD_ENGINE_ONE_SHOT_SETTINGS_H
#define BESAD_ENGINE_ONE_SHOT_SETTINGS_H

#include "engine/compute/backend.h"

struct one_shot_settings {
	enum importance importance;
};

#endif
