#include "engine/job/diagnosis.h"

const struct diagnosis_rule diagnosis_rules[DIAGNOSES] = {
	[DIAGNOSIS_PLATEAU] = {"plateau", 1e-4, "the loss has a plateau where learning starts: no rate moved by more than this",
			       "more steps (calibration.samples, besa.epochs) or larger ones (besa.d_coef, besa.learning_rate)"},
	[DIAGNOSIS_UNSTABLE] =
		{"unstable", 0.25,
		 "the loss rose so much above the best so far, as a part of it: the steps are too large for this block",
		 "a smaller besa.d_coef (Prodigy) or besa.learning_rate (AdamW)"},
	[DIAGNOSIS_EDGE] = {"edge", 0.5,
			    "this part of the weights has rates at the edge of what their candidates reach: it would go on",
			    "besa.parameterization softmax, which reaches further, or a smaller besa.epochs"},
	[DIAGNOSIS_OFF_TARGET] =
		{"off_target", 0.1,
		 "the learned rates come to another sparsity than asked for, by this part of it, and were shifted alike",
		 "a larger besa.lambda"},
	[DIAGNOSIS_FEW_TOKENS] = {"few_tokens", 1,
				  "so many tokens of the calibration for each input of a linear: the Gram matrix of deficient rank "
				  "knows in part how these go together",
				  "more calibration.samples, or a longer calibration.sequence_length"},
	[DIAGNOSIS_DEPENDENT_INPUTS] =
		{"dependent_inputs", 1,
		 "the inputs of a linear are nearly dependent, so that its Gram matrix took so many times the damping",
		 "more calibration.samples, or text that differs more"},
	[DIAGNOSIS_OTHER_TEXT] = {"other_text", 0.22,
				  "the calibration's tokens are further than the data set's own halves from each other, by so many "
				  "bits: what it shows "
				  "of the weights may not hold for that text",
				  "a calibration, or calibration.sources, of the kind of text that the model is for"},
	[DIAGNOSIS_ORDER] =
		{"order", 0.8,
		 "the rank correlation between the order that importance gives the weights and what pruning them costs: "
		 "what it calls unimportant is not",
		 "another besa.importance or one_shot.importance, such as wanda or gradient, or another method"},
	[DIAGNOSIS_PERPLEXITY] = {"perplexity", 2,
				  "the pruned model's perplexity is so many times the dense one's: it has lost too much",
				  "a lower sparsity, the preset balanced or best, or allocation.method loss"},
};
