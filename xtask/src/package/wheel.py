"""Packs a folder as a wheel that depends on names, modes and contents alone."""

import base64
import csv
import hashlib
import io
import os
import pathlib
import sys
import time
import zipfile

folder, wheel = map(pathlib.Path, sys.argv[1:])
# The oldest time that a zip archive can tell.
epoch = max(int(os.environ["SOURCE_DATE_EPOCH"]), 315532800)
when = time.gmtime(epoch)[:6]
files = sorted(path for path in folder.rglob("*") if path.is_file())
# Readers find it sooner at the end.
files.sort(key=lambda path: ".dist-info" in path.parts[len(folder.parts)])
records = io.StringIO()
rows = csv.writer(records, lineterminator="\n")


def entry(name, mode):
    info = zipfile.ZipInfo(name, when)
    info.external_attr = (0o100000 | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


with zipfile.ZipFile(wheel, "w", compresslevel=9) as archive:
    for path in files:
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        archive.writestr(entry(name, mode), data, compresslevel=9)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow([name, f"sha256={digest}", len(data)])
    (info,) = folder.glob("*.dist-info")
    record = f"{info.name}/RECORD"
    rows.writerow([record, "", ""])
    archive.writestr(entry(record, 0o644), records.getvalue(), compresslevel=9)
