"""Where pageherd keeps what it would otherwise make anew: compiled code, tables, parsed tests."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`$XDG_CACHE_HOME/pageherd`, or `~/.cache/pageherd`; it need not exist or be writable."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache"
    return root / "pageherd"
