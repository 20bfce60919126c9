"""The page in Chromium, on a real service and a real worker, as a person uses it."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scanomaly.producer.sample import draw_sample

from ..acceptance.conftest import OFFLINE, Scanomaly
from ..conftest import missing
from .conftest import Service, serving

_CHROMIUM = Path("/usr/bin/chromium")
_TOKEN = "t" * 20
_READ_TOKEN = "r" * 20
_SECONDS = 60_000
"""Playwright counts in milliseconds."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not _CHROMIUM.exists():
        missing("chromium, of the system's package of that name")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(_CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders for jobs: one of many scans, and one with names that are markup, and files that are no images."""
    root = tmp_path_factory.mktemp("pages")
    draw_sample(root / "many", normals=100, anomalies=100)
    draw_sample(root / "<b>odd</b>".replace("/", "|"), normals=3, anomalies=3)
    (odd,) = root.glob("<b>*")
    (odd / "no" / "<img src=x onerror=alert(1)>.png").write_bytes(b"")
    (odd / "yes" / "text.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def service(scans: Path) -> Iterator[Service]:
    """A service without a token."""
    with (
        tempfile.TemporaryDirectory(prefix="scanomaly-") as home,
        serving(Path(home), scans, SCANOMALY_API_SUBMITS_PER_MINUTE="1000") as service,
    ):
        yield service


@contextmanager
def looking(browser: Browser, url: str, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """A page that must ask nobody else, and must have nothing to complain about."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", base_url=url
    )
    context.set_default_timeout(_SECONDS)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert [address for address in asked if not address.startswith((url, "data:"))] == []
    # That an answer is an error, the browser says too.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    context.close()


def submit(page: Page, folder: Path) -> str:
    """Fill in the form; returns the job's id."""
    page.goto("/")
    page.get_by_text("Submit a folder").click()
    page.get_by_label("Folder").fill(str(folder))
    page.get_by_label("Encoder").fill(OFFLINE[1])
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("/jobs/"))
    return page.url.rpartition("/")[2]


def test_a_person_submits_watches_and_opens_the_report(browser: Browser, service: Service, scans: Path) -> None:
    with looking(browser, service.url) as page:
        job = submit(page, scans / "many")
        expect(page.locator(".notice")).to_contain_text("no worker is running")
        page.evaluate("window.loadedOnce = true")  # gone, if the page is loaded again
        page.get_by_role("button", name="Cancel").focus()
        with service.user.started("worker", "--loglevel", "WARNING"):
            seen: set[str] = set()
            numbers = page.locator(".numbers")
            while not page.locator(".state.done").count():
                seen.add(numbers.inner_text())
                page.wait_for_timeout(100)
                if len(seen) == 2:
                    # What changes leaves the keyboard where it is.
                    assert page.evaluate("document.activeElement.id") == "cancel-job"
            assert {text.split(" of ")[0] for text in seen} > {"0"}, seen
            assert any("images/s" in text for text in seen), seen
            assert page.evaluate("window.loadedOnce") is True

            page.get_by_role("link", name="Report").first.click()
            expect(page.locator("h1")).to_contain_text("AUROC")
            assert page.url.endswith(f"/api/v1/jobs/{job}/report/report.html")
            assert page.evaluate("window.origin") == "null"  # in its sandbox
            shown = page.locator("#filter-count").inner_text()
            page.locator("#filter-name").fill("no such name")  # its script runs, and its styles are there
            expect(page.locator("#filter-count")).not_to_have_text(shown)
            assert page.evaluate("getComputedStyle(document.querySelector('.kicker')).textTransform") == "uppercase"
            page.go_back()

            page.get_by_label("Another scorer").select_option("knn")
            page.get_by_role("button", name="Score with it too").click()
            expect(page.locator("#facts")).to_contain_text("centroid, knn")
            expect(page.locator(".state")).to_have_text("done", timeout=_SECONDS)


def test_a_job_is_steered_with_the_keyboard(browser: Browser, service: Service, scans: Path) -> None:
    with looking(browser, service.url) as page:
        job = submit(page, scans / "many")
        page.goto("/")
        row = page.locator(f"#job-{job}")
        row.get_by_role("button", name="Pause").press("Enter")
        expect(page.locator(".state")).to_have_text("paused")
        page.get_by_role("button", name="Resume").press("Enter")
        page.get_by_role("button", name="Cancel").press("Space")
        expect(page.locator(".state")).to_have_text("cancelled")
        expect(page.get_by_role("button")).to_have_count(0)
        page.goto("/?state=cancelled")
        expect(page.locator(f"#job-{job}")).to_be_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"


def test_what_fails_is_told_with_its_reason_and_names_are_text(
    browser: Browser, service: Service, scans: Path
) -> None:
    (odd,) = scans.glob("<b>*")
    job = service.submit(odd, 201)["job"]
    with service.user.started("worker", "--loglevel", "WARNING"), looking(browser, service.url, dark=True) as page:
        page.goto(f"/jobs/{job}")
        expect(page.locator(".state")).to_have_text("done", timeout=_SECONDS)
        failures = page.locator("#failures")
        expect(failures).to_contain_text("<img src=x onerror=alert(1)>.png")
        expect(failures).to_contain_text("The file is empty")
        expect(failures.locator("tbody tr")).to_have_count(2)
        expect(page.locator("#facts")).to_contain_text(str(odd))
        assert page.locator("#parts b, #parts img").count() == 0
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".state")).to_have_text("done", timeout=_SECONDS)


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_says_what_was_wrong(browser: Browser, service: Service, width: int) -> None:
    with looking(browser, service.url, width) as page:
        page.goto("/")
        page.get_by_text("Submit a folder").click()
        page.get_by_label("Folder").fill("/etc")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("alert")).to_contain_text(
            "is not below a folder that this service takes scans from"
        )
        assert page.get_by_label("Folder").input_value() == "/etc"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto("/jobs/none")
        assert "there is no job" in page.content()


def test_two_clicks_make_one_job(browser: Browser, service: Service, scans: Path) -> None:
    before = len(service.jobs())
    with looking(browser, service.url) as page:
        page.goto("/")
        page.get_by_text("Submit a folder").click()
        page.get_by_label("Folder").fill(str(scans / "many"))
        page.get_by_label("Encoder").fill(OFFLINE[1])
        form = "document.querySelector('form.fields')"
        # Twice the same form, as a browser sends it when the first answer takes its time.
        page.evaluate(
            f"Promise.all([1, 2].map(() => fetch('/jobs', {{method: 'POST', body: new FormData({form})}})))"
        )
    assert len(service.jobs()) == before + 1


def test_a_lost_connection_is_told(browser: Browser, scans: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as home, looking(browser, "http://127.0.0.1") as page:
        with serving(Path(home)) as service:
            page.goto(service.url)
            expect(page.locator("#lost")).to_be_hidden()
            expect(page.locator("main")).to_contain_text("No jobs yet")
        expect(page.locator("#lost")).to_be_visible()
        service_port = service.url.rpartition(":")[2]
        user = Scanomaly(Path(home))
        with user.serving("--port", service_port):
            expect(page.locator("#lost")).to_be_hidden(timeout=_SECONDS)


def test_a_token_lets_in_and_one_to_look_changes_nothing(browser: Browser, scans: Path) -> None:
    variables = {"SCANOMALY_API_READ_TOKEN": _READ_TOKEN}
    with (
        tempfile.TemporaryDirectory(prefix="scanomaly-") as home,
        serving(Path(home), scans, token=_TOKEN, **variables) as service,
    ):
        job = service.submit(scans / "many", 201)["job"]
        with looking(browser, service.url) as page:
            page.goto("/")
            page.get_by_label("Token").fill("wrong")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_contain_text("That is not the token")
            page.get_by_label("Token").fill(_READ_TOKEN)
            page.get_by_role("button", name="Log in").click()
            expect(page.locator(f"#job-{job}")).to_be_visible()
            expect(page.get_by_role("button")).to_have_count(1)  # only to log out
            page.get_by_role("button", name="Log out").click()
            page.get_by_label("Token").fill(_TOKEN)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator(".state")).to_have_text("cancelled")


def test_a_page_of_another_site_can_do_nothing(browser: Browser, service: Service, scans: Path) -> None:
    job = service.submit(scans / "many", 201)["job"]
    form = f'<form method="post" action="{service.url}/jobs/{job}/cancel"><button>Win a prize</button></form>'

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(form.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    page.get_by_role("button").click()
    page.wait_for_url(re.compile(r"/cancel$"))
    assert "a page of another site made this request" in page.content()
    page.close()
    server.shutdown()
    assert service.ask("GET", f"/api/v1/jobs/{job}", 200).json()["state"] == "embedding"
