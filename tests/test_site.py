"""The site in a real browser: every page, served and from disk, wide and narrow, light and dark.

Skipped where Chromium or its driver is missing, with the name of the package; failed there in CI.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from system_needs import need

from seglosses_nb.publish import server
from seglosses_nb.publish.book import Book

pytestmark = pytest.mark.xdist_group("site")

BOOK = Book(ROOT)
CHAPTERS = [f"{chapter.name}.html" for chapter in BOOK.chapters]
PAGES = [f"{document.name}.html" for document in BOOK.documents]
MADE = ["search.html", "genindex.html"]
WAYS = ["http", "file"]
WIDTHS = [1280, 390]

# --- what is looked at on a page

FACTS = r"""
const done = arguments[0];
const article = document.querySelector("article.bd-article") || document.body;
const inCode = node => node.parentElement.closest("pre, code, script, style, mjx-container");
const unread = /\$\$|\\\(|\\\[|\\begin\{|\{(eq|cite|term|ref|numref|doc)[^}]*\}`/;
const wrong = "mjx-merror, [data-mjx-error], mjx-container [style*='color: red']";

function rawFormulas() {
  const found = [], walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    if (unread.test(node.data) && !inCode(node)) found.push(node.data.trim().slice(0, 80));
  return found;
}

const drawn = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
Promise.all([drawn, document.fonts.ready]).then(() => requestAnimationFrame(() => done({
  title: document.title,
  language: document.documentElement.lang,
  headings: [...article.querySelectorAll("h1")].map(h => h.textContent),
  text: article.innerText,
  formulas: document.querySelectorAll(".math").length,
  undrawn: [...document.querySelectorAll(".math")].filter(m => !m.querySelector("mjx-container"))
    .map(m => m.textContent.slice(0, 80)),
  errors: [...document.querySelectorAll(wrong)].map(m => m.outerHTML.slice(0, 200)),
  raw: rawFormulas(),
  labelled: document.querySelectorAll("[id^=equation-]").length,
  numbers: [...document.querySelectorAll(".eqno")].map(e => e.textContent.replace("#", "").trim()),
  images: [...article.querySelectorAll("img")].map(i => ({
    src: i.getAttribute("src"), alt: (i.getAttribute("alt") || "").trim(), width: i.naturalWidth,
    caption: (i.closest("figure")?.querySelector("figcaption")?.innerText || "").trim(),
  })),
})));
"""

# What reaches beyond the window or the text column and has no box of its own to scroll in.
OVERFLOW = r"""
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => {
  const name = e => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 50)}`;
  const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  const article = document.querySelector("article.bd-article");
  const column = article ? article.getBoundingClientRect().right + 1 : innerWidth;
  const edge = Math.min(innerWidth, column);
  const wide = "pre, table, mjx-container, img, svg, canvas, code";
  const found = [];
  for (const e of (article || document.body).querySelectorAll(wide)) {
    if (e.getBoundingClientRect().right <= edge) continue;
    let box = e;
    while (box && box !== article && !scrolls(box)) box = box.parentElement;
    if (!box || box === article) found.push(name(e));
  }
  done({window: innerWidth, page: document.documentElement.scrollWidth, found});
}));
"""

# Text whose contrast with what lies behind it is below WCAG's 4.5.
CONTRAST = r"""
const channels = c => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
function light([r, g, b]) {
  const linear = v => v <= 10.0164 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}
function behind(e) {
  for (; e; e = e.parentElement) {
    const c = channels(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0.5) return c;
  }
  return [255, 255, 255];
}
const found = {};
const texts = "article :is(p, li, td, th, dt, dd, h1, h2, h3, span, a, code, figcaption)";
for (const e of document.querySelectorAll(texts)) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || !e.checkVisibility() || e.closest("svg, mjx-container, .headerlink")) continue;
  const style = getComputedStyle(e);
  const [a, b] = [light(channels(style.color)), light(behind(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const text = e.textContent.trim().slice(0, 40);
  if (ratio < 4.5) found[`${e.tagName}.${e.className}`] = `${ratio.toFixed(2)}: ${text}`;
}
return found;
"""


@dataclass
class Visit:
    """A page as the browser saw it."""

    facts: dict[str, Any]
    requests: list[str]
    complaints: list[str]
    overflow: dict[int, dict[str, Any]] = field(default_factory=dict)
    contrast: dict[str, dict[str, str]] = field(default_factory=dict)


class Browser:
    """One Chromium for all the tests, and what it asked for and complained about."""

    def __init__(self, driver: webdriver.Chrome, site: Path, port: int) -> None:
        self.driver = driver
        self.bases = {"http": f"http://127.0.0.1:{port}/", "file": f"{site.as_uri()}/"}

    def open(self, way: str, page: str) -> None:
        self.driver.get(self.bases[way] + page)

    def size(self, width: int) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        entries = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        sent = [
            entry["params"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
        ]
        return [params["request"]["url"] for params in sent]

    def complaints(self) -> list[str]:
        """The console's errors since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]

    def click(self, element: Any) -> None:
        """Click an element; the page itself scrolls too smoothly to aim at."""
        self.driver.execute_script(
            "arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", element
        )
        element.click()

    def wait(self, condition: Any, seconds: float = 10) -> Any:
        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(condition)


@pytest.fixture(scope="module")
def browser(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = need("chromium")
    driver_path = need("chromedriver")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        # whatever asks for another host gets an error, which the console shows
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    web = server.server(BOOK, 0)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        driver.set_script_timeout(30)
        browser = Browser(driver, site, int(web.server_address[1]))
        driver.get("about:blank")
        browser.requests(), browser.complaints()
        yield browser
    finally:
        driver.quit()
        web.shutdown()
        web.server_close()
        thread.join()


@pytest.fixture(scope="module")
def visits(browser: Browser) -> Any:
    """Open a page once in each way; every test looks at what was found then."""

    @cache
    def visit(way: str, page: str) -> Visit:
        browser.size(WIDTHS[0])
        browser.open(way, page)
        found = browser.driver.execute_async_script(FACTS)
        seen = Visit(found, browser.requests(), browser.complaints())
        if way == "http":
            for theme in ("light", "dark"):
                browser.driver.execute_script(
                    "document.documentElement.dataset.theme = arguments[0]", theme
                )
                seen.contrast[theme] = browser.driver.execute_script(CONTRAST)
            for width in WIDTHS:
                browser.size(width)
                seen.overflow[width] = browser.driver.execute_async_script(OVERFLOW)
            seen.complaints += browser.complaints()
        return seen

    return visit


# --- every page


@pytest.mark.parametrize("page", PAGES + MADE)
@pytest.mark.parametrize("way", WAYS)
def test_a_page_needs_no_other_host_and_has_no_errors(
    way: str, page: str, visits: Any, browser: Browser
) -> None:
    seen = visits(way, page)
    assert len(seen.requests) > 5
    assert [
        u for u in seen.requests if not u.startswith((browser.bases[way], "data:", "blob:"))
    ] == []
    assert seen.complaints == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("way", WAYS)
def test_every_formula_is_drawn(way: str, page: str, visits: Any) -> None:
    facts = visits(way, page).facts
    assert {name: facts[name] for name in ("undrawn", "errors", "raw") if facts[name]} == {}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_language_title_and_one_heading(page: str, visits: Any) -> None:
    facts = visits("http", page).facts
    assert facts["language"] == "en"
    assert len(facts["headings"]) == 1
    assert BOOK._yaml("_config.yml")["title"] in facts["title"]


@pytest.mark.parametrize("page", PAGES + MADE)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(width: int, page: str, visits: Any) -> None:
    seen = visits("http", page).overflow[width]
    assert seen["window"] == width
    assert seen["page"] <= width, seen["found"]
    assert seen["found"] == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_background(theme: str, page: str, visits: Any) -> None:
    assert visits("http", page).contrast[theme] == {}


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_has_alternative_text_and_caption(page: str, visits: Any) -> None:
    for image in visits("http", page).facts["images"]:
        assert image["width"] > 0, image
        assert len(image["alt"]) > 10, image
        assert len(image["caption"]) > 10, image
        assert image["alt"] not in image["caption"], image


# --- every chapter


@pytest.mark.parametrize("page", CHAPTERS)
def test_labelled_equations_carry_the_chapters_number(page: str, visits: Any) -> None:
    facts = visits("http", page).facts
    chapter = re.match(r"(\d+)\.", facts["headings"][0])
    assert chapter is not None, facts["headings"]
    assert facts["formulas"] > 0
    assert facts["labelled"] == len(facts["numbers"])
    assert facts["numbers"] == [f"({chapter[1]}.{n})" for n in range(1, facts["labelled"] + 1)]


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_says_what_it_was_run_with(page: str, visits: Any) -> None:
    text = visits("http", page).facts["text"]
    assert re.search(r"Last run on \d+ [A-Z][a-z]+ \d{4} with Python\s3\.\d", text)
    for name in ("torch", "numpy", "seglosses_nb"):
        assert re.search(rf", {name}\s\d+\.\d+", text)
    assert re.search(r"quick = \w+; seed = \d+", text)


@pytest.mark.parametrize("page", CHAPTERS)
@pytest.mark.parametrize("way", WAYS)
def test_a_chapter_can_be_downloaded_as_a_clean_notebook(
    way: str, page: str, browser: Browser, tmp_path: Path
) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.size(WIDTHS[0])
    browser.open(way, page)
    expected = tmp_path / Path(page).with_suffix(".ipynb").name
    source = (ROOT / page).with_suffix(".ipynb").read_bytes()
    menu = browser.driver.find_element(By.CSS_SELECTOR, ".dropdown-download-buttons > button")
    for where in ("a.download-notebook", ".dropdown-download-buttons a.btn-download-source-button"):
        if ".dropdown" in where:
            browser.click(menu)
        browser.click(browser.driver.find_element(By.CSS_SELECTOR, where))
        browser.wait(lambda _: expected.exists() and expected.read_bytes() == source)
        expected.unlink()
    assert len(browser.driver.window_handles) == 1
    assert browser.driver.current_url == browser.bases[way] + page
    cells = json.loads(source)["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("page", CHAPTERS)
def test_solutions_are_hidden_until_asked_for(page: str, browser: Browser) -> None:
    browser.size(WIDTHS[0])
    browser.open("http", page)
    solutions = browser.driver.find_elements(By.CSS_SELECTOR, ".solution.dropdown")
    assert solutions
    for solution in solutions:
        body = solution.find_element(By.CSS_SELECTOR, "section")
        assert not body.is_displayed()
        browser.click(solution.find_element(By.CSS_SELECTOR, "button.toggle-button"))
        browser.wait(lambda _, body=body: body.is_displayed())


# --- the site as a whole


class Links(HTMLParser):
    """The addresses that a page leads to, and the places on it that can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.addresses.append(value)
            elif name in ("id", "name") and value:
                self.places.add(value)


def test_no_link_within_the_site_is_broken(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert {site / page for page in PAGES} <= set(pages)
    broken = []
    for path, links in pages.items():
        for address in links.addresses:
            url = urllib.parse.urlsplit(address)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            place = urllib.parse.unquote(url.fragment)
            if not target.is_file() or (
                place and target in pages and place not in pages[target].places
            ):
                broken.append(f"{path.relative_to(site)}: {address}")
    assert broken == []


def test_the_root_leads_to_the_book(browser: Browser) -> None:
    for way in WAYS:
        browser.open(way, "index.html")
        browser.wait(lambda driver: driver.current_url.endswith("/book/index.html"))


@pytest.mark.parametrize("way", WAYS)
def test_search_finds_a_word_and_leads_to_it(way: str, browser: Browser) -> None:
    browser.size(WIDTHS[0])
    browser.open(way, PAGES[0])
    browser.requests(), browser.complaints()
    browser.driver.find_element(By.CSS_SELECTOR, ".search-button-field, .search-button").click()
    field = browser.wait(
        lambda driver: next(
            (e for e in driver.find_elements(By.CSS_SELECTOR, "input[name=q]") if e.is_displayed()),
            None,
        )
    )
    field.send_keys("overlap dice", Keys.ENTER)
    results = browser.wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, "ul.search li a"))
    browser.wait(
        lambda driver: "finished" in driver.find_element(By.CSS_SELECTOR, "p.search-summary").text
    )
    links = [result.get_attribute("href") or "" for result in results]
    found = [number for number, link in enumerate(links) if "book/region/dice_loss.html" in link]
    assert found, links
    results[found[0]].click()
    browser.wait(lambda driver: "book/region/dice_loss.html" in driver.current_url)
    assert "Dice" in browser.driver.find_element(By.CSS_SELECTOR, "article h1").text
    assert browser.complaints() == []
    assert [
        u for u in browser.requests() if not u.startswith((browser.bases[way], "data:", "blob:"))
    ] == []


@pytest.mark.parametrize("way", WAYS)
def test_light_and_dark_can_be_chosen_and_the_choice_stays(way: str, browser: Browser) -> None:
    def state() -> tuple[str, str]:
        return browser.driver.execute_script(
            "return [document.documentElement.dataset.mode, document.documentElement.dataset.theme]"
        )

    def darkness() -> float:
        colour = browser.driver.execute_script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        return sum(map(float, re.findall(r"\d+", colour)[:3])) / 3

    browser.size(WIDTHS[0])
    browser.open(way, PAGES[0])
    for theme in ("dark", "light"):
        for _ in range(3):
            if state()[0] == theme:
                break
            browser.driver.find_element(By.CSS_SELECTOR, ".theme-switch-button").click()
        assert list(state()) == [theme, theme]
        assert (darkness() < 64) == (theme == "dark")
        browser.open(way, CHAPTERS[-1])
        assert list(state()) == [theme, theme]
        browser.open(way, PAGES[0])


def test_pictures_lie_on_white_in_the_dark(browser: Browser) -> None:
    browser.size(WIDTHS[0])
    browser.open("http", "book/region/dice_loss.html")
    browser.driver.execute_script("document.documentElement.dataset.theme = 'dark'")
    grounds = browser.driver.execute_script(
        "const images = [...document.querySelectorAll('article img')];"
        "return images.map(image => getComputedStyle(image).backgroundColor)"
    )
    assert grounds
    assert set(grounds) == {"rgb(255, 255, 255)"}


def test_the_narrow_page_has_its_menu(browser: Browser) -> None:
    browser.size(WIDTHS[1])
    browser.open("http", PAGES[0])
    link = f"a[href$='{Path(CHAPTERS[-1]).name}']"
    sidebar = browser.driver.find_element(By.CSS_SELECTOR, ".bd-sidebar-primary")
    assert not sidebar.find_element(By.CSS_SELECTOR, link).is_displayed()
    browser.driver.find_element(By.CSS_SELECTOR, "button.primary-toggle").click()
    browser.wait(lambda _: sidebar.find_element(By.CSS_SELECTOR, link).is_displayed())
    time.sleep(0.4)  # the menu slides in
    sidebar.find_element(By.CSS_SELECTOR, link).click()
    browser.wait(lambda driver: CHAPTERS[-1] in driver.current_url)
