#ifndef BESAD_ENGINE_ADMM_SETTINGS_H
#define BESAD_ENGINE_ADMM_SETTINGS_H

struct admm_settings {
	int iterations, ramp;
	double damping; /* of the scaled Gram matrix, whose diagonal is 1 */
	double rho;     /* the weight of the constraint */
	int cg_steps;
	double cg_damping; /* of the mean of the Gram matrix' diagonal */
};

#endif
