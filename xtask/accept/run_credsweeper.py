"""Whether CredSweeper finds something in each text of a JSON array, with its default rules and model."""

import json
import os
import sys
import tempfile

from credsweeper.app import CredSweeper
from credsweeper.file_handler.files_provider import FilesProvider

texts = json.load(open(sys.argv[1], encoding="utf-8"))
hits = [False] * len(texts)
with tempfile.TemporaryDirectory() as folder:
    for number, text in enumerate(texts):
        with open(os.path.join(folder, f"{number:05}.py"), "w", encoding="utf-8") as file:
            file.write(text)
    report = os.path.join(folder, "report.json")
    sweeper = CredSweeper(json_filename=report)
    sweeper.run(content_provider=FilesProvider([folder]))
    for found in json.load(open(report, encoding="utf-8")):
        for line in found["line_data_list"]:
            name = os.path.basename(line["path"])
            if name != "report.json":
                hits[int(name.split(".")[0])] = True
print(json.dumps(hits))
