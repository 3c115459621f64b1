"""Runs one notebook with papermill: a script, so that a chapter that crashes takes nobody along.

Called as `python -P worker.py INPUT OUTPUT FOLDER RESULT`: runs INPUT in FOLDER, keeps OUTPUT up to
date while it runs, and writes to RESULT what stopped it, if anything did. It does not import the
package: a chapter does that itself, in its kernel.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path


def follow_parent(pid: int) -> None:
    """Leave when the build is gone (killed, say); the kernel watches this process likewise."""
    while os.getppid() == pid:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Run the notebook named on the command line."""
    source, output, folder, result = map(Path, sys.argv[1:5])
    threading.Thread(target=follow_parent, args=(os.getppid(),), daemon=True).start()

    import papermill

    began = time.perf_counter()
    problem: dict[str, str] | None = None
    try:
        papermill.execute_notebook(
            source,
            output,
            cwd=folder,
            kernel_name="python3",
            language="python",
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        problem = {"type": error.ename, "message": error.evalue}
    except Exception as error:
        problem = {"type": type(error).__name__, "message": str(error)}
    finished = {"seconds": round(time.perf_counter() - began, 2), "error": problem}
    result.write_text(json.dumps(finished), encoding="utf-8")


if __name__ == "__main__":
    main()
