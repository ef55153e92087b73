// The fields of the form, made by `make generate` of the rows in engine/spec/.

export const GROUPS = [
	{ title: "Model and output", fields: [
		{ pointer: "/model", label: "Model", kind: "model" },
		{ pointer: "/name", label: "Name", hint: "A name for people; any text." },
		{ pointer: "/metadata", label: "Metadata", kind: "map", placeholder: "team=prune", hint: "Notes by which lists can be searched, key=value, one a line." },
		{ pointer: "/output", label: "Output", placeholder: "<model>-<preset or method>-{id}", hint: "A directory below the output root. {id} and {date} are filled in." },
		{ pointer: "/overwrite", label: "Replace the output if it exists", kind: "flag" },
		{ pointer: "/archive", label: "Make an archive too", kind: "flag", hint: "The output in less room, in its directory archive." },
		{ pointer: "/archive_coded", label: "Code its exponents", kind: "flag", hint: "About a third smaller still." },
		{ pointer: "/export", label: "Make GGUF files too", kind: "list", placeholder: "none", hint: "For llama.cpp: gguf-f16 (or gguf), gguf-q8_0, gguf-q4_0, gguf-q4_1, with commas between." },
	] },
	{ title: "Pruning", fields: [
		{ pointer: "/preset", label: "Preset", kind: "choice", choices: ["", "fast", "balanced", "best", "paper"], hint: "What it may cost: fast, balanced (the default) or best." },
		{ pointer: "/method", label: "Method", kind: "choice", choices: ["", "besa", "wanda", "magnitude", "one_shot", "sparsegpt", "admm", "none"], hint: "In place of a preset." },
		{ pointer: "/sparsity", label: "Sparsity", kind: "number", value: "0.5", hint: "Part of the weights to be zero, 0 to 0.95." },
		{ pointer: "/pattern", label: "Pattern", placeholder: "unstructured", hint: "N:M as in 2:4, or unstructured." },
		{ pointer: "/precision", label: "Precision", kind: "choice", choices: ["auto", "f32", "bf16"], value: "auto", hint: "Of the matrix products; auto is bf16 where the processor or device has products of its own for it." },
	] },
	{ title: "Allocation", folded: true, fields: [
		{ pointer: "/allocation/method", label: "Allocation", kind: "choice", choices: ["", "uniform", "outlier", "loss"], hint: "How the zeros are divided among the blocks." },
		{ pointer: "/allocation/deviation", label: "Deviation", kind: "number", placeholder: "0.08", hint: "Of loss: the most by which a block's sparsity differs from the target; of outlier: half of the range that the blocks' sparsities span (OWL's lambda)." },
		{ pointer: "/allocation/threshold", label: "Outliers from", kind: "number", placeholder: "5", hint: "Of outlier: a weight is outstanding whose importance, |w| · ‖x‖, is so many times the mean of its block (OWL's M)." },
	] },
	{ title: "BESA settings", folded: true, only: "besa", fields: [
		{ pointer: "/besa/granularity", label: "Granularity", kind: "choice", choices: ["", "row", "layer"], hint: "What has a rate of its own." },
		{ pointer: "/besa/rows_per_group", label: "Rows per group", kind: "number", placeholder: "1" },
		{ pointer: "/besa/reconstruct", label: "Reconstruct", kind: "choice", choices: ["", "block", "half_block", "layer", "two_blocks"], hint: "Whose output learning is to give again: the block's; one after the other that of attention and of the MLP, or each layer's own; or, by two_blocks, the next block's, which learns with it, and again in its turn, at about twice the time; all but block with the target block." },
		{ pointer: "/besa/importance", label: "Importance", kind: "choice", choices: ["", "wanda", "magnitude", "sparsegpt", "sparsegpt_published", "gradient"], hint: "What orders the weights of a row: by sparsegpt the error that SparseGPT would make good, w²/u², u being the diagonal of the upper Cholesky factor of the inverse of the inputs' Gram matrix; by sparsegpt_published w²/u, which the published code of BESA calls SparseGPT; by gradient |weight × gradient| of the block's loss, its reference moved at random." },
		{ pointer: "/besa/candidates", label: "Candidate rates", kind: "number", placeholder: "101", hint: "Pruning rates that a learned rate is a mixture of: evenly spread about the target, under softmax from 0 to 1." },
		{ pointer: "/besa/lambda", label: "Lambda", kind: "number", placeholder: "5", hint: "Weight of the sparsity term of the loss." },
		{ pointer: "/besa/epochs", label: "Epochs", kind: "number", placeholder: "1", hint: "How often a block learns from every calibration sequence." },
		{ pointer: "/besa/batch_size", label: "Batch size", kind: "number", placeholder: "1", hint: "Sequences of a step; not more than calibration.samples." },
		{ pointer: "/besa/optimizer", label: "Optimizer", kind: "choice", choices: ["", "prodigy", "adamw"], hint: "What makes steps of gradients." },
		{ pointer: "/besa/d_coef", label: "Prodigy's d_coef", kind: "number", hint: "Of prodigy; 5 for the sigmoid, 50 for softmax." },
		{ pointer: "/besa/learning_rate", label: "AdamW's learning rate", kind: "number", placeholder: "0.01" },
		{ pointer: "/besa/target", label: "Target", kind: "choice", choices: ["", "block", "dense_stream"], hint: "Whose output a block is to give again: the dense block's on the same inputs, or that of the dense model." },
		{ pointer: "/besa/parameterization", label: "Parameterization", kind: "choice", choices: ["", "sigmoid", "softmax", "auto"], hint: "Of the rates; under sigmoid, which auto is, they stay near the target, under softmax they may be any." },
		{ pointer: "/besa/safeguards", label: "Safeguards", kind: "flag", hint: "No block ends with a larger loss than it would with equal rates: learning that diverges goes on from its best with smaller steps; false: as published." },
	] },
	{ title: "One-shot", folded: true, only: "one_shot", fields: [
		{ pointer: "/one_shot/importance", label: "Importance", kind: "choice", choices: ["", "wanda", "magnitude", "sparsegpt", "sparsegpt_published", "gradient"], hint: "What orders the weights of a row, as besa.importance." },
	] },
	{ title: "SparseGPT", folded: true, only: "sparsegpt", fields: [
		{ pointer: "/sparsegpt/dampening", label: "Dampening", kind: "number", placeholder: "0.01" },
	] },
	{ title: "ADMM", folded: true, only: "admm", fields: [
		{ pointer: "/admm/rates", label: "Rates", kind: "choice", choices: ["", "uniform", "layer", "row"], hint: "Whose share of a block's zeros is learned, by BESA and its settings: each layer's or each row's; uniform: all lose the same, as they do under a pattern." },
		{ pointer: "/admm/iterations", label: "Iterations", kind: "number", placeholder: "20" },
		{ pointer: "/admm/ramp", label: "Ramp", kind: "number", placeholder: "15", hint: "Iterations over which the sparsity rises." },
		{ pointer: "/admm/damping", label: "Damping", kind: "number", placeholder: "0.1" },
		{ pointer: "/admm/rho", label: "Rho", kind: "number", placeholder: "1" },
		{ pointer: "/admm/cg_steps", label: "Steps of conjugate gradients", kind: "number", placeholder: "30" },
		{ pointer: "/admm/cg_damping", label: "Damping of conjugate gradients", kind: "number", placeholder: "0.01" },
	] },
	{ title: "Refit", folded: true, fields: [
		{ pointer: "/refit/method", label: "Refit", kind: "choice", choices: ["", "none", "least_squares", "block", "global"], hint: "How the weights that are kept make up for those that went." },
		{ pointer: "/refit/epochs", label: "Epochs", kind: "number", placeholder: "2", hint: "Of block and global: how often a block is trained on every calibration sequence." },
		{ pointer: "/refit/batch_size", label: "Batch size", kind: "number", placeholder: "4", hint: "Of block and global: sequences of a step; never more than calibration.samples." },
		{ pointer: "/refit/learning_rate", label: "Learning rate", kind: "number", placeholder: "0", hint: "0 for one that fits the model's width." },
		{ pointer: "/refit/norms", label: "Norms and biases too", kind: "flag", hint: "Of block and global: whether norms' weights and all biases are trained too, and not only the weights of linears." },
		{ pointer: "/refit/cg_steps", label: "Steps of conjugate gradients", kind: "number", placeholder: "30", hint: "Of least_squares: steps of conjugate gradients." },
		{ pointer: "/refit/cg_damping", label: "Damping of conjugate gradients", kind: "number", placeholder: "0.01", hint: "Of least_squares: what holds the weights to their values, as a part of the mean of the Gram matrix' diagonal." },
		{ pointer: "/refit/global_epochs", label: "Epochs of the whole model", kind: "number", placeholder: "1", hint: "Of global: how often the whole model is trained on every calibration sequence, behind the last block." },
		{ pointer: "/refit/global_learning_rate", label: "Learning rate of the whole model", kind: "number", placeholder: "0.001", hint: "Of global: Adam's, when the whole model is trained; it rises and falls as learning_rate." },
	] },
	{ title: "Quantization", folded: true, fields: [
		{ pointer: "/quantization/bits", label: "Bits", placeholder: "none", hint: "2, 3, 4 or 8; without it weights are not quantized." },
		{ pointer: "/quantization/group_size", label: "Group size", placeholder: "the largest that fits", hint: "16 to 128, or channel for a whole row." },
		{ pointer: "/quantization/symmetric", label: "Symmetric", kind: "flag", hint: "Whether scales alone are stored, or zero points too." },
		{ pointer: "/quantization/order", label: "Order", kind: "choice", choices: ["", "joint", "prune_first", "quantize_first", "auto"], hint: "Joint: besa learns how to clip the weights together with its rates; prune_first: weights are rounded when they are pruned and refitted; quantize_first: before they are pruned. auto is joint where that can be, else prune_first." },
		{ pointer: "/quantization/rounding", label: "Rounding", kind: "choice", choices: ["", "nearest", "feedback"], hint: "Nearest: each weight goes to the nearest value of its group; feedback: the weights that follow in its row make up for what it loses there, as in GPTQ, by the calibration, which it takes." },
		{ pointer: "/quantization/format", label: "Format", kind: "choice", choices: ["", "packed", "dequantized", "auto"], hint: "Of the output: packed codes, the form pack-quantized of compressed-tensors, with 4 and 8 bits; or dequantized: the weights that the codes stand for, in the model's type, and no smaller. auto is packed where that can be." },
	] },
	{ title: "Calibration", fields: [
		{ pointer: "/calibration/path", label: "Calibration data", kind: "file", hint: "A file below the data roots; empty for the daemon's own." },
		{ pointer: "/calibration/field", label: "Field of the text", placeholder: "text", hint: "Of JSON rows: text, messages, data.0.content …" },
		{ pointer: "/calibration/samples", label: "Samples", kind: "number", placeholder: "128" },
		{ pointer: "/calibration/sequence_length", label: "Sequence length", kind: "number", placeholder: "2048, or what the model takes" },
		{ pointer: "/calibration/seed", label: "Seed", kind: "number", placeholder: "0", hint: "Chooses the sequences." },
	] },
	{ title: "Hardware", folded: true, fields: [
		{ pointer: "/hardware/simulate", label: "Simulate an accelerator", kind: "flag", hint: "How many cycles the zeros save on ViTCoD's array of processing elements." },
		{ pointer: "/hardware/measure", label: "Measure on this processor", kind: "flag", hint: "How much faster decoding's products are without the zeros, timed on the processor." },
	] },
	{ title: "Queueing", folded: true, fields: [
		{ pointer: "/priority", label: "Priority", kind: "number", placeholder: "0", hint: "Higher goes first; −100 to 100." },
		{ pointer: "/timeout_seconds", label: "Time limit in seconds", kind: "number", placeholder: "0, none" },
	] },
];

// Of each data set to measure; <n> is its place in the list.
export const DATASET = [
	{ pointer: "/evaluation/perplexity/<n>/path", label: "File", kind: "file", hint: "Below the data roots." },
	{ pointer: "/evaluation/perplexity/<n>/name", label: "Name", placeholder: "from the file" },
	{ pointer: "/evaluation/perplexity/<n>/sequence_length", label: "Sequence length", kind: "number" },
	{ pointer: "/evaluation/perplexity/<n>/field", label: "Field of the text", placeholder: "text" },
];
