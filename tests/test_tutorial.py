"""A reader's way: install the package, download one chapter from the site, run it somewhere else.

The package is the built wheel with its extra, not this checkout; the environment and the folder are
empty at the start. Versions are those of requirements.txt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import pytest
from conftest import ROOT

from seglosses_nb.publish.book import Book
from seglosses_nb.publish.server import server

CHAPTER = "region/dice_loss"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tutorial")]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command with nothing of this environment but what pip needs to reach its index."""
    kept = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")
    passed = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            **passed,
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    end = "\n".join(done.stdout.splitlines()[-30:])
    assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{end}"
    return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for everything; it is 1.5 GB in the end, so it goes at once."""
    folder = tmp_path_factory.mktemp("reader")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def wheel(reader: Path) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout or comes out of it."""
    source = reader / "source"
    shutil.copytree(
        ROOT / "seglosses_nb", source / "seglosses_nb", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", ".", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


def torch_wheel(folder: Path) -> None:
    """Pack the installed torch into a wheel again: which of its builds is here, pip cannot know.

    On Linux an index may offer a CUDA build of several GB under the same version.
    """
    torch = distribution("torch")
    tag = re.search(r"^Tag: (\S+)$", torch.read_text("WHEEL") or "", re.MULTILINE)
    assert tag
    info = f"torch-{torch.version}.dist-info"
    left_out = {
        f"{info}/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    }
    rows = []
    folder.mkdir()
    with zipfile.ZipFile(folder / f"torch-{torch.version}-{tag[1]}.whl", "w") as archive:
        for file in torch.files or []:
            name = PurePosixPath(file).as_posix()
            if name.startswith("..") or "__pycache__" in file.parts or name in left_out:
                continue
            archive.write(torch.locate_file(file), name)
            rows.append(f"{name},,")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")


@pytest.fixture(scope="module")
def python(reader: Path, wheel: Path) -> Path:
    """The interpreter of a new environment that holds the wheel with its extra [book]."""
    home = reader / "environment"
    venv.create(home, with_pip=True)
    interpreter = home / "bin" / "python"
    torch_wheel(reader / "torch")
    run(
        interpreter, "-m", "pip", "install", "-q", "--find-links", reader / "torch",
        "--constraint", ROOT / "requirements.txt", f"{wheel}[book]",
        cwd=reader, HOME=os.environ.get("HOME", str(reader)),
    )  # fmt: skip
    return interpreter


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site stands on loopback."""
    with server(Book(ROOT), 0) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}/"
        web.shutdown()
        thread.join()


def get(link: str) -> bytes:
    with urllib.request.urlopen(link, timeout=30) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def downloaded(reader: Path, address: str) -> Path:
    """The chapter, through the link on its page, in a folder of its own."""
    page = f"{address}book/{CHAPTER}.html"
    links = re.findall(r'<a\b[^>]*\bhref="([^"]+\.ipynb)"', get(page).decode())
    assert links, f"{page} has no link to its notebook"
    (link,) = {urllib.parse.urljoin(page, link) for link in links}
    folder = reader / "empty"
    folder.mkdir()
    path = folder / Path(urllib.parse.urlsplit(link).path).name
    path.write_bytes(get(link))
    return path


def test_the_wheel_holds_what_a_chapter_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tests_and_book = [name for name in names if name.startswith(("tests/", "book/"))]
    assert tests_and_book == []
    package = [p for p in (ROOT / "seglosses_nb").rglob("*") if p.is_file()]
    wanted = {p.relative_to(ROOT).as_posix() for p in package if "__pycache__" not in p.parts}
    assert wanted - names == set(), "every file of the package is in the wheel"


def test_the_download_is_the_chapter_ready_to_run(downloaded: Path) -> None:
    notebook = json.loads(downloaded.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] for cell in code)
    assert any("parameters" in cell["metadata"].get("tags", []) for cell in code)


def test_a_downloaded_chapter_runs_in_an_empty_folder(downloaded: Path, python: Path) -> None:
    folder = downloaded.parent
    where = run(python, "-c", "import seglosses_nb; print(seglosses_nb.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(python.parents[1]), "not this checkout"

    run(python, "-m", "seglosses_nb", "run", downloaded.name, "-o", "done.ipynb",
        cwd=folder, HOME=str(folder / "home"), MPLCONFIGDIR=str(folder / "home"))  # fmt: skip
    code = [
        cell
        for cell in json.loads((folder / "done.ipynb").read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    assert all(cell["execution_count"] for cell in code), "every cell ran"
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds
    assert {"display_data", "execute_result"} & set(kinds)
    assert str(ROOT) not in (folder / "done.ipynb").read_text(encoding="utf-8")
