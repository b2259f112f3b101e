"""How commands run that receive for long."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

THREADS = textwrap.dedent(
    """
    import ctypes
    from pathlib import Path
    import numpy
    from strep.cli.running import favor_receiving

    favor_receiving()
    lines = Path("/proc/self/maps").read_text().splitlines()
    for path in {line.split(maxsplit=5)[5] for line in lines if "openblas" in line}:
        library = ctypes.CDLL(path)
        for name in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_", "openblas_get_num_threads"):
            if hasattr(library, name):
                print(getattr(library, name)())
    """
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells where a library is")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one thread anyway")
@pytest.mark.parametrize(("wish", "threads"), [(None, "1"), ("2", "2")])
def test_matrix_products_are_not_divided_among_threads(wish: str | None, threads: str) -> None:
    """They are small, and OpenBLAS's threads wait in busy loops; whoever sets its variable has what he set."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    if wish is not None:
        environment["OPENBLAS_NUM_THREADS"] = wish
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
    found = done.stdout.split()
    if not found:
        pytest.skip("numpy is not built with OpenBLAS here")
    assert set(found) == {threads}
