#ifndef BESAD_ENGINE_ADMM_SETTINGS_H
#define BESAD_ENGINE_ADMM_SETTINGS_H

/* Whose share of the zeros is learned. */
enum admm_rates { ADMM_UNIFORM, ADMM_LAYER, ADMM_ROW };

struct admm_settings {
	enum admm_rates rates;
	int iterations, ramp;
	double damping; /* of the scaled Gram matrix, whose diagonal is 1 */
	double rho;     /* the weight of the constraint */
	int cg_steps;
	double cg_damping; /* of the mean of the Gram matrix' diagonal */
};

#endif
