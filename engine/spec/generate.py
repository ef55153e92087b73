#!/usr/bin/env python3
"""What is told of a spec's fields outside the rows that describe them (engine/spec/descriptor.h): the contract, the dashboard's
form, besactl's options, completions and manual. Each is made of `besad schema`, whole or between two marks.

Usage: engine/spec/generate.py [--check] [--root DIR] PROGRAM|SCHEMA.json; --check changes nothing, names the files that lag
behind and ends with 1."""
import argparse
import json
import os
import re
import subprocess
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WIDTH = 132
BEGIN, END = "made by `make generate` of the rows in engine/spec/", "to here"


# ---- the schema -----------------------------------------------------------------------------------------------------------

def use(field, *path):
    value = field.get("x-besad", {})
    for key in path:
        value = value.get(key, {})
    return value or None


def fields(schema, path=()):
    """(path, field) of every field, those in lists too: their place is <n>."""
    for key, field in schema["properties"].items():
        here = (*path, key)
        yield here, field
        if "properties" in field:
            yield from fields(field, here)
        if "properties" in field.get("items", ()):
            yield from fields(field["items"], (*here, "<n>"))


def names(field):
    return [name for name in field["enum"] if name is not None]


def sentence(text):
    return text[:1].upper() + text[1:] + ("" if text[-1] in ".…?!" else ".")


def plain(text):
    return text.replace("`", "")


# ---- openapi.yaml: Spec, ResolvedSpec and what they share ----------------------------------------------------------------------

def scalar(value):
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (int, float)):
        text = repr(int(value) if float(value).is_integer() and abs(value) <= 2 ** 53 else value)
        return re.sub(r"^(-?\d+)e", r"\1.0e", text)  # or a parser of YAML 1.1 takes it for a text
    if re.fullmatch(r"[A-Za-z<][\w<>/ ,.;()'`-]*", value) and not re.fullmatch("null|true|false|yes|no|on|off|y|n", value, re.I) and \
            not value.endswith(" "):
        return value
    return json.dumps(value) if re.search(r"[\x00-\x1f]", value) else "'" + value.replace("'", "''") + "'"


def flow(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    text = scalar(value)
    return "'" + value.replace("'", "''") + "'" if text == value and re.search(r"[,\[\]{}]", text) else text


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0) if isinstance(value, (dict, list)) else 0


def yaml(key, value, indent):
    """Lines of `key: value`."""
    pad = " " * indent
    too_long = isinstance(value, str) and len(value) > WIDTH - indent - len(key) - 4
    if too_long and " " in value and not re.search(r"[\x00-\x1f]", value):
        wrapped = textwrap.wrap(value, WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
        return [f"{pad}{key}: |", *(f"{pad}  {line}" for line in wrapped)]
    line = f"{pad}{key}: {flow(value) if isinstance(value, (dict, list)) else scalar(value)}"
    if not isinstance(value, (dict, list)) or not value or \
            (len(line) <= WIDTH and depth(value) <= 2 and "properties" not in value):
        return [line]
    lines = [f"{pad}{key}:"]
    if isinstance(value, list) and depth(value) == 1:
        return [*lines, *textwrap.wrap(flow(value), WIDTH, initial_indent=pad + "  ", subsequent_indent=pad + "   ")]
    if isinstance(value, list):
        for item in value:
            lines.append(f"{pad}  - {flow(item) if isinstance(item, (dict, list)) else scalar(item)}")
    else:
        for inner_key, inner in value.items():
            lines += yaml(inner_key, inner, indent + 2)
    return lines


def contract(value):
    """A schema without what is ours, and with the references of the contract."""
    if isinstance(value, dict):
        return {key: contract(inner) for key, inner in value.items() if key != "x-besad"}
    if isinstance(value, list):
        return [contract(item) for item in value]
    return value.replace("#/$defs/", "#/components/schemas/") if isinstance(value, str) else value


def resolved_object(schema):
    shown = {key: field for key, field in schema["properties"].items() if field.get("type") != "null" and not use(field, "request")}
    return {"type": "object", "additionalProperties": False,
            "required": [key for key, field in shown.items() if not use(field, "optional")],
            "properties": {key: resolved(field) for key, field in shown.items()}}


def resolved(field):
    """What a spec shows of a field when every default is filled in."""
    if "properties" in field:
        return resolved_object(field)
    if "enum" in field.get("items", ()):  # a set
        shown = [name for name in field["items"]["enum"] if name != use(field, "alias")]
        return {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": shown}}
    if "items" in field:
        return {"type": "array", "items": resolved_object(field["items"])}
    if "propertyNames" in field:  # a map
        return {"type": "object", "minProperties": 1, "maxProperties": field["maxProperties"], "additionalProperties": {"type": "string"}}
    if "enum" in field:
        return {"enum": names(field)[:use(field, "resolved")]}
    if use(field, "names"):
        return {"type": "string"}
    if "anyOf" in field:
        kept = [inner for inner in field["anyOf"] if inner.get("type") != "null"]
        return {"anyOf": kept} if all("$ref" not in inner for inner in kept) else {"type": "string"}
    kind = [name for name in field["type"] if name != "null"][0] if isinstance(field["type"], list) else field["type"]
    return {"type": kind, **{key: field[key] for key in ("minimum", "maximum") if key in field}}


def openapi(schema):
    shared, spec, shown = [], [], []
    for key, definition in schema["$defs"].items():
        shared += yaml(key, contract(definition), 4)
    spec += yaml("properties", contract(schema["properties"]), 6)
    whole = resolved_object(schema)
    shown += yaml("required", whole["required"], 6) + yaml("properties", contract(whole["properties"]), 6)
    return [shared, spec, shown]


# ---- the dashboard's form ---------------------------------------------------------------------------------------------------------

def form_field(path, field, folded):
    form = use(field, "form")
    made = {"pointer": "/" + "/".join(path), "label": form["label"]}
    default = field.get("default")
    if "enum" in field:
        made["kind"] = "choice"
        left_out = folded or default is None  # what it is then, the daemon says
        made["choices"] = ["", *names(field)] if left_out else names(field)
        if not left_out:
            made["value"] = default
    elif use(field, "names"):
        made["kind"] = {"model": "model", "data": "file"}[use(field, "names")]
    elif "boolean" in field.get("type", ()):
        made["kind"] = "flag"
    elif {"integer", "number"} & set(field.get("type", ())):
        made["kind"] = "number"
    elif "array" in field.get("type", ()):
        made["kind"] = "list"
    elif "object" in field.get("type", ()):
        made["kind"] = "map"
    if form.get("start"):
        made["value"] = form["start"]
    stands = form.get("placeholder", "" if default is None or "enum" in field or isinstance(default, bool) else
                      str(default))
    if stands:
        made["placeholder"] = stands
    if form.get("hint"):
        made["hint"] = sentence(plain(form["hint"]))
    return made


def javascript(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {javascript(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(javascript, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def form(schema):
    groups, title = {}, None
    for key, field in schema["properties"].items():
        inner = field.get("properties")
        section = use(field, "form") or {}
        if inner and "title" in section:
            group = {name: section[name] for name in ("title", "folded") if name in section}
            if "method" in section:
                group["only"] = section["method"]
            group["fields"] = [form_field((key, name), value, section.get("folded")) for name, value in inner.items() if
                               use(value, "form", "label")]
            groups[section["title"]] = group
        elif "label" in section:
            title = section.get("group", title)
            group = groups.setdefault(title, {"title": title, **({"folded": True} if section.get("folded") else {}), "fields": []})
            made = form_field((key,), field, group.get("folded"))
            # What must be given comes first.
            group["fields"].insert(0 if key in schema["required"] else len(group["fields"]), made)
    dataset = [form_field(path, field, True) for path, field in fields(schema) if
               path[:3] == ("evaluation", "perplexity", "<n>") and use(field, "form", "label")]
    dataset.sort(key=lambda field: not field["pointer"].endswith("/path"))

    lines = ["// The fields of the form, " + BEGIN + ".", "", "export const GROUPS = ["]
    for group in groups.values():
        head = ", ".join(f"{key}: {javascript(value)}" for key, value in group.items() if key != "fields")
        lines += [f"\t{{ {head}, fields: [", *(f"\t\t{javascript(field)}," for field in group["fields"]), "\t] },"]
    lines += ["];", "", "// Of each data set to measure; <n> is its place in the list.", "export const DATASET = ["]
    lines += [f"\t{javascript(field)}," for field in dataset] + ["];"]
    return "\n".join(lines) + "\n"


# ---- besactl ----------------------------------------------------------------------------------------------------------------------

class Option:
    """An option of `besactl submit` that sets a field."""

    def __init__(self, path, field):
        option = use(field, "option")
        self.name, self.letter, self.argument = option["name"], option.get("letter"), option.get("argument")
        self.path, self.field = ".".join(path), field
        self.choices = names(field) if "enum" in field else None
        self.names = {"model": "models", "data": "data"}.get(use(field, "names"))
        self.help = option.get("help") or (self.list_choices() if self.choices else field["description"])
        self.kind = "PERCENT" if option.get("percent") else "TEXT" if self.choices or self.names or "string" in field["type"] else \
            "FLAG" if not self.argument else "NUMBER"
        # For completions: the first clause.
        self.short = re.split("[;:]", plain(field["description"] if self.choices else self.help))[0]

    def list_choices(self):
        return ", ".join(name + (" (the default)" if name == self.field.get("default") else "") for name in self.choices)


def options(schema):
    found = [Option(path, field) for path, field in fields(schema) if use(field, "option")]
    return sorted(found, key=lambda option: option.path not in schema["required"])


def keys(schema):
    """What --set may set: the places of lists as numbers."""
    return [".".join(path).replace("<n>", "0") for path, field in fields(schema) if
            not {"properties", "propertyNames"} & set(field) and "properties" not in field.get("items", ()) and
            field.get("type") != "null"]


def c_options(schema):
    lines = [f"/* The options of submit that set a field of a spec, {BEGIN}:",
             " * OPTION(code, letter or 0, name, argument or NULL, the field's path, what it takes, help). */",
             "#ifndef BESAD_CTL_SPEC_OPTIONS_H", "#define BESAD_CTL_SPEC_OPTIONS_H", "",
             "/* clang-format off */", "#define SPEC_OPTIONS(OPTION) \\"]
    for option in options(schema):
        letter = f"'{option.letter}'" if option.letter else "0"
        argument = json.dumps(option.argument) if option.argument else "NULL"
        lines.append(f"\tOPTION({option.name.upper().replace('-', '_')}, {letter}, {json.dumps(option.name)}, {argument}, "
                     f"{json.dumps(option.path)}, {option.kind}, {json.dumps(option.help, ensure_ascii=False)}) \\")
    lines[-1] = lines[-1][:-2]
    return "\n".join([*lines, "/* clang-format on */", "", "#endif"]) + "\n"


def words(option):
    return ([f"-{option.letter}"] if option.letter else []) + [f"--{option.name}"]


def wrapped(text, indent):
    return textwrap.wrap(text, WIDTH - 1 - len(indent), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def bash(schema):
    found = options(schema)
    lines = ["_besactl_fields='" + " ".join(f"--{option.name}" for option in found) + "'",
             "_besactl_keys='", *wrapped(" ".join(keys(schema)), "\t"), "'",
             "_besactl_field() { # the value of an option that sets a field; false where it is another", "\tcase $1 in"]
    for option in found:
        if option.choices:
            lines.append(f"\t{' | '.join(words(option))}) COMPREPLY=($(compgen -W '{' '.join(option.choices)}' -- \"$cur\")) ;;")
        elif option.names:
            lines.append(f"\t{' | '.join(words(option))}) COMPREPLY=() && _besactl_names {option.names} ;;")
    others = [word for option in found if option.argument and not option.choices and not option.names for word in words(option)]
    lines += [f"\t{' | '.join(others)}) COMPREPLY=() ;;", "\t*) return 1 ;;", "\tesac", "\treturn 0", "}"]
    return [lines]


def quoted(text):
    return text.replace("'", "'\\''")


def zsh(schema):
    lines = ["_besactl_fields() {", "\tfields=("]
    for option in options(schema):
        argument = "" if not option.argument else f":{option.argument}:" + (
            f"({' '.join(option.choices)})" if option.choices else f"_besactl_{option.names}" if option.names else "")
        told = f"[{quoted(option.short)}]{argument}"
        both = f"(-{option.letter} --{option.name})" if option.letter else ""
        lines.append(f"\t\t'{both}'{{-{option.letter},--{option.name}}}'{told}'" if option.letter else
                     f"\t\t'--{option.name}{told}'")
    lines += ["\t)", "\tkeys=(", *wrapped(" ".join(keys(schema)), "\t\t"), "\t)", "}"]
    return [lines]


def fish(schema):
    lines = []
    for option in options(schema):
        line = "complete -c besactl -n $submit" + (f" -s {option.letter}" if option.letter else "") + f" -l {option.name}"
        if option.argument:
            line += " -x"
        if option.choices:
            line += f" -a '{' '.join(option.choices)}'"
        elif option.names:
            line += f" -a '(besactl {option.names} --names 2>/dev/null)'"
        lines.append(line + " -d '" + option.short.replace("'", "\\'") + "'")
    lines += ["set -l keys \\", *(line + " \\" for line in wrapped(" ".join(key + "=" for key in keys(schema)), "    "))]
    lines[-1] = lines[-1][:-2]
    return [lines]


def man(schema):
    lines = []
    for option in options(schema):
        flag = f"{option.letter} , -{option.name}" if option.letter else f"-{option.name}"
        lines.append(f".It Fl {flag}" + (f" Ar {option.argument}" if option.argument else ""))
        lines.append(option.help)
    return [lines]


# ---- files ------------------------------------------------------------------------------------------------------------------------

WHOLE = {"api/dashboard/fields.js": form, "ctl/spec_options.h": c_options}
PARTS = {"openapi.yaml": ("#", openapi), "ctl/completion/besactl.bash": ("#", bash), "ctl/completion/_besactl": ("#", zsh),
         "ctl/completion/besactl.fish": ("#", fish), "man/besactl.1": ('.\\"', man)}


def between_marks(path, text, comment, parts):
    """`text` with what lies between each pair of marks replaced."""
    lines, made, inside = text.split("\n"), [], False
    parts = list(parts)
    for line in lines:
        if line.strip() == f"{comment} {END}":
            inside = False
        if not inside:
            made.append(line)
        if line.strip() == f"{comment} {BEGIN}":
            if not parts or inside:
                sys.exit(f"{path}: a mark is missing: '{comment} {END}', or there is one too many")
            inside = True
            made += parts.pop(0)
    if parts or inside:
        sys.exit(f"{path}: a mark is missing: '{comment} {BEGIN}' or '{comment} {END}'")
    return "\n".join(made)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", default=ROOT)
    parser.add_argument("source")
    given = parser.parse_args()
    if given.source.endswith(".json"):
        schema = json.loads(read(given.source))
    else:
        schema = json.loads(subprocess.run([given.source, "schema"], check=True, stdout=subprocess.PIPE).stdout)
    behind = []
    for path in [*WHOLE, *PARTS]:
        whole = os.path.join(given.root, path)
        old = read(whole)
        new = WHOLE[path](schema) if path in WHOLE else between_marks(path, old, PARTS[path][0], PARTS[path][1](schema))
        if new == old:
            continue
        behind.append(path)
        if not given.check:
            with open(whole, "w", encoding="utf-8") as file:
                file.write(new)
            print("made", path)
    if given.check and behind:
        sys.exit("not what engine/spec/ says; make generate mends it: " + ", ".join(behind))


if __name__ == "__main__":
    main()
