"""Writes out the rule files that a build of kingfisher carries in itself: `embedded_rules.py WHEEL PROGRAM FOLDER`.

They lie one behind the other in the program's constants, most with their path before them. A file without one is named after the
provider in the id of its first rule.
"""

import pathlib
import re
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    content = wheel.read(sys.argv[2])
folder = pathlib.Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)

BEGIN = re.compile(rb"rules:\n +- name:")
PATH = re.compile(rb"rules/([a-z0-9._-]+)\.yml$")
ID = re.compile(rb"\n +id: kingfisher\.([a-z0-9_-]+)\.")
# What is no text ends the last file.
END = re.compile(rb"[\x00-\x08\x0e-\x1f]")
LONGEST = 64 * 1024

begins = [found.start() for found in BEGIN.finditer(content)]
names = set()
for begin, end in zip(begins, [*begins[1:], len(content)]):
    text = content[begin : min(end, begin + LONGEST)]
    stop = END.search(text)
    text = PATH.sub(b"", text[: stop.start()] if stop else text)
    named = PATH.search(content[max(0, begin - 80) : begin]) or ID.search(text)
    if not named:
        # The help's example of a rule file.
        continue
    name = named.group(1).decode()
    assert name not in names, name
    names.add(name)
    (folder / f"{name}.yml").write_bytes(text)
print(len(names))
