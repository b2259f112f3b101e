"""What a package index is told that only whoever publishes knows: where the project's home is.

``STREP_HOME=https://HOST/OWNER/strep python -m build`` gives the project its URLs, and makes the relative links and
pictures of the README absolute, because an index shows no others. Without it there are no URLs, and the README stays.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?\[[^\]]*\]\()(?!https?:|#|mailto:)([^)\s]+)(\))")


class HomeHook(MetadataHookInterface):
    """Fills in ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text("utf-8")
        home = os.environ.get("STREP_HOME", "").rstrip("/")
        if home:
            text = _LINK.sub(lambda link: _absolute(link, home), text)
            metadata["urls"] = {
                "Homepage": home,
                "Documentation": f"{home}/tree/main/docs",
                "Changelog": f"{home}/blob/main/CHANGELOG.md",
                "Issues": f"{home}/issues",
            }
        else:
            metadata["urls"] = {}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def _absolute(link: re.Match[str], home: str) -> str:
    kind = "raw" if link[1].startswith("!") else "blob"
    return f"{link[1]}{home}/{kind}/main/{link[2]}{link[3]}"
