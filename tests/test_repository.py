"""The repository keeps its rules: who imports whom, what is generated, what must not be said."""

from __future__ import annotations

import ast
import doctest
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from system_needs import need

import seglosses_nb
from seglosses_nb import LOSSES
from seglosses_nb.lab import tables
from seglosses_nb.registry import FAMILIES

PACKAGE = ROOT / "seglosses_nb"
NOTEBOOKS = sorted(
    p for p in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
BINARY = {".png", ".npz", ".ico", ".woff2"}


def tracked() -> list[Path]:
    """Every file that belongs to the repository, whether git is there or not."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
        names = done.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        folders = ("book", "seglosses_nb", "tests", ".ci", ".github")
        found = [p for folder in folders for p in (ROOT / folder).rglob("*")]
        names = [str(p.relative_to(ROOT)) for p in [*ROOT.glob("*"), *found]]
    paths = [ROOT / name for name in names if "__pycache__" not in name]
    return sorted(p for p in paths if p.is_file())


# --------------------------------------------------------------------------------- who imports whom

GROUND = ("contract", "registry", "geometry")
MIDDLE = ("weights", "distribution", "region", "boundary", "checks")
UPPER = ("compound", "beyond")


def modules(package: Path) -> dict[str, Path]:
    """Dotted name, without the package's own -> file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, anywhere in it; "" is __init__.py."""
    known = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = [p for p in base[: len(base) - node.level + 1] if p] if node.level else []
                prefix = [package.name, *start] if node.level else []
                module = ".".join([*prefix, *([node.module] if node.module else [])])
                # what is imported may be a module itself, or a name in one
                targets = []
                for alias in node.names:
                    whole = f"{module}.{alias.name}".removeprefix(f"{package.name}.")
                    targets.append(f"{package.name}.{whole}" if whole in known else module)
            else:
                continue
            for target in targets:
                if target == package.name or target.startswith(f"{package.name}."):
                    graph[name].add(target.removeprefix(package.name).removeprefix("."))
    return graph


def forbidden(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports that break the rule of CONTRIBUTING, "The architecture"."""
    broken = []
    for name, targets in graph.items():
        top = name.split(".")[0]
        for target in sorted(targets - {"_version"}):
            goal = target.split(".")[0]
            if top in GROUND or top == "_version":
                fine = False
            elif top in MIDDLE:
                fine = goal in GROUND or goal == top  # a folder's modules may use one another
            elif top in UPPER:
                fine = goal in GROUND + MIDDLE or goal == top
            elif top == "":
                fine = goal in GROUND + MIDDLE + UPPER
            elif top == "lab":
                fine = goal not in ("publish", "__main__")
            elif top == "publish":
                fine = goal == "publish"
            else:
                fine = top == "__main__"
            if not fine:
                broken.append(f"{name or '__init__'} imports {target or '__init__'}")
    return broken


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import one another in a circle, or an empty list."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, ())):
            if found := visit(target, [*way, name]):
                return found
        done.add(name)
        return []

    for start in graph:
        if found := visit(start, []):
            return found
    return []


def test_nothing_imports_upwards_or_in_a_circle() -> None:
    graph = imports(PACKAGE)
    assert "contract" in graph["region"], "the scan itself sees the imports that are there"
    assert forbidden(graph) == []
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("contract.py", "from .registry import LOSSES", "contract imports registry"),
        ("region.py", "from . import distribution", "region imports distribution"),
        ("region.py", "from seglosses_nb.lab.data import nuclei", "region imports lab.data"),
        ("region.py", "import seglosses_nb", "region imports __init__"),
        ("publish/site.py", "from ..registry import LOSSES", "publish.site imports registry"),
        ("lab/data.py", "from seglosses_nb.publish import book", "lab.data imports publish.book"),
        ("__init__.py", "def f():\n    from .lab import data", "__init__ imports lab.data"),
    ],
)
def test_the_import_rule_sees_a_breach(
    tmp_path: Path, file: str, line: str, complaint: str
) -> None:
    for name, path in modules(PACKAGE).items():
        copy = tmp_path / "seglosses_nb" / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("" if name else '"""Top."""\n', encoding="utf-8")
    (tmp_path / "seglosses_nb" / file).write_text(f"{line}\n", encoding="utf-8")
    assert forbidden(imports(tmp_path / "seglosses_nb")) == [complaint]


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_importing_the_package_is_light() -> None:
    """Neither the lab, nor the publisher, nor what only they need."""
    heavy = ("matplotlib", "nilearn", "monai", "kornia", "skimage", "sklearn", "papermill")
    code = "import sys, seglosses_nb; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "seglosses_nb.region" in loaded
    unwanted = (*heavy, "seglosses_nb.lab", "seglosses_nb.publish")
    assert [name for name in loaded if name.startswith(unwanted)] == []


# ---------------------------------------------------------------------------------- generated parts


def test_generated_tables_are_up_to_date() -> None:
    changes = [path.relative_to(ROOT).as_posix() for path in tables.stale(ROOT)]
    assert changes == [], "run `make table`"


def test_every_loss_is_in_the_table_and_links_to_its_chapter() -> None:
    table = tables.loss_table(ROOT)
    for info in LOSSES.values():
        assert f"| [`{info.name}`](book/{info.chapter}.ipynb) | `{info.module.__name__}`" in table


@pytest.mark.parametrize("file", tables.GENERATED)
def test_a_stale_table_is_seen_and_mended(tmp_path: Path, file: str) -> None:
    for name in (*tables.GENERATED, "_toc.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for path in NOTEBOOKS:
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        (tmp_path / path.relative_to(ROOT)).touch()
    for path, text in tables.stale(tmp_path).items():  # begin with fresh ones
        path.write_text(text, encoding="utf-8")
    assert tables.stale(tmp_path) == {}
    stale = tmp_path / file
    good = stale.read_text(encoding="utf-8")
    stale.write_text(good.replace("dice_loss", "dice_lost"), encoding="utf-8")
    changes = tables.stale(tmp_path)
    assert list(changes) == [stale]
    # only what stands between the markers is written anew
    begin = good.index(tables.begin(tables.GENERATED[file][0]))
    assert changes[stale][begin:].startswith(good[begin:].split("<!-- ")[1].join(["<!-- ", ""]))
    stale.write_text(good.replace(tables.begin(tables.GENERATED[file][0]), ""), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{re.escape(file)}: wanted one line"):
        tables.stale(tmp_path)


def test_the_index_promises_no_chapter_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "book/region").mkdir(parents=True)
    (tmp_path / "book/region/dice_loss.ipynb").touch()
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n  - chapters:\n"
        "      - file: book/region/dice_loss\n      - file: book/region/tversky_loss\n"
        "      - file: book/boundary/boundary_loss\n",
        encoding="utf-8",
    )
    table = tables.family_table(tmp_path)
    assert "{doc}`region/dice_loss`" in table
    assert "tversky" not in table
    assert "Boundary" not in table


def test_every_family_has_its_part_of_the_book() -> None:
    assert [part for part in tables.PARTS if part in FAMILIES] == list(FAMILIES)


@pytest.mark.parametrize("name", LOSSES)
def test_card_says_what_the_registry_states(name: str) -> None:
    info, card = LOSSES[name], tables.card(name)
    page, text = card._repr_html_(), repr(card)
    assert info.summary in text
    assert f"\\[{tables.html.escape(info.formula)}\\]" in page
    for statement in (*info.deviations, *(case.statement for case in info.special_cases)):
        assert statement.replace("`", "") in text
    assert "<script" not in page
    assert not re.search(r'[";](?:color|background)', page), "it brings no colours of its own"


def test_card_of_an_unknown_loss_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"name is 'dice'.* dice_loss"):
        tables.card("dice")


# ------------------------------------------------------------------------------ the chapters' files


def test_there_are_chapters() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    wanted = set(re.findall(r"file: (book/\w+/\w+)", toc))
    have = {path.relative_to(ROOT).with_suffix("").as_posix() for path in NOTEBOOKS}
    assert have == wanted, "every chapter stands in _toc.yml, and the other way round"
    assert have


def unstripped(notebook: dict) -> list[str]:
    """Return what a stored chapter must not hold, and what it lacks."""
    found = []
    if (notebook["nbformat"], notebook["nbformat_minor"]) < (4, 5):
        found.append("a format older than 4.5, which has no cell ids")
    if extra := set(notebook["metadata"]) - {"kernelspec", "language_info"}:
        found.append(f"metadata {sorted(extra)}")
    if notebook["metadata"].get("language_info", {"name": "python"}) != {"name": "python"}:
        found.append("language_info with the version of somebody's Python")
    if notebook["metadata"].get("kernelspec", {}).get("name", "python3") != "python3":
        found.append("a kernel that only one machine has")
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    for number, (cell, name) in enumerate(zip(notebook["cells"], ids, strict=True)):
        if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"]):
            found.append(f"cell {number} ({name}): outputs")
        if extra := set(cell["metadata"]) - {"tags", "mystnb"}:
            found.append(f"cell {number} ({name}): metadata {sorted(extra)}")
        if ids.count(name) > 1 or not name:
            found.append(f"cell {number}: its id {name!r} is not its own")
        elif re.fullmatch(r"\d+|[0-9a-f]{8}(-[0-9a-f-]+)?", name):
            found.append(f"cell {number}: {name!r} is a random id, wanted one that says what it is")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter_is_stored_bare(path: Path) -> None:
    assert unstripped(json.loads(path.read_text(encoding="utf-8"))) == []


def test_a_chapter_that_is_not_bare_is_seen() -> None:
    template = PACKAGE / "publish/template/chapter.ipynb"
    notebook = json.loads(template.read_text(encoding="utf-8"))
    assert unstripped(notebook) == []
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["execution_count"] = 3
    code["metadata"]["execution"] = {}
    notebook["cells"][0]["id"] = "1f2e3d4c"
    notebook["cells"][4]["id"] = notebook["cells"][5]["id"]
    notebook["metadata"]["language_info"]["version"] = "3.11.7"
    assert len(unstripped(notebook)) == 6


# ---------------------------------------------------------------------------- what must not be said

MACHINE = re.compile(r"(?<![\w.~-])/(?:root|home|work|Users|mnt|tmp/[a-z])(?:/|\b)")
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs|npmjs\.com"
    r"|conda\.anaconda|deb\.debian\.org|proxy\.golang",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "rule", [MACHINE, REGISTRY], ids=["path of a machine", "host of a registry"]
)
def test_no_file_names_a(rule: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        if path.suffix in BINARY or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if rule.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_the_rules_about_words_see_what_they_are_for() -> None:
    assert MACHINE.search('open("/home/ada/masks.npz")')
    assert not MACHINE.search("the chapter's own folder, book/data/mnt")
    assert REGISTRY.search("pip install --index-url https://download.pytorch.org/whl/cpu torch")


def test_nothing_was_left_to_be_written() -> None:
    template = PACKAGE / "publish/template"
    phrase = "(to be " + "written"
    left = [
        path.relative_to(ROOT).as_posix()
        for path in tracked()
        if path.suffix not in BINARY
        and template not in path.parents
        and phrase in path.read_text(encoding="utf-8")
    ]
    assert left == []


# -------------------------------------------------------------------------------- versions and pins


def test_versions_agree() -> None:
    version = seglosses_nb.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest, date = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", changelog, re.M)[0]
    assert version == str(citation["version"]) == latest
    assert str(citation["date-released"]) == date


def test_citation_has_what_the_format_requires() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
    assert all("name" in author or "family-names" in author for author in citation["authors"])


def pins() -> dict[str, str]:
    """Name -> exact version, from requirements.txt."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(found), f"every line pins one package exactly: {lines}"
    return {match[1]: match[2] for match in found if match}


def ranges() -> list[Requirement]:
    """What pyproject.toml asks for, with its extras; [test] contains [book]."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    return [need for need in map(Requirement, texts) if need.name != project["name"]]


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned, needed = pins(), ranges()
    assert {wanted.name for wanted in needed} >= {"torch", "numpy", "papermill", "pytest"}
    for wanted in needed:
        assert wanted.name in pinned, f"{wanted.name} has a range in pyproject.toml but no pin"
        assert wanted.specifier.contains(pinned[wanted.name]), (
            f"the pin of {wanted} is out of its range"
        )


def test_every_pin_is_a_dependency() -> None:
    """A pin that pyproject.toml does not name is installed for nobody."""
    assert set(pins()) - {need.name for need in ranges()} == set()


# ------------------------------------------------------------------------------- README and friends


def test_readme_example_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=options)
    test = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    said: list[str] = []
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).attempted >= 8
    assert "".join(said) == ""


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "#")):
            assert (ROOT / target).exists(), f"{name} links to {target}"


PROSE = ["README.md", "CONTRIBUTING.md", "book/how_to_run.md"]


@pytest.mark.parametrize("name", PROSE)
def test_commands_in_the_text_exist(name: str) -> None:
    from seglosses_nb.__main__ import main

    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    shown = re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)
    assert shown
    assert set(shown) <= set(targets)
    for command in set(re.findall(r"(?:^|`)seglosses ([a-z-]+)", text, re.M)):
        with pytest.raises(SystemExit) as stop:  # --help ends with 0, an unknown command with 2
            main([command, "--help"])
        assert stop.value.code == 0


def test_make_alone_says_what_there_is() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert phony
    for target in phony[1].split():
        assert re.search(rf"^  make {target} +\w", done.stdout, re.M), target


@pytest.mark.parametrize("path", sorted((ROOT / "book").rglob("*.js")), ids=lambda path: path.name)
def test_script_of_the_site_is_sound(path: Path) -> None:
    """Node reads it, without a browser's patience for the rest of a broken file."""
    done = subprocess.run([need("node"), "--check", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=str)
def test_workflow_is_sound(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as True
    assert {"name", True, "permissions", "jobs"} <= set(workflow)
    for job in workflow["jobs"].values():
        assert "runs-on" in job
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
            for script in re.findall(r"(?:^|\s)(\.ci/\w+)", step.get("run", "")):
                assert os.access(ROOT / script, os.X_OK)


# ------------------------------------------------------------------------------------ the installer

FAKE_PYTHON = """#!/bin/sh
# Stands in for the interpreter: the old one, pip and venv are played by environment variables.
case "$*" in
  *"version_info < (3, 11)"*) [ "${FAKE_VERSION:-3.12}" != 3.8 ] ;;
  --version) echo "Python ${FAKE_VERSION:-3.12}" ;;
  "-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-m pip install"*) echo "Collecting things"; echo "the cause"; [ -z "$FAKE_PIP_FAILS" ] ;;
  *) true ;;
esac
"""


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/install in a folder of its own, with an interpreter that only plays its part."""
    for name in ("requirements.txt", "pyproject.toml", ".ci/install"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    python = folder / "python"
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    return subprocess.run(
        ["bash", ".ci/install"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), **environment},
    )


def test_install_leaves_its_stamp_last(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv/.installed").is_file()
    assert "Collecting" not in done.stdout, "pip is kept quiet"


def test_a_failing_pip_shows_the_end_of_its_log_and_leaves_no_stamp(tmp_path: Path) -> None:
    assert install(tmp_path).returncode == 0
    done = install(tmp_path, FAKE_PIP_FAILS="1")
    assert done.returncode == 1
    assert "the cause" in done.stderr
    assert "pip failed" in done.stderr
    assert not (tmp_path / ".venv/.installed").exists(), "half an environment is not a whole one"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FAKE_VERSION": "3.8"}, r"is Python 3\.8, and 3\.11 or newer is needed"),
        ({"PYTHON": "no-such-python"}, r"There is no 'no-such-python' here"),
    ],
)
def test_an_unusable_interpreter_is_named(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    done = install(tmp_path, **environment)
    assert done.returncode == 1
    assert re.search(message + r".*make book PYTHON=python3", done.stderr, re.DOTALL)
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_step_passes_the_exit_code_on(code: int) -> None:
    done = subprocess.run(
        ["bash", ROOT / ".ci/step", "A title", "sh", "-c", f"exit {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "==> A title" in done.stdout
    assert ("FAILED (exit code 3)" in done.stderr) == (code == 3)


def test_ci_installs_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    """On a Debian without make and venv; every program it may call is played or linked."""
    programs, said = tmp_path / "programs", tmp_path / "said"
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_bytes((ROOT / ".ci/run").read_bytes())
    programs.mkdir()
    for name in ("bash", "dirname", "env", "cp", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or name)
    plays = {
        "python3": "exit 1",
        "id": "echo 0",
        "apt-get": f'echo "$@" >> {said}\ncp {tmp_path}/make {programs}/make',
    }
    for name, script in plays.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    (tmp_path / "make").write_text("#!/usr/bin/env bash\necho made $1, CI is $CI\nexit 7\n")
    for path in [*(programs / name for name in plays), tmp_path / "make"]:
        path.chmod(0o755)
    done = subprocess.run(
        [programs / "bash", ".ci/run"],
        cwd=tmp_path,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    asked = said.read_text(encoding="utf-8").splitlines()
    assert asked[0].startswith("update")
    assert asked[1].endswith("--no-install-recommends make python3 python3-venv")
    assert "made test, CI is true" in done.stdout
    assert done.returncode == 7, "what make says is what CI says"
