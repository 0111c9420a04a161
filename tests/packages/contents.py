#!/usr/bin/env python3
"""What the packages must agree in: see tests/packages/run.

    contents.py RPM LICENCES

The RPM of packaging/ktrix.spec has the files (by path, mode, owner, and whether they are configuration or
documentation), the scripts and the licence that Cargo.toml names for cargo generate-rpm. Directories are left out:
cargo generate-rpm makes none. The bytes of the files are not compared. Each crate of LICENCES
(packaging/licences) can be used under licences that the RPM names and of which packaging/debian/copyright
has the text."""

import glob
import pathlib
import re
import subprocess
import sys
import tomllib

rpm, licences = sys.argv[1:]
wanted = tomllib.loads(pathlib.Path("Cargo.toml").read_text())["package"]["metadata"]["generate-rpm"]


def of_rpm(*options):
    return subprocess.run(["rpm", "-qp", *options, rpm], check=True, capture_output=True, text=True).stdout


def compare(what, ours, theirs):
    if ours != theirs:
        sys.exit(f"{what} of the RPM and of Cargo.toml differ:\n{ours}\n{theirs}")


packaged = set()
for line in of_rpm("--dump").splitlines():
    path, _, _, _, mode, owner, group, is_config, is_doc, *_ = line.split()
    if mode.startswith("0100"):
        path = path.removesuffix(".gz") if path.startswith("/usr/share/man/") else path
        packaged.add((path, mode[-3:], owner, group, is_config, is_doc))
named = set()
for asset in wanted["assets"]:
    sources = [asset["source"]] if asset["source"].startswith("target/") else glob.glob(asset["source"])
    assert sources, asset["source"]
    for source in sources:
        path = asset["dest"] + (source.rsplit("/")[-1] if asset["dest"].endswith("/") else "")
        flags = [str(int(bool(asset.get(it)))) for it in ("config", "doc")]
        named.add((path, asset["mode"], asset.get("user", "root"), asset.get("group", "root"), *flags))
compare("files", sorted(packaged - named), sorted(named - packaged))

scripts = re.split(r"^(pre|post)(un)?install scriptlet.*:\n", of_rpm("--scripts"), flags=re.M)
found = {"_".join([*filter(None, scripts[i : i + 2])]): scripts[i + 2].strip() for i in range(1, len(scripts), 3)}
files = {"pre": "pre_install", "post": "post_install", "pre_un": "pre_uninstall", "post_un": "post_uninstall"}
compare("scripts", found, {it: pathlib.Path(wanted[f"{name}_script"]).read_text().strip() for it, name in files.items()})
compare("licence", of_rpm("--queryformat", "%{LICENSE}"), wanted["license"])

copyright = pathlib.Path("packaging/debian/copyright").read_text()
texts = set(re.findall(r"^License: (\S+)\n ", copyright, re.M))
of_program = set(re.search(r"^License: (.* and .*)$", copyright, re.M)[1].split(" and "))
compare("licences", sorted(set(re.findall(r"[\w.-]+", wanted["license"])) - {"AND", "OR"}), sorted(texts))
compare("licences", sorted(of_program), sorted(texts))
for crate, terms in re.findall(r"^([\w-]+ \d\S*): (.+)$", pathlib.Path(licences).read_text().split("\n=", 1)[0], re.M):
    for term in terms.split(" AND "):
        if not texts & set(re.split(r" OR | ?/ ?", term.strip("()"))):
            sys.exit(f"{crate} is under {terms}, of which packaging/debian/copyright has no text")
