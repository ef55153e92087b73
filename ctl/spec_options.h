/* The options of submit that set a field of a spec, made by `make generate` of the rows in engine/spec/:
 * OPTION(code, letter or 0, name, argument or NULL, the field's path, what it takes, help). */
#ifndef BESAD_CTL_SPEC_OPTIONS_H
#define BESAD_CTL_SPEC_OPTIONS_H

/* clang-format off */
#define SPEC_OPTIONS(OPTION) \
	OPTION(MODEL, 'm', "model", "DIR", "model", TEXT, "the model, below the daemon's model roots") \
	OPTION(NAME, 'n', "name", "NAME", "name", TEXT, "a name for people") \
	OPTION(OUTPUT, 'o', "output", "DIR", "output", TEXT, "the result, below the daemon's output root; {date}, {id}") \
	OPTION(OVERWRITE, 0, "overwrite", NULL, "overwrite", FLAG, "replace an output that is there, once the new one is whole") \
	OPTION(ARCHIVE, 0, "archive", NULL, "archive", FLAG, "make an archive of the output too, in which zeros take no room") \
	OPTION(ARCHIVE_CODED, 0, "archive-coded", NULL, "archive_coded", FLAG, "code the exponents of the archive's values") \
	OPTION(PRESET, 0, "preset", "PRESET", "preset", TEXT, "fast, balanced, best, paper") \
	OPTION(METHOD, 0, "method", "METHOD", "method", TEXT, "besa, wanda, magnitude, one_shot, sparsegpt, admm, none") \
	OPTION(SPARSITY, 's', "sparsity", "S", "sparsity", PERCENT, "what part of the weights becomes zero: 0.5 or 50%") \
	OPTION(PATTERN, 0, "pattern", "PATTERN", "pattern", TEXT, "unstructured, or N and M with a colon between; N of each M neighbours stay") \
	OPTION(BITS, 0, "bits", "N", "quantization.bits", NUMBER, "quantize the weights to so many bits") \
	OPTION(CALIBRATION, 'c', "calibration", "FILE", "calibration.path", TEXT, "text or tokens, below the daemon's data roots") \
	OPTION(SAMPLES, 0, "samples", "N", "calibration.samples", NUMBER, "how many sequences of it") \
	OPTION(SEED, 0, "seed", "N", "calibration.seed", NUMBER, "chooses the sequences") \
	OPTION(SIMULATE, 0, "simulate", NULL, "hardware.simulate", FLAG, "simulate what the zeros save on an accelerator") \
	OPTION(MEASURE, 0, "measure", NULL, "hardware.measure", FLAG, "time what the zeros save on this machine's processor") \
	OPTION(PRECISION, 0, "precision", "P", "precision", TEXT, "auto (the default), f32, bf16") \
	OPTION(PRIORITY, 0, "priority", "N", "priority", NUMBER, "higher ones run first") \
	OPTION(TIMEOUT, 0, "timeout", "SECONDS", "timeout_seconds", NUMBER, "fail after so long; 0: never")
/* clang-format on */

#endif
