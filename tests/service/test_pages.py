"""The page in Chromium, on a real service and a real worker, as a person uses it."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.sample import draw_sample

from ..acceptance.conftest import OFFLINE, Scanomaly
from ..conftest import missing
from ..waiting import HANGS
from .conftest import DONE, Service, serving

_TOKEN = "0123456789abcdefghij"
_READ_TOKEN = "abcdefghij0123456789"
_HANGS = HANGS * 1000
"""Playwright counts in milliseconds."""
_ODD = "<b>odd"
_MARKUP = "<img src=x onerror=alert(1)>.png"
_WATCH = """() => {
    window.seen = [];
    const note = () => {
        const figures = [...document.querySelectorAll("#progress-job dd")].map((figure) => figure.textContent);
        const cancel = document.getElementById("cancel-job");
        window.seen.push([figures, cancel === null || cancel === document.activeElement]);
    };
    new MutationObserver(note).observe(document.querySelector("main"), {childList: true, subtree: true});
    note();
}"""
"""Notes what the page shows each time that it changes, and whether the keyboard stays where it is. All is gone
if the page is loaded again."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing("chromium, of the system's package of that name")
    expect.set_options(timeout=_HANGS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders for jobs: one of many scans, and one with names that are markup, and files that are no images."""
    root = tmp_path_factory.mktemp("pages")
    draw_sample(root / "many", normals=48, anomalies=48)
    odd = root / _ODD
    draw_sample(odd / ("w" * 200), normals=3, anomalies=3)
    (odd / ("w" * 200) / "no" / _MARKUP).write_bytes(b"")
    (odd / ("w" * 200) / "yes" / ("v" * 200 + ".png")).write_text("no image")
    return root


@pytest.fixture(scope="module")
def working(scans: Path) -> Iterator[Service]:
    """A service without a token, and a worker."""
    with (
        tempfile.TemporaryDirectory(prefix="scanomaly-") as home,
        serving(Path(home), scans, SCANOMALY_BATCH_SIZE="16") as service,
        service.user.started("worker", "--loglevel", "WARNING"),
    ):
        yield service


@pytest.fixture
def waiting(service: Service, root: Path) -> str:
    """A job of the service that has no worker."""
    job: str = service.submit(root / "scans", 201)["job"]
    return job


@contextmanager
def looking(browser: Browser, url: str, width: int = 1280, dark: bool = False, **more: Any) -> Iterator[Page]:
    """A page that must ask nobody else, and must have nothing to complain about, not even of its policy."""
    scheme: Literal["dark", "light"] = "dark" if dark else "light"
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, base_url=url, **more
    )
    context.set_default_timeout(_HANGS)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield page
    assert [address for address in asked if not address.startswith((url, "data:"))] == []
    # That an answer is an error, or does not come, the browser says too.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    context.close()


def fill_in(page: Page, folder: Path) -> None:
    page.goto("/")
    page.get_by_text("Submit a folder").click()
    page.get_by_label("Folder").fill(str(folder))
    page.get_by_label("Encoder").fill(OFFLINE[1])


def submit(page: Page, folder: Path) -> str:
    """Fill in the form and send it; returns the job's id."""
    fill_in(page, folder)
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("/jobs/"))
    return page.url.rpartition("/")[2]


def cancel(page: Page) -> None:
    page.get_by_role("link", name="Cancel …").click()
    page.get_by_role("button", name="Cancel the job").click()


def service_result(service: Service, job: str) -> Any:
    return service.ask("GET", f"/api/v1/jobs/{job}", 200).json()["result"]


def download(page: Page, name: str) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).click()
    return Path(waiting.value.path()).read_text()


def look_at_report(page: Page) -> None:
    """It is a page of its own, in a sandbox, and yet all of it works."""
    page.get_by_role("link", name="Report of").click()
    expect(page.locator("h1")).to_contain_text(re.compile("AUROC|ranked"))
    assert page.url.endswith("/report/report.html")
    assert page.evaluate("window.origin") == "null"
    shown = page.locator("#filter-count").inner_text()
    page.locator("#filter-name").fill("no such name")
    expect(page.locator("#filter-count")).not_to_have_text(shown)
    assert page.evaluate("getComputedStyle(document.querySelector('.kicker')).textTransform") == "uppercase"


def widths(page: Page) -> tuple[int, int]:
    """Of what is in the page, and of its window."""
    wide: int = page.evaluate("document.documentElement.scrollWidth")
    return wide, page.evaluate("window.innerWidth")


def test_a_person_submits_watches_and_opens_the_report(browser: Browser, working: Service, scans: Path) -> None:
    with looking(browser, working.url) as page:
        job = submit(page, scans / "many")
        page.get_by_role("link", name="Cancel …").focus()
        page.evaluate(_WATCH)
        expect(page.locator(".state")).to_have_text("done")
        expect(page.get_by_role("link", name="Cancel …")).to_have_count(0)
        seen = page.evaluate("window.seen")
        scans_done = {int(figures[0].split()[0]) for figures, _ in seen}
        assert len(scans_done) >= 3, seen
        assert max(scans_done) == 96
        speed_and_rest = [figures[2:] for figures, _ in seen if len(figures) == 4]
        assert any(re.match(r"\d+\.\d", speed) and re.match(r"\d", rest) for speed, rest in speed_and_rest), seen
        assert all(keyboard_stays for _, keyboard_stays in seen), seen

        look_at_report(page)
        assert f"/{job}/" in page.url
        assert page.locator(".gallery img").first.evaluate("image => image.decode().then(() => image.naturalWidth)")
        page.go_back()
        assert len(download(page, "scores.csv").splitlines()) == 97

        page.get_by_label("Another scorer").select_option("knn")
        page.get_by_role("button", name="Score with it too").click()
        expect(page.locator("#facts")).to_contain_text("centroid, knn")
        expect(page.locator(".state")).to_have_text("done")
        result = service_result(working, job)
        for name, row in zip(("centroid", "knn"), page.locator(".scorers tbody tr").all(), strict=True):
            expect(row).to_contain_text(name)
            expect(row).to_contain_text(f"{result['scorers'][name]['auroc']:.3f}")


def test_what_fails_is_told_with_its_reason_and_names_are_text(
    browser: Browser, working: Service, scans: Path
) -> None:
    with looking(browser, working.url, dark=True) as page:
        job = submit(page, scans / _ODD)
        expect(page.locator(".state")).to_have_text("done")
        failures = page.locator("#failures")
        expect(failures).to_contain_text("1 empty, 1 not an image")
        expect(failures.locator("tbody tr")).to_have_count(2)
        expect(failures.locator("tr", has_text=_MARKUP)).to_contain_text("The file is empty.")
        page.set_viewport_size({"width": 360, "height": 800})
        for address in (f"/jobs/{job}", "/"):
            page.goto(address)
            expect(page.locator("#parts")).to_contain_text(_ODD)
            assert page.locator("#parts b, #parts img").count() == 0
            assert widths(page) == (360, 360)
        page.get_by_role("button", name=f"Retry job {job}").click()
        expect(page.locator(".state")).to_have_text("done")


def test_a_job_is_steered_with_the_keyboard(browser: Browser, service: Service, waiting: str) -> None:
    with looking(browser, service.url) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        expect(page.locator("#standstill")).to_contain_text("No worker is running")
        page.locator(f"#job-{waiting}").get_by_role("button", name="Pause").press("Enter")
        page.wait_for_url(f"**/jobs/{waiting}")
        expect(page.locator(".state")).to_have_text("paused")
        page.get_by_role("button", name="Resume").press("Enter")
        page.get_by_role("link", name="Cancel …").press("Enter")
        page.get_by_role("link", name="Keep the job").press("Enter")
        expect(page.locator(".state")).to_have_text("stalled")
        page.get_by_role("link", name="Cancel …").press("Enter")
        page.get_by_role("button", name="Cancel the job").press("Space")
        expect(page.locator(".state")).to_have_text("cancelled")
        expect(page.get_by_role("button")).to_have_count(0)
        page.goto("/?state=cancelled")
        expect(page.locator(f"#job-{waiting}")).to_be_visible()


def test_the_form_offers_what_can_work(browser: Browser, working: Service, scans: Path) -> None:
    """The worker has the offline encoder alone: it is what an empty field means, and it has no text tower."""
    with looking(browser, working.url) as page:
        page.goto("/")
        expect(page.locator(".workers")).to_contain_text("alive")
        page.reload()
        page.get_by_text("Submit a folder").click()
        expect(page.get_by_label("Encoder")).to_have_value(OFFLINE[1])
        offered = page.get_by_label("Scorer").locator("option").all_inner_texts()
        assert offered == ["centroid", "knn", "mahalanobis", "patch_knn", "patch_knn_mirror"]
        page.get_by_label("Encoder").fill("")
        page.get_by_label("Folder").fill(str(scans / "many"))
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(re.compile("/jobs/"))
        expect(page.locator("#facts")).to_contain_text("tf_efficientnet_lite0")
        expect(page.locator(".state")).to_have_text("done")
        # Its encoder made no patches, and makes none later.
        assert page.get_by_label("Another scorer").locator("option").all_inner_texts() == ["knn", "mahalanobis"]


def test_a_job_is_run_again_as_it_was_asked_for(browser: Browser, service: Service, root: Path) -> None:
    asked = {"normal": ["no"], "scorers": ["knn", "centroid"], "false_alarm_rate": 0.25, "priority": "low"}
    job = service.submit(root / "scans", 201, **asked)["job"]
    with looking(browser, service.url) as page:
        page.goto(f"/jobs/{job}")
        cancel(page)
        page.get_by_role("link", name="Run again").click()
        expect(page.get_by_label("Folder")).to_have_value(str(root / "scans"))
        expect(page.get_by_label("Normal scans")).to_have_value("no")
        expect(page.get_by_label("Encoder")).to_have_value(OFFLINE[1])
        expect(page.get_by_label("Scorer")).to_have_value("knn")
        page.get_by_label("Normal scans").fill("nothing like that")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("alert")).to_contain_text("“Normal scans” nothing like that matches none of the")
        page.get_by_label("Normal scans").fill("no")
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(re.compile("/jobs/"))
        again = page.url.rpartition("/")[2]
    assert again != job
    status = service.ask("GET", f"/api/v1/jobs/{again}", 200).json()
    assert (status["scorers"], status["priority"]) == (["knn", "centroid"], "low")
    store = Store.open(Settings.from_environment(service.user.environment))
    assert store.find_job(again).false_alarm_rate == 0.25
    store.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_says_what_was_wrong(browser: Browser, service: Service, width: int) -> None:
    with looking(browser, service.url, width) as page:
        fill_in(page, Path("/etc"))
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("alert")).to_contain_text(
            "is not below a folder that this service takes scans from"
        )
        assert page.get_by_label("Folder").input_value() == "/etc"
        assert widths(page) == (width, width)
        page.goto(f"/jobs/{DONE}")
        expect(page.locator("#failures tbody tr")).to_have_count(2)
        assert widths(page) == (width, width)
        page.goto("/jobs/none")
        expect(page.get_by_role("alert")).to_contain_text("there is no job")
        assert widths(page) == (width, width)


def test_a_double_click_makes_one_job(browser: Browser, service: Service, root: Path) -> None:
    before = len(service.jobs())
    with looking(browser, service.url) as page:
        fill_in(page, root / "scans")
        page.get_by_role("button", name="Submit").dblclick()
        page.wait_for_url(re.compile("/jobs/"))
        expect(page.locator(".state")).to_have_text("stalled")
        fill_in(page, root / "scans")
        form = "document.querySelector('form.fields')"
        # Twice the same form at the same time, whatever the browser makes of a double click.
        page.evaluate(
            f"Promise.all([1, 2].map(() => fetch('/jobs', {{method: 'POST', body: new FormData({form})}})))"
        )
    assert len(service.jobs()) == before + 2


def test_without_its_script_the_page_does_the_same(browser: Browser, service: Service, root: Path) -> None:
    with looking(browser, service.url, java_script_enabled=False) as page:
        submit(page, root / "scans")
        expect(page.locator(".state")).to_have_text("stalled")
        cancel(page)
        page.reload()
        expect(page.locator(".state")).to_have_text("cancelled")


def test_what_a_person_types_is_left_alone(browser: Browser, service: Service, root: Path) -> None:
    with looking(browser, service.url) as page:
        fill_in(page, root / "scans")
        page.get_by_label("Encoder").type("x")
        job = service.submit(root / "scans", 201)["job"]
        expect(page.locator(f"#job-{job}")).to_be_visible()
        assert page.get_by_label("Folder").input_value() == str(root / "scans")
        assert page.evaluate("document.activeElement.name") == "encoder"
        # The link has the keyboard, whatever comes above it.
        page.locator(f"#open-{job}").focus()
        newer = service.submit(root / "scans", 201)["job"]
        expect(page.locator(f"#job-{newer}")).to_be_visible()
        assert page.evaluate("document.activeElement.id") == f"open-{job}"


def test_a_page_that_nobody_sees_holds_no_connection(browser: Browser, service: Service, waiting: str) -> None:
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
        return events.readyState === EventSource.CLOSED;
    }"""
    with looking(browser, service.url) as page:
        page.goto(f"/jobs/{waiting}")
        assert page.evaluate(hide, True)
        service.ask("POST", f"/api/v1/jobs/{waiting}/cancel", 200)
        assert not page.evaluate(hide, False)
        expect(page.locator(".state")).to_have_text("cancelled")


def test_a_lost_connection_is_told(browser: Browser) -> None:
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as home, looking(browser, "http://127.0.0.1") as page:
        with serving(Path(home)) as service:
            page.goto(service.url)
            expect(page.locator("#lost")).to_be_hidden()
            expect(page.locator("main")).to_contain_text("No jobs yet")
        expect(page.locator("#lost")).to_be_visible()
        with Scanomaly(Path(home)).serving("--port", service.url.rpartition(":")[2]):
            expect(page.locator("#lost")).to_be_hidden()


def test_after_an_error_the_page_asks_again(browser: Browser, service: Service, waiting: str) -> None:
    with looking(browser, service.url) as page:
        page.route("**/live", lambda route: route.fulfill(status=503))
        page.goto(f"/jobs/{waiting}")
        expect(page.locator("#lost")).to_contain_text("load the page again")
        page.unroute("**/live")
        service.ask("POST", f"/api/v1/jobs/{waiting}/cancel", 200)
        expect(page.locator(".state")).to_have_text("cancelled")
        expect(page.locator("#lost")).to_be_hidden()


def test_a_token_lets_in_and_one_to_look_changes_nothing(
    browser: Browser, new_home: Callable[[], Path], root: Path
) -> None:
    variables = {"SCANOMALY_API_READ_TOKEN": _READ_TOKEN}
    with serving(new_home(), root, token=_TOKEN, **variables) as service, looking(browser, service.url) as page:
        page.goto("/")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("That is not the token")
        page.get_by_label("Token").fill(_READ_TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(f"#job-{DONE}")).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(1)  # only to log out
        page.goto(f"/jobs/{DONE}")
        expect(page.get_by_role("button")).to_have_count(1)
        look_at_report(page)
        page.go_back()
        assert download(page, "scores.csv").startswith("rank,")
        page.get_by_role("button", name="Log out").click()
        page.goto(f"/jobs/{DONE}")
        page.get_by_label("Token").fill(_TOKEN)
        page.get_by_role("button", name="Log in").click()
        cancel(page)
        expect(page.locator(".state")).to_have_text("cancelled")


def test_a_page_of_another_site_can_do_nothing(browser: Browser, service: Service, waiting: str) -> None:
    form = f'<form method="post" action="{service.url}/jobs/{waiting}/cancel"><button>Win a prize</button></form>'

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
    assert service.ask("GET", f"/api/v1/jobs/{waiting}", 200).json()["state"] == "embedding"
