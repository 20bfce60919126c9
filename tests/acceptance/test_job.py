"""Jobs from the folder to the report."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanomaly.models.states import JobState

from ..conftest import missing
from ..waiting import HANGS, until
from .conftest import LIGHT, OFFLINE, BrainMri, Scanomaly, check_schema, nothing_is_left, processes_of, write_image

REPORT_FILES = {
    "report.html",
    "report.json",
    "scores.csv",
    "scores.parquet",
    "duplicates.csv",
    "failures.csv",
    "ignored.csv",
    "histogram.png",
    "roc.png",
    "precision_recall.png",
}


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_becomes_a_report(scanomaly: Scanomaly, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "my report"
    done = scanomaly("run", drawn, *OFFLINE, "--out", out)
    assert "Found 24 images (12 normal, 12 anomaly, 0 ignored)" in done.stderr
    assert "no/ as normal, yes/ as anomaly" in done.stderr
    lines = done.stdout.splitlines()
    names = ["Scans", "Encoder", "AUROC", "Most anomalous", "Report", "Note: 12", "Note: "]
    assert [line[: len(name)] for line, name in zip(lines, names, strict=True)] == names
    assert lines[4].split() == ["Report", *f"{out}/report.html".split()]
    assert {file.name for file in out.iterdir()} == REPORT_FILES
    report = json.loads((out / "report.json").read_text())
    check_schema(report, "report")
    assert report["counts"]["embedded"] == len(rows(out / "scores.csv")) == 24
    assert report["timings"]["scans_encoded"] == 24
    assert nothing_is_left(scanomaly.home)


def test_a_second_job_encodes_nothing(served: Scanomaly, scans: Path, tmp_path: Path) -> None:
    write_image(scans / "no" / "new.png")
    served.job(scans, *OFFLINE, "--out", tmp_path / "one", "--batch-size", "25")
    served.job(scans, *OFFLINE, "--out", tmp_path / "two", "--batch-size", "5")
    assert json.loads((tmp_path / "one" / "report.json").read_text())["timings"]["scans_encoded"] > 0
    assert json.loads((tmp_path / "two" / "report.json").read_text())["timings"]["scans_encoded"] == 0
    assert rows(tmp_path / "one" / "scores.csv") == rows(tmp_path / "two" / "scores.csv")


def test_files_that_did_not_change_are_not_read_again(served: Scanomaly, scans: Path) -> None:
    for file in scans.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    first = served.job(scans, *OFFLINE)["result"]["most_anomalous"]
    for file in scans.rglob("*.png"):
        file.write_bytes(b"x" * file.stat().st_size)
        os.utime(file, (1e9, 1e9))
    assert served.job(scans, *OFFLINE)["result"]["most_anomalous"] == first
    forced = served.job(scans, "--rehash", *OFFLINE, code=4)
    assert "none of the" in forced["error"]


def test_the_batch_size_does_not_change_a_score(
    done_job: tuple[Scanomaly, str], scans: Path, tmp_path: Path
) -> None:
    served, job = done_job
    for file in scans.rglob("*.png"):
        file.write_bytes(file.read_bytes() + b"the same pixels, and yet a new content")
    status = served.job(scans, *OFFLINE, "--out", tmp_path / "out", "--batch-size", "1")
    assert status["result"]["timings"]["scans_encoded"] == 24
    one, all_at_once = (
        {row["path"]: float(row["score"]) for row in rows(folder / "scores.csv")}
        for folder in (tmp_path / "out", Path(served("report", job).stdout.strip()))
    )
    assert one.keys() == all_at_once.keys()
    assert max(abs(one[path] - all_at_once[path]) for path in one) < 1e-6


def test_the_reference_data_set(brain_job: BrainMri) -> None:
    out = brain_job.report
    assert brain_job.status["scans"] == {
        "total": 253,
        "normal": 98,
        "anomaly": 155,
        "unlabelled": 0,
        "embedded": 253,
        "failed": 0,
        "skipped": 0,
        "remaining": 0,
    }
    report = json.loads((out / "report.json").read_text())
    assert report["auroc"] == pytest.approx(0.789, abs=0.001)
    assert report["auroc_copies_out"] == pytest.approx(0.794, abs=0.001)
    assert report["auroc_in_sample"] == pytest.approx(0.816, abs=0.001)
    assert len({row["sha256"] for row in rows(out / "scores.csv")}) == report["timings"]["scans_encoded"]


def test_bad_files_fail_alone_and_by_name(served: Scanomaly, scans: Path, tmp_path: Path) -> None:
    bad = scans / "yes"
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.jpg").write_text("not an image")
    whole = scans / "whole.jpg"
    Image.effect_noise((300, 300), 80).save(whole)
    (bad / "truncated.jpg").write_bytes(whole.read_bytes()[:5000])
    whole.unlink()
    Image.new("1", (20_000, 20_000)).save(bad / "bomb.png")
    write_image(scans / "no" / "<b>&'\"\n<script>alert(1)</script>.png")
    write_image(scans / "no" / "one pixel.png", (1, 1))
    write_image(scans / "no" / "cmyk.jpg", mode="CMYK")
    Image.fromarray((np.arange(64 * 64, dtype=np.uint16) * 15).reshape(64, 64)).save(scans / "no" / "grey16.png")
    Image.new("RGBA", (50, 50), (9, 9, 9, 0)).convert("P").save(scans / "no" / "palette.png", transparency=0)
    frames = [Image.new("L", (40, 40), level) for level in (10, 200)]
    frames[0].save(scans / "no" / "moving.webp", save_all=True, append_images=frames[1:])
    (scans / "notes.txt").write_text("x")

    out = tmp_path / "out"
    status = served.job(scans, *OFFLINE, "--out", out, code=3)
    assert "4 failed (failures.csv says why)" in served("watch", status["job"], code=3).stdout
    failures = {row["path"]: row for row in rows(out / "failures.csv")}
    assert {path: row["kind"] for path, row in failures.items()} == {
        "yes/empty.jpg": "empty",
        "yes/text.jpg": "not_an_image",
        "yes/truncated.jpg": "truncated",
        "yes/bomb.png": "too_large",
    }
    assert all(row["detail"] for row in failures.values())
    assert len(rows(out / "scores.csv")) == 24 + 6
    assert rows(out / "ignored.csv") == [{"path": "notes.txt", "reason": "not an image by its ending"}]
    assert (out / "report.html").read_text().count("<script>") == 1  # the page's own


def test_without_anomaly_labels_there_is_a_ranking(served: Scanomaly, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status = served.job(scans, *OFFLINE, "--normal", "no/", "--out", out)
    assert status["scans"]["unlabelled"] == 12
    report = json.loads((out / "report.json").read_text())
    check_schema(report, "report")
    assert report["auroc"] is None
    assert not (out / "roc.png").exists()
    assert len(rows(out / "scores.csv")) == 24


def test_one_normal_content_is_scored_in_sample_and_said(served: Scanomaly, scans: Path, tmp_path: Path) -> None:
    for file in sorted((scans / "no").iterdir())[1:]:
        file.unlink()
    status = served.job(scans, *OFFLINE, "--out", tmp_path / "out")
    done = served("watch", status["job"])
    assert "Note: all normal scans show the same picture" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["auroc"] is None
    assert "NaN" not in (tmp_path / "out" / "scores.csv").read_text()


def test_a_list_on_standard_input(served: Scanomaly, scans: Path) -> None:
    paths = "\n".join(str(file) for file in sorted(scans.rglob("*.png"))[6:18])
    job = served("submit", "-", *OFFLINE, input=paths).stdout.strip()
    status = served.look("watch", job)
    assert status["scans"]["total"] == 12
    assert status["root"] == str(scans)


def test_submit_worker_and_status_are_three_terminals(light: Scanomaly, drawn: Path) -> None:
    job = light("submit", drawn, *LIGHT, "--batch-size", "3").stdout
    assert job == job.strip() + "\n"
    check_schema(light.look("status", job.strip()), "status")
    with light.started("worker") as first:
        with light.started("worker"):
            status = light.wait(job.strip(), lambda status: status.state == JobState.DONE)
        check_schema(status, "status")
        assert (status["scans"]["embedded"], status["exit_code"]) == (24, 0)
        assert first.poll() is None
    assert first.returncode == 0
    assert nothing_is_left(light.home)


def running_batches(home: Path) -> list[str]:
    """The jobs of the batches that are being worked at, from the store: a command takes too long for it."""
    try:
        with closing(sqlite3.connect(f"file:{home / 'store.sqlite'}?mode=ro", uri=True)) as connection:
            return [job for (job,) in connection.execute("SELECT job_id FROM batches WHERE state = 'running'")]
    except sqlite3.OperationalError:  # there is no store, or no table in it yet
        return []


def test_ctrl_c_stops_everything_and_the_job_can_be_resumed(scanomaly: Scanomaly, scans: Path) -> None:
    """Without a scan that goes away meanwhile."""
    with scanomaly.started("run", scans, *OFFLINE, "--batch-size", "1") as process:
        # The first batches are begun, and take the seconds that torch takes to load.
        job, *_ = until(lambda: running_batches(scanomaly.home), "a batch is running")
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS) == 130
    assert (scanomaly.home / "started.log").read_text().splitlines()[-1] == (
        f"scanomaly: stopped; the job stays, and `scanomaly run --resume {job}` or any worker finishes it"
    )
    assert nothing_is_left(scanomaly.home)
    before = scanomaly.look("status", job)
    assert before["state"] == "embedding"
    gone = max((scans / "no").iterdir())
    gone.unlink()
    status = scanomaly.json("run", "--resume", job, code=3)
    assert (status["state"], status["scans"]["embedded"], status["scans"]["failed"]) == ("done", 23, 1)
    failures = rows(Path(status["report"]) / "failures.csv")
    assert [(row["path"], row["kind"]) for row in failures] == [(f"no/{gone.name}", "missing")]


def test_a_worker_ends_with_the_command_that_started_it(scanomaly: Scanomaly, drawn: Path) -> None:
    with scanomaly.started("run", drawn, *OFFLINE) as process:
        until(lambda: any("scanomaly.worker" in command for command in processes_of(scanomaly.home)), "a worker")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert nothing_is_left(scanomaly.home)


def test_a_cancelled_job_gets_no_further(scanomaly: Scanomaly, drawn: Path) -> None:
    job = scanomaly("submit", drawn, *OFFLINE).stdout.strip()
    assert scanomaly.json("cancel", job)["state"] == "cancelled"
    assert scanomaly.look("watch", job, code=5)["exit_code"] == 5
    assert "was cancelled" in scanomaly("watch", job, code=5).stderr
    assert "submit it again" in scanomaly("retry", job, code=1).stderr
    assert "cancelled" in scanomaly("run", "--resume", job, code=1).stderr


def test_retry_embeds_what_failed_and_writes_the_report_again(served: Scanomaly, scans: Path, drawn: Path) -> None:
    broken = min((scans / "yes").iterdir())
    broken.write_text("broken")
    job = served.job(scans, *OFFLINE, code=3)["job"]
    shutil.copy(drawn / "yes" / broken.name, broken)
    assert served.json("retry", job)["scans"]["failed"] == 0
    status = served.look("watch", job)
    assert status["scans"]["failed"] == 0
    assert len(rows(Path(status["report"]) / "scores.csv")) == 24
    assert rows(Path(status["report"]) / "failures.csv") == []
    assert "nothing to retry" in served("retry", job, code=1).stderr


def test_on_redis_and_postgresql(home: Path, drawn: Path, postgres_url: str, redis_url: str) -> None:
    user = Scanomaly(home, SCANOMALY_BROKER_URL=redis_url, SCANOMALY_STORE_URL=postgres_url)
    job = user("submit", drawn, *OFFLINE, "--batch-size", "5").stdout.strip()
    with user.started("worker"):
        status = user.look("watch", job)
    assert (status["state"], status["scans"]["embedded"]) == ("done", 24)
    assert not (home / "broker").exists()
    assert not (home / "store.sqlite").exists()


def test_a_report_is_found_and_written_again(served: Scanomaly, drawn: Path, tmp_path: Path) -> None:
    job = served.job(drawn, *OFFLINE, "--out", tmp_path / "out")["job"]
    assert served("report", job).stdout == f"{tmp_path / 'out'}\n"
    before = (tmp_path / "out" / "scores.csv").read_text()
    shutil.rmtree(tmp_path / "out")
    assert "--rebuild writes it here" in served("report", job, code=1).stderr
    assert served.json("report", job, "--rebuild")["report"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "scores.csv").read_text() == before
    served("report", job, "--rebuild", "--out", tmp_path / "copy")
    assert (tmp_path / "copy" / "scores.csv").read_text() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "name a new" in served("report", job, "--rebuild", "--out", tmp_path / "mine", code=1).stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_the_report_opens_in_a_browser_without_asking_anyone(
    done_job: tuple[Scanomaly, str], tmp_path: Path
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium")
    user, job = done_job
    page = Path(user("report", job).stdout.strip()) / "report.html"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}", "--dump-dom"]
    dom = subprocess.run(
        [str(chromium), *options, page.as_uri()], capture_output=True, text=True, timeout=HANGS, check=True
    ).stdout
    assert dom.count("<img") >= 24 + 2
    assert 'src="http' not in dom
    assert dom.count("<script") == 1
    assert f"{24} of {24} shown" in dom  # it ran
