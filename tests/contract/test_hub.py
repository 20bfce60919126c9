"""The real huggingface_hub client against a real HTTP server that speaks as the hub does.

Each request runs in a process of its own: the client reads HF_ENDPOINT and HF_HOME when it is imported.
"""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from scanomaly.worker import doctor
from scanomaly.worker.encoding import encoder

from ..servers.hub import HubServer, SilentServer
from ..waiting import HANGS

REPO = "owner/name"
USUAL = "open_clip_pytorch_model.bin"
SAFE = "open_clip_model.safetensors"
CONTENT = np.random.default_rng(0).bytes(3_000_000)

FETCH = """
import sys, time
from scanomaly.models.errors import ScanomalyError
from scanomaly.worker.encoding import weights
assert "torch" not in sys.modules
weights.LINE_SECONDS = 0.0 if "--often" in sys.argv else 10.0
begun = time.monotonic()
try:
    print(weights.fetch(sys.argv[1], sys.argv[2], timeout=float(sys.argv[3])))
except ScanomalyError as error:
    print(type(error).__name__ + ": " + str(error))
print(time.monotonic() - begun)
"""


@dataclass
class Outcome:
    """What one process said: a path or an error, how long it took, and what reached stderr."""

    answer: str
    seconds: float
    stderr: str

    @property
    def content(self) -> bytes:
        return Path(self.answer).read_bytes()


def environment(url: str, home: Path, **others: str) -> dict[str, str]:
    if "PYTHONPATH" in others:
        others["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    return {**kept, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **others}


def fetch(
    url: str,
    home: Path,
    repo: str = REPO,
    filename: str = "",
    timeout: float = 30,  # what a loaded machine needs to answer itself; the tests of the limit set another
    *options: str,
    **others: str,
) -> Outcome:
    result = subprocess.run(
        [sys.executable, "-c", FETCH, repo, filename, str(timeout), *options],
        env=environment(url, home, **others),
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answer, seconds = result.stdout.splitlines()  # one line each, whatever went wrong
    return Outcome(answer, float(seconds), result.stderr)


class TestDownload:
    def test_once_and_then_from_the_cache_with_the_hub_down(self, tmp_path: Path) -> None:
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            first = fetch(hub.url, tmp_path)
            assert first.content == CONTENT
            assert f"GET /{REPO}/resolve/main/{USUAL}" in hub.requests
            hub.requests.clear()
            assert fetch(hub.url, tmp_path).answer == first.answer
            assert hub.requests == []
        second = fetch(hub.url, tmp_path)
        assert second.answer == first.answer
        assert second.stderr == ""

    def test_safetensors_are_preferred(self, tmp_path: Path) -> None:
        with HubServer({f"{REPO}/{USUAL}": b"pickle", f"{REPO}/{SAFE}": b"safe"}) as hub:
            assert fetch(hub.url, tmp_path / "usual").content == b"safe"
            hub.files = {f"{REPO}/a.bin": b"pickle", f"{REPO}/a.safetensors": b"safe", f"{REPO}/b.pt": b"pt"}
            assert fetch(hub.url, tmp_path / "named", filename="a.bin").content == b"safe"
            assert fetch(hub.url, tmp_path / "named", filename="b.pt").content == b"pt"

    def test_redirected_to_another_address(self, tmp_path: Path) -> None:
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            hub.redirect = True
            assert fetch(hub.url, tmp_path).content == CONTENT

    @pytest.mark.parametrize("ignore_ranges", [False, True])
    def test_goes_on_after_a_broken_connection(self, tmp_path: Path, ignore_ranges: bool) -> None:
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            hub.break_after, hub.breaks, hub.ignore_ranges = 1_000_000, 1, ignore_ranges
            outcome = fetch(hub.url, tmp_path)
        assert outcome.content == CONTENT
        assert all(line.endswith("B/s") for line in outcome.stderr.splitlines()), "the client's own warnings"

    def test_a_broken_download_is_never_taken_as_whole(self, tmp_path: Path) -> None:
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            # Not one byte arrives, however often the client asks, so it gives up.
            hub.break_after, hub.breaks = 0, 1000
            outcome = fetch(hub.url, tmp_path)
            assert outcome.answer.startswith(f"HubUnreachableError: the download of the weights {REPO} broke off")
            assert "--weights FILE" in outcome.answer
            hub.breaks = 0
            assert fetch(hub.url, tmp_path).content == CONTENT

    def test_killed_in_the_middle(self, tmp_path: Path) -> None:
        reached, wait = threading.Event(), threading.Event()
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            hub.pause = lambda: (reached.set(), wait.wait(HANGS))
            process = subprocess.Popen(
                [sys.executable, "-c", FETCH, REPO, "", "30"],
                env=environment(hub.url, tmp_path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert reached.wait(HANGS)
            process.kill()
            process.communicate()
            wait.set()
            assert list(tmp_path.rglob("*.incomplete")), "the test killed it too late"
            hub.pause = None
            assert fetch(hub.url, tmp_path).content == CONTENT


class TestProgress:
    def test_lines_where_there_is_no_terminal(self, tmp_path: Path) -> None:
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            seldom = fetch(hub.url, tmp_path / "1").stderr
            often = fetch(hub.url, tmp_path / "2", REPO, "", 30, "--often").stderr
        assert re.search(r"open_clip_pytorch_model\.bin: 3\.00MB of 3\.00MB, .*B/s\n", seldom)
        assert len(seldom.splitlines()) <= 2
        assert "\r" not in seldom + often

    def test_a_bar_on_a_terminal(self, tmp_path: Path) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            subprocess.run(
                [sys.executable, "-c", FETCH, REPO, "", "30"],
                env=environment(hub.url, tmp_path, TERM="xterm"),
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                timeout=HANGS,
                check=True,
            )
        os.close(theirs)
        shown = ""
        with contextlib.suppress(OSError):  # what the end of a terminal's output is on Linux
            while part := os.read(ours, 100_000):
                shown += part.decode()
        os.close(ours)
        assert "100%|" in shown
        assert "3.00M/3.00M" in shown
        assert "\r" in shown


class TestRefusals:
    @pytest.mark.parametrize(
        ("repo", "filename", "says"),
        [("owner/other", "", "the hub has no owner/other"), (REPO, "absent.pt", "no file absent.pt in owner/name")],
    )
    def test_not_there(self, tmp_path: Path, repo: str, filename: str, says: str) -> None:
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            outcome = fetch(hub.url, tmp_path, repo, filename)
        assert outcome.answer.startswith("EncoderError: ")
        assert says in outcome.answer
        assert outcome.seconds < 5

    @pytest.mark.parametrize(
        ("status", "error", "says"),
        [
            (503, "HubUnreachableError", "it answers with HTTP 503"),
            (500, "HubUnreachableError", "it answers with HTTP 500"),
            (200, "HubUnreachableError", "is not a model hub"),
            (403, "EncoderError", "the hub refuses owner/name"),
        ],
    )
    def test_odd_answers(self, tmp_path: Path, status: int, error: str, says: str) -> None:
        with HubServer() as hub:
            hub.status, hub.commit = status, None
            outcome = fetch(hub.url, tmp_path)
        assert outcome.answer.startswith(f"{error}: ")
        assert says in outcome.answer
        assert outcome.seconds < 5
        assert outcome.stderr == ""

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with HubServer({f"{REPO}/{USUAL}": CONTENT}) as hub:
            outcome = fetch(hub.url, tmp_path / "file")
        assert outcome.answer.startswith(
            f"EncoderError: the cache folder {tmp_path / 'file' / 'hub'} cannot be used"
        )


class TestUnreachable:
    """Known within the time allowed, in one line that names the three ways out."""

    def check(self, outcome: Outcome, within: float) -> None:
        assert outcome.answer.startswith("HubUnreachableError: ")
        for way in ("--weights FILE", "--encoder efficientnet_lite0", "a connection to the hub"):
            assert way in outcome.answer
        assert outcome.seconds < within
        assert outcome.stderr == ""

    def test_refused(self, tmp_path: Path) -> None:
        self.check(fetch("http://127.0.0.1:1", tmp_path), within=9)

    def test_accepts_and_never_answers(self, tmp_path: Path) -> None:
        with SilentServer() as silent:
            self.check(fetch(silent.url, tmp_path, REPO, "", 1.5), within=9)

    def test_drips(self, tmp_path: Path) -> None:
        """Each byte comes before a socket's time limit; only a deadline for the whole ends it."""
        with SilentServer(drip=0.4) as dripping:
            self.check(fetch(dripping.url, tmp_path, REPO, "", 1.5), within=9)

    def test_name_look_up_hangs(self, tmp_path: Path) -> None:
        hang = tmp_path / "sitecustomize.py"
        hang.write_text("import socket, time\ndef slow(*a, **k):\n    time.sleep(60)\nsocket.getaddrinfo = slow\n")
        self.check(fetch("http://hub.test", tmp_path, REPO, "", 1.5, PYTHONPATH=str(tmp_path)), within=9)

    def test_unknown_name(self, tmp_path: Path) -> None:
        self.check(fetch("http://hub.invalid", tmp_path, REPO, "", 5), within=30)

    def test_offline_mode(self, tmp_path: Path) -> None:
        outcome = fetch("http://127.0.0.1:1", tmp_path, HF_HUB_OFFLINE="1")
        self.check(outcome, within=9)
        assert "HF_HUB_OFFLINE" in outcome.answer

    def test_no_password_in_the_message(self, tmp_path: Path) -> None:
        outcome = fetch("http://someone:secret@127.0.0.1:1/path", tmp_path)
        self.check(outcome, within=9)
        assert "secret" not in outcome.answer


class TestDoctor:
    """One JSON document on stdout, whatever is wrong."""

    def examine(self, *options: str) -> dict:
        return doctor.examine(doctor.parser().parse_args(options))

    @pytest.mark.parametrize(
        ("options", "error_type", "says"),
        [
            (["--encoder", "ViT-B-32/no_such_tag"], "EncoderError", "laion2b_s34b_b79k"),
            (["--encoder", "ViT-S-32/any"], "EncoderError", "give --weights FILE"),
            (["--encoder", "no-such-model"], "UsageError", "unknown encoder"),
            (["--weights", "/no/such/file"], "UsageError", "/no/such/file"),
            (["--encoder", "efficientnet_lite0", "--device", "cuda:99"], "EncoderError", "no device cuda:99"),
            (["--encoder", "efficientnet_lite0", "--device", "abacus"], "EncoderError", "unknown device 'abacus'"),
            (["--encoder", "efficientnet_lite0", "--precision", "fp8"], "UsageError", "fp32, bf16, fp16"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_is_wrong_is_in_the_document(self, options: list[str], error_type: str, says: str) -> None:
        document = self.examine(*options)
        assert (document["ok"], document["error_type"]) == (False, error_type)
        assert says in document["error"]
        assert "\n" not in document["error"]

    def test_bad_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCANOMALY_HUB_SECONDS", "soon")
        assert self.examine()["error_type"] == "UsageError"

    def test_a_fault_of_the_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoder, "describe_device", lambda _: 1 / 0)
        document = self.examine("--encoder", "efficientnet_lite0")
        assert document["error"] == "unexpected ZeroDivisionError: division by zero"

    def test_offline_encoder(self) -> None:
        document = self.examine("--encoder", "efficientnet_lite0", "--device", "cpu", "--load")
        assert (document["ok"], document["error"], document["weights"]["ok"]) == (True, None, True)
        assert document["encoder_key"] == "timm/tf_efficientnet_lite0/57934424/fp32/p1"
        assert document["device"] == "cpu"
        assert document["torch"].startswith(torch.__version__.split("+")[0])
        assert document["open_clip"] == open_clip.__version__

    def test_a_tag_that_open_clip_computes_otherwise_is_remarked(self) -> None:
        assert "ViT-B-32-quickgelu/openai" in self.examine("--encoder", "ViT-B-32/openai")["remarks"][0]


class TestDoctorProcess:
    """As the producer calls it. With a small open_clip model, to be quick."""

    encoder = "MobileCLIP2-S0/dfndr2b"
    repo = "timm/MobileCLIP2-S0-OpenCLIP"

    def doctor(self, url: str, home: Path, *options: str, **others: str) -> dict:
        result = subprocess.run(
            [sys.executable, "-m", "scanomaly.worker.doctor", *options],
            env=environment(url, home, **others),
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=True,
        )
        self.stderr = result.stderr
        return json.loads(result.stdout)

    def test_from_absent_to_fetched_and_loaded(self, tmp_path: Path) -> None:
        torch.manual_seed(7)
        checkpoint = tmp_path / USUAL
        torch.save(open_clip.create_model("MobileCLIP2-S0").half().state_dict(), checkpoint)
        with HubServer({f"{self.repo}/{USUAL}": checkpoint}) as hub:
            before = self.doctor(hub.url, tmp_path / "home", "--encoder", self.encoder)
            assert (before["ok"], before["weights"]["ok"], before["error"]) == (True, False, None)
            assert not any(request.startswith("GET /timm") for request in hub.requests)
            after = self.doctor(hub.url, tmp_path / "home", "--encoder", self.encoder, "--fetch", "--load")
        assert "MB of 150MB" in self.stderr
        assert (after["ok"], after["weights"]["ok"], after["error"]) == (True, True, None)
        assert Path(after["weights"]["path"]).stat().st_size == checkpoint.stat().st_size
        assert after["encoder_key"] == "open_clip/MobileCLIP2-S0/dfndr2b/fp32/p1"

    def test_unreachable_hub_and_noise(self, tmp_path: Path) -> None:
        """What other modules print, and programs that they start, must not reach stdout."""
        (tmp_path / "timm.py").write_text(
            "import os\nprint('noise 1')\nos.system('echo noise 2')\nraise ImportError"
        )
        document = self.doctor("http://127.0.0.1:1", tmp_path, PYTHONPATH=str(tmp_path))
        assert (document["ok"], document["error_type"]) == (False, "HubUnreachableError")
        assert document["encoder_key"] == "open_clip/ViT-B-32/laion2b_s34b_b79k/fp32/p1"
        assert "noise 1" in self.stderr
        assert "noise 2" in self.stderr
