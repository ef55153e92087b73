"""What a schema cannot say of a spec: which models and files are there, and how two fields hang together. Specs that besad is to
accept get this put right."""
import itertools
import os

import schemathesis

MODEL, TOKENS = os.environ["BESAD_TEST_MODEL"], os.environ["BESAD_TEST_TOKENS"]


calls = itertools.count()


def component_bytes(output):
    return [len(part.replace("{id}", 26 * "i").encode()) for part in output.replace("{date}", "yyyy-mm-dd").split("/")]


@schemathesis.hook
def before_call(context, case, kwargs):
    mode = case.meta.generation.mode if case.meta else None
    operation = case.operation.definition.raw.get("operationId")
    if operation not in ("submitJob", "estimateJob", "submitStudy") or mode is None or not mode.is_positive:
        return
    if not isinstance(case.body, dict):
        return
    if case.headers and "Idempotency-Key" in case.headers:  # with another body it is refused
        case.headers["Idempotency-Key"] = case.headers["Idempotency-Key"][:240] + str(next(calls))
    if operation == "submitStudy":  # its parts are objects of any kind to a schema
        case.body["spec"] = {"model": MODEL, "method": "magnitude"}
        case.body["grid"] = {"sparsity": [0.5, 0.6]}
        return
    case.body["model"] = MODEL
    case.body.pop("depends_on", None)  # which jobs there are
    case.body["calibration"] = {"path": TOKENS, "samples": 4, "sequence_length": 64}
    output = case.body.get("output")
    if isinstance(output, str) and any(length > 200 for length in component_bytes(output)):
        case.body["output"] = None  # what a file may be called is counted in bytes
    if case.body.pop("pattern", None) and case.body.get("method") != "none":  # what N:M there is, and for which methods, no schema says
        case.body["sparsity"] = case.body.get("sparsity") or 0.5
    if operation == "estimateJob":
        case.body.pop("export", None)  # the model has no tokenizer
    case.body.pop("notify", None)  # which hosts may be told is the operator's to say
    if case.body.get("method"):
        case.body.pop("preset", None)  # one of the two
    if case.body.get("method") == "none":
        for section in ("refit", "allocation", "archive", "export"):
            case.body.pop(section, None)
    if not case.body.get("archive"):
        case.body.pop("archive_coded", None)  # how an archive is made
    refit, quantization = case.body.get("refit"), case.body.get("quantization")
    if isinstance(quantization, dict):
        quantization.pop("order", None)  # which there is, the method and its settings say
        if isinstance(quantization.get("group_size"), (int, float)):
            quantization["group_size"] = 16  # it divides the model's columns
        if quantization.get("bits") in (5, 6, 7):
            quantization["bits"] = 4
        if quantization.get("bits") not in (4, 8) and quantization.get("format") == "packed":
            quantization.pop("format")
        if isinstance(refit, dict) and refit.get("method") == "global" or case.body.get("preset") == "best":
            case.body.pop("quantization")
    besa = case.body.get("besa")
    if isinstance(besa, dict):
        if besa.get("granularity") == "layer":
            besa.pop("rows_per_group", None)
        if besa.get("target") == "dense_stream":
            besa.pop("reconstruct", None)
        if besa.get("reconstruct") == "two_blocks":
            besa.pop("importance", None)
            if case.body.get("pattern"):
                besa.pop("reconstruct")
        if besa.get("batch_size"):
            besa["batch_size"] = min(besa["batch_size"], 4)  # not more than there are samples
    if isinstance(case.body.get("admm"), dict):
        case.body["admm"].pop("ramp", None)  # not more than there are iterations
    if "evaluation" in case.body:
        case.body["evaluation"] = {"perplexity": [{"name": "tokens", "path": TOKENS, "sequence_length": 64}]}
