"""The page in a browser: opened from the disk, without a network."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from scanomaly.models.records import Failure, NamedScan, OtherScores, RankedScan
from scanomaly.models.states import Label
from scanomaly.producer.sample import draw_sample
from scanomaly.worker.encoding.images import thumbnail
from scanomaly.worker.reporting.embedding_map import EmbeddingMap, MapPoint
from scanomaly.worker.reporting.report import ReportData, write_report
from tests.pictures import decode

from .test_report import HOSTILE_NAMES, looks, make_data, outline_of

WIDTHS = (380, 1400)
NAMES = [*HOSTILE_NAMES, "<img onerror=alert(1) src=x>.png", "no/" + "w" * 250 + ".png", "yes/plain.png"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("SCANOMALY_TEST_REQUIRE_ALL"):
            pytest.fail("there is no Chromium")
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("drawn")
    draw_sample(folder, normals=1, anomalies=0)
    file = next(folder.rglob("*.png"))
    return thumbnail(decode(file.read_bytes(), 100_000_000), 160)


def hostile(picture: bytes) -> ReportData:
    """Hostile names everywhere, with heat maps, neighbours and a map."""
    data = make_data(NAMES)
    labels = [scan.label for scan in data.scans]
    named = [
        NamedScan(number, name, label, "") for number, (name, label) in enumerate(zip(NAMES, labels, strict=True))
    ]
    points = [MapPoint(scan, float(scan.id), float(scan.id % 3)) for scan in named]
    heat = np.arange(81.0).reshape(9, 9)
    return replace(
        data,
        looks=looks(lambda path: picture, named[0], heat),
        embedding_map=EmbeddingMap(points, 0.4, len(points)),
        failures=[Failure(name, "missing", name) for name in NAMES],
        scorers=["patch_knn", "knn"],
        scans=[scan._replace(others=(OtherScores(scan.score / 2, scan.score / 2),)) for scan in data.scans],
    )


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page of a report; an error, a message or a request of the page fails the test."""
    wrong: list[str] = []
    contexts = []

    def open_page(data: ReportData, width: int = 1400, **options: Any) -> Page:
        write_report(data, tmp_path / "report")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: wrong.append(request.url) if not local(request.url) else None)
        page.goto((tmp_path / "report" / "report.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def local(url: str) -> bool:
    return url.startswith("data:") or (url.startswith("file:") and url.endswith("/report.html"))


def shown(page: Page) -> list[str]:
    return [card.text_content() or "" for card in page.locator(".gallery > li:visible .name").all()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows(opened: Callable[..., Page], picture: bytes, width: int, scheme: str) -> None:
    page = opened(hostile(picture), width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = """[...document.querySelectorAll("main *")].filter(e => !e.closest(".hidden")
        && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(wide) == []


def test_names_stay_text(opened: Callable[..., Page], picture: bytes) -> None:
    page = opened(hostile(picture))
    assert "<img onerror=alert(1) src=x>.png" in shown(page)
    assert page.locator("img[onerror], main script").count() == 0
    assert page.locator(".gallery > li").count() == len(NAMES)


def test_filters(opened: Callable[..., Page], picture: bytes) -> None:
    data = hostile(picture)
    page = opened(data)
    labels = {scan.path: scan.label for scan in data.scans}
    assert len(shown(page)) == len(NAMES)
    page.locator("#filter-label").select_option("anomaly")
    anomalies = [label for label in labels.values() if label is Label.ANOMALY]
    assert len(shown(page)) == len(anomalies)
    assert page.locator("#filter-count").inner_text() == f"{len(anomalies)} of {len(NAMES)} shown"
    page.locator("#filter-name").fill("PLAIN")
    assert len(shown(page)) == (1 if labels["yes/plain.png"] is Label.ANOMALY else 0)
    page.locator("#filter-label").select_option("")
    assert shown(page) == ["yes/plain.png"]
    page.locator("#filter-name").fill("nothing is so")
    assert shown(page) == []
    assert page.get_by_text("None of the scans shown here is so").is_visible()


def test_errors_of_the_threshold_can_be_picked(opened: Callable[..., Page]) -> None:
    rng = np.random.default_rng(2)
    data = make_data([f"{number}.png" for number in range(100)])
    scores = sorted(rng.random(100), reverse=True)
    scans = [scan._replace(score=score) for scan, score in zip(data.scans, scores, strict=True)]
    parts = ([scan.score for scan in scans if (scan.label is Label.NORMAL) == normal] for normal in (True, False))
    normals, others = parts
    page = opened(replace(data, scans=scans, normal_scores=normals, other_scores=others))
    document = json.loads(Path(page.url.removeprefix("file://")).with_name("report.json").read_text())
    called = document["decision"]["called_anomalies"]
    page.locator("#filter-error").select_option("false-alarm")
    assert len(shown(page)) == called["normal"] > 0
    assert page.locator(".gallery > li:visible .tag.anomaly").count() == 0
    page.locator("#filter-error").select_option("missed")
    assert len(shown(page)) == 50 - called["anomaly"] > 0
    assert page.locator(".gallery > li:visible .tag.normal").count() == 0


def test_the_keyboard_walks_through_the_gallery(opened: Callable[..., Page], picture: bytes) -> None:
    page = opened(hostile(picture))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#filter-label").focus()
    page.keyboard.press("n")  # normal
    page.locator(".gallery > li:visible").first.focus()
    page.keyboard.press("ArrowRight")
    focused = (
        "[...document.querySelectorAll('.gallery > li')].filter(c => !c.hidden).indexOf(document.activeElement)"
    )
    assert page.evaluate(focused) == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == 0


def test_heat_maps_lie_over_the_middle_square(opened: Callable[..., Page], picture: bytes) -> None:
    page = opened(hostile(picture))
    heat, view = (page.locator(selector).first.bounding_box() for selector in (".heat", ".view"))
    assert heat is not None
    assert view is not None
    assert heat["width"] == pytest.approx(view["width"] / 2, abs=1)  # the pictures are 10 × 20
    assert heat["x"] + heat["width"] / 2 == pytest.approx(view["x"] + view["width"] / 2, abs=1)
    assert heat["y"] + heat["height"] / 2 == pytest.approx(view["y"] + view["height"] / 2, abs=1)
    page.get_by_label("Show heat maps").uncheck()
    assert not page.locator(".heat").first.is_visible()


def test_the_map_names_the_scan_under_the_pointer(opened: Callable[..., Page], picture: bytes) -> None:
    page = opened(hostile(picture))
    assert page.locator(".map circle").count() == len(NAMES)
    point = page.locator(".map circle", has_text="yes/plain.png")
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    assert re.fullmatch(r"yes/plain\.png \((normal|anomaly)\)", page.locator("#map-scan").inner_text())


def test_without_scripts_all_is_there(opened: Callable[..., Page], picture: bytes) -> None:
    page = opened(hostile(picture), java_script_enabled=False)
    assert page.locator(".gallery > li").count() == len(NAMES)
    assert not page.locator("#filters").is_visible()


def test_on_paper_the_controls_are_gone(opened: Callable[..., Page], picture: bytes) -> None:
    page = opened(hostile(picture))
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert page.locator(".chart").first.is_visible()


def test_a_hundred_thousand_scans_make_a_small_page(opened: Callable[..., Page], picture: bytes) -> None:
    count = 100_000
    scores = np.sort(np.random.default_rng(0).random(count))[::-1]
    labels = [Label.NORMAL, Label.ANOMALY] * (count // 2)
    scans = [
        RankedScan(f"{number}.png", label, float(score), float(score), f"{number:064x}")
        for number, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    data = replace(
        make_data(),
        scans=scans,
        outline=outline_of(labels),
        normal_scores=scores[::2],
        other_scores=scores[1::2],
        looks=looks(lambda path: picture),
    )
    page = opened(data)
    assert page.locator(".gallery > li").count() <= 300 + 3 * 40
    size = Path(page.url.removeprefix("file://")).stat().st_size
    assert size < 420 * 2 * (4 * len(picture) / 3 + 1000) + 1_000_000
