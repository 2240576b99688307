"""Whether detect-secrets finds something in each text of a JSON array, with its default plugins."""

import json
import os
import sys
import tempfile

from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings

hits = []
with default_settings(), tempfile.TemporaryDirectory() as folder:
    for number, text in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))):
        path = os.path.join(folder, f"{number}.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        secrets = SecretsCollection()
        secrets.scan_file(path)
        hits.append(bool(list(secrets)))
print(json.dumps(hits))
