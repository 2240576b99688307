"""Writes out the rule files that a build of kingfisher carries in itself: `embedded_rules.py PROGRAM FOLDER`.

They lie one behind the other in the program's constants, most with their path before them. A file without one is named after the
provider in the id of its first rule.
"""

import pathlib
import re
import sys

content = pathlib.Path(sys.argv[1]).read_bytes()
folder = pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)

BEGIN = re.compile(rb"rules:\n +- name:")
PATH = re.compile(rb"rules/([a-z0-9._-]+)\.yml$")
ID = re.compile(rb"\n +id: kingfisher\.([a-z0-9_-]+)\.")
# What is no text ends the last file.
END = re.compile(rb"[\x00-\x08\x0e-\x1f]")

begins = [found.start() for found in BEGIN.finditer(content)]
written = 0
for begin, end in zip(begins, begins[1:] + [begins[-1] + 64 * 1024] if begins else []):
    text = content[begin:end]
    stop = END.search(text)
    text = PATH.sub(b"", text[: stop.start()] if stop else text)
    named = PATH.search(content[max(0, begin - 80) : begin]) or ID.search(text)
    if not named:
        continue
    name = named.group(1).decode()
    with open(folder / f"{name}.yml", "ab") as file:
        # A second file of one name is a second document of it.
        if file.tell():
            file.write(b"\n---\n")
        file.write(text)
    written += 1
print(written)
