/* The signatures of a job that does not come out well: one table of what is looked for, from where on it is told, what it means
 * and what to change. Who finds one fills a struct finding; it becomes a `warning` event that has more than a message, and part
 * of the report. docs/diagnosis.md says for each why its threshold is what it is. */
#ifndef BESAD_ENGINE_DIAGNOSIS_H
#define BESAD_ENGINE_DIAGNOSIS_H

enum diagnosis {
	DIAGNOSIS_PLATEAU,
	DIAGNOSIS_UNSTABLE,
	DIAGNOSIS_EDGE,
	DIAGNOSIS_OFF_TARGET,
	DIAGNOSIS_FEW_TOKENS,
	DIAGNOSIS_DEPENDENT_INPUTS,
	DIAGNOSIS_OTHER_TEXT,
	DIAGNOSIS_ORDER,
	DIAGNOSIS_PERPLEXITY,
	DIAGNOSES
};

struct diagnosis_rule {
	const char *name;    /* in events and reports */
	double threshold;    /* of the figure */
	const char *meaning; /* of a figure beyond it */
	const char *change;  /* in the spec */
};
extern const struct diagnosis_rule diagnosis_rules[DIAGNOSES];

struct finding {
	enum diagnosis rule;
	double value;        /* the figure */
	const char *message; /* with the place and the numbers that it comes from; borrowed */
};

#endif
