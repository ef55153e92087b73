#ifndef BESAD_ENGINE_SPARSEGPT_SETTINGS_H
#define BESAD_ENGINE_SPARSEGPT_SETTINGS_H

struct sparsegpt_settings {
	double dampening; /* of the mean of the Gram matrix' diagonal, what is added to it */
};

#endif
