"""fetch_pip.py FOLDER: downloads the wheel that requirements-pip.txt names, and prints its path.

From PyPI, or from the index that $PIP_INDEX_URL names, with the certificates that $PIP_CERT names.
"""

import hashlib
import os
import pathlib
import re
import ssl
import sys
import urllib.parse
import urllib.request

wanted = pathlib.Path(__file__).with_name("requirements-pip.txt").read_text()
name = "pip-{}-py3-none-any.whl".format(re.search(r"^pip==(\S+)", wanted, re.M)[1])
index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"


def read(url):
    trusted = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    try:
        with urllib.request.urlopen(url, timeout=60, context=trusted) as answer:
            return answer.read()
    except OSError as error:
        sys.exit(f"{url}: {error}")


links = re.findall(r'href="([^"]+)"', read(index).decode())
link = next((link for link in links if urllib.parse.urlsplit(link).path.endswith("/" + name)), None)
if link is None:
    sys.exit(f"{index} has no {name}")
wheel = read(urllib.parse.urljoin(index, link))
if hashlib.sha256(wheel).hexdigest() not in wanted:
    sys.exit(f"{name} of {index} is not the one that requirements-pip.txt names by its digest")
path = pathlib.Path(sys.argv[1]) / name
path.write_bytes(wheel)
print(path)
