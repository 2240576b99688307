"""The cases in presidio's tests of its recognisers, as JSON: `presidio_cases.py FOLDER` reads the test files in the folder.

The tests are not run, only read: their tables begin with a text and how many of the kind are in it.
"""

import ast
import json
import pathlib
import sys

KINDS = {
    "credit_card": ["pii-payment-card"],
    "email": ["pii-email"],
    "iban": ["pii-iban"],
    "ip": ["pii-ipv4", "pii-ipv6"],
    "phone": ["pii-phone"],
    "us_ssn": ["pii-us-ssn"],
}


def tables(tree):
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "parametrize"):
            continue
        names = [name.strip() for name in ast.literal_eval(node.args[0]).split(",")]
        # How lenient presidio itself is told to be is no property of a text.
        if names[1] == "expected_len" and "leniency" not in names:
            yield node.args[1].elts


cases = []
for name, kinds in KINDS.items():
    file = pathlib.Path(sys.argv[1]) / f"test_{name}_recognizer.py"
    for rows in tables(ast.parse(file.read_text(encoding="utf-8"))):
        for row in rows:
            try:
                text, count = (ast.literal_eval(column) for column in row.elts[:2])
            except ValueError:
                # A text that the test puts together when it runs.
                continue
            cases.append({"name": name, "kinds": kinds, "text": text, "count": count})
print(json.dumps(cases))
